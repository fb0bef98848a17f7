"""What an experiment was made with, what it cost, and whose work it stands on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from attacks import ATTACKS
from defenses import DEFENSES
from fl.data import DATASETS
from fl.models import MODELS
from fl.registry import Registry

if TYPE_CHECKING:
    import pandas as pd


def cost(labelled: pd.DataFrame) -> tuple[tuple[str, int, float, float, int], ...]:
    """Return, by attack: trials, mean and total seconds of computing, and mean gradient evaluations."""
    complete = labelled[labelled["status"] == "complete"]
    rows = []
    for attack, cell in complete.groupby("attack_label"):
        seconds = cell["cpu_s"].fillna(0.0) + cell["gpu_s"].fillna(0.0)
        evaluations = cell["gradient_evaluations"].fillna(0).mean()
        rows.append(
            (str(attack), len(cell), float(seconds.mean()), float(seconds.sum()), round(float(evaluations)))
        )
    return tuple(rows)


def environment(manifest: Mapping[str, Any], trials: pd.DataFrame) -> tuple[tuple[str, str], ...]:
    """Return what the experiment was computed with and on, by name."""
    environment = manifest.get("environment") or {}
    packages = environment.get("packages") or {}
    git = manifest.get("git") or {}
    commit = git.get("commit")
    changed = " with uncommitted changes" if git.get("changed") else ""
    complete = trials[trials["status"] == "complete"]
    devices = sorted(complete["device_type"].dropna().unique())
    solved = complete[["engine", "lane_width"]].dropna().drop_duplicates()
    engines = sorted(f"{engine} x {width}" for engine, width in solved.itertuples(index=False))
    rows = [
        ("Python", environment.get("python")),
        ("packages", ", ".join(f"{name} {version}" for name, version in sorted(packages.items()))),
        ("code", f"{commit[:12]}{changed}" if commit else None),
        ("engine version", environment.get("engine_version")),
        ("solved by", ", ".join(engines)),
        ("computed on", ", ".join(devices)),
    ]
    return tuple((name, str(value)) for name, value in rows if value)


def references(trials: pd.DataFrame) -> tuple[tuple[str, str, str], ...]:
    """Return name, words and BibTeX of everything that was used and has a source."""
    used: tuple[tuple[Registry[Any], str], ...] = (
        *((ATTACKS, name) for name in sorted(trials["attack"].dropna().unique())),
        *((DEFENSES, name) for name in sorted(_defenses(trials))),
        *((MODELS, name) for name in sorted(trials["model"].dropna().unique())),
        *((DATASETS, name) for name in sorted(trials["dataset"].dropna().unique())),
    )
    found = []
    for registry, name in used:
        card = registry.get(name) if name in registry else None
        if card is not None and card.reference is not None:
            text = card.reference.text
            bibtex = card.reference.bibtex or f"@misc{{{name},\n  note = {{{text}}}\n}}"
            found.append((name, text, bibtex))
    return tuple(found)


def _defenses(trials: pd.DataFrame) -> set[str]:
    names = set()
    for text in trials["spec"]:
        defense = json.loads(text)["defense"]
        links = defense["config"].get("links")
        names |= {link["name"] for link in links} if links else {defense["name"]}
    return names
