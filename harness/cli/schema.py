"""`bench schema`: the JSON Schema of a matrix, for editors."""

from __future__ import annotations

import click

from harness.cli.output import emit_json


@click.command("schema", short_help="Print the JSON Schema of a matrix, for editors.")
def command() -> None:
    """Print the JSON Schema of a matrix, with the options of every installed plug-in.

    An editor that knows it completes names and options and marks typing mistakes. That of the built-in
    plug-ins is `configs/matrix.schema.json`; with plug-ins of other packages, make your own. The editor finds
    it by a first line such as `# yaml-language-server: $schema=matrix.schema.json`.

    \b
    Example:
      bench schema > matrix.schema.json
    """
    from harness.config.json_schema import matrix_schema
    from harness.config.plugins import installed

    emit_json(matrix_schema(installed()))
