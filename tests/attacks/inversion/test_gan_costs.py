"""What the GANs of KED-MI and PLG-MI are said to cost, against what torch counts."""

import pytest
import torch

from attacks.inversion.cards_kedmi import KedmiGanConfig
from attacks.inversion.cards_plgmi import PlgmiGanConfig, ViewsConfig
from attacks.inversion.costs import World, kedmi_critic_mflop, kedmi_work, plgmi_critic_mflop, plgmi_work
from attacks.inversion.gan_training import Attacked
from attacks.inversion.kedmi_critic import KedmiCritic, KedmiShape
from attacks.inversion.kedmi_gan import KedmiTraining
from attacks.inversion.plgmi_gan import PlgmiTraining, surest
from attacks.inversion.projection_critic import ProjectionCritic
from fl.cards import DataInfo
from fl.seeds import Streams
from fl.specs import Task
from harness.testing import SmallProblem

PROBLEM = SmallProblem(observes="global_model")
KEDMI = KedmiGanConfig(
    steps=6, critic_steps=2, batch_size=8, latent=12, width=6, kernels=3, kernel_dimensions=1
)
PLGMI = PlgmiGanConfig(steps=3, critic_steps=2, batch_size=8, latent=12, width=6, top_n=4)
VIEWS = ViewsConfig()


def data_of(channels, size, classes):
    parts = dict.fromkeys(("private", "public", "evaluation", "test"), 40)
    return DataInfo(Task("multiclass", classes), channels, size, parts, public=True, fingerprint="")


@pytest.mark.parametrize(("channels", "size", "classes"), [(1, 16, 10), (3, 32, 5), (3, 64, 100), (1, 28, 2)])
def test_critics_cost_what_torch_counts(channels, size, classes, counted_mflop):
    data, images = data_of(channels, size, classes), torch.rand(2, channels, size, size)
    shape = KedmiShape(channels, size, classes, KEDMI.width, KEDMI.kernels, KEDMI.kernel_dimensions)
    kedmi, plgmi = KedmiCritic(shape), ProjectionCritic(channels, size, classes, PLGMI.width).eval()
    labels = torch.tensor([0, 1])
    assert kedmi_critic_mflop(KEDMI, data) == pytest.approx(counted_mflop(lambda: kedmi(images)) / 2)
    normalised = counted_mflop(lambda: plgmi(images[:0], labels[:0]))  # of weights, whatever the images
    found = (counted_mflop(lambda: plgmi(images, labels)) - normalised) / 2
    assert plgmi_critic_mflop(PLGMI, data) == pytest.approx(found)


def test_training_costs_about_what_torch_counts(counted_mflop):
    context, images = PROBLEM.stage_context(), PROBLEM.public.images
    attacked = Attacked.of(context)
    image = attacked.image
    data = data_of(image.channels, image.size, attacked.classes)
    seen = counted_mflop(lambda: attacked.logits(images)) / len(images)
    world = World(data, len(images), seen)

    def kedmi():
        training = KedmiTraining(KEDMI, images, attacked, Streams(0))
        for _ in range(KEDMI.steps):
            training.step()

    def plgmi():
        chosen = surest(attacked.probabilities(images), PLGMI.top_n)
        training = PlgmiTraining(PLGMI, VIEWS, images[chosen], attacked, Streams(0))
        for _ in range(PLGMI.steps):
            training.step()

    assert kedmi_work(KEDMI, world).mflop == pytest.approx(counted_mflop(kedmi), rel=0.2)
    assert plgmi_work(PLGMI, world).mflop == pytest.approx(counted_mflop(plgmi), rel=0.2)


def test_comparing_images_of_a_batch_is_counted():
    data = data_of(1, 16, 10)
    world = World(data, 0, 0.0)
    few = KedmiGanConfig(steps=10, kernels=1, kernel_dimensions=1)
    many = few.model_copy(update={"kernels": 64, "kernel_dimensions": 50})
    classified = few.batch_size * (10 * 3 * 3 + 2 * 2)  # images, in forward passes
    projected = kedmi_critic_mflop(many, data) - kedmi_critic_mflop(few, data)
    pairs = few.batch_size * (64 * 50 - 1)
    extra = kedmi_work(many, world).mflop - kedmi_work(few, world).mflop
    features = few.batch_size * 2 * projected  # of real images, whose logits nobody needs
    assert extra - features == pytest.approx(classified * (projected + 150e-6 * pairs))
