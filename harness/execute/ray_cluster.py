"""Starting a private Ray on this machine, or joining a cluster; the one place that imports ray.

Everything else takes `ray` from here, because what is set below must be set before ray is imported.
"""

from __future__ import annotations

import logging
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

# Under `uv run` ray would pack the project folder and start every worker in a copy of it.
os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")

import ray
import ray.util.scheduling_strategies

from fl.errors import UsageError

__all__ = ["Connection", "RayOptions", "connect", "ray"]

LOCAL = "local"
DIAL_TIMEOUT_S = 5.0
JOIN_TIMEOUT_S = 60.0
SOCKET_FOLDER = "/tmp"
"""Sockets lie in Ray's folder and their paths may have 107 bytes; other temporary folders have long names."""

_JOIN = "import ray, sys; ray.init(sys.argv[1], log_to_driver=False); ray.shutdown()"


@dataclass(frozen=True)
class RayOptions:
    """What Ray to use.

    Attributes:
        address: `local` starts a private Ray on this machine; `auto` or `host:port` joins a cluster. None
            takes the environment's RAY_ADDRESS (set in Ray jobs), or else `local`.
        workers: For a private Ray, how many lanes of one CPU; None for the machine's cores.
        gpus: For a private Ray, how many GPUs; None for those found.
        object_store_mib: For a private Ray, shared memory for sums on their way to a server.
    """

    address: str | None = None
    workers: int | None = None
    gpus: int | None = None
    object_store_mib: int = 512


@dataclass(frozen=True)
class Connection:
    """A connection to Ray.

    Attributes:
        owned: This connection began here and ends with `close`.
        folder: Where a private Ray keeps its sockets and logs, or None.
    """

    owned: bool
    folder: Path | None = None

    def close(self) -> None:
        """Disconnect; a private Ray ends."""
        if self.owned:
            ray.shutdown()
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)


def connect(options: RayOptions) -> Connection:
    """Start or join Ray; keeps the connection that this process already has, if it has one.

    Raises:
        UsageError: If Ray cannot be started or reached.
    """
    if ray.is_initialized():
        return Connection(owned=False)
    # Ray prints what its daemons report, such as the death of a worker, to this process's standard output
    # whatever `log_to_driver` says; receipts tell the same, and `--json` output must stay JSON.
    ray._private.worker._worker_logs_enabled = False
    address = options.address or os.environ.get("RAY_ADDRESS") or LOCAL
    return _start(options) if address == LOCAL else _join(address, options)


def _start(options: RayOptions) -> Connection:
    if not {"RAY_AUTH_MODE", "RAY_AUTH_TOKEN_PATH"} & os.environ.keys():
        # Ray's ports are open to the network. Its own default is a token kept in the home folder, which fails
        # where that cannot be written.
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    parent = os.environ.get("RAY_TMPDIR") or (SOCKET_FOLDER if os.path.isdir(SOCKET_FOLDER) else None)
    try:
        return _init_private(options, parent)
    except Exception as first:  # ray raises all kinds, and on a loaded machine its 15 s start-up limit passes
        ray.shutdown()
        try:
            return _init_private(options, parent)
        except Exception as error:
            ray.shutdown()
            raise UsageError(
                f"cannot start Ray on this machine: {_first_line(error) or _first_line(first)}. "
                "`--executor inline` works without it"
            ) from error


def _init_private(options: RayOptions, parent: str | None) -> Connection:
    folder = Path(tempfile.mkdtemp(prefix="bench-", dir=parent))
    try:
        ray.init(
            address=LOCAL,
            num_cpus=options.workers,
            num_gpus=options.gpus,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            object_store_memory=options.object_store_mib * 2**20,
            # Survives a laptop's change of network. Ray replaces 127.0.0.1 by the outward address.
            _node_ip_address="127.0.0.2" if sys.platform == "linux" else None,
            _temp_dir=str(folder),
        )
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return Connection(owned=True, folder=folder)


def _join(address: str, options: RayOptions) -> Connection:
    if options.workers is not None or options.gpus is not None:
        raise UsageError(
            f"expected no number of workers for the cluster at {address}, whose nodes say what they have; "
            "leave it out, or use --address local"
        )
    if "://" in address:
        raise UsageError(
            f"expected `local`, `auto` or `host:port` as Ray's address, got {address!r} (from --address or "
            "RAY_ADDRESS); run the command on a node of the cluster, or with `ray job submit`"
        )
    try:
        if address != "auto":
            _dial(address)
        _rehearse(address)
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, ValueError, RuntimeError, ray.exceptions.RayError) as error:
        raise UsageError(
            f"cannot reach a Ray cluster at {address}: {_first_line(error)}. Start one with "
            "`ray start --head` and run the command on one of its nodes, or use --address local"
        ) from error
    return Connection(owned=True)


def _dial(address: str) -> None:
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise ValueError("expected host:port")
    socket.create_connection((host.strip("[]"), int(port)), timeout=DIAL_TIMEOUT_S).close()


def _rehearse(address: str) -> None:
    """Join from a process that can be stopped: where something else answers, ray tries for many minutes."""
    try:
        done = subprocess.run(
            [sys.executable, "-c", _JOIN, address],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            timeout=JOIN_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise ConnectionError(f"no answer from Ray within {JOIN_TIMEOUT_S:g} s") from None
    if done.returncode:
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        raise ConnectionError(lines[-1] if lines else f"exit status {done.returncode}")


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
