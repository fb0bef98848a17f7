"""An observation made from two files: the model that was sent to a client and the one it returned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fl.cards import DataInfo
from fl.errors import RecordedObservationError
from fl.models import architecture, build, trainable_names
from fl.models.build import Freeze
from fl.parameter_difference import infer_gradient
from fl.specs import BatchNormMode, Plugin, Task
from fl.types import ImageSpec, Knowledge, LocalTraining, ModelState, Observation, RoundView, Update
from fl.weight_files import fitted, read_weights

if TYPE_CHECKING:
    from torch import Tensor

Label = int | tuple[int, ...]


@dataclass(frozen=True)
class PairSetting:
    """What two files of weights do not say themselves.

    Attributes:
        model: The architecture.
        task: What it is trained for.
        image: What it takes.
        n_images: Images that the client trained on.
        local: The client's hyper-parameters, or None where they are unknown: only the direction of the
            gradient is.
        freeze: What the client did not train.
        batch_norm: Mode in which the client computed.
        labels: The images' labels, where known: a class each, or 0/1 per output.
        round: The round's number.
        client: The client's number.
    """

    model: Plugin
    task: Task
    image: ImageSpec
    n_images: int
    local: LocalTraining | None
    freeze: Freeze = "none"
    batch_norm: BatchNormMode = "eval"
    labels: Sequence[Label] | None = None
    round: int = 0
    client: int = 0


def observation_of_pair(
    sent: Path, returned: Path, setting: PairSetting, *, by_order: bool = False
) -> Observation:
    """Return what an adversary who has both files sees: the model sent and the gradient they imply.

    Args:
        sent: The model sent; see `fl.weight_files.read_weights` for the kinds of file.
        returned: The model that came back.
        setting: What the files do not say.
        by_order: Pair tensors with the model's by order instead of by name.

    Raises:
        RecordedObservationError: If a file is not of this model, or nothing was trained between the two.
        UsageError: If the model cannot take such images.
    """
    blueprint = architecture(setting.model, _info(setting))
    module = build(blueprint)
    expected = module.state_dict()
    before = fitted(sent, read_weights(sent), expected, by_order=by_order)
    after = fitted(returned, read_weights(returned), expected, by_order=by_order)
    trained = trainable_names(module, setting.freeze)
    gradient = infer_gradient(
        before,
        {name: after[name] for name in trained},
        reach=1.0 if setting.local is None else setting.local.reach,
    )
    if not any(tensor.any() for tensor in gradient.values()):
        raise RecordedObservationError(
            f"{returned}: expected other weights than in {sent}, got the same; is it the model that the "
            "client returned in that round?"
        )
    buffers = {name for name, buffer in module.named_buffers() if buffer.is_floating_point()}
    shared = {name: after[name] for name in after if name in buffers and setting.batch_norm == "train"}
    state = ModelState(blueprint, before, trained, setting.batch_norm)
    return Observation(
        kind="update",
        clients=(setting.client,),
        history=(RoundView(setting.round, state, Update("gradient", gradient, shared, setting.n_images)),),
        task=setting.task,
        image=setting.image,
        knowledge=Knowledge(
            labels=None if setting.labels is None else _labels(setting),
            local_training=setting.local,
            batch_norm={
                name: before[name] for name in before if name.endswith((".running_mean", ".running_var"))
            },
        ),
    )


def _info(setting: PairSetting) -> DataInfo:
    image = setting.image
    return DataInfo(
        task=setting.task,
        channels=image.channels,
        size=image.size,
        images={},
        public=False,
        fingerprint="",
        mean=image.mean,
        std=image.std,
    )


def _labels(setting: PairSetting) -> Tensor:
    import torch

    assert setting.labels is not None
    if setting.task.kind == "multiclass":
        return torch.tensor(setting.labels)
    return torch.tensor(setting.labels, dtype=torch.float32).reshape(len(setting.labels), -1)
