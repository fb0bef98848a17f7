"""`bench init`: a commented matrix to start from."""

from __future__ import annotations

import re
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fl.errors import UsageError
from harness.config.settings import NAME

if TYPE_CHECKING:
    from fl.cards import DataInfo

TEMPLATES = {
    "first": "noise against one attack on digits, about a minute",
    "federated": "leakage and accuracy over the rounds of a federated training, minutes",
    "images": "your own images; needs --images",
}
SIZES = (64, 32, 16)
"""Sides in pixels for a first try on one's own images; the largest that they have is taken."""


@click.command("init", short_help="Write a commented matrix to start from.")
@click.argument("file", default="matrix.yaml")
@click.option(
    "--template",
    type=click.Choice(list(TEMPLATES)),
    help="; ".join(f"{name}: {text}" for name, text in TEMPLATES.items()) + ". Default: first.",
)
@click.option("--images", metavar="DIR", help="A folder with a folder of images per class (template images).")
@click.option("--force", is_flag=True, help="Replace FILE if it exists.")
def command(file: str, template: str | None, images: str | None, force: bool) -> None:
    """Write FILE, by default matrix.yaml: a small matrix with comments, ready for `bench run`.

    \b
    Examples:
      bench init                              matrix.yaml, about a minute of work
      bench init study.yaml --template federated
      bench init xrays.yaml --images ~/xrays  the folder is looked at, and fitting sizes are filled in
    """
    template = template or ("images" if images else "first")
    if (template == "images") != (images is not None):
        raise UsageError("expected --template images together with --images DIR, got one without the other")
    target = Path(file)
    if target.exists() and not force:
        raise UsageError(f"expected a new file, got {file}, which exists; --force replaces it")
    if not re.fullmatch(NAME, target.stem):
        raise UsageError(f"expected a file name of letters, digits, '.', '_' and '-', got {target.name!r}")
    values = {"name": target.stem}
    if images is not None:
        values |= _of_images(Path(images))
    text = files("harness.cli").joinpath("templates", f"{template}.yaml").read_text(encoding="utf-8")
    for key, value in values.items():
        text = text.replace(f"{{{key}}}", value)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{file}: cannot be written: {error.strerror}") from error
    click.echo(f"wrote {file} ({TEMPLATES[template].partition(';')[0]})")
    click.echo(f"next: bench plan {file}, then bench run {file}; what else it can name: bench ls")


def _of_images(folder: Path) -> dict[str, str]:
    """Look at a folder of images and return what to fill in.

    Raises:
        BenchError: If it is not a data set.
    """
    import json

    info, size = _described(folder)
    if info.images["private"] < 4:
        raise UsageError(
            f"{folder}: expected at least 4 images in the private part, got {info.images['private']} of "
            f"{sum(info.images.values())} images"
        )
    counts = ", ".join(f"{count} {part}" for part, count in info.images.items())
    click.echo(f"{folder}: {info.task.classes} classes; {counts}")
    return {
        "size": str(size),
        "clients": str(min(info.images["private"] // 2, 10)),
        "root": json.dumps(str(folder), ensure_ascii=False),  # last: it may hold anything, such as {size}
    }


def _described(folder: Path) -> tuple[DataInfo, int]:
    """Return what `folder` holds at the largest of `SIZES` that its images have."""
    from fl.data import DATASETS

    card = DATASETS.get("folder")
    for size in SIZES:
        try:
            return card.describe(card.config(root=str(folder), size=size)), size
        except UsageError:
            if size == SIZES[-1]:
                raise
    raise AssertionError("SIZES is not empty")
