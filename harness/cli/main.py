"""`bench`: its commands, each imported only when it is asked for, and what every error leads to."""

from __future__ import annotations

import importlib
import os
import sys
import tempfile
import traceback
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NoReturn

import click

from fl.errors import BenchError

COMMANDS = (
    *(
        "init",
        "run",
        "tune",
        "plan",
        "validate",
        "ls",
        "show",
        "report",
        "compare",
        "diff",
        "score",
        "export",
        "data",
        "weights",
        "record",
        "doctor",
    ),
    *("calibrate", "schema"),
)
"""In the order in which a newcomer meets them."""

STOPPED = 130


class _Commands(click.Group):
    """Commands that live in a module of their own, named after them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(f"harness.cli.{cmd_name}").command
        return command


@click.group(
    cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.version_option(package_name="leakbench", prog_name="bench")
def bench() -> None:
    """Measure how much of their private images federated-learning clients leak, and what stopping it costs.

    \b
    A first run:
      bench plan configs/quickstart.yaml     what would run, and how long it takes
      bench run configs/quickstart.yaml      run it; again: only what is missing or new
      bench show results/quickstart          what leaked

    \b
    What a matrix can name:
      bench ls attacks                       all of a kind
      bench show attack dlg                  one of them, with its options

    Exit codes: 0 complete; 1 at least one trial failed, or an error; 2 usage or configuration;
    3 stopped before the end with none failed; 130 stopped at once by a second Ctrl-C.
    """


def main() -> NoReturn:
    """Run `bench` with the arguments of this process and exit."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Run `bench` with `arguments` and return its exit code; errors for the user go to stderr in words."""
    try:
        result = bench.main(args=list(arguments), prog_name="bench", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        return STOPPED
    except BenchError as error:
        click.echo(f"error: {error}", err=True)
        return error.exit_code
    except Exception as error:
        click.echo(f"error: unexpected {type(error).__name__}: {error}\n{_kept_traceback()}", err=True)
        return 1
    return result if isinstance(result, int) else 0


def _kept_traceback() -> str:
    """Write the current traceback to a file and return a line that says where it is."""
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S")
    path = Path(tempfile.gettempdir(), f"bench-{stamp}-{os.getpid()}.log")
    try:
        path.write_text(f"bench {' '.join(sys.argv[1:])}\n\n{traceback.format_exc()}", encoding="utf-8")
    except OSError:
        return traceback.format_exc()
    return f"This is a bug in leakbench or in a plug-in. The traceback is in {path}"
