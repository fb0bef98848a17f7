"""Pictures of reconstructions and of the way to them, for `reconstructions/` and `traces/`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch

from harness.metrics import png
from harness.metrics.closeness import closeness
from harness.metrics.comparison import Sides, Truth
from harness.store.storage import Storage, open_storage

if TYPE_CHECKING:
    from attacks.base import Reconstruction, Snapshot
    from harness.execute.results import Row
    from harness.metrics.judge import TrialScore

PICTURED_CHANNELS = (1, 3)


class Pictures:
    """Draws pictures, and keeps those of private data private."""

    def __init__(self, private_uri: str) -> None:
        self._private: Storage = open_storage(private_uri, private=True)

    def reconstructions(
        self,
        trial_id: str,
        score: TrialScore,
        answers: Mapping[str, Reconstruction],
        originals: Mapping[int, torch.Tensor],
        *,
        public: bool,
    ) -> list[Row]:
        """Return the score's rows with pictures.

        Args:
            trial_id: The trial.
            score: Its score.
            answers: What the attack made, by target.
            originals: Private images, `C x H x W`, to show beside rows, by the row's position.
            public: Whether the data set's images may be shown; else there are no originals.
        """
        places = [
            (str(row["target_id"]), int(str(row["reconstruction_index"]))) for row in score.reconstructions
        ]
        images = [answers[target].images[index] for target, index in places]
        names = [f"{trial_id}/{target}-{index}.png" for target, index in places]
        pictures = self._draw(images, names, public=public)
        contents = png.encode_all(list(originals.values()))
        drawn = dict(zip(originals, ({"bytes": one, "path": None} for one in contents), strict=True))
        return [
            {**row, "png": picture, "original": drawn.get(position)}
            for position, (row, picture) in enumerate(zip(score.reconstructions, pictures, strict=True))
        ]

    def traces(
        self,
        trial_id: str,
        snapshots: Mapping[str, Sequence[Snapshot]],
        truths: Mapping[str, Truth],
        *,
        public: bool,
    ) -> list[Row]:
        """Return a row for each snapshot, with a picture and how close it is, where it has images."""
        taken = [_Shot(target, shot) for target, shots in snapshots.items() for shot in shots]
        rows = [shot.row() for shot in taken]
        drawn = [position for position, shot in enumerate(taken) if len(shot.images)]
        strips = [_strip(taken[position].images) for position in drawn]
        names = [f"{trial_id}/{taken[p].target_id}-trace-{taken[p].snapshot.iteration}.png" for p in drawn]
        for position, picture in zip(drawn, self._draw(strips, names, public=public), strict=True):
            rows[position]["png"] = picture
        compared = {p: Sides(truth, taken[p].images) for p in drawn if (truth := _truth_of(taken[p], truths))}
        for position, close in zip(compared, closeness(list(compared.values())), strict=True):
            rows[position] |= close._asdict()
        return rows

    def _draw(
        self, images: Sequence[torch.Tensor], names: Sequence[str], *, public: bool
    ) -> list[Row | None]:
        """Return pictures for the row where they are public, else their places; None if that cannot be."""
        positions = [position for position, one in enumerate(images) if one.shape[0] in PICTURED_CHANNELS]
        pictures: list[Row | None] = [None] * len(images)
        contents = png.encode_all([images[position] for position in positions])
        for position, content in zip(positions, contents, strict=True):
            name = names[position]
            if not public:
                self._private.write(f"images/{name}", content)
            path = None if public else f"private/images/{name}"
            pictures[position] = {"bytes": content if public else None, "path": path}
        return pictures


class _Shot(NamedTuple):
    """A snapshot of one target."""

    target_id: str
    snapshot: Snapshot

    @property
    def images(self) -> torch.Tensor:
        """Its images; none if it has none."""
        images = self.snapshot.images
        return torch.empty(0) if images is None else images

    def row(self) -> Row:
        """Return what is known without looking at its images."""
        shot = self.snapshot
        return {
            "target_id": self.target_id,
            "iteration": shot.iteration,
            "restart": shot.restart,
            "objective": json.dumps(dict(shot.objective), sort_keys=True),
            "best": shot.best,
            "png": None,
        }


def _truth_of(shot: _Shot, truths: Mapping[str, Truth]) -> Truth | None:
    """Return the private images that a snapshot can be compared with, if any."""
    truth = truths.get(shot.target_id)
    comparable = truth is not None and len(truth.images) and truth.images.shape[1:] == shot.images.shape[1:]
    return truth if comparable else None


def _strip(images: torch.Tensor) -> torch.Tensor:
    """Put `n x C x H x W` side by side as `C x H x nW`."""
    return images[0] if len(images) == 1 else torch.cat(list(images), dim=-1)
