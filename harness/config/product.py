"""The product of a matrix's axes, as blocks of sections that vary together."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from harness.config.axes import Axis, AxisValue, apply
from harness.config.build import Builder
from harness.config.sections import SECTIONS, Cell
from harness.config.yaml_loader import Node

Rows = tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Block:
    """Sections that axes tie together, and their distinct combinations.

    Attributes:
        sections: Their names.
        rows: For each combination, the variant of each of them.
    """

    sections: tuple[str, ...]
    rows: Rows


@dataclass(frozen=True)
class Product:
    """The cells of the cartesian product of blocks; no two are alike.

    Attributes:
        blocks: Together they hold every section once, the last varying fastest; none for no cells.
    """

    blocks: tuple[Block, ...]

    def __len__(self) -> int:
        """Return the number of cells."""
        return math.prod(len(block.rows) for block in self.blocks) if self.blocks else 0

    def __iter__(self) -> Iterator[Cell]:
        """Yield every cell."""
        if not self.blocks:
            return
        order = [section for block in self.blocks for section in block.sections]
        places = [order.index(section) for section in SECTIONS]
        for rows in itertools.product(*(block.rows for block in self.blocks)):
            flat = tuple(itertools.chain.from_iterable(rows))
            yield Cell._make([flat[place] for place in places])

    def __contains__(self, cell: object) -> bool:
        """Whether the product holds `cell`."""
        if not self.blocks or not isinstance(cell, Cell):
            return False
        return all(
            tuple(getattr(cell, section) for section in block.sections) in block.rows for block in self.blocks
        )


def product(builder: Builder, defaults: Mapping[str, Node], axes: list[Axis], matrix: Node) -> Product:
    """Return the product of `axes` over `defaults`; mistakes go to the builder's problems.

    Args:
        builder: Builds what the cells are made of.
        defaults: What lies below every cell, by section.
        axes: The axes; without any, the one cell of the defaults (or several, if these hold sweeps).
        matrix: Where the cells are written.
    """
    recorded = "recorded" in defaults or any("recorded" in axis.sections for axis in axes)
    blocks = [_block(builder, defaults, group, matrix, recorded=recorded) for group in _tied(axes)]
    varied = {section for block in blocks for section in block.sections}
    for section in SECTIONS:
        if section not in varied:
            found = builder.variants(section, defaults.get(section), matrix, recorded=recorded)
            blocks.append(Block((section,), tuple((index,) for index in found)))
    return Product(tuple(blocks))


def _tied(axes: list[Axis]) -> list[list[Axis]]:
    """Group axes that touch a section in common, directly or through others."""
    groups: list[list[Axis]] = []
    for axis in axes:
        tied = [group for group in groups if any(axis.sections & other.sections for other in group)]
        merged = [other for group in tied for other in group] + [axis]
        groups = [group for group in groups if group not in tied] + [merged]
    return groups


def _block(
    builder: Builder, defaults: Mapping[str, Node], axes: list[Axis], matrix: Node, *, recorded: bool
) -> Block:
    touched = frozenset[str]().union(*(axis.sections for axis in axes))
    sections = tuple(section for section in SECTIONS if section in touched)
    known: dict[tuple[object, ...], list[int]] = {}
    rows: dict[tuple[int, ...], tuple[AxisValue, ...]] = {}
    for combination in itertools.product(*(axis.values for axis in axes)):
        choices = []
        for section in sections:
            values = tuple(
                value for axis, value in zip(axes, combination, strict=True) if section in axis.sections
            )
            key = (section, *map(id, values))
            if key not in known:
                node = apply(defaults, values, frozenset({section})).get(section)
                known[key] = builder.variants(section, node, matrix, recorded=recorded)
            choices.append(known[key])
        for row in itertools.product(*choices):
            if row in rows:
                _report_twice(builder, rows[row], combination)
            rows.setdefault(row, combination)
    return Block(sections, tuple(rows))


def _report_twice(builder: Builder, first: tuple[AxisValue, ...], again: tuple[AxisValue, ...]) -> None:
    one, other = next(
        ((one, other) for one, other in zip(first, again, strict=True) if one is not other),
        (first[0], again[0]),
    )
    builder.problems.add(
        other.mark,
        f"expected every cell once, got cells that the value on line {one.mark.line} gives already",
    )
