"""The stage that trains an evaluator, the judge of model inversion; read without torch or numpy."""

from __future__ import annotations

import json

from fl.cards import DataInfo, Resources, StageRequest
from fl.data import DATASETS
from fl.data.config import DataConfig
from fl.specs import Config, Plugin, TrialSpec
from harness.metrics.evaluator_costs import training_work

STAGE_KIND = "evaluator"
STAGE_VERSION = 1
"""Bumped when trained evaluators change."""

NAME = "evaluator"
"""Under which name scoring finds the artifact."""

NOT_SEEN_BY_EVALUATORS = ("private_labels", "public_labels", "normalise")
"""Fields of a data set's configuration that change neither its evaluation nor its test images."""

_KEPT = 256
_requests: dict[str, list[StageRequest]] = {}


def evaluator_stages(spec: TrialSpec) -> list[StageRequest]:
    """Return the stage that makes a trial's evaluator; none where nothing could be judged by one.

    Its key holds the evaluation and test images alone: not the seed, the model, the federation, the attack,
    the defense, nor what the private and public parts are narrowed to, which therefore share it.

    Raises:
        DataUnavailableError: If the data set is not on this machine.
    """
    if spec.observe.kind != "global_model" or spec.data is None:
        return []
    address = spec.data.canonical
    if address not in _requests:
        info = DATASETS.get(spec.data.name).describe(spec.data.config)
        made = [] if unjudged(info) is not None else [_request(spec.data)]
        while len(_requests) >= _KEPT:
            del _requests[next(iter(_requests))]
        _requests[address] = made
    return list(_requests[address])


def unjudged(data: DataInfo) -> str | None:
    """Return why no evaluator can be trained on a data set, or None.

    The evaluation part alone decides whether there are two classes to tell apart; what is known here is how
    many images and classes there are.
    """
    if data.task.kind != "multiclass":
        return (
            f"model inversion is judged on multiclass tasks, by an evaluator that names one class: this is a "
            f"{data.task.kind} task"
        )
    if data.images.get("evaluation", 0) < data.task.classes:
        return (
            "model inversion is judged by an evaluator trained on the data set's evaluation part: expected "
            f"at least one image for each of {data.task.classes} classes, got "
            f"{data.images.get('evaluation', 0)} images"
        )
    return None


def _request(data: Plugin) -> StageRequest:
    config = _as_evaluated(data.config)
    info = DATASETS.get(data.name).describe(config)
    return StageRequest(
        name=NAME,
        kind=STAGE_KIND,
        implementation="harness.metrics.evaluator:train",
        version=STAGE_VERSION,
        config={
            "data": json.loads(Plugin(data.name, data.version, config).canonical),
            "fingerprint": info.fingerprint,
            "classes": info.task.classes,
        },
        private=True,
        resources=Resources(gpus=0.5, memory_mib=3072),
        judge=True,
        work=training_work(
            info.channels,
            info.size,
            info.task.classes,
            images=info.images["evaluation"],
            tested=info.images.get("test", 0),
        ),
    )


def _as_evaluated(config: Config) -> Config:
    """Return the configuration without what is known to change neither evaluation nor test images."""
    if not isinstance(config, DataConfig):
        return config
    fields = type(config).model_fields
    return config.model_copy(update={name: fields[name].default for name in NOT_SEEN_BY_EVALUATORS})
