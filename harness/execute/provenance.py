"""What a manifest says about where results come from."""

from __future__ import annotations

import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attacks.catalog import ENGINE_VERSION

if TYPE_CHECKING:
    from harness.plan.planner import Plan

PACKAGES = ("leakbench", "torch", "torchvision", "numpy", "pandas", "pyarrow", "ray", "lpips", "scikit-image")


def environment() -> dict[str, Any]:
    """Return Python, platform and the versions of the packages that results depend on."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "engine_version": ENGINE_VERSION,
        "packages": {name: found for name in PACKAGES if (found := _version(name)) is not None},
    }


def git_state() -> dict[str, Any] | None:
    """Return the commit of the code that runs and whether it was changed, or None outside a checkout."""
    folder = Path(__file__).resolve().parent
    commit = _git(folder, "rev-parse", "HEAD")
    if commit is None:
        return None
    return {"commit": commit, "changed": bool(_git(folder, "status", "--porcelain", "--untracked-files=no"))}


def data_checksums(plan: Plan) -> dict[str, str]:
    """Return the fingerprint of every data set in the plan, by name and configuration."""
    found: dict[str, str] = {}
    datasets = plan.matrix.plugins.datasets
    for pool in (plan.matrix.pools.of("data"), plan.matrix.pools.of("public")):
        for index in range(len(pool)):
            plugin = pool[index]
            if plugin is not None:
                card = datasets.get(plugin.name)
                found[f"{plugin.name} {plugin.config.canonical}"] = card.describe(plugin.config).fingerprint
    return found


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=folder, capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
