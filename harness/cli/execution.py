"""The options that say where trials are computed and what is seen of it, shared by `run` and `tune`."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rich.console import Console

    from harness.cli.display import ProgressStyle
    from harness.execute.executor import DeviceChoice, Executor, LaneSettings


@dataclass(frozen=True)
class Execution:
    """How a command computes trials.

    Attributes:
        executor: `ray` or `inline`.
        address: Of the Ray cluster to join.
        workers: How many lanes Ray has; None for one per core.
        device: Where lanes compute.
        max_failures: How many trials may fail before it stops; None for any number.
        progress: How it shows what happens; None where the terminal decides.
    """

    executor: str
    address: str | None
    workers: int | None
    device: DeviceChoice
    max_failures: int | None
    progress: ProgressStyle | None

    def choose(self) -> Callable[[LaneSettings], Executor]:
        """Return how to make the executor.

        Raises:
            UsageError: If the options do not belong to it, or Ray is not installed.
        """
        from harness.execute.session import choose_executor

        return choose_executor(self.executor, workers=self.workers, address=self.address)

    def style(self, screen: Console) -> ProgressStyle:
        """Return how to show what happens on a terminal."""
        from harness.cli.display import style_for

        return self.progress or style_for(screen)


_OPTIONS = (
    click.option(
        "--executor",
        type=click.Choice(["ray", "inline"]),
        default="ray",
        show_default=True,
        help="ray: all cores, or a cluster; inline: this process, without ray. Results are the same.",
    ),
    click.option(
        "--address", help="Ray: the cluster to join, e.g. auto; by default Ray starts on this machine."
    ),
    click.option(
        "--workers", type=click.IntRange(min=1), help="Ray: how many lanes; by default one per core."
    ),
    click.option(
        "--device",
        type=click.Choice(["auto", "cpu", "cuda"]),
        default="auto",
        show_default=True,
        help="auto: a GPU where there is one; cuda: an error where there is none.",
    ),
    click.option(
        "--max-failures", type=click.IntRange(min=0), help="Stop once more trials than this failed."
    ),
    click.option(
        "--progress",
        type=click.Choice(["rich", "plain", "none"]),
        help="By default rich on a terminal, plain elsewhere and where CI or NO_COLOR is set.",
    ),
    click.option("-v", "--verbose", count=True, help="Log what happens to stderr; -vv: in detail."),
)


def execution_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options to a command, hand them over as one `execution`, and log as they say."""

    @wraps(function)
    def wrapped(
        *,
        executor: Any,
        address: Any,
        workers: Any,
        device: Any,
        max_failures: Any,
        progress: Any,
        verbose: int,
        **others: Any,
    ) -> Any:
        _log_to_stderr(verbose)
        execution = Execution(executor, address, workers, device, max_failures, progress)
        return function(execution=execution, **others)

    for option in reversed(_OPTIONS):
        wrapped = option(wrapped)
    return wrapped


def _log_to_stderr(verbose: int) -> None:
    """Log to stderr: nothing, what happens (1), or that in detail (2)."""
    if verbose:
        level = logging.INFO if verbose == 1 else logging.DEBUG
        logging.basicConfig(level=level, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
