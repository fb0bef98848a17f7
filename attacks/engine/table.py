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

from fl.errors import UsageError
from fl.specs import digest

FormulationName = Literal["layers", "difference", "vmap", "reference"]

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


@dataclass(frozen=True)
class EngineTable:
    """A table.

    Attributes:
        models: Choices by type of device (`cpu`, `cuda`), then by name of the model.
        otherwise: By type of device, for models that were not measured.
    """

    models: Mapping[str, Mapping[str, Choice]] = field(default_factory=dict)
    otherwise: Mapping[str, Choice] = field(default_factory=dict)

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
            models = {
                device: {model: _choice(entry) for model, entry in entries.items()}
                for device, entries in document["models"].items()
            }
            return cls(models, {device: _choice(entry) for device, entry in document["otherwise"].items()})
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UsageError(
                f"{name}: expected a table that `bench calibrate` wrote, got {type(error).__name__}: {error}"
            ) from error

    @property
    def text(self) -> str:
        """The table as JSON, for people to read."""
        models = {
            device: {model: choice._asdict() for model, choice in sorted(entries.items())}
            for device, entries in sorted(self.models.items())
        }
        otherwise = {device: choice._asdict() for device, choice in sorted(self.otherwise.items())}
        return json.dumps({"models": models, "otherwise": otherwise}, indent=2) + "\n"

    @cached_property
    def digest(self) -> str:
        """Twelve hexadecimal digits that tell the table from others."""
        return digest(json.dumps(json.loads(self.text), sort_keys=True))[:12]

    def choose(self, model: str, device_type: str) -> Choice:
        """Return how a model is attacked on a type of device."""
        measured = self.models.get(device_type, {})
        return measured.get(model, self.otherwise.get(device_type, REFERENCE))

    def with_choice(self, model: str, device_type: str, choice: Choice) -> EngineTable:
        """Return a table with one entry added or replaced."""
        entries = {**self.models.get(device_type, {}), model: choice}
        return EngineTable({**self.models, device_type: entries}, self.otherwise)


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


def choose(model: str, device_type: str) -> Choice:
    """Return how a model is attacked on a type of device (`cpu`, `cuda`)."""
    return current().choose(model, device_type)


def table_digest() -> str:
    """Return what names the table in use in a row: 12 hexadecimal digits of its content's hash."""
    return current().digest


def is_width(lanes: object) -> bool:
    """Whether a batch may have so many lanes."""
    return type(lanes) is int and (lanes == 1 or (lanes > 0 and lanes % BLOCK == 0))


def _choice(entry: Mapping[str, Any]) -> Choice:
    formulation, lanes = entry["formulation"], entry["lanes"]
    if formulation not in get_args(FormulationName):
        raise ValueError(f"no formulation {formulation!r}")
    if not is_width(lanes):
        raise ValueError(f"expected 1 or a multiple of {BLOCK} lanes, got {lanes!r}")
    return Choice(formulation, lanes)
