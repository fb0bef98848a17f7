"""One driver per experiment: a lock file with a heartbeat, taken over when its holder is dead.

Lock files are numbered. Whoever creates the next number, exclusively, and then finds no other newcomer holds
the lock; a holder that is found dead is only ever replaced by a higher number, so of several drivers that
find it dead one wins. The holder renews its file's time; ages are measured by the store's own clock.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
import socket
import threading
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType

from fl.errors import LockHeldError, StoreError
from harness.store.storage import TEMPORARY, MissingFileError, Storage

BEAT_S = 5.0
STALE_S = 60.0
_PREFIX = ".lock-"
_ATTEMPTS = 3

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Holder:
    """Who holds a lock.

    Attributes:
        host: Name of the machine.
        space: What tells machines, their boots and their containers apart, so that `pid` means something.
        pid: The process.
        born: When it began, as the system counts, so that a later process of that number is not taken for it.
        since: When it took the lock (ISO 8601, UTC).
        token: Tells apart locks of one process.
    """

    host: str
    space: str
    pid: int
    born: str
    since: str
    token: str

    @classmethod
    def me(cls) -> Holder:
        """Return this process as a holder."""
        return cls(
            host=socket.gethostname(),
            space=_space(),
            pid=os.getpid(),
            born=_born(os.getpid()),
            since=datetime.now(UTC).isoformat(timespec="seconds"),
            token=secrets.token_hex(8),
        )

    @property
    def dead(self) -> bool:
        """Whether the process is known to be gone; False for one on another machine."""
        if self.space != _space():
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            return False
        return _born(self.pid) != self.born


class ExperimentLock:
    """The lock of one experiment.

    Args:
        storage: The experiment's folder.
        beat_s: Seconds between two heartbeats.
        stale_s: A holder without a heartbeat for this long is taken for dead.
    """

    def __init__(self, storage: Storage, *, beat_s: float = BEAT_S, stale_s: float = STALE_S) -> None:
        self._storage = storage
        self._beat_s = beat_s
        self._stale_s = stale_s
        self._file: str | None = None
        self._lost = threading.Event()
        self._released = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> ExperimentLock:
        self.acquire()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    @property
    def held(self) -> bool:
        """Whether `acquire` succeeded and `release` was not called; see `verify`."""
        return self._file is not None

    def acquire(self) -> None:
        """Take the lock.

        Raises:
            LockHeldError: If another driver that gives signs of life holds it.
            StoreError: If the folder cannot be written.
        """
        self._storage.prepare()
        for attempt in range(_ATTEMPTS):
            dead = self._dead_locks()
            number = max((int(name.removeprefix(_PREFIX)) for name in dead), default=0) + 1
            if self._claim(f"{_PREFIX}{number:06d}", besides=dead):
                for name in dead:
                    self._storage.delete(name)
                self._begin_heartbeat()
                return
            time.sleep(0.05 * (attempt + 1) * (1 + secrets.randbelow(4)))
        raise LockHeldError(f"{self._storage.uri} is being taken by another driver; run the command again")

    def verify(self) -> None:
        """Check that the lock is still held.

        Raises:
            LockHeldError: If another driver took it over because this one gave no sign of life.
        """
        if self._file is None or self._lost.is_set() or not self._storage.exists(self._file):
            raise LockHeldError(
                f"another driver took over {self._storage.uri} because this one gave no sign of life for "
                f"{self._stale_s:g} s; what was stored until then is kept"
            )

    def release(self) -> None:
        """Give the lock back."""
        self._released.set()
        if self._thread is not None:
            self._thread.join()
        if self._file is not None:
            self._storage.delete(self._file)
        self._file = self._thread = None

    def _claim(self, name: str, *, besides: list[str]) -> bool:
        """Create the lock file; give it back if another driver created one in the same moment."""
        if not self._storage.create(name, json.dumps(asdict(Holder.me())).encode()):
            return False
        if set(self._locks()) != {name, *besides}:
            self._storage.delete(name)
            return False
        self._file = name
        return True

    def _begin_heartbeat(self) -> None:
        self._released.clear()
        self._lost.clear()
        self._thread = threading.Thread(target=self._beat, name="experiment-lock", daemon=True)
        self._thread.start()

    def _beat(self) -> None:
        assert self._file is not None
        while not self._released.wait(self._beat_s):
            try:
                if not self._storage.touch(self._file):
                    self._lost.set()
                    return
            except StoreError as error:  # a hiccup of the network; `verify` decides
                logger.warning("heartbeat failed: %s", error)

    def _locks(self) -> list[str]:
        names = self._storage.names()
        return [name for name in names if name.startswith(_PREFIX) and name[len(_PREFIX) :].isdigit()]

    def _dead_locks(self) -> list[str]:
        """Return the locks of dead drivers; refuse to go on if one is alive."""
        locks = self._locks()
        for name in locks:
            self._refuse_if_alive(name)
        return locks

    def _refuse_if_alive(self, name: str) -> None:
        try:
            holder = _parse(self._storage.read(name))
            if holder is not None and holder.dead:
                return
            age = self._now() - self._storage.modified(name)
        except MissingFileError:  # given back just now
            return
        if age < self._stale_s:
            who = f"process {holder.pid} on {holder.host} since {holder.since}" if holder else "a driver"
            raise LockHeldError(
                f"{self._storage.uri} is in use by {who} (last sign of life {max(age, 0):.0f} s ago). Wait "
                f"for it or stop it; a driver that died is replaced after {self._stale_s:g} s"
            )

    def _now(self) -> float:
        """Return the time by the clock that also stamps the heartbeats."""
        probe = f"{TEMPORARY}clock-{secrets.token_hex(4)}"
        self._storage.write(probe, b"")
        try:
            return self._storage.modified(probe)
        finally:
            self._storage.delete(probe)


def _parse(content: bytes) -> Holder | None:
    """Return the holder, or None while the file is still being written."""
    try:
        return Holder(**json.loads(content))
    except (ValueError, TypeError):
        return None


def _space() -> str:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:  # not Linux
        return socket.gethostname()


def _born(pid: int) -> str:
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except OSError:  # not Linux
        return ""
    return status.rpartition(")")[2].split()[19]  # field 22, `starttime`, of proc_pid_stat(5)
