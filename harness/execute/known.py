"""What scoring needs to know of a trial's targets, whatever attack they meet."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.metrics.comparison import Truth
from harness.metrics.pairs import EMBEDDED_BYTES, Unavailable
from harness.plan.keys import federation_key

if TYPE_CHECKING:
    from fl.specs import TrialSpec
    from harness.metrics.targets import PrivateTarget
    from harness.metrics.yardsticks import ScoreContext, Yardsticks

KNOWN_BYTES = 64 * 2**20
"""What a scorer remembers of targets, for the next attack on them."""


@dataclass(frozen=True)
class Known:
    """Both the private side of a trial's targets and what reconstructions are measured against.

    Attributes:
        targets: What lies behind them, or why that cannot be compared with.
        context: What the judge needs besides.
        yardsticks: What reconstructions are measured against; None if they cannot be compared.
        model_bytes: Size of the observed model, which the context holds.
    """

    targets: tuple[PrivateTarget, ...] | Unavailable
    context: ScoreContext
    yardsticks: Yardsticks | None
    model_bytes: int

    @property
    def truths(self) -> dict[str, Truth]:
        """The private images by target, where they can be compared with."""
        if isinstance(self.targets, Unavailable):
            return {}
        return {target.target_id: Truth(target.truth, target.image_ids) for target in self.targets}

    @property
    def n_bytes(self) -> int:
        """About how much is held: the model, images, their features."""
        gallery = self.context.gallery
        images = sum(truth.images.nbytes for truth in self.truths.values())
        if not isinstance(gallery, Unavailable):
            images += gallery.images.nbytes
        return self.model_bytes + images + EMBEDDED_BYTES


def observed(spec: TrialSpec) -> Hashable:
    """Return what tells trials apart whose targets, or the judge's view of them, differ."""
    source = federation_key(spec) if spec.recorded is None else spec.recorded.sha256
    public = None if spec.public is None else spec.public.canonical
    return source, spec.seed, spec.observe.canonical, spec.threat_model.canonical, spec.targets, public
