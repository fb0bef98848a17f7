"""Collecting every mistake of a file before complaining, and the wording they share."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from fl.errors import ConfigError, Problem
from harness.config.yaml_loader import Mark


class Problems:
    """The mistakes found so far; each counts once, however many cells it spoils."""

    def __init__(self) -> None:
        self._found: dict[Problem, None] = {}

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._found)

    def add(self, mark: Mark, message: str) -> None:
        """Add a mistake at `mark`."""
        self._found.setdefault(mark.problem(message))

    def raise_if_any(self) -> None:
        """Raise all mistakes, in the order of the file.

        Raises:
            ConfigError: If there are any.
        """
        if self._found:
            raise ConfigError(sorted(self._found, key=lambda problem: (problem.path, problem.line or 0)))


def one_of(names: Iterable[str]) -> str:
    """Return `a, b or c`."""
    *most, last = names
    return f"{', '.join(most)} or {last}" if most else last


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return `. Did you mean ...?` with the nearest known names, or "" if none is near."""
    near = difflib.get_close_matches(name, list(known), n=2)
    return f". Did you mean {one_of(repr(n) for n in near)}?" if near else ""


def unknown_key(name: str, known: Iterable[str]) -> str:
    """Return the message for a key that does not exist where it stands."""
    allowed = sorted(known)
    listing = f"Allowed: {', '.join(allowed)}." if allowed else "Nothing can be set here."
    return f"unknown key {name!r}{did_you_mean(name, allowed) or '.'} {listing}"


def shown(value: object) -> str:
    """Return a user's value the way an error message names it."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list | tuple):
        return "a list"
    if isinstance(value, str):
        return f"{value!r} (a string)" if value[:1].isdigit() else repr(value)
    return repr(value)
