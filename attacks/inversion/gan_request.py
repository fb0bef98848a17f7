"""The stage that trains a generator with the help of the attacked model, as the planner sees it."""

from __future__ import annotations

import json
from collections.abc import Mapping

from fl.cards import Resources, StageRequest
from fl.data import DATASETS
from fl.specs import Config, TrialSpec

GAN = "gan"
"""Under which an attack finds what the stage made."""

_KEPT = 4096
_requests: dict[tuple[str, str, str, int, int], StageRequest] = {}


def gan_stage(
    needs: Mapping[str, Config], spec: TrialSpec, *, implementation: str, version: int
) -> list[StageRequest]:
    """Return the stage that trains a GAN on the public images and the global model of the attacked round.

    Its key holds how the GAN is trained, the public data, the seed, and, through the round, the federation;
    attacks that differ elsewhere share it.

    Args:
        needs: All that its training is configured by.
        spec: The trial.
        implementation: `module:function` that trains it.
        version: Bumped when what it makes changes.

    Returns:
        The request, called `GAN`; none where a trial has no data set at all.

    Raises:
        DataUnavailableError: If the public data are not on this machine.
    """
    source = spec.public or spec.data
    if source is None:
        return []
    round_ = spec.observe.last_round
    address = (implementation, _canonical(needs), source.canonical, spec.seed, round_)
    if address not in _requests:
        while len(_requests) >= _KEPT:
            del _requests[next(iter(_requests))]
        _requests[address] = StageRequest(
            name=GAN,
            kind="gan",
            implementation=implementation,
            version=version,
            config={
                **{name: json.loads(config.canonical) for name, config in needs.items()},
                "public": json.loads(source.canonical),
                "fingerprint": DATASETS.get(source.name).describe(source.config).fingerprint,
                "seed": spec.seed,
            },
            resources=Resources(gpus=0.5, memory_mib=4096),
            round=round_,
        )
    return [_requests[address]]


def _canonical(needs: Mapping[str, Config]) -> str:
    return ",".join(f"{name}:{config.canonical}" for name, config in needs.items())
