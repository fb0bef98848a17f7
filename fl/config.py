"""The base of every configuration and its canonical JSON, which ids and keys are hashed from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import cached_property
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field

JSON = None | bool | int | float | str | list["JSON"] | dict[str, "JSON"]


def canonical_json(value: Any) -> str:
    """Return `value` as JSON with sorted keys and no spaces; NaN and infinity are refused.

    Raises:
        ValueError: If a number is not finite.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def digest(text: str) -> str:
    """Return the sha256 of `text`, in hex."""
    return hashlib.sha256(text.encode()).hexdigest()


def added_later(default: Any, **field: Any) -> Any:
    """Declare a config field that joined after results existed: at its default it is left out of ids."""
    return Field(default, json_schema_extra={"added_later": True}, **field)


class Config(BaseModel):
    """Base of all plug-in configurations and spec sections: frozen, and strict about unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @cached_property
    def canonical(self) -> str:
        """The canonical JSON: every field resolved, later-added fields left out at their default."""
        return canonical_json(self.resolved())

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Return a copy, its canonical JSON its own."""
        copy = super().model_copy(update=update, deep=deep)
        copy.__dict__.pop("canonical", None)
        return copy

    def resolved(self) -> dict[str, Any]:
        """Return every field as plain JSON values, later-added ones only where they differ from default."""
        values = self.model_dump(mode="json")
        for name, field in type(self).model_fields.items():
            extra, value = field.json_schema_extra, getattr(self, name)
            if isinstance(extra, dict) and extra.get("added_later") and value == field.default:
                del values[name]
            elif isinstance(value, Config):
                values[name] = value.resolved()
            elif isinstance(value, tuple) and value and all(isinstance(item, Config) for item in value):
                values[name] = [item.resolved() for item in value]
        return values


class NoConfig(Config):
    """The configuration of a plug-in that has nothing to configure."""
