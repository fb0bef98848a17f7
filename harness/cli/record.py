"""`bench record`: observations as files, from another platform's checkpoints or from a stored trial."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click
from pydantic import ValidationError

from fl.errors import UsageError

if TYPE_CHECKING:
    from fl.models.build import Freeze
    from fl.recorded_pair import Label, PairSetting
    from fl.specs import BatchNormMode, Plugin, Task
    from fl.types import ImageSpec, LocalTraining

WARNING = (
    "warning: an observation is what the adversary sees. Whoever has these files can attack the client's "
    "images, so keep them where the images themselves may lie."
)
Kind = Literal["multiclass", "binary", "multilabel"]
weights_file = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.group("record", short_help="Write observations as files: from two checkpoints, or from a trial.")
def command() -> None:
    """Write observations as files, which a matrix attacks with `observation: {file: PATH, public: DATASET}`.

    \b
    Two ways:
      bench record pair    from the files of any federated-learning platform: the model that was sent to a
                           client and the model that the client returned
      bench record trial   from a trial of an experiment here: what its adversary saw, computed again

    The file is a safetensors file whose form `fl/recorded.py` documents; anyone can write one.
    """


@command.command("pair")
@click.option("--sent", required=True, type=weights_file, help="Weights that the client received.")
@click.option("--returned", required=True, type=weights_file, help="Weights that it sent back.")
@click.option("--model", required=True, help="Architecture; `bench ls models` lists them.")
@click.option("--option", "options", multiple=True, metavar="KEY=VALUE", help="Option of the model.")
@click.option("--classes", required=True, type=click.IntRange(2), help="Number of classes.")
@click.option(
    "--task",
    type=click.Choice(["multiclass", "binary", "multilabel"]),
    default="multiclass",
    show_default=True,
    help="binary: one sigmoid output; multilabel: one per class.",
)
@click.option("--size", required=True, type=click.IntRange(1), help="Height and width of images in pixels.")
@click.option("--channels", type=click.IntRange(1), default=3, show_default=True)
@click.option("--mean", metavar="M[,M,...]", help="What inputs are normalised with; one or one per channel.")
@click.option("--std", metavar="S[,S,...]", help="Likewise.")
@click.option("--images", required=True, type=click.IntRange(1), help="Images that the client trained on.")
@click.option("--lr", type=float, help="Its learning rate; without it only the direction is known.")
@click.option("--batch-size", type=click.IntRange(1), help="Its batch size. Default: all images.")
@click.option("--epochs", type=click.IntRange(1), default=1, show_default=True, help="Its local epochs.")
@click.option("--momentum", type=click.FloatRange(0, 1, max_open=True), default=0.0, show_default=True)
@click.option(
    "--freeze",
    type=click.Choice(["none", "batch_norm", "all_but_last", "middle"]),
    default="none",
    show_default=True,
    help="What it did not train.",
)
@click.option(
    "--batch-norm",
    type=click.Choice(["train", "eval"]),
    default="eval",
    show_default=True,
    help="Mode of batch norm while it trained.",
)
@click.option(
    "--label", "labels", multiple=True, help="A known label (0,1,1 for multilabel), once per image."
)
@click.option("--round", "round_", type=click.IntRange(0), default=0, show_default=True)
@click.option("--by-order", is_flag=True, help="Pair tensors by their order, where names differ.")
@click.option("-o", "--output", required=True, type=click.Path(dir_okay=False, path_type=Path))
def pair(*, sent: Path, returned: Path, by_order: bool, output: Path, **about: Any) -> None:
    """Infer the gradient between two checkpoints and write it as an observation.

    The gradient is -(returned - sent) / lr, divided by the number of local steps where there were several.
    Save checkpoints in float32 or better; mixing up rounds gives a wrong gradient and no error. Both files
    are .safetensors, or torch files (.pt, .pth, .tar) that hold a state dict, bare or under `state_dict`;
    code in them is never run.

    \b
    Example: a hospital's round on 8 grey X-rays, one output, batch norm frozen:
      bench record pair --sent global_2rounds.pth.tar --returned round3_client26.pth.tar \\
        --model densenet121 --task binary --classes 2 --channels 1 --size 224 \\
        --mean 0.449 --std 0.226 --images 8 --lr 0.01 --freeze batch_norm -o client26.safetensors
    Then, in a matrix:
      matrix: {observation: [{file: client26.safetensors, public: {name: ...}}], attack: [...]}
    """
    from fl import recorded
    from fl.recorded_pair import observation_of_pair

    observation = observation_of_pair(sent, returned, _setting(**about), by_order=by_order)
    try:
        recorded.write(output, observation)
    except OSError as error:
        raise UsageError(f"{output}: cannot be written: {error.strerror or error}") from error
    recorded.read(output)
    update = observation.update
    click.echo(f"wrote {output}: the gradient of {len(update.tensors)} tensors, {update.n_images} images")
    click.echo(WARNING, err=True)


@command.command("trial")
@click.argument("experiment", type=click.Path(file_okay=False, path_type=Path))
@click.argument("trial_id")
@click.option("--output", required=True, type=click.Path(file_okay=False, path_type=Path), metavar="DIR")
@click.option("--secret", is_flag=True, help="Name the private images and their labels in the observation.")
def trial(experiment: Path, trial_id: str, output: Path, secret: bool) -> None:
    """Compute again what a stored trial observed, and write it under DIR, one folder per target.

    Each folder holds observation.safetensors and, where single updates are seen, the two checkpoints behind
    it: sent.safetensors and returned.safetensors (float32). The first digits of the trial's id are enough.
    Nothing is attacked and nothing is trained but the observed clients' round, on the CPU, from the
    federation's private checkpoint. With --secret, an attack on the file can be scored on this machine:
    the observation then names (but does not hold) the private images.

    \b
    Example:
      bench record trial results/quickstart 3f9c2a --output recorded/
    """
    from harness.execute.record import find_trial, record_trial

    spec = find_trial(experiment, trial_id)
    try:
        folders = record_trial(experiment, spec, output, secret=secret)
    except OSError as error:
        raise UsageError(f"{output}: cannot be written: {error.strerror or error}") from error
    for folder in folders:
        click.echo(f"wrote {folder}")
    click.echo(WARNING, err=True)


def _setting(
    *,
    model: str,
    options: tuple[str, ...],
    classes: int,
    task: Kind,
    size: int,
    channels: int,
    mean: str | None,
    std: str | None,
    images: int,
    lr: float | None,
    batch_size: int | None,
    epochs: int,
    momentum: float,
    freeze: Freeze,
    batch_norm: BatchNormMode,
    labels: tuple[str, ...],
    round_: int,
) -> PairSetting:
    from fl.recorded_pair import PairSetting
    from fl.specs import Task

    kind = Task(task, classes)
    return PairSetting(
        model=_model(model, options),
        task=kind,
        image=_image(channels, size, mean, std),
        n_images=images,
        local=_local(lr, images, batch_size or images, epochs, momentum),
        freeze=freeze,
        batch_norm="eval" if freeze == "batch_norm" else batch_norm,
        labels=_labels(labels, kind, images) or None,
        round=round_,
    )


def _model(name: str, options: tuple[str, ...]) -> Plugin:
    from fl.models import MODELS
    from fl.specs import Plugin

    card, config = MODELS.get(name), {}
    for option in options:
        key, equals, value = option.partition("=")
        if not equals:
            raise UsageError(f"expected --option KEY=VALUE, got {option!r}")
        try:
            config[key] = json.loads(value)
        except ValueError:
            config[key] = value
    try:
        return Plugin(card.name, card.version, card.config.model_validate(config))
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise UsageError(f"options of model {name!r}: {problems} (`bench show model {name}`)") from error


def _image(channels: int, size: int, mean: str | None, std: str | None) -> ImageSpec:
    from fl.types import ImageSpec

    means = _numbers("--mean", mean or "0", channels)
    stds = _numbers("--std", std or "1", channels)
    if min(stds) <= 0:
        raise UsageError(f"expected --std above 0, got {std}")
    return ImageSpec(channels, size, means, stds)


def _numbers(option: str, text: str, channels: int) -> tuple[float, ...]:
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError:
        values = []
    if len(values) == 1:
        values *= channels
    if len(values) != channels or not all(map(math.isfinite, values)):
        raise UsageError(f"expected {option} to be one number, or {channels} with commas, got {text!r}")
    return tuple(values)


def _local(
    lr: float | None, images: int, batch_size: int, epochs: int, momentum: float
) -> LocalTraining | None:
    from fl.types import LocalTraining

    if lr is None:
        return None
    if not (lr > 0 and math.isfinite(lr)):
        raise UsageError(f"expected --lr above 0, got {lr:g}")
    steps = epochs * math.ceil(images / batch_size)
    return LocalTraining(lr, steps, batch_size, epochs, momentum=momentum)


def _labels(texts: tuple[str, ...], task: Task, images: int) -> list[Label]:
    highest = task.classes - 1 if task.kind == "multiclass" else 1
    width = task.classes if task.kind == "multilabel" else 1
    labels: list[Label] = []
    for text in texts:
        parts = text.split(",")
        if len(parts) != width or not all(p.isdecimal() and int(p) <= highest for p in parts):
            raise UsageError(f"expected --label of {width} numbers from 0 to {highest}, got {text!r}")
        values = tuple(int(part) for part in parts)
        labels.append(values if task.kind == "multilabel" else values[0])
    if labels and len(labels) != images:
        raise UsageError(f"expected --label once for each of {images} images, got {len(labels)}")
    return labels
