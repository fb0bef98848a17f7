from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from attacks import ATTACKS
from defenses import DEFENSES
from fl.registry import Registry
from harness.config.matrix import Matrix, load_matrix

HEAD = "version: 1\ndefaults: {data: digits, model: lenet}\n"


@pytest.fixture
def short(tmp_path: Path) -> Callable[[str], Matrix]:
    """Load a matrix on digits and a LeNet from the rest of its text, which starts at line 3."""

    def load(text: str) -> Matrix:
        path = tmp_path / "m.yaml"
        path.write_text(HEAD + text)
        return load_matrix(path)

    return load


@pytest.fixture
def register() -> Iterator[Callable[[Any], None]]:
    """Add plug-in cards for the time of a test."""
    added: list[tuple[Registry[Any], str]] = []

    def add(card: Any) -> None:
        registry: Registry[Any] = DEFENSES if type(card).__name__ == "DefenseCard" else ATTACKS
        registry.register(card)
        added.append((registry, card.name))

    yield add
    for registry, name in added:
        registry.unregister(name)
