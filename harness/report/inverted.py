"""What attacks made of models: the first images of the first seeds, as they came."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import pandas as pd

from harness.analysis.floors import floors
from harness.analysis.labels import attack_of
from harness.report.words import number

if TYPE_CHECKING:
    from harness.report.pictures import Album, Picture

SEEDS = 5
"""Seeds whose images are shown: the first, whatever they show."""
ROW = ["circumstances", "defense_label", "noise_budget", "attack_label", "attacker", "round"]


class Sample(NamedTuple):
    """An image that an attack made of a class.

    Attributes:
        image: The image.
        nearest: The private image of the class that is nearest to it; None where the row has none.
        caption: The class, and what the evaluator took the image for.
        hit: Whether that is the class; None where there was no evaluator, or the image is not finite.
    """

    image: Picture
    nearest: Picture | None
    caption: str
    hit: bool | None


class SampleRow(NamedTuple):
    """Images of one attack on one defense at one round, a seed each; None where a seed has none."""

    circumstances: str
    defense: str
    noise_budget: float
    attack: str
    round: int
    samples: tuple[Sample | None, ...]


def first_seeds(trials: pd.DataFrame) -> tuple[int, ...]:
    """Return the seeds whose images are shown."""
    return tuple(sorted(int(seed) for seed in trials["seed"].unique())[:SEEDS])


def sample_rows(album: Album, trials: pd.DataFrame, seeds: Sequence[int]) -> Iterator[SampleRow]:
    """Yield the images of every attack, defense and round; floors come last.

    Nothing is chosen by how it looks: of the first seed the first image of its first label, of the next seed
    that of its second label, and so on.

    Args:
        album: The pictures.
        trials: A setting's complete trials, with labels.
        seeds: Of which seeds.
    """
    ordered = trials.assign(floor=trials["attack"].isin(floors()), defended=trials["defense"] != "none")
    order = [ROW[0], "defended", *ROW[1:3], "floor", *ROW[3:], "trial_id"]
    for _, cell in ordered.sort_values(order).groupby(ROW, sort=False):
        first = cell.iloc[0]
        by_seed = cell.drop_duplicates("seed").set_index("seed")["trial_id"]
        samples = [_sample(album, by_seed.get(seed), number) for number, seed in enumerate(seeds)]
        if any(samples):
            yield SampleRow(
                circumstances=first["circumstances"],
                defense=first["defense_label"],
                noise_budget=float(first["noise_budget"]),
                attack=attack_of(first["attack_label"], first["attacker"]),
                round=int(first["round"]),
                samples=tuple(samples),
            )


def _sample(album: Album, trial: str | None, place: int) -> Sample | None:
    """Return the first image of a trial's label at `place`, counted round; None if it has no images."""
    images = album.images(trial or "").sort_values(["target_id", "reconstruction_index"])
    if not len(images):
        return None
    firsts = images.drop_duplicates("target_id")
    row = firsts.iloc[place % len(firsts)].to_dict()
    caption, hit = _caption(row)
    nearest = (
        None if row.get("original") is None else album.picture(row["original"], "the nearest private image")
    )
    return Sample(album.picture(row["png"], caption), nearest, caption, hit)


def _caption(row: Mapping[Any, Any]) -> tuple[str, bool | None]:
    label = row["true_label"]
    taken, confidence, hit = (row.get(name) for name in ("evaluator_label", "evaluator_confidence", "hit"))
    if taken is None or taken is pd.NA:
        return f"{label}", None
    what = "hit" if hit else f"taken for {taken}"
    return f"{label}: {what}, {number(confidence, 2)}", bool(hit)
