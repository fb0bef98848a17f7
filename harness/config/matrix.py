"""The matrix: a validated document whose cells, times its seeds, are the trials."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from fl.specs import JSON, TrialSpec
from harness.config.axes import below, over, read_axes, read_cell
from harness.config.build import REPLACED, Builder
from harness.config.documents import merged, read_documents
from harness.config.plugins import Plugins, installed
from harness.config.problems import Problems, shown, unknown_key
from harness.config.product import Product, product
from harness.config.rules import RULE_KEYS, Pattern, Rule, Rules, unknown_path
from harness.config.sections import Cell, Pools
from harness.config.settings import Settings, read_settings
from harness.config.yaml_loader import Mark, Node

MAX_CELLS = 10_000_000
TOP_LEVEL = (
    "version", "name", "extends", "seeds", "defaults", "matrix", "exclude", "include", "resources", "store",
    "max_failures", "metrics",
)  # fmt: skip


@dataclass(frozen=True)
class Matrix:
    """A resolved matrix; what its cells share is built once.

    Attributes:
        path: The file.
        mark: Where its cells are described, for messages about all of them.
        document: The document as plain JSON, `extends` merged in.
        settings: Name, seeds and everything that is no part of a trial's identity.
        pools: The distinct variants of every section.
        product: The cells of the axes' product.
        exclude: Rules that remove cells from the product.
        include: Further cells.
        plugins: Where plug-ins are looked up.
    """

    path: str
    mark: Mark
    document: Mapping[str, JSON]
    settings: Settings
    pools: Pools
    product: Product
    exclude: Rules
    include: tuple[Cell, ...]
    plugins: Plugins

    @property
    def name(self) -> str:
        """The experiment's name."""
        return self.settings.name

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seed values."""
        return self.settings.seeds

    def trials(self) -> Iterator[tuple[Cell, int]]:
        """Yield every cell with every seed: all cells under the first seed, then under the next."""
        masks = [(cell, self.exclude.of_cell(cell)) for cell in self.product]
        for index, seed in enumerate(self.seeds):
            excluded = self.exclude.of_seed(index)
            for cell, mask in masks:
                if not mask & excluded:
                    yield cell, seed
            for cell in self.include:
                yield cell, seed

    def expand(self) -> Iterator[TrialSpec]:
        """Yield the spec of every trial, in the order of `trials`."""
        for cell, seed in self.trials():
            yield self.pools.spec(cell, seed)


def load_matrix(path: str | Path, *, plugins: Plugins | None = None) -> Matrix:
    """Read, validate and resolve a matrix; neither torch nor data is loaded.

    Args:
        path: The file.
        plugins: Where plug-ins are looked up; all installed ones by default.

    Raises:
        ConfigError: With every mistake in the file (and in the one it extends).
    """
    return resolve_matrix(read_documents(path), path=path, plugins=plugins or installed())


def resolve_matrix(parts: list[Node], *, path: str | Path, plugins: Plugins) -> Matrix:
    """Validate and resolve a matrix that is read.

    Args:
        parts: The document, with the one it extends before it (`documents.read_documents`).
        path: The file, for `Matrix.path`.
        plugins: Where plug-ins are looked up.

    Raises:
        ConfigError: With every mistake in it.
    """
    problems = Problems()
    document = merged(parts)
    for part in parts:
        for key in part.entries:
            if key not in TOP_LEVEL:
                problems.add(part.keys[key], unknown_key(key, TOP_LEVEL))
    settings = read_settings(document, plugins, problems)
    axes_node = _mapping(document, "matrix", problems)
    builder = Builder(plugins, problems, budgets=_budgets(axes_node, problems))
    defaults = _defaults(parts, builder)
    cells = _product(builder, defaults, axes_node)
    _check_budgets(builder, axes_node)
    included = _include(builder, defaults, document)
    read = _read_rules(document, problems)
    problems.raise_if_any()
    rules = Rules(tuple(read), builder.pools, settings.seeds)
    _check_rules(document, rules, cells, problems)
    include = _distinct(included, cells, rules, axes_node.mark, problems)
    _check_any_left(cells, rules, include, axes_node.mark, problems)
    problems.raise_if_any()
    plain = {
        **document.entries,
        "defaults": Node(defaults, document.mark),
        "name": Node(settings.name, document.mark),
    }
    resolved = {key: node.plain() for key, node in plain.items()}
    return Matrix(
        str(path), axes_node.mark, resolved, settings, builder.pools, cells, rules, include, plugins
    )


def _mapping(document: Node, key: str, problems: Problems) -> Node:
    node = document.entries.get(key, Node({}, document.mark))
    if not isinstance(node.value, dict):
        problems.add(node.mark, f"expected a mapping, got {shown(node.plain())}")
    return node


def _budgets(matrix: Node, problems: Problems) -> dict[str, Node]:
    """Return the axis `noise_budget`: what each defense is swept over."""
    node = matrix.entries.get("noise_budget")
    if node is None:
        return {}
    if not isinstance(node.value, dict) or not node.value:
        message = "expected {defense: [numbers] or auto}, as every defense has its own unit"
        problems.add(node.mark, f"{message}; got {shown(node.plain())}")
    return node.entries


def _defaults(parts: list[Node], builder: Builder) -> dict[str, Node]:
    defaults: dict[str, Node] = {}
    before = len(builder.problems)
    for part in parts:
        node = part.entries.get("defaults", Node({}, part.mark))
        own = read_cell(node, builder.problems)
        _check_observation(builder.problems, set(own), node)
        defaults = over(defaults, own)
    builder.complete = len(builder.problems) == before
    return defaults


def _product(builder: Builder, defaults: Mapping[str, Node], matrix: Node) -> Product:
    if not matrix.entries:
        return Product(())
    before = len(builder.problems)
    axes = read_axes(matrix, builder.problems)
    touched = frozenset[str]().union(*(axis.sections for axis in axes))
    _check_observation(builder.problems, set(touched), matrix)
    builder = replace(builder, complete=builder.complete and len(builder.problems) == before)
    found = product(builder, below(defaults, touched), axes, matrix)
    if len(found) > MAX_CELLS:
        builder.problems.add(matrix.mark, f"expected at most {MAX_CELLS:,} cells, got {len(found):,}")
    return found


def _check_observation(problems: Problems, sections: set[str], at: Node) -> None:
    clash = sorted(sections & set(REPLACED))
    if "recorded" in sections and clash:
        message = f"observation takes the place of data, model and federation; got {', '.join(clash)} as well"
        problems.add(at.mark, message)


def _check_budgets(builder: Builder, matrix: Node) -> None:
    node = matrix.entries.get("noise_budget")
    if node is None:
        return
    for name in node.entries:
        if name not in builder.plugins.defenses:
            builder.problems.add(node.keys[name], builder.plugins.defenses.unknown(name))
        elif name not in builder.budgeted and not len(builder.problems):
            builder.problems.add(node.keys[name], f"expected a cell with the defense {name!r}, got none")


def _include(builder: Builder, defaults: Mapping[str, Node], document: Node) -> list[tuple[Cell, Mark]]:
    """Return the cells that `include` adds; the matrix's axes do not apply to them."""
    problems = builder.problems
    found = []
    for item in _items(document, "include", problems):
        before = len(problems)
        own = read_cell(item, problems)
        _check_observation(problems, set(own), item)
        complete = builder.complete and len(problems) == before
        cells = product(replace(builder, budgets={}, complete=complete), over(defaults, own), [], item)
        found += [(cell, item.mark) for cell in cells]
    return found


