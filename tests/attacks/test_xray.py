"""The chest X-ray attack in small: a client's model before and after one step gives its images away.

The setting of Ziegler et al. 2022 (Sensors 22(14), 5195): one sigmoid output, binary cross-entropy, frozen
batch norm, a client with a single batch, two checkpoints instead of a gradient, labels known, signed Adam
with total variation 1e-2. The client is plain torch, on its own.
"""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from attacks.base import AttackTask
from attacks.catalog import InvertingGradientsConfig
from attacks.inverting_gradients import InvertingGradients
from fl.models.initialise import pytorch_default
from fl.seeds import Streams
from fl.specs import Task
from fl.types import Architecture, ImageSpec, Knowledge, ModelState, Observation, RoundView, Update
from harness.metrics.closeness import closeness
from harness.metrics.comparison import Sides, Truth
from harness.testing import SmallEnv
from harness.testing.small_images import blobs

LR = 0.01
IMAGE = ImageSpec(1, 16, (0.449,), (0.226,))


class ConvNet(nn.Module):
    """Three convolutions of 12 channels with batch norm, and one logit.

    The head sees all 12 x 16 x 16 features, or where `pooled` their 12 means.
    """

    def __init__(self, *, pooled):
        super().__init__()
        blocks = []
        for inputs in (1, 12, 12):
            blocks += [nn.Conv2d(inputs, 12, 3, padding=1), nn.BatchNorm2d(12), nn.ReLU()]
        side = 1 if pooled else 16
        self.body = nn.Sequential(*blocks, nn.AdaptiveAvgPool2d(side), nn.Flatten())
        self.head = nn.Linear(12 * side * side, 1)

    def forward(self, x):
        return self.head(self.body(x))


class Clinic:
    """A client that trained for one step, and what a server sees of it."""

    def __init__(self, *, n, seed, frozen=(), pooled=False):
        generator = torch.Generator().manual_seed(seed)
        self.sent = ConvNet(pooled=pooled).eval()
        for layer in self.sent.modules():
            pytorch_default(layer, generator)
        for name, parameter in self.sent.named_parameters():
            parameter.requires_grad_(not name.startswith(tuple(frozen)))
        self.images = blobs(n, IMAGE, generator)
        self.labels = torch.randint(2, (n, 1), generator=generator).float()
        self.returned = copy.deepcopy(self.sent)
        loss = self._loss(self.returned)
        loss.backward()
        self.gradient = {k: p.grad for k, p in self.returned.named_parameters() if p.requires_grad}
        self.gradient = {name: tensor.clone() for name, tensor in self.gradient.items()}
        free = [p for p in self.returned.parameters() if p.requires_grad]
        torch.optim.SGD(free, lr=LR).step()

    def _loss(self, model):
        probability = model(IMAGE.normalise(self.images)).sigmoid()
        return nn.functional.binary_cross_entropy(probability, self.labels)

    @property
    def inferred(self):
        """The gradient from the two checkpoints, subtracted in float64."""
        before, after = dict(self.sent.named_parameters()), dict(self.returned.named_parameters())
        return {
            name: (-(after[name].detach().double() - before[name].detach().double()) / LR).float()
            for name in self.gradient
        }

    def attack(self, config, *, know_labels=True):
        """Return the images that the attack finds."""
        n = len(self.images)
        state = ModelState(
            Architecture("clinic", {}, IMAGE, 1), self.sent.state_dict(), tuple(self.gradient), "eval"
        )
        observation = Observation(
            kind="update",
            clients=(0,),
            history=(RoundView(3, state, Update("gradient", self.inferred, {}, n)),),
            task=Task("binary", 2),
            image=IMAGE,
            knowledge=Knowledge(labels=self.labels if know_labels else None),
        )
        task = AttackTask("clinic", observation, config, Streams(0), public=None, simulate=None)
        (answer,) = InvertingGradients().solve([task], ClinicEnv(self.sent))
        return answer


class ClinicEnv(SmallEnv):
    """Builds the clinic's model."""

    def __init__(self, model):
        super().__init__()
        self._model = model

    def build(self, state):
        return copy.deepcopy(self._model)


CONFIG = InvertingGradientsConfig(iterations=300, total_variation=1e-2)


def psnr_db(images, guess):
    (found,) = closeness([Sides(Truth(images, tuple(map(str, range(len(images))))), guess)])
    return found.psnr_db


@pytest.mark.parametrize("seed", range(3))
def test_two_checkpoints_give_the_gradient(seed):
    clinic = Clinic(n=2, seed=seed)
    true = torch.cat([tensor.flatten() for tensor in clinic.gradient.values()])
    inferred = torch.cat([tensor.flatten() for tensor in clinic.inferred.values()])
    assert float((inferred - true).norm() / true.norm()) < 1e-3


@pytest.mark.parametrize(("n", "seed"), [(1, 0), (1, 1), (2, 3)])
def test_one_step_on_a_small_batch_gives_its_images_away(n, seed):
    clinic = Clinic(n=n, seed=seed)
    answer = clinic.attack(CONFIG)
    assert psnr_db(clinic.images, answer.images) > 25


def test_the_label_need_not_be_known():
    clinic = Clinic(n=1, seed=1)
    answer = clinic.attack(CONFIG, know_labels=False)
    assert torch.equal(answer.labels, clinic.labels.long().flatten())
    assert psnr_db(clinic.images, answer.images) > 25


def test_the_first_convolution_and_the_head_are_enough():
    frozen = ("body.1.", "body.3.", "body.4.", "body.6.", "body.7.")
    clinic = Clinic(n=1, seed=0, frozen=frozen)
    assert set(clinic.gradient) == {"body.0.weight", "body.0.bias", "head.weight", "head.bias"}
    assert psnr_db(clinic.images, clinic.attack(CONFIG).images) > 25


def test_a_trained_head_alone_gives_features_away_and_not_the_image():
    """The head's weight gradient is its input times a number, and 12 means do not tell an image."""
    clinic = Clinic(n=1, seed=0, frozen=("body",), pooled=True)
    assert set(clinic.gradient) == {"head.weight", "head.bias"}
    answer = clinic.attack(CONFIG)
    assert answer.objective["matching"] < 1e-3
    with torch.no_grad():
        features = [clinic.sent.body(IMAGE.normalise(x)) for x in (clinic.images, answer.images)]
    assert float(nn.functional.cosine_similarity(*features)) > 0.99
    assert psnr_db(clinic.images, answer.images) < 15


def test_a_head_that_sees_the_whole_image_needs_nothing_else():
    """12 x 16 x 16 features hold more than 16 x 16 pixels: freezing the body does not help here."""
    clinic = Clinic(n=1, seed=0, frozen=("body",))
    assert psnr_db(clinic.images, clinic.attack(CONFIG).images) > 25
