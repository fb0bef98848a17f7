"""Where a process spends its time: each moment counts for one section, the innermost that is open."""

from __future__ import annotations

import math
import os
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any, NamedTuple

STARTED = 19
"""Position of the start time in `/proc/self/stat`, behind the process's name."""


class Spent(NamedTuple):
    """Seconds.

    Attributes:
        cpu_s: Of the process's CPU time.
        wall_s: By the clock.
    """

    cpu_s: float = 0.0
    wall_s: float = 0.0


class Sections:
    """A stopwatch with a hand for each section.

    Args:
        outermost: Name of what is in no other section.
        clock: Gives CPU and wall-clock seconds.
    """

    def __init__(self, outermost: str, *, clock: Callable[[], Spent] | None = None) -> None:
        self._clock = clock or _now
        self._open = [outermost]
        self._spent: defaultdict[str, Spent] = defaultdict(Spent)
        self._since = self._clock()

    @property
    def spent(self) -> dict[str, Spent]:
        """What each section has taken so far."""
        self._charge()
        return dict(self._spent)

    @contextmanager
    def within(self, name: str) -> Iterator[None]:
        """Count the time of a `with` for a section."""
        self._charge()
        self._open.append(name)
        try:
            yield
        finally:
            self._charge()
            self._open.pop()

    @contextmanager
    def timing(self, owner: Any, attribute: str, name: str) -> Iterator[None]:
        """Count all calls of a function, in `owner` under `attribute`, for the time of a `with`.

        Of a generator function, what the generator does is counted, not what its reader does.
        """
        function = getattr(owner, attribute)
        setattr(owner, attribute, self._timed(function, name))
        try:
            yield
        finally:
            setattr(owner, attribute, function)

    def _timed(self, function: Callable[..., Any], name: str) -> Callable[..., Any]:
        @wraps(function)
        def timed(*args: Any, **kwargs: Any) -> Any:
            with self.within(name):
                result = function(*args, **kwargs)
            return self._steps(result, name) if isinstance(result, Iterator) else result

        return timed

    def _steps(self, generator: Iterator[Any], name: str) -> Iterator[Any]:
        end = object()
        while True:
            with self.within(name):
                value = next(generator, end)
            if value is end:
                return
            yield value

    def _charge(self) -> None:
        now, name = self._clock(), self._open[-1]
        before = self._spent[name]
        self._spent[name] = Spent(
            before.cpu_s + now.cpu_s - self._since.cpu_s, before.wall_s + now.wall_s - self._since.wall_s
        )
        self._since = now


def since_process_start() -> Spent:
    """Return what the process has taken so far, with the interpreter's start; by the clock on Linux only."""
    try:
        stat = Path("/proc/self/stat").read_text(encoding="ascii", errors="replace")
        up_s = float(Path("/proc/uptime").read_text(encoding="ascii").split()[0])
    except OSError:
        return Spent(time.process_time(), math.nan)
    began = int(stat.rpartition(")")[2].split()[STARTED]) / os.sysconf("SC_CLK_TCK")
    return Spent(time.process_time(), up_s - began)


def _now() -> Spent:
    return Spent(time.process_time(), time.perf_counter())