def _items(document: Node, key: str, problems: Problems) -> tuple[Node, ...]:
    node = document.entries.get(key)
    if node is not None and not isinstance(node.value, tuple):
        problems.add(node.mark, f"expected a list of mappings, got {shown(node.plain())}")
    return node.items if node is not None else ()


def _read_rules(document: Node, problems: Problems) -> list[Rule]:
    """Return the rules under `exclude`, of which only the sections they name have been checked."""
    rules = []
    for item in _items(document, "exclude", problems):
        patterns = tuple(Pattern(key, child.plain()) for key, child in item.entries.items())
        if not patterns:
            problems.add(item.mark, f"expected keys and values of cells, got {shown(item.plain())}")
        for pattern in patterns:
            if pattern.key.split(".")[0] not in RULE_KEYS:
                problems.add(item.keys[pattern.key], unknown_key(pattern.key, RULE_KEYS))
        rules.append(Rule(patterns))
    return rules


def _check_rules(document: Node, rules: Rules, cells: Product, problems: Problems) -> None:
    items = _items(document, "exclude", problems)
    for item, rule in zip(items, rules.rules, strict=True):
        for pattern in rule.patterns:
            message = unknown_path(pattern, rules.pools)
            if message is not None:
                problems.add(item.keys[pattern.key], message)
    if not len(problems):
        for index in rules.unmatched(cells):
            problems.add(items[index].mark, "expected to leave out at least one cell, matches none")


def _distinct(
    included: list[tuple[Cell, Mark]], cells: Product, rules: Rules, matrix: Mark, problems: Problems
) -> tuple[Cell, ...]:
    """Return the included cells; one that is there already is a mistake."""
    seen: dict[Cell, Mark] = {}
    for cell, mark in included:
        if cell in cells and _is_left(cell, rules):
            problems.add(mark, f"expected a new cell, got one of the product of line {matrix.line} again")
        elif cell in seen:
            problems.add(mark, f"expected a new cell, got that of line {seen[cell].line} again")
        seen.setdefault(cell, mark)
    return tuple(seen)


def _is_left(cell: Cell, rules: Rules) -> bool:
    """Whether a cell of the product stays under at least one seed."""
    mask = rules.of_cell(cell)
    return any(not mask & rules.of_seed(index) for index in range(len(rules.seeds)))


def _check_any_left(
    cells: Product, rules: Rules, include: tuple[Cell, ...], matrix: Mark, problems: Problems
) -> None:
    if include or len(problems) or any(_is_left(cell, rules) for cell in cells):
        return
    reason = (
        "`exclude` removes all of them" if cells.blocks else "there is no axis, and nothing under include"
    )
    problems.add(matrix, f"expected at least one cell, got none: {reason}")
