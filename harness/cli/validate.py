"""`bench validate`: every mistake in a matrix at once, nothing run."""

from __future__ import annotations

import click

from fl.errors import ConfigError
from harness.cli.output import emit_json, json_option


@click.command("validate", short_help="Check a matrix: all mistakes at once, with file and line.")
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@json_option
def command(files: tuple[str, ...], as_json: bool) -> int:
    """Check matrices without running them; neither torch nor data is loaded.

    Every mistake is one line: `file:line: key: what is wrong and what would be right`. Exit code 2 if there
    is any.

    \b
    Examples:
      bench validate configs/quickstart.yaml
      bench validate configs/*.yaml --json
    """
    from harness.config.matrix import load_matrix

    mistakes, counted = [], {}
    for file in files:
        try:
            counted[file] = sum(1 for _ in load_matrix(file).trials())
        except ConfigError as error:
            mistakes += error.problems
    if as_json:
        problems = [{"path": m.path, "line": m.line, "key": m.key, "message": m.message} for m in mistakes]
        emit_json({"valid": not mistakes, "problems": problems})
    else:
        for file, trials in counted.items():
            click.echo(f"{file}: valid, {trials:,} trials")
        for mistake in mistakes:
            click.echo(str(mistake), err=True)
    return ConfigError.exit_code if mistakes else 0
