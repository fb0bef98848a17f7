"""YAML as a matrix uses it: the 1.2 core schema, each key once, and every value knows its file and line.

PyYAML follows YAML 1.1, where `1e-5` is a string, `no` is false and `24_000` is a number; the resolver below
follows the core schema of YAML 1.2.2 (section 10.3.2) instead.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from yaml.composer import Composer
from yaml.parser import Parser
from yaml.reader import Reader, ReaderError
from yaml.resolver import BaseResolver
from yaml.scanner import Scanner

from fl.errors import ConfigError, Problem
from fl.specs import JSON

Scalar = None | bool | int | float | str

_TAG = "tag:yaml.org,2002:"
_CORE: dict[str, tuple[str, str]] = {  # tag: (pattern, first characters), in the order they are tried
    "null": (r"(?:~|null|Null|NULL|)", "~nN"),
    "bool": (r"(?:true|True|TRUE|false|False|FALSE)", "tTfF"),
    "int": (r"(?:[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+)", "-+0123456789"),
    "float": (
        r"(?:[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?"
        r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))",
        "-+.0123456789",
    ),
}


class Mark(NamedTuple):
    """Where an entry stands.

    Attributes:
        path: The file.
        line: 1-based line.
        key: Dotted path of the entry within the file.
    """

    path: str
    line: int
    key: str

    def problem(self, message: str) -> Problem:
        """Return a problem with this entry."""
        return Problem(self.path, self.line, self.key, message)


@dataclass(frozen=True, eq=False)
class Node:
    """A value of the document.

    Attributes:
        value: A scalar, a tuple of nodes (a list) or a dict of nodes (a mapping).
        mark: Where it stands: for a list or mapping under a key, where the key stands.
        keys: For a mapping, where each key stands.
    """

    value: Scalar | tuple[Node, ...] | dict[str, Node]
    mark: Mark
    keys: Mapping[str, Mark] = field(default_factory=dict)

    @property
    def entries(self) -> dict[str, Node]:
        """The entries of a mapping; empty for anything else."""
        return self.value if isinstance(self.value, dict) else {}

    @property
    def items(self) -> tuple[Node, ...]:
        """The items of a list; empty for anything else."""
        return self.value if isinstance(self.value, tuple) else ()

    def plain(self) -> JSON:
        """Return the value as plain JSON."""
        if isinstance(self.value, dict):
            return {key: child.plain() for key, child in self.value.items()}
        if isinstance(self.value, tuple):
            return [child.plain() for child in self.value]
        return self.value

    def without(self, *names: str) -> Node:
        """Return a mapping less some of its keys."""
        left = {key: child for key, child in self.entries.items() if key not in names}
        return Node(left, self.mark, self.keys)


def node_of(value: JSON, mark: Mark) -> Node:
    """Return `value` as if all of it were written at `mark`."""
    if isinstance(value, dict):
        return Node({k: node_of(v, mark) for k, v in value.items()}, mark, dict.fromkeys(value, mark))
    if isinstance(value, list):
        return Node(tuple(node_of(item, mark) for item in value), mark)
    return Node(value, mark)


def load_yaml(path: str | Path) -> Node:
    """Read one YAML document.

    Raises:
        ConfigError: If the file cannot be read, is not YAML, or breaks one of the rules above; all broken
            rules at once, each with its line.
    """
    text = _read(Path(path))
    problems: list[Problem] = []
    try:
        root = _CoreLoader(text).get_single_node()
        node = _Converter(str(path), problems).convert(root, "") if root is not None else None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise _syntax_error(path, mark.line + 1 if mark else None, error) from error
    except ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise ConfigError([Problem(str(path), line, "", f"expected YAML, got {error.reason}")]) from error
    except RecursionError as error:
        raise ConfigError([Problem(str(path), None, "", "nested too deeply")]) from error
    if problems:
        raise ConfigError(problems)
    return node or Node({}, Mark(str(path), 1, ""))


def parse_scalar(text: str) -> Scalar:
    """Return what `text` means as an unquoted scalar: `8` is a number, `no` is a string."""
    for name, (pattern, _) in _CORE.items():
        if re.fullmatch(pattern, text):
            return _construct(name, text)
    return text


class _CoreResolver(BaseResolver):
    """Resolve plain scalars by the core schema of YAML 1.2."""


for _name, (_pattern, _first) in _CORE.items():
    _starts: list[Any] = [*_first, ""] if _name == "null" else [*_first]
    _CoreResolver.add_implicit_resolver(_TAG + _name, re.compile(f"^{_pattern}$"), _starts)


class _CoreLoader(Reader, Scanner, Parser, Composer, _CoreResolver):
    """PyYAML up to the tree of nodes, with our resolver."""

    def __init__(self, text: str) -> None:
        Reader.__init__(self, text)
        Scanner.__init__(self)
        Parser.__init__(self)
        Composer.__init__(self)
        _CoreResolver.__init__(self)


class _Converter:
    """From PyYAML's nodes to ours, collecting broken rules."""

    def __init__(self, path: str, problems: list[Problem]) -> None:
        self.path = path
        self.problems = problems
        self._open: set[int] = set()

    def convert(self, node: yaml.Node, key: str) -> Node:
        mark = Mark(self.path, node.start_mark.line + 1, key)
        if id(node) in self._open:
            self.problems.append(mark.problem("expected a value, got an alias that contains itself"))
            return Node(None, mark)
        self._open.add(id(node))
        try:
            if isinstance(node, yaml.MappingNode):
                return self._mapping(node, mark)
            if isinstance(node, yaml.SequenceNode):
                items = (self.convert(item, f"{key}.{i}") for i, item in enumerate(node.value))
                return Node(tuple(items), mark)
            return self._scalar(node, mark)
        finally:
            self._open.discard(id(node))

    def _mapping(self, node: yaml.MappingNode, mark: Mark) -> Node:
        entries: dict[str, Node] = {}
        keys: dict[str, Mark] = {}
        for key_node, value_node in node.value:
            name = key_node.value if key_node.tag == f"{_TAG}str" else None
            dotted = f"{mark.key}.{name}" if mark.key else str(name)
            at = Mark(self.path, key_node.start_mark.line + 1, dotted)
            if name is None or name == "<<":
                got = "the merge key <<" if name else f"{key_node.value!r}"
                self.problems.append(
                    mark._replace(line=at.line).problem(f"expected a name as key, got {got}")
                )
            elif name in keys:
                first = f"first on line {keys[name].line}"
                self.problems.append(at.problem(f"expected each key once, got {name!r} again ({first})"))
            else:
                child = self.convert(value_node, dotted)
                keys[name] = at
                entries[name] = child if isinstance(value_node, yaml.ScalarNode) else replace(child, mark=at)
        return Node(entries, mark, keys)

    def _scalar(self, node: yaml.Node, mark: Mark) -> Node:
        kind = node.tag.removeprefix(_TAG)
        if kind not in (*_CORE, "str"):
            self.problems.append(mark.problem(f"expected a plain value, got the tag {node.tag!r}"))
            return Node(None, mark)
        try:
            return Node(node.value if kind == "str" else _construct(kind, node.value), mark)
        except ValueError:
            shown = node.value if len(node.value) <= 40 else node.value[:40] + "..."
            self.problems.append(mark.problem(f"expected {kind} as its tag says, got {shown!r}"))
            return Node(None, mark)


def _construct(kind: str, text: str) -> Scalar:
    match kind:
        case "null":
            return None
        case "bool":
            return text.lower() == "true"
        case "int":
            return int(text, 8 if text.startswith("0o") else 16 if text.startswith("0x") else 10)
        case _:
            return float(re.sub(r"\.(inf|nan)", r"\1", text.lower()))


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        message = "expected a file, got nothing at this path"
    except IsADirectoryError:
        message = "expected a file, got a folder"
    except UnicodeDecodeError as error:
        message = f"expected UTF-8 text, got byte {error.object[error.start]:#04x} at {error.start}"
    except OSError as error:
        message = f"expected a readable file: {error.strerror}"
    raise ConfigError([Problem(str(path), None, "", message)])


def _syntax_error(path: str | Path, line: int | None, error: yaml.MarkedYAMLError) -> ConfigError:
    message = f"not valid YAML: {error.problem}"
    if error.context:
        message += f" ({error.context})"
    if error.problem and r"'\t'" in error.problem:
        message += "; indent with spaces, not tabs"
    return ConfigError([Problem(str(path), line, "", message)])
