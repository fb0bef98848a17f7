"""Configuration and card of the search through a generator's features, read without torch."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from attacks.cards_generative import GenerativeConfig, generator_stages, generator_unusable, side_by_side
from fl.cards import AttackCard, Reference, Resources


class GifdConfig(GenerativeConfig):
    """Search for latent vectors, then for the features between one block of the generator and the next."""

    total_variation: float = Field(1e-4, ge=0, description="weight of the images' total variation")
    restarts: int = Field(4, ge=1, description="first latent vectors; the lowest matching cost is kept")
    iterations: int = Field(1000, ge=0, description="Adam steps of each phase")
    lr: float = Field(
        0.1, gt=0, description="their size, after a rise over the first twentieth and before a cosine's fall"
    )
    depth: int = Field(
        4,
        ge=0,
        description="phases after that of the latent vectors: of the features that enter the second block, "
        "the third and so on, at last the layer that makes images; no more than the generator has",
    )
    radii: tuple[Annotated[float, Field(ge=0)], ...] = Field(
        (30.0, 60.0, 120.0, 240.0),
        min_length=1,
        description="of the l1 ball around each phase's first features, per image; the last one serves all "
        "further phases",
    )

    @property
    def bounds(self) -> tuple[float, ...]:
        """The radius of each phase."""
        return tuple(self.radii[min(phase, len(self.radii) - 1)] for phase in range(self.depth))


def _evaluations(config: GifdConfig) -> int:
    return config.restarts * (config.depth + 1) * (config.iterations + 1)


GIFD = AttackCard(
    name="gifd",
    version=1,
    summary="Match the gradient in the images of a generator, then in its features, block by block.",
    config=GifdConfig,
    implementation="attacks.gifd:Gifd",
    reference=Reference(
        "Fang, Chen, Wang, Wang and Xia 2023, GIFD: A Generative Gradient Inversion Method with Feature "
        "Domain Optimization, arXiv 2308.04699"
    ),
    family="gradient_inversion",
    observes=frozenset({"update", "aggregate"}),
    evaluations=_evaluations,
    compatible=generator_unusable,
    stages=generator_stages,
    resources=Resources(gpus=0.25, memory_mib=2048),
    side_by_side=side_by_side,
)

CARDS: tuple[AttackCard[Any], ...] = (GIFD,)
