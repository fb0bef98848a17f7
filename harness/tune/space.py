"""Search spaces: defenses with distributions where a matrix has values; read without Optuna."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from fl.specs import JSON, canonical_json
from harness.config.merge import merge, nested, written_out
from harness.config.problems import Problems, shown, unknown_key
from harness.config.sweeps import is_number, is_sweep
from harness.config.yaml_loader import Mark, Node, node_of

Scalar = bool | int | float | str | None
KINDS = ("float", "int", "choice")
DEFENSE = "defense"
"""The categorical parameter that chooses between the branches of a space, where there are several."""


@dataclass(frozen=True)
class Range:
    """Numbers between two ends, both included.

    Attributes:
        low: Lower end.
        high: Upper end.
        whole: Whether they are whole numbers.
        log: Whether their logarithm is what is searched evenly.
        step: Distance of neighbours; None for all numbers.
    """

    low: float
    high: float
    whole: bool = False
    log: bool = False
    step: float | None = None

    @property
    def extremes(self) -> tuple[JSON, ...]:
        """The values that a validity check tries."""
        return (int(self.low), int(self.high)) if self.whole else (self.low, self.high)


@dataclass(frozen=True)
class Choice:
    """One of several values.

    Attributes:
        options: By what Optuna calls each: itself, or for a list or mapping its canonical JSON.
    """

    options: Mapping[Scalar, JSON]

    @property
    def extremes(self) -> tuple[JSON, ...]:
        """The values that a validity check tries."""
        return tuple(self.options.values())


Distribution = Range | Choice


@dataclass(frozen=True)
class Parameter:
    """A place of a defense that is searched.

    Attributes:
        name: Its name in the study: the branch and the dotted path, such as `gaussian.noise_budget`.
        path: The keys, and for lists the positions, that lead there.
        distribution: What it is searched over.
        mark: Where that is written.
    """

    name: str
    path: tuple[str, ...]
    distribution: Distribution
    mark: Mark

    def value(self, chosen: Scalar) -> JSON:
        """Return the value in the defense for what Optuna has chosen."""
        match self.distribution:
            case Choice(options=options):
                return options[chosen]
            case _:
                return chosen


@dataclass(frozen=True)
class Branch:
    """One defense with the places of it that are searched.

    Attributes:
        label: Its name in the study.
        node: The defense, shorthands written out, with distributions in it.
        parameters: The places.
        mark: Where it is written.
    """

    label: str
    node: Node
    parameters: tuple[Parameter, ...]
    mark: Mark

    def filled(self, chosen: Mapping[str, Scalar]) -> Node:
        """Return the defense with a value in every place, by the parameters' names."""
        node = self.node
        for parameter in self.parameters:
            node = _with(node, parameter.path, parameter.value(chosen[parameter.name]))
        return node

    def corners(self) -> Iterator[Node]:
        """Yield the defense with every parameter at its first value, then with each at its other ones."""
        first = {p.path: p.distribution.extremes[0] for p in self.parameters}
        yield self._at(first)
        for parameter in self.parameters:
            for other in parameter.distribution.extremes[1:]:
                yield self._at({**first, parameter.path: other})

    def _at(self, values: Mapping[tuple[str, ...], JSON]) -> Node:
        node = self.node
        for path, value in values.items():
            node = _with(node, path, value)
        return node


@dataclass(frozen=True)
class Space:
    """The defenses of a study.

    Attributes:
        branches: By label.
    """

    branches: Mapping[str, Branch]

    def plain(self) -> JSON:
        """Return what tells this space from others."""
        return {label: branch.node.plain() for label, branch in self.branches.items()}


def read_space(node: Node, problems: Problems) -> Space:
    """Return the space that a mapping of defenses describes; mistakes go to `problems`."""
    if not node.entries:
        got = "nothing" if node.value == {} else shown(node.plain())
        message = "expected {defense: {field: distribution}}, e.g. {gaussian: {noise_budget: {float: ...}}}"
        problems.add(node.mark, f"{message}, got {got}")
        return Space({})
    branches = {}
    for label, body in node.entries.items():
        branch = _branch(label, body, node.keys[label], problems)
        if branch is not None:
            branches[label] = branch
    if len(branches) == len(node.entries) == 1 and not any(b.parameters for b in branches.values()):
        problems.add(node.mark, "expected something to search: a distribution, or several defenses")
    return Space(branches)


