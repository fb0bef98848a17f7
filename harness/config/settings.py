"""The entries of a matrix beside its cells: name, seeds, resources, store, failures."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from harness.config.plugins import Plugins
from harness.config.problems import Problems, shown, unknown_key
from harness.config.sweeps import is_number, is_sweep, sweep_values
from harness.config.validate import validate
from harness.config.yaml_loader import Node
from harness.metrics import METRICS

STAGES = ("attack", "federation", "stage")
LARGEST_SEED = 2**63 - 1
NAME = r"[A-Za-z0-9_-][A-Za-z0-9._-]*"
DURATION = r"([0-9]+(?:\.[0-9]+)?)\s*([smhd])"
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def _duration(value: object) -> object:
    if not isinstance(value, str):
        return value
    match = re.fullmatch(DURATION, value)
    if match is None:
        raise ValueError(f"expected seconds or a time such as 90s, 15m, 2h or 1d, got {value!r}")
    return float(match[1]) * _SECONDS[match[2]]


class _Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class ResourceOverride(_Settings):
    """What a matrix asks for instead of what a card declares; None leaves the card's word.

    Attributes:
        cpus: CPU cores reserved.
        gpus: Fraction of a GPU.
        memory_mib: Memory in MiB.
        timeout: Wall-clock limit in seconds (in the file also `90s`, `15m`, `2h`, `1d`).
    """

    cpus: float | None = Field(None, gt=0)
    gpus: float | None = Field(None, ge=0)
    memory_mib: int | None = Field(None, gt=0)
    timeout: Annotated[float | None, BeforeValidator(_duration)] = Field(None, gt=0)

    def over(self, other: ResourceOverride) -> ResourceOverride:
        """Return this override with what it leaves open taken from `other`."""
        mine = {name: value for name, value in self if value is not None}
        return other.model_copy(update=mine)


class StoreSettings(_Settings):
    """Where artifacts lie; None for the default inside the results folder.

    Attributes:
        uri: Artifacts that hold no private data: a path, `file://` or `s3://`.
        private_uri: Artifacts that do.
    """

    uri: str | None = None
    private_uri: str | None = None


@dataclass(frozen=True)
class Settings:
    """Everything in a matrix that is not part of a trial's identity, and the seeds.

    Attributes:
        name: Name of the experiment.
        seeds: The seed values.
        resources: Overrides by stage (`attack`, `federation`, `stage`) or plug-in name.
        store: Where artifacts lie.
        max_failures: Stop once more trials than this have failed: a number, or a share of all trials.
        metrics: Metrics to measure that are measured on request only.
    """

    name: str
    seeds: tuple[int, ...]
    resources: Mapping[str, ResourceOverride]
    store: StoreSettings
    max_failures: int | float | None
    metrics: tuple[str, ...] = ()

    def override(self, stage: Literal["attack", "federation", "stage"], plugin: str) -> ResourceOverride:
        """Return what the matrix asks for in `stage` for `plugin`; the plug-in's own entry wins."""
        general = self.resources.get(stage, ResourceOverride())
        return self.resources.get(plugin, ResourceOverride()).over(general)

    def allowed_failures(self, trials: int) -> int | None:
        """Return how many of `trials` may fail, or None for any number."""
        if isinstance(self.max_failures, float):
            return int(self.max_failures * trials)
        return self.max_failures


def read_settings(document: Node, plugins: Plugins, problems: Problems) -> Settings:
    """Return the settings of a document; mistakes go to `problems`."""
    entries = document.entries
    _check_version(document, problems)
    store = validate(StoreSettings, entries["store"], problems) if "store" in entries else None
    return Settings(
        name=_name(document, problems),
        seeds=_seeds(entries["seeds"], problems) if "seeds" in entries else (0,),
        resources=_resources(entries["resources"], plugins, problems) if "resources" in entries else {},
        store=store or StoreSettings(),
        max_failures=_max_failures(entries["max_failures"], problems) if "max_failures" in entries else None,
        metrics=_metrics(entries["metrics"], problems) if "metrics" in entries else (),
    )


def _check_version(document: Node, problems: Problems) -> None:
    version = document.entries.get("version")
    if version is None:
        problems.add(document.mark, "expected `version: 1`, got none")
    elif version.value != 1 or isinstance(version.value, bool | float):
        problems.add(version.mark, f"expected 1, got {shown(version.plain())}")


def _name(document: Node, problems: Problems) -> str:
    node = document.entries.get("name")
    name = Path(document.mark.path).stem if node is None else node.value
    if not isinstance(name, str) or not re.fullmatch(NAME, name):
        place = document.mark if node is None else node.mark
        hint = " (the file's name; set `name:`)" if node is None else ""
        problems.add(place, f"expected a name of letters, digits, '.', '_' and '-', got {shown(name)}{hint}")
    return str(name)


def _seeds(node: Node, problems: Problems) -> tuple[int, ...]:
    items = sweep_values(node, problems) if set(node.entries) == {"range"} else list(node.items)
    if not items and not is_sweep(node):
        message = "expected a list of integers or {range: [start, stop]}"
        problems.add(
            node.mark, f"{message}, got {'an empty list' if node.value == () else shown(node.plain())}"
        )
    seeds: dict[int, None] = {}
    for item in items:
        value = item.value
        if not is_number(value) or not isinstance(value, int) or not 0 <= value <= LARGEST_SEED:
            problems.add(
                item.mark, f"expected an integer from 0 to {LARGEST_SEED}, got {shown(item.plain())}"
            )
        elif value in seeds:
            problems.add(item.mark, f"expected every seed once, got {value} again")
        else:
            seeds[value] = None
    return tuple(seeds)


def _resources(node: Node, plugins: Plugins, problems: Problems) -> dict[str, ResourceOverride]:
    if not isinstance(node.value, dict):
        problems.add(node.mark, f"expected a mapping, got {shown(node.plain())}")
    known = {*STAGES, *plugins.attacks.names(), *plugins.defenses.names()}
    found: dict[str, ResourceOverride] = {}
    for key, child in node.entries.items():
        override = validate(ResourceOverride, child, problems)
        if key not in known:
            problems.add(node.keys[key], unknown_key(key, known))
        elif override is not None:
            found[key] = override
    return found


def requestable() -> tuple[str, ...]:
    """Return the names of the metrics that are measured on request only."""
    return tuple(card.name for card in METRICS if card.on_request)


def _metrics(node: Node, problems: Problems) -> tuple[str, ...]:
    known = requestable()
    if not isinstance(node.value, tuple):
        problems.add(node.mark, f"expected a list of metrics, got {shown(node.plain())}")
    for item in node.items:
        if item.value not in known:
            message = f"expected metrics that are measured on request ({', '.join(known)})"
            problems.add(item.mark, f"{message}, got {shown(item.plain())}")
    return tuple(str(item.value) for item in node.items)


def _max_failures(node: Node, problems: Problems) -> int | float | None:
    value = node.value
    if is_number(value) and value >= 0 and (isinstance(value, int) or value <= 1):
        return value
    message = "expected a number of trials (an integer >= 0) or a share of them (a fraction up to 1.0)"
    problems.add(node.mark, f"{message}, got {shown(node.plain())}")
    return None
