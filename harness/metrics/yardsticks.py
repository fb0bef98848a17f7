"""What a trial's reconstructions are measured against: alike for every attack on the same targets."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fl.seeds import Streams
from fl.types import PublicData
from harness.metrics.comparison import Comparison, Sides, Truth, compare
from harness.metrics.controls import (
    MEAN_IMAGE,
    RANDOM_GUESS,
    derangement,
    mean_image,
    oracle_constant,
    random_guess,
)
from harness.metrics.pairs import (
    NO_PRIOR,
    NO_REGIONS,
    Embedding,
    Gallery,
    Instruments,
    Lpips,
    Unavailable,
)
from harness.metrics.regions import Regions
from harness.metrics.relative import Prior
from harness.metrics.scoresheet import Means, means_of
from harness.metrics.targets import PrivateTarget

if TYPE_CHECKING:
    from torch import Tensor

BLIND_IMAGES = 16
"""Public images that stand in for unknown private ones when floors are all that can be measured."""


@dataclass(frozen=True)
class ScoreContext:
    """What scoring a trial needs besides its targets.

    Attributes:
        streams: The seed's streams; those used are `floor` (target), `floor_images`, `shuffle`, `bootstrap`.
        public: The public part of the data, for the mean image, whether or not the attacker has it; or None.
        gallery: The seed's gallery, or why there is none.
        features: The observed model's features (`features.penultimate_features`), or why there are none.
        regions: Sensitive regions of all private images of the targets, or why none are known.
        asked: Metrics that are measured on request, and were asked for.
    """

    streams: Streams
    public: PublicData | None
    gallery: Gallery | Unavailable
    features: Callable[[Tensor], Tensor] | Unavailable
    regions: Regions | Unavailable = NO_REGIONS
    asked: frozenset[str] = frozenset()

    def instruments(self, lpips: Lpips) -> Instruments:
        """Return what metrics need, given LPIPS."""
        features, public = self.features, self.public
        return Instruments(
            lpips.alex,
            features if isinstance(features, Unavailable) else Embedding(features),
            self.gallery,
            self.regions,
            NO_PRIOR if public is None else Prior(public.mean_image),
            lpips.vgg,
            self.asked,
        )


@dataclass(frozen=True)
class Yardsticks:
    """What reconstructions of some targets are measured against.

    Attributes:
        truths: The targets' private images.
        instruments: What metrics need.
        noise: What random guesses score, target by target.
        floors: By kind of guess that knows nothing, the means of all metrics.
        ceiling: Means of the images that the clients trained on.
        oracle_constant: Means of each image's own mean.
        reasons: By metric that cannot be had, why.
        partners: For each target, the one whose images its reconstructions are compared with as a control;
            empty if it is the only one.
    """

    truths: tuple[Truth, ...]
    instruments: Instruments
    noise: tuple[Comparison, ...]
    floors: Mapping[str, Means]
    ceiling: Means
    oracle_constant: Means
    reasons: Mapping[str, str]
    partners: tuple[int, ...]


def find_yardsticks(targets: Sequence[PrivateTarget], context: ScoreContext, lpips: Lpips) -> Yardsticks:
    """Measure everything about a trial's targets that no attack changes.

    Args:
        targets: At least one, in a fixed order; images of equal shape.
        context: What else is needed.
        lpips: LPIPS.
    """
    instruments = context.instruments(lpips)
    truths = tuple(Truth(target.truth, target.image_ids) for target in targets)
    guesses = {
        RANDOM_GUESS: [
            random_guess(t.truth, context.streams.torch("floor", target=t.target_id)) for t in targets
        ],
        "ceiling": [t.truth if t.protected is None else t.protected for t in targets],
        "oracle_constant": [oracle_constant(truth.images) for truth in truths],
    }
    if context.public is not None:
        guesses[MEAN_IMAGE] = [mean_image(truth.images, context.public.mean_image) for truth in truths]
    found = _compare_all(truths, guesses, instruments)
    noise = found[RANDOM_GUESS]
    means = {
        name: means_of([one.penalised(n.values) for one, n in zip(comparisons, noise, strict=True)])
        for name, comparisons in found.items()
    }
    return Yardsticks(
        truths,
        instruments,
        tuple(noise),
        {name: means[name] for name in (RANDOM_GUESS, MEAN_IMAGE) if name in means},
        means["ceiling"],
        means["oracle_constant"],
        {metric: why for one in noise for metric, why in one.reasons.items()},
        _partners(targets, context.streams),
    )


def public_floors(context: ScoreContext, lpips: Lpips) -> dict[str, Means]:
    """Return what guesses that know nothing score on average against images of the public part, if any."""
    public = context.public
    if public is None or not len(public.images):
        return {}
    generator = context.streams.numpy("floor_images")
    chosen = sorted(generator.permutation(len(public.images))[:BLIND_IMAGES].tolist())
    truth = Truth(public.images[chosen], tuple(f"public-{index}" for index in chosen))
    guesses = {
        RANDOM_GUESS: [random_guess(truth.images, context.streams.torch("floor", target="public"))],
        MEAN_IMAGE: [mean_image(truth.images, public.mean_image)],
    }
    found = _compare_all([truth], guesses, context.instruments(lpips))
    return {name: means_of(comparisons) for name, comparisons in found.items()}


def _compare_all(
    truths: Sequence[Truth], guesses: Mapping[str, Sequence[Tensor]], instruments: Instruments
) -> dict[str, list[Comparison]]:
    """Compare every target's images with each kind of guess."""
    sides = [Sides(*pair) for kind in guesses.values() for pair in zip(truths, kind, strict=True)]
    found = compare(sides, instruments)
    return {
        name: found[number * len(truths) : (number + 1) * len(truths)] for number, name in enumerate(guesses)
    }


def _noise(target: PrivateTarget, streams: Streams) -> Tensor:
    return random_guess(target.truth, streams.torch("floor", target=target.target_id))


def _partners(targets: Sequence[PrivateTarget], streams: Streams) -> tuple[int, ...]:
    if len(targets) < 2:
        return ()
    return derangement([tuple(sorted(t.labels)) for t in targets], streams.numpy("shuffle"))
