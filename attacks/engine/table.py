"""Which formulation and how many lanes for which model on which device.

Measured, not guessed at run time: a result must not depend on how busy the machine is. The table that ships
lies beside this file; `bench calibrate` measures others. Reading one imports no torch.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

from attacks.engine.native.build import is_possible
from fl.errors import UsageError
from fl.specs import digest

FormulationName = Literal["layers", "difference", "tangent", "vmap", "native", "reference"]

SHIPPED = Path(__file__).with_name("table.json")
VARIABLE = "LEAKBENCH_ENGINE_TABLE"
"""Environment variable with the path of a table to use instead of the shipped one."""

BLOCK = 16
"""What is left of a tensor when whole vectors of numbers are taken off is computed in another way: with a
width that is neither 1 nor a multiple of this, the last lanes would differ from others in their last bits."""


class Choice(NamedTuple):
    """How a model is attacked.

    Attributes:
        formulation: Of the gradients; `reference` is the plain loop, one task at a time.
        lanes: Tasks side by side: one, or a multiple of `BLOCK`.
    """

    formulation: FormulationName
    lanes: int


REFERENCE = Choice("reference", 1)
NATIVE = Choice("native", 1)
"""The native kernel (`attacks.engine.native`)."""
IN_TURN: frozenset[FormulationName] = frozenset({"tangent"})
"""Formulations that compute lanes in turn: more of them take memory and gain nothing."""
WIDTHS = (64, 32, 16, 1)
"""Lanes that are gone down by when memory runs out; below them is the plain loop, which counts as 0."""


@dataclass(frozen=True)
class EngineTable:
    """A table.

    Attributes:
        models: Choices by type of device (`cpu`, `cuda`), then by model: its name, or for those with certain
            options alone name and options, `resnet18,stem=cifar`. Of entries that fit, the longest counts.
        otherwise: By type of device, for models that were not measured.
        portable: As `models`, for what the model's own choice cannot compute, or where it cannot be had.
    """

    models: Mapping[str, Mapping[str, Choice]] = field(default_factory=dict)
    otherwise: Mapping[str, Choice] = field(default_factory=dict)
    portable: Mapping[str, Mapping[str, Choice]] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str, *, name: str = "engine table") -> EngineTable:
        """Return the table that `text` (JSON) holds.

        Args:
            text: As `text` of a table gives it.
            name: What to call it in errors.

        Raises:
            UsageError: If it is none.
        """
        try:
            document = json.loads(text)
            return cls(
                _choices(document["models"]),
                {device: _choice(entry) for device, entry in document["otherwise"].items()},
                _choices(document.get("portable", {})),
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UsageError(
                f"{name}: expected a table that `bench calibrate` wrote, got {type(error).__name__}: {error}"
            ) from error

    @property
    def text(self) -> str:
        """The table as JSON, for people to read."""
        otherwise = {device: choice._asdict() for device, choice in sorted(self.otherwise.items())}
        document = {"models": _entries(self.models), "otherwise": otherwise}
        if self.portable:
            document["portable"] = _entries(self.portable)
        return json.dumps(document, indent=2) + "\n"

    @cached_property
    def digest(self) -> str:
        """Twelve hexadecimal digits that tell the table from others."""
        return digest(json.dumps(json.loads(self.text), sort_keys=True))[:12]

    def choices(self, model: str, device_type: str) -> tuple[Choice, ...]:
        """Return how a model is attacked on a type of device, and what stands in for that, if anything.

        Args:
            model: Its name, and options that entries may ask for (`spelled`).
            device_type: Of the device.
        """
        entries = self.models.get(device_type, {})
        key = _fitting(entries, model)
        if key is None:
            return (self.otherwise.get(device_type, REFERENCE),)
        own, stand_in = entries[key], self.portable.get(device_type, {}).get(key)
        return (own,) if stand_in is None or own == REFERENCE else (own, stand_in)

    def with_choice(
        self, model: str, device_type: str, choice: Choice, *, portable: Choice | None = None
    ) -> EngineTable:
        """Return a table with one entry added or replaced, and what stands in for it."""
        entries = {**self.models.get(device_type, {}), model: choice}
        others = {name: entry for name, entry in self.portable.get(device_type, {}).items() if name != model}
        if portable is not None:
            others[model] = portable
        rest = {device: kept for device, kept in self.portable.items() if device != device_type}
        if others:
            rest[device_type] = others
        return EngineTable({**self.models, device_type: entries}, self.otherwise, rest)


def spelled(name: str, options: Mapping[str, Any]) -> str:
    """Return a model's name and options as entries of a table spell them: `resnet18,stem=cifar`."""
    texts = (f"{key}={json.dumps(value)}".replace('"', "") for key, value in sorted(options.items()))
    return ",".join([name, *texts])


