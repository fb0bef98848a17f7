"""A matrix file and the one it extends."""

from __future__ import annotations

from pathlib import Path

from fl.errors import ConfigError
from harness.config.merge import merge
from harness.config.problems import shown
from harness.config.yaml_loader import Node, load_yaml


def read_documents(path: str | Path) -> list[Node]:
    """Return the document at `path`, with the one it extends before it.

    Raises:
        ConfigError: If either cannot be read, or the extended one extends a third.
    """
    document = _mapping(path)
    extends = document.entries.get("extends")
    if extends is None:
        return [document]
    if not isinstance(extends.value, str):
        raise ConfigError([extends.mark.problem(f"expected a path, got {shown(extends.plain())}")])
    other = Path(path).parent / extends.value
    if not other.is_file():
        raise ConfigError([extends.mark.problem(f"expected a file to extend, got no file at {str(other)!r}")])
    base = _mapping(other)
    if "extends" in base.entries:
        message = f"expected one level of extends, got a second one: {str(path)!r} extends this file"
        raise ConfigError([base.keys["extends"].problem(message)])
    return [base, document]


def merged(documents: list[Node]) -> Node:
    """Return the last document with what it leaves unsaid taken from the one before; a name is its own."""
    document = documents[-1]
    if len(documents) == 1:
        return document
    below = merge(documents[0].without("name"), document.without("name", "extends"))
    own = {key: node for key, node in document.entries.items() if key == "name"}
    return Node({**below.entries, **own}, document.mark, {**below.keys, **document.keys})


def _mapping(path: str | Path) -> Node:
    document = load_yaml(path)
    if not isinstance(document.value, dict):
        raise ConfigError([document.mark.problem(f"expected a mapping, got {shown(document.plain())}")])
    return document
