"""`bench doctor`: what this machine can run, and what stands in the way."""

from __future__ import annotations

from pathlib import Path

import click

from harness.cli.output import console, emit_json, json_option

COLOURS = {"ok": "green", "note": "yellow", "problem": "red"}


@click.command("doctor", short_help="Check this machine: what works, what is missing, how to get it.")
@click.option(
    "--results", default="results", show_default=True, metavar="DIR", help="Where results would go."
)
@click.option("--ray/--no-ray", default=True, help="Whether to start a private Ray for a moment.")
@json_option
def command(results: str, ray: bool, as_json: bool) -> int:
    """Try what a run needs: packages, torch, GPU, memory, folders, plug-ins, weights, data, network, Ray.

    `ok` works, `note` works with something less, `problem` will fail. Exit code 1 if there is a problem.

    \b
    Examples:
      bench doctor
      bench doctor --json --no-ray
    """
    from rich.markup import escape

    from harness.doctor import findings

    out, found = console(), []
    for finding in findings(Path(results), ray=ray):
        found.append(finding)
        if not as_json:
            advice = f" -> {finding.advice}" if finding.advice else ""
            verdict = f"[{COLOURS[finding.verdict]}]{finding.verdict:<9}[/]"
            out.print(f"{verdict}{finding.check:<15}{escape(finding.found + advice)}")
    if as_json:
        emit_json([finding._asdict() for finding in found])
    return int(any(finding.verdict == "problem" for finding in found))
