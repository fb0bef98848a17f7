"""The stage that trains a generator with the help of the attacked model, as the planner sees it."""

from __future__ import annotations

import json
from collections.abc import Mapping

from attacks.inversion.costs import WorkOf, World
from fl.cards import Resources, StageRequest, Work
from fl.data import DATASETS
from fl.models import MODELS
from fl.specs import Config, TrialSpec

GAN = "gan"
"""Under which an attack finds what the stage made."""

_KEPT = 4096
_requests: dict[tuple[object, ...], StageRequest] = {}


def gan_stage(
    needs: Mapping[str, Config], spec: TrialSpec, *, implementation: str, version: int, work: WorkOf
) -> list[StageRequest]:
    """Return the stage that trains a GAN on the public images and the global model of the attacked round.

    Its key holds how the GAN is trained, the public data, the seed, and, through the round, the federation;
    attacks that differ elsewhere share it.

    Args:
        needs: All that its training is configured by.
        spec: The trial.
        implementation: `module:function` that trains it.
        version: Bumped when what it makes changes.
        work: What training it takes.

    Returns:
        The request, called `GAN`; none where a trial has no data set at all.

    Raises:
        DataUnavailableError: If the public data are not on this machine.
    """
    source = spec.public or spec.data
    if source is None:
        return []
    round_ = spec.observe.last_round
    sections = (*needs.values(), source, spec.data, spec.model)
    address = (implementation, spec.seed, round_, *(each and each.canonical for each in sections))
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
            work=_work(spec, work),
        )
    return [_requests[address]]


def _work(spec: TrialSpec, work: WorkOf) -> Work | None:
    if spec.data is None or spec.model is None:
        return None
    data = DATASETS.get(spec.data.name).describe(spec.data.config)
    source = spec.public or spec.data
    public = DATASETS.get(source.name).describe(source.config).images["public"]
    traits = MODELS.get(spec.model.name).traits(spec.model.config, data)
    return work(World(data, public, traits.mflop_per_image))
