"""What a plug-in's stage works with while it is made."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fl.types import Artifact, ModelState, PublicData

if TYPE_CHECKING:
    import torch

    from fl.data.base import Part
    from fl.seeds import Streams


def _nothing_kept() -> Artifact | None:
    return None


def _keep_nothing(artifact: Artifact) -> None:
    """Leave a stage that is interrupted to begin anew."""


def _no_parts(name: str) -> Part:
    raise PermissionError(f"only the judge's stages read the {name} part")


@dataclass(frozen=True)
class StageContext:
    """What the implementation of a plug-in's stage may use besides its config and inputs.

    Attributes:
        streams: The trial's streams.
        device: Where to compute.
        public: The public images, or None where the data has none.
        build: From a model's state to the module, wrappers included.
        progress: Called with a share in [0, 1] and a word or two.
        files: The request's files (`fl.cards.StageRequest`).
        kept: Returns what `keep` stored last in an earlier, interrupted run of this stage, or None.
        keep: Stores what a long stage can go on from; gone once the stage is done.
        model: The global model of the request's `round`; None where it names none.
        part: For a request with `judge`: from a part's name to that part of the trial's data set.
    """

    streams: Streams
    device: torch.device
    public: PublicData | None
    build: Callable[[ModelState], torch.nn.Module]
    progress: Callable[[float, str], None]
    files: Mapping[str, str] = field(default_factory=dict)
    kept: Callable[[], Artifact | None] = _nothing_kept
    keep: Callable[[Artifact], None] = _keep_nothing
    model: ModelState | None = None
    part: Callable[[str], Part] = _no_parts