def _branch(label: str, body: Node, mark: Mark, problems: Problems) -> Branch | None:
    if body.value is not None and not isinstance(body.value, dict):
        problems.add(mark, f"expected a mapping of the defense's fields, got {shown(body.plain())}")
        return None
    before = len(problems)
    node = Node({}, mark)
    for key, child in body.entries.items():
        node = merge(node, nested(key.split("."), child, body.keys[key]))
    if not {"name", "chain"} & node.entries.keys():
        name = Node(label, mark)
        node = Node({"name": name, **node.entries}, mark, {"name": mark, **node.keys})
    node = written_out(DEFENSE, node)
    parameters = [
        Parameter(f"{label}.{'.'.join(path)}", path, distribution, at)
        for path, distribution, at in _distributions(node, (), problems)
    ]
    return Branch(label, node, tuple(parameters), mark) if len(problems) == before else None


def _is_distribution(node: Node) -> bool:
    return any(kind in node.entries for kind in KINDS)


def _distributions(
    node: Node, path: tuple[str, ...], problems: Problems
) -> Iterator[tuple[tuple[str, ...], Distribution, Mark]]:
    if _is_distribution(node):
        distribution = _read(node, problems)
        if distribution is not None:
            yield path, distribution, node.mark
    elif is_sweep(node):
        message = "expected a distribution {float: ...}, {int: ...} or {choice: ...} in a search space"
        problems.add(node.mark, f"{message}, got a sweep")
    else:
        for key, child in node.entries.items():
            yield from _distributions(child, (*path, key), problems)
        for position, child in enumerate(node.items):
            yield from _distributions(child, (*path, str(position)), problems)


def _read(node: Node, problems: Problems) -> Distribution | None:
    kinds = [kind for kind in KINDS if kind in node.entries]
    if len(kinds) > 1:
        problems.add(node.mark, f"expected one distribution, got {' and '.join(kinds)}")
        return None
    allowed = kinds if kinds == ["choice"] else [*kinds, "log", "step"]
    for key in node.entries:
        if key not in allowed:
            problems.add(node.keys[key], unknown_key(key, allowed))
    return _choice(node, problems) if kinds == ["choice"] else _range(node, kinds[0], problems)


def _choice(node: Node, problems: Problems) -> Choice | None:
    options = node.entries["choice"]
    found: dict[Scalar, JSON] = {}
    for item in options.items:
        plain = item.plain()
        name = canonical_json(plain) if isinstance(plain, dict | list) else plain
        if any(name == other and type(name) is type(other) for other in found):
            problems.add(item.mark, f"expected every option once, got {shown(plain)} again")
        found[name] = plain
    if len(found) < 2 and len(options.items) < 2:
        problems.add(options.mark, f"expected at least two options, got {shown(options.plain())}")
    return Choice(found) if found else None


def _range(node: Node, kind: str, problems: Problems) -> Range | None:
    ends, before = node.entries[kind], len(problems)
    values = [item.value for item in ends.items]
    whole = kind == "int"
    if len(values) != 2 or not all(is_number(v) and (isinstance(v, int) or not whole) for v in values):
        problems.add(ends.mark, f"expected {kind}: [low, high], got {ends.plain()}")
        return None
    low, high = (float(str(value)) for value in values)
    log, step = (node.entries.get(key, Node(None, node.mark)) for key in ("log", "step"))
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        problems.add(ends.mark, f"expected two finite ends, the lower one first, got {ends.plain()}")
    if log.value not in (None, True, False):
        problems.add(log.mark, f"expected true or false, got {shown(log.plain())}")
    elif log.value and low <= 0:
        problems.add(ends.mark, f"expected ends > 0 with log: true, got {ends.plain()}")
    size = step.value
    if size is not None and not (is_number(size) and size > 0 and (isinstance(size, int) or not whole)):
        problems.add(step.mark, f"expected {'an integer' if whole else 'a number'} > 0, got {shown(size)}")
    elif size is not None and log.value:
        problems.add(step.mark, "expected log or step, got both")
    if len(problems) > before:
        return None
    return Range(low, high, whole, bool(log.value), None if size is None else float(str(size)))


def _with(node: Node, path: tuple[str, ...], value: JSON) -> Node:
    """Return `node` with a value at a path that it has."""
    if not path:
        return node_of(value, node.mark)
    head, *rest = path
    if node.items:
        items = [
            _with(item, tuple(rest), value) if i == int(head) else item for i, item in enumerate(node.items)
        ]
        return Node(tuple(items), node.mark)
    return Node({**node.entries, head: _with(node.entries[head], tuple(rest), value)}, node.mark, node.keys)
