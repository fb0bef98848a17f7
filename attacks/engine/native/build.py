"""The native kernel as a shared object: compiled when it is first needed, kept in the cache.

Needs no torch to import, so that plans can ask whether there is a compiler.
"""

from __future__ import annotations

import ctypes
import logging
import os
import shutil
import subprocess
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from filelock import FileLock

from fl.data.cache import cache_dir
from fl.specs import digest

log = logging.getLogger(__name__)

FOLDER = Path(__file__).parent
SOURCE = FOLDER / "kernel.cpp"
SWITCH = "LEAKBENCH_NATIVE"
"""Environment variable; `0` switches the kernel off."""

FLAGS = ("-std=c++17", "-O3", "-march=native", "-fvisibility=hidden", "-shared", "-fPIC")
TIMEOUT_S = 120

_WHOLE, _SINGLE, _ADDRESS = ctypes.c_int64, ctypes.c_float, ctypes.c_void_p
_SIGNATURES = {
    "lane_create": (_ADDRESS, [_ADDRESS, _ADDRESS, _WHOLE]),
    "lane_destroy": (None, [_ADDRESS]),
    "lane_load_layer": (None, [_ADDRESS, _WHOLE, _ADDRESS, _ADDRESS]),
    "lane_load_target": (None, [_ADDRESS, _WHOLE, _ADDRESS, _SINGLE, _ADDRESS, _SINGLE]),
    "lane_load_labels": (None, [_ADDRESS, _ADDRESS]),
    "lane_start": (None, [_ADDRESS, _ADDRESS]),
    "lane_read": (None, [_ADDRESS, _ADDRESS]),
    "lane_read_gradient": (None, [_ADDRESS, _ADDRESS]),
    "lane_evaluate": (_SINGLE, [_ADDRESS]),
    "lane_step": (_WHOLE, [_ADDRESS, ctypes.c_double, _ADDRESS]),
}


def compiler() -> str | None:
    """Return the path of the C++ compiler: `CXX`, or the system's; None where there is none."""
    named = os.environ.get("CXX")
    for name in [named] if named else ["c++", "g++", "clang++"]:
        found = shutil.which(name)
        if found is not None:
            return found
    return None


def is_possible() -> bool:
    """Whether the kernel is not switched off and there is a compiler that might build it."""
    return os.environ.get(SWITCH) != "0" and compiler() is not None


def library() -> ctypes.CDLL | None:
    """Return the kernel, compiled for this machine; None, and a line in the log, where it cannot be had."""
    if os.environ.get(SWITCH) == "0":
        log.info("the native kernel is switched off (%s=0)", SWITCH)
        return None
    found = compiler()
    if found is None:
        log.info("the native kernel is not used: there is no C++ compiler")
        return None
    return _library(found, cache_dir() / "native")


@cache
def _library(path: str, folder: Path) -> ctypes.CDLL | None:
    try:
        loaded = _loaded(path, folder)
    except (OSError, subprocess.SubprocessError) as error:
        said = getattr(error, "stderr", None) or str(error)
        log.warning("the native kernel is not used: %s: %s", path, said.strip())
        return None
    for name, (result, arguments) in _SIGNATURES.items():
        function = getattr(loaded, name)
        function.restype, function.argtypes = result, arguments
    return loaded


def _loaded(compiler_path: str, folder: Path) -> ctypes.CDLL:
    """Load the shared object from the cache; if that is of no use, compile it for this process alone."""
    try:
        return ctypes.CDLL(str(_built(compiler_path, folder)))
    except OSError as error:
        log.info("the native kernel is not kept: %s", error)
    with TemporaryDirectory() as own:
        return ctypes.CDLL(str(_built(compiler_path, Path(own))))


def _built(compiler_path: str, folder: Path) -> Path:
    """Return the shared object; who asks at once waits for the first. What is in the cache is complete."""
    sources = [path.read_text(encoding="utf-8") for path in sorted(FOLDER.glob("*.?pp"))]
    parts = (*sources, *FLAGS, compiler_path, _dialect(compiler_path))
    target = folder / f"kernel-{digest(chr(0).join(parts))[:16]}.so"
    if target.exists():
        return target
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / ".lock"):
        if not target.exists():
            log.info("compiling the native kernel with %s", compiler_path)
            with TemporaryDirectory(dir=folder, prefix=".compiling-") as temporary:
                made = Path(temporary, target.name)
                _run(compiler_path, *FLAGS, str(SOURCE), "-o", str(made))
                made.replace(target)
    return target


def _dialect(path: str) -> str:
    """Return the macros that the compiler predefines: its version and the processor's instruction set."""
    return _run(path, "-march=native", "-dM", "-E", "-x", "c++", os.devnull)


def _run(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=TIMEOUT_S).stdout
