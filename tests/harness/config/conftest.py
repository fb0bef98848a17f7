from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from fl.errors import ConfigError
from harness.config.matrix import Matrix, load_matrix

HEAD = "version: 1\ndefaults: {data: digits, model: lenet}\n"
"""Two lines that make the shortest matrices whole."""


@pytest.fixture
def load(tmp_path: Path) -> Callable[[str], Matrix]:
    """Load a matrix from its text."""

    def load_text(text: str) -> Matrix:
        path = tmp_path / "m.yaml"
        path.write_text(text)
        return load_matrix(path)

    return load_text


@pytest.fixture
def short(load: Callable[[str], Matrix]) -> Callable[[str], Matrix]:
    """Load a matrix on digits and a LeNet from the rest of its text, which starts at line 3."""
    return lambda text: load(HEAD + text)


@pytest.fixture
def mistakes(tmp_path: Path, load: Callable[[str], Matrix]) -> Callable[[str], list[str]]:
    """Return the lines of the error that a text leads to, the folder taken off."""

    def of_text(text: str) -> list[str]:
        with pytest.raises(ConfigError) as caught:
            load(text)
        assert caught.value.exit_code == 2
        return str(caught.value).replace(f"{tmp_path}/", "").splitlines()

    return of_text
