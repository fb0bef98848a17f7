"""A participant that draws a portrait of every class with the model of the observed round, in two stages."""

from __future__ import annotations

import torch

from attacks.base import Attack, Reconstruction
from fl.cards import AttackCard, StageRequest
from fl.specs import Config
from fl.types import Artifact


class PortraitsConfig(Config):
    sharpness: float = 2.0


def stages(config, spec):
    last = spec.observe.last_round
    public, own = {"public": (spec.public or spec.data).canonical}, {"sharpness": config.sharpness}
    blurred = StageRequest("blurred", "portraits", "fake_portraits:draw", 1, public, round=last)
    sharp = StageRequest("sharp", "contrast", "fake_portraits:sharpen", 1, own, (blurred.key,), round=last)
    return [blurred, sharp]


def draw(config, inputs, context):
    assert not inputs  # of the federation it gets the model alone
    images, image = context.public.images, context.model.architecture.image
    with torch.no_grad():
        shares = context.build(context.model).eval()(image.normalise(images)).softmax(1)
    portraits = torch.einsum("nk,nchw->kchw", shares / shares.sum(0), images)
    return Artifact({"portraits": portraits, "head": context.model.tensors["head.weight"]})


def sharpen(config, inputs, context):
    (portraits,) = (artifact.tensors["portraits"] for artifact in inputs.values())
    contrast = portraits - portraits.mean(0)
    return Artifact({"portraits": (portraits + config["sharpness"] * contrast).clamp(0, 1)})


class Portraits(Attack[PortraitsConfig]):
    def solve(self, tasks, env):
        for task in tasks:
            head = task.artifacts["blurred"].tensors["head"]
            assert torch.equal(head, task.observation.sent.tensors["head.weight"])
            portrait = task.artifacts["sharp"].tensors["portraits"][task.target_label]
            yield Reconstruction(task.task_id, portrait[None], None, {}, 0, 1)


CARD = AttackCard(
    name="portraits",
    version=1,
    summary="The mean public image, weighted by what the model takes for a class.",
    config=PortraitsConfig,
    implementation="fake_portraits:Portraits",
    family="model_inversion",
    observes=frozenset({"global_model"}),
    evaluations=lambda config: 0,
    stages=stages,
)
