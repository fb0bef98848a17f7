"""`python -m benchmarks.defended_round`: the cost of ShadowDef, and what computing in batches saves."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import torch

import fl.data
from benchmarks.measure import timed
from benchmarks.report import machine, markdown, replace_marked
from defenses.base import Defense
from defenses.cards_shadowdef import GENERATOR, ShadowDefConfig
from defenses.shadowdef.defense import ShadowDef
from defenses.shadowdef.latents import fit_latents
from defenses.shadowdef.saliency import saliency
from defenses.shadowdef.shadow import public_shadow
from fl.errors import BenchError
from fl.federation import Federation
from fl.generators import stage
from fl.models import MODELS
from fl.seeds import Streams
from fl.specs import JSON, FederationSpec, NoConfig, Plugin
from fl.stage_context import StageContext
from fl.types import Artifact
from harness.execute.lane import single_thread

if TYPE_CHECKING:
    from fl.data.base import Dataset

BLOCKS = 5
SIZE = 28
IMAGES, BATCH, CLIENTS = 8, 4, 3
BATCHES = (1, 4, 8)
CONFIG = ShadowDefConfig.model_validate(
    {
        "shadow_final": 2,
        "latent_steps": 100,
        "latent_lr": 0.05,
        "generator": {"latent": 32, "width": 8, "steps": 20},
    }
)
"""For small images (`docs/defenses/shadowdef.md`); a generator costs the same however it was trained."""

ROUNDS = (
    "images are new: latent vectors are fitted, the shadow is tuned",
    "images are known: the shadow is tuned",
    "the shadow rests: maps are kept",
)
HEADINGS = ("round", "plain, CPU s", "defended, CPU s", "ratio")
BATCH_HEADINGS = ("work", "images", "one by one, CPU ms", "together, CPU ms", "gain")


@dataclass
class Pair:
    """CPU seconds of the same work done in two ways, in turn.

    Attributes:
        what: The work.
        images: How many it is about, or 0.
        slow: One by one; or defended.
        fast: Together; or plain.
    """

    what: str
    images: int = 0
    slow: list[float] = field(default_factory=list)
    fast: list[float] = field(default_factory=list)

    def row(self) -> dict[str, Any]:
        """Return the medians and their ratio."""
        slow, fast = statistics.median(self.slow), statistics.median(self.fast)
        return {
            "what": self.what,
            "images": self.images,
            "slow_s": slow,
            "fast_s": fast,
            "ratio": slow / fast,
        }


def rounds(blocks: int, data: Dataset, artifact: Artifact) -> list[Pair]:
    """Measure the rounds of a federation with and without the defense, in turn."""
    pairs = [Pair(what) for what in ROUNDS]
    for _ in range(blocks):
        plain = _federation(data, Defense(NoConfig()), {}).run()
        defended = _federation(data, ShadowDef(CONFIG), {GENERATOR: artifact}).run()
        for pair in pairs:
            pair.fast.append(timed(lambda: next(plain))[1])  # noqa: B023
            pair.slow.append(timed(lambda: next(defended))[1])  # noqa: B023
    return pairs


def batches(blocks: int, data: Dataset, artifact: Artifact) -> list[Pair]:
    """Measure latent fits and Grad-CAM++ of batches, one image at a time and together, in turn."""
    federation = _federation(data, Defense(NoConfig()), {})
    model = federation.build(federation.initial().model).eval()
    image, task = federation.architecture.image, data.info.task
    shadow = public_shadow(artifact, CONFIG, Streams(0), torch.device("cpu"))
    private = data.part("private")
    pairs = []
    for n in BATCHES:
        images, labels = private.images(range(n)), private.labels[:n]
        start = torch.randn(n, shadow.latent, generator=Streams(0).torch("latents"))

        def fit(chosen: slice, images: torch.Tensor = images, start: torch.Tensor = start) -> object:
            return fit_latents(shadow, images[chosen], start[chosen], config=CONFIG, image=image)

        def look(chosen: slice, images: torch.Tensor = images, labels: torch.Tensor = labels) -> object:
            inputs = image.normalise(images[chosen])
            return saliency(model, inputs, labels[chosen], config=CONFIG, task=task, round_=0)

        pairs += [_compare("latent vectors", fit, n, blocks), _compare("Grad-CAM++", look, n, blocks)]
    return sorted(pairs, key=lambda pair: pair.what)


def render(document: str, defended: list[Pair], batched: list[Pair]) -> str:
    """Return a document with the tables between the markers `defended` and `batched`.

    Raises:
        UsageError: If a marker is missing.
    """
    rows = [pair.row() for pair in defended]
    table = [(r["what"], f"{r['fast_s']:.2f}", f"{r['slow_s']:.2f}", f"**{r['ratio']:.1f}**") for r in rows]
    document = replace_marked(document, "defended", markdown(HEADINGS, table))
    rows = [pair.row() for pair in batched]
    lines = [
        (
            r["what"],
            str(r["images"]),
            f"{1000 * r['slow_s']:.0f}",
            f"{1000 * r['fast_s']:.0f}",
            f"**{r['ratio']:.1f}**",
        )
        for r in rows
    ]
    return replace_marked(document, "batched", markdown(BATCH_HEADINGS, lines))


def _compare(what: str, work: Callable[[slice], object], n: int, blocks: int) -> Pair:
    pair = Pair(what, n)
    work(slice(0, 1))  # the first call sets things up
    for _ in range(blocks):
        pair.slow.append(timed(lambda: [work(slice(i, i + 1)) for i in range(n)])[1])
        pair.fast.append(timed(lambda: work(slice(0, n)))[1])
    return pair


def _federation(data: Dataset, defense: Defense[Any], artifacts: dict[str, Artifact]) -> Federation:
    card = MODELS.get("resnet20")
    return Federation(
        data=data,
        model=Plugin(card.name, card.version, card.config()),
        spec=FederationSpec.model_validate(
            {
                "algorithm": "fedavg",
                "clients": CLIENTS,
                "rounds": len(ROUNDS),
                "batch_size": BATCH,
                "local_epochs": 1,
                "partition": {"name": "sizes", "sizes": [IMAGES] * CLIENTS},
                "lr": 0.01,
            }
        ),
        defense=defense,
        streams=Streams(0),
        artifacts=artifacts,
    )


def _photographs() -> Dataset:
    card = fl.data.DATASETS.get("photographs")
    config = card.config.model_validate({"size": SIZE, "normalise": "dataset"})
    return fl.data.load(Plugin(card.name, card.version, config))


def _generator(data: Dataset) -> Artifact:
    context = StageContext(
        streams=Streams(0),
        device=torch.device("cpu"),
        public=fl.data.public_data(data),
        build=lambda state: torch.nn.Identity(),
        progress=lambda share, word: None,
    )
    needs: dict[str, JSON] = {
        "generator": CONFIG.generator.resolved(),
        "image": [data.info.channels, data.info.size],
    }
    return stage.train(needs, {}, context)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--blocks", type=click.IntRange(min=1), default=BLOCKS, show_default=True, help="Pairs per row."
)
@click.option(
    "--results", default="results/benchmarks", show_default=True, help="Folder of the Parquet file."
)
@click.option("--document", help="Markdown file whose tables are replaced; none by default.")
def main(*, blocks: int, results: str, document: str | None) -> None:
    """Measure rounds with and without ShadowDef in turn, in one process with one thread."""
    import pandas as pd

    single_thread()
    data = _photographs()
    artifact = _generator(data)
    defended, batched = rounds(blocks, data, artifact), batches(blocks, data, artifact)
    about = machine()
    table = pd.DataFrame([{**pair.row(), **about} for pair in (*defended, *batched)])
    folder = Path(results)
    folder.mkdir(parents=True, exist_ok=True)
    table.to_parquet(folder / "defended_round.parquet", index=False)
    click.echo(table[["what", "images", "slow_s", "fast_s", "ratio"]].to_string(index=False))
    if document:
        path = Path(document)
        try:
            path.write_text(render(path.read_text(encoding="utf-8"), defended, batched), encoding="utf-8")
        except BenchError as error:
            raise click.ClickException(str(error)) from error


if __name__ == "__main__":
    main()
