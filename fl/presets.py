"""Federations of published studies: what `federation: {preset: NAME}` fills in below what a matrix says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from fl.config import JSON


@dataclass(frozen=True)
class Preset:
    """A federation of the literature.

    Attributes:
        summary: One sentence.
        reference: The source, and where the preset departs from it.
        fields: Fields of `fl.specs.FederationSpec`; what it leaves out has its usual default.
    """

    summary: str
    reference: str
    fields: Mapping[str, JSON]


PRESETS: Mapping[str, Preset] = {
    "shadowdef-9": Preset(
        summary="Nine hospitals of 1 to 512 images, of which two make a single step per round.",
        reference="Jiang et al. 2025, arXiv 2506.15711 (client layout of Hatamizadeh et al. 2023, IEEE TMI)",
        fields={
            "algorithm": "fedavg",
            "clients": 9,
            "rounds": 100,
            "local_epochs": 1,
            "batch_sizes": [4, 4, 4, 4, 8, 8, 8, 8, 1],
            "lr": 0.01,
            "schedule": {"name": "step", "milestones": [40, 80], "factor": 0.1},
            "partition": {
                "name": "sizes",
                "sizes": [8, 32, 128, 512, 8, 32, 128, 512, 1],
                "balanced": True,
            },
            "batch_norm": "train",
        },
    ),
    "xray-36": Preset(
        summary="36 clients that share no patient; one with at most ten images makes one full-batch step.",
        reference="Ziegler et al. 2022, arXiv 2205.03168; there, a last partial batch is dropped and clients "
        "never receive batch-norm statistics",
        fields={
            "algorithm": "fedavg",
            "clients": 36,
            "rounds": 10,
            "local_epochs": 1,
            "batch_size": 10,
            "lr": 0.01,
            "partition": {"name": "patient", "allow_overlap": False},
            "batch_norm": "train",
        },
    ),
}
"""By name. Only the resolved fields, never the name, are part of a trial's identity."""
