"""What trials read from the disk of the machine that computes them: data sets, weights, pictures; no torch.

A plan proves that the driver has it. The nodes of a cluster have disks of their own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from fl.data import DATASETS, assets
from fl.errors import BenchError, DataUnavailableError, UsageError
from fl.generators.config import GeneratorConfig
from fl.models import MODELS
from fl.specs import Config, Plugin, Recorded, TrialSpec, canonical_json


class Need(NamedTuple):
    """Something that every node must have, and have the same.

    Attributes:
        kind: `data set`, `model`, `attack`, `defense` or `observation`.
        subject: What specs say of it.
        identity: What tells its content, on the driver.
    """

    kind: str
    subject: Plugin | Recorded
    identity: str

    def check(self) -> None:
        """Look whether this machine has it; packaged data and weights are fetched, as a lane would.

        Raises:
            UsageError: If it is not here, or another one is.
        """
        name = self.subject.file if isinstance(self.subject, Recorded) else self.subject.name
        try:
            _fetch(self.kind, self.subject)
            found = _identity(self.kind, self.subject)
        except BenchError as error:
            raise UsageError(f"{self.kind} {name}: {error}") from error
        if found != self.identity:
            raise UsageError(
                f"{self.kind} {name}: expected the files that the driver has, got other ones at the same "
                "place; copy them from there, or use a shared folder"
            )


def needs_of(specs: Iterable[TrialSpec]) -> tuple[Need, ...]:
    """Return what trials need, each thing once, as this machine has it.

    Raises:
        BenchError: If this machine does not have it.
    """
    named: dict[int, tuple[str, Plugin | Recorded | None]] = {}  # specs of one plan share their sections
    for spec in specs:
        named[id(spec.data)] = "data set", spec.data
        named[id(spec.public)] = "data set", spec.public
        named[id(spec.model)] = "model", spec.model
        named[id(spec.attack)] = "attack", spec.attack
        named[id(spec.defense)] = "defense", spec.defense
        named[id(spec.recorded)] = "observation", spec.recorded
    return tuple(
        Need(kind, subject, _identity(kind, subject))
        for kind, subject in named.values()
        if subject is not None and _reads_files(kind, subject)
    )


def unmet(needs: Iterable[Need]) -> list[str]:
    """Return what this machine lacks, in words that say what to do."""
    lacking = []
    for need in needs:
        try:
            need.check()
        except UsageError as error:
            lacking.append(str(error))
    return lacking


def _identity(kind: str, subject: Plugin | Recorded) -> str:
    if isinstance(subject, Recorded):
        return _digest(Path(subject.file))
    config: Any = subject.config
    if kind == "data set":
        return DATASETS.get(subject.name).describe(config).fingerprint
    if kind == "model":
        MODELS.get(subject.name).require(config)
    return canonical_json(config.resolved())


def _digest(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataUnavailableError(
            f"expected a file, cannot read it: {error.strerror or error}; copy it to every node, or use a "
            "shared folder"
        ) from error


def _fetch(kind: str, subject: Plugin | Recorded) -> None:
    if isinstance(subject, Recorded):
        return
    names = DATASETS.get(subject.name).assets if kind == "data set" else ()
    generators = [each for each in _parts(subject.config) if isinstance(each, GeneratorConfig)]
    for name in (*names, *(g.checkpoint for g in generators if g.checkpoint in assets.ASSETS)):
        assets.fetch(str(name))


def _reads_files(kind: str, subject: Plugin | Recorded) -> bool:
    """Return whether something is read from disk: by an attack or a defense, if its identity is a content."""
    if isinstance(subject, Recorded) or kind in ("data set", "model"):
        return True
    own = [part for part in _parts(subject.config) if type(part).resolved is not Config.resolved]
    return any(part.resolved() != Config.resolved(part) for part in own)


def _parts(value: Any) -> Iterator[Config]:
    """Yield a configuration and those inside it."""
    if isinstance(value, Config):
        yield value
        for name in type(value).model_fields:
            yield from _parts(getattr(value, name))
    elif isinstance(value, tuple | list):
        for each in value:
            yield from _parts(each)
