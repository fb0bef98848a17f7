"""The options that choose trials and the results folder, shared by `run` and `plan`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Any

import click


@dataclass(frozen=True)
class Selection:
    """Which trials a command is about.

    Attributes:
        results: Folder of all experiments.
        only: Expressions that trials must match.
        skip: Expressions that they must not match.
        seeds: Seeds to keep; none for all.
        limit: Largest number of trials to run.
    """

    results: str
    only: tuple[str, ...]
    skip: tuple[str, ...]
    seeds: tuple[int, ...]
    limit: int | None


class _Seeds(click.ParamType[tuple[int, ...]]):
    """Seeds with commas between them."""

    name = "seeds"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, ...]:
        if isinstance(value, tuple):
            return value
        try:
            return tuple(int(part) for part in str(value).split(","))
        except ValueError:
            self.fail(f"expected seeds such as 0,1,2, got {value!r}", param, ctx)


_OPTIONS = (
    click.option(
        "--results",
        default="results",
        show_default=True,
        metavar="DIR",
        help="Folder of all experiments; this one's is DIR/<name>.",
    ),
    click.option(
        "--only",
        multiple=True,
        metavar="KEY=VALUE",
        help="Keep trials that match, e.g. attack=dlg or 'defense=gauss*,noise_budget=0.01'.",
    ),
    click.option("--skip", multiple=True, metavar="KEY=VALUE", help="Leave out trials that match."),
    click.option("--seeds", type=_Seeds(), default=(), metavar="0,1,...", help="Keep these seeds."),
    click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Run at most N trials."),
)


def selection_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options to a command and hand them over as one `selection`."""

    @wraps(function)
    def wrapped(results: str, only: Any, skip: Any, seeds: Any, limit: Any, **others: Any) -> Any:
        return function(selection=Selection(results, only, skip, seeds, limit), **others)

    for option in reversed(_OPTIONS):
        wrapped = option(wrapped)
    return wrapped