def _fitting(entries: Mapping[str, Choice], model: str) -> str | None:
    """Return the longest entry that asks for nothing that the model is not."""
    name, *options = model.split(",")
    fitting = [key for key in entries if key.split(",")[0] == name and {*key.split(",")[1:]} <= {*options}]
    return max(fitting, key=lambda key: (key.count(","), key), default=None)


_ACTIVE: list[EngineTable] = []
"""What this process uses instead of the shipped table; the last one counts."""


def current() -> EngineTable:
    """Return the table that this process uses."""
    return _ACTIVE[-1] if _ACTIVE else shipped()


@cache
def shipped() -> EngineTable:
    """Return the table that ships."""
    return EngineTable.parse(SHIPPED.read_text(encoding="utf-8"), name=str(SHIPPED))


def chosen_by_user() -> EngineTable | None:
    """Return the table that the environment names, if it names one.

    Raises:
        UsageError: If it cannot be read.
    """
    path = os.environ.get(VARIABLE)
    if not path:
        return None
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{VARIABLE}: cannot read {path!r}: {error}") from error
    return EngineTable.parse(text, name=path)


def use(table: EngineTable) -> None:
    """Use a table from now on in this process."""
    _ACTIVE.append(table)


@contextmanager
def using(table: EngineTable) -> Iterator[None]:
    """Use a table in this process for the time of a `with`."""
    _ACTIVE.append(table)
    try:
        yield
    finally:
        _ACTIVE.pop()


_LIMITS: list[int] = []
"""The most lanes that this process may use, innermost last."""


@contextmanager
def at_most(lanes: int | None) -> Iterator[None]:
    """Choose no more lanes for the time of a `with`: 0 for the plain loop, None for the table's own word.

    The table in use stays the one that rows name; their lane width tells that memory ran out.
    """
    if lanes is not None:
        _LIMITS.append(lanes)
    try:
        yield
    finally:
        if lanes is not None:
            _LIMITS.pop()


def choices(model: str, device_type: str, *, width: int = 1) -> list[Choice]:
    """Return ways of attacking a model on a type of device (`cpu`, `cuda`) but the plain loop, best first.

    Args:
        model: Its name and options (`spelled`).
        device_type: Of the device.
        width: Lanes that a task takes; formulations that compute them in turn get as many.
    """
    found = []
    for choice in current().choices(model, device_type):
        possible = choice != REFERENCE and (choice != NATIVE or is_possible())
        wanted = max(choice.lanes, width) if choice.formulation in IN_TURN else choice.lanes
        lanes = min(wanted, *_LIMITS, wanted)
        if possible and lanes >= width:
            found.append(choice._replace(lanes=lanes))
    return found


def choose(model: str, device_type: str) -> Choice:
    """Return the first of the `choices`; if there is none, the plain loop."""
    return next(iter(choices(model, device_type)), REFERENCE)


def narrower(lanes: int) -> int | None:
    """Return the next smaller width; 0 for the plain loop, None if this is it."""
    return next((width for width in (*WIDTHS, 0) if width < lanes), None)


def table_digest() -> str:
    """Return what names the table in use in a row: 12 hexadecimal digits of its content's hash."""
    return current().digest


def is_width(lanes: object) -> bool:
    """Whether a batch may have so many lanes."""
    return type(lanes) is int and (lanes == 1 or (lanes > 0 and lanes % BLOCK == 0))


def _choices(document: Mapping[str, Any]) -> dict[str, dict[str, Choice]]:
    return {
        device: {model: _choice(entry) for model, entry in entries.items()}
        for device, entries in document.items()
    }


def _entries(choices: Mapping[str, Mapping[str, Choice]]) -> dict[str, dict[str, Any]]:
    return {
        device: {model: choice._asdict() for model, choice in sorted(entries.items())}
        for device, entries in sorted(choices.items())
    }


def _choice(entry: Mapping[str, Any]) -> Choice:
    formulation, lanes = entry["formulation"], entry["lanes"]
    if formulation not in get_args(FormulationName):
        raise ValueError(f"no formulation {formulation!r}")
    if not is_width(lanes):
        raise ValueError(f"expected 1 or a multiple of {BLOCK} lanes, got {lanes!r}")
    if formulation in ("native", "reference") and lanes != 1:
        raise ValueError(f"expected 1 lane for {formulation}, got {lanes}")
    return Choice(formulation, lanes)
