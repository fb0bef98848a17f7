"""KED-MI's GAN: its discriminator, its losses, and the stage that trains it."""

import itertools
import math
from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from attacks.inversion import kedmi_gan
from attacks.inversion.cards_kedmi import KedmiGanConfig
from attacks.inversion.gan_training import Attacked
from attacks.inversion.kedmi_critic import KedmiCritic, KedmiShape, MinibatchDiscrimination
from attacks.inversion.kedmi_gan import KedmiTraining
from attacks.inversion.kedmi_losses import discriminator_loss, feature_matching, realism, summed_entropy
from fl.errors import BenchError, DataUnavailableError, NotApplicableError
from fl.generators.stage import load
from fl.seeds import Streams
from harness.testing import SmallProblem

TINY = KedmiGanConfig(
    steps=7, critic_steps=2, batch_size=8, latent=6, width=2, kernels=3, kernel_dimensions=2
)
PROBLEM = SmallProblem(observes="global_model")


def normals(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def attacked():
    context = PROBLEM.stage_context()
    return Attacked.of(context)


def training(config=TINY):
    return KedmiTraining(config, PROBLEM.public.images, attacked(), Streams(0))


def made(config=TINY, **changes):
    return kedmi_gan.train({"gan": config.resolved()}, {}, replace(PROBLEM.stage_context(), **changes))


def test_minibatch_discrimination_sums_likenesses_to_the_others():
    layer = MinibatchDiscrimination(5, kernels=3, dimensions=2)
    layer.weight.data = normals(5, 6) / 3
    features = normals(4, 5, seed=1)
    found = layer(features)
    assert torch.equal(found[:, :5], features)
    rows = (features @ layer.weight.detach()).reshape(4, 3, 2)
    for n, b in itertools.product(range(4), range(3)):
        apart = [float((rows[n, b] - rows[m, b]).abs().sum()) for m in range(4) if m != n]
        expected = sum(math.exp(-distance) for distance in apart)
        assert found[n, 5 + b].item() == pytest.approx(expected, rel=1e-5)


def test_one_image_resembles_no_other():
    layer = MinibatchDiscrimination(5, kernels=3, dimensions=2)
    assert layer(normals(1, 5))[0, 5:].tolist() == [0, 0, 0]


def test_features_do_not_depend_on_the_batch_but_logits_do():
    critic = KedmiCritic(KedmiShape(1, 16, classes=4, width=2, kernels=3, dimensions=2))
    critic.draw(torch.Generator().manual_seed(0), kernel_deviation=0.02)
    images = PROBLEM.public.images[:4]
    assert torch.allclose(critic.features(images)[:2], critic.features(images[:2]), atol=1e-6)
    assert not torch.allclose(critic(images)[:2], critic(images[:2]), atol=1e-3)


@pytest.mark.parametrize(("size", "side"), [(16, 4), (28, 4), (32, 4), (64, 4), (17, 3)])
def test_convolutions_halve_the_sides_to_about_four(size, side):
    critic = KedmiCritic(KedmiShape(3, size, classes=4, width=2, kernels=3, dimensions=2))
    features = critic.features(torch.rand(2, 3, size, size))
    assert features.shape[1] % side**2 == 0
    assert critic.convolutions(torch.rand(1, 3, size, size)).shape[-1] == side


def test_kernels_are_drawn_as_wide_as_asked():
    critic = KedmiCritic(KedmiShape(1, 16, classes=4, width=8, kernels=20, dimensions=10))
    critic.draw(torch.Generator().manual_seed(0), kernel_deviation=0.02)
    assert float(critic.likeness.weight.detach().std()) == pytest.approx(0.02, rel=0.02)


def test_losses_are_those_of_a_softmax_with_one_more_class():
    """With a k+1st logit of 0 for generated images, by the probabilities of that softmax alone."""
    labelled, unlabelled, generated = (normals(5, 3, seed=seed) for seed in range(3))
    soft = normals(5, 3, seed=3).softmax(1)

    def real(logits):
        padded = torch.cat([logits, torch.zeros(len(logits), 1)], 1)
        return 1 - padded.softmax(1)[:, -1]

    assert torch.allclose(realism(unlabelled), -real(unlabelled).log(), atol=1e-6)
    divergence = F.kl_div(labelled.log_softmax(1), soft, reduction="batchmean")
    taught = divergence - (soft * soft.log()).sum(1).mean()
    expected = taught - real(unlabelled).log().mean() / 2 - (1 - real(generated)).log().mean() / 2
    found = discriminator_loss(labelled, soft, unlabelled, generated)
    assert float(found) == pytest.approx(float(expected), rel=1e-5)


def test_generator_losses_by_hand():
    generated, real = torch.tensor([[1.0, 0.0], [3.0, 2.0]]), torch.tensor([[0.0, 0.0], [2.0, -2.0]])
    assert float(feature_matching(generated, real)) == pytest.approx((1 + 2) / 2)
    logits = torch.tensor([[0.0, 0.0], [math.log(3), 0.0]])
    expected = math.log(2) - (0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert float(summed_entropy(logits)) == pytest.approx(expected, rel=1e-5)


def test_a_step_trains_the_discriminator_and_each_second_one_the_generator():
    running = training()
    states = []
    for _ in range(4):
        running.step()
        states.append([parameter.detach().clone() for parameter in running.generator.parameters()])
    changed = [
        any(not torch.equal(a, b) for a, b in zip(before, after, strict=True))
        for before, after in itertools.pairwise(states)
    ]
    assert changed == [True, False, True]


def test_the_first_discriminator_step_follows_the_loss():
    """Adam's first step moves every weight by lr against the sign of its slope."""
    running = training()
    stream = Streams(0).at(step=0).torch("critic_step")
    images = PROBLEM.public.images
    labelled, unlabelled = (torch.randint(len(images), (8,), generator=stream) for _ in range(2))
    fake = running.generator(torch.randn(8, 6, generator=stream)).detach()
    module = PROBLEM.stage_context().build(PROBLEM.sent).eval()
    soft = module(PROBLEM.image.normalise(images[labelled])).softmax(1).detach()
    loss = discriminator_loss(
        running.critic(images[labelled]), soft, running.critic(images[unlabelled]), running.critic(fake)
    )
    weight = running.critic.get_parameter("linear.weight")
    (slope,) = torch.autograd.grad(loss, weight)
    before = weight.detach().clone()
    running.step()
    moved = weight.detach() - before
    assert torch.allclose(moved, -TINY.lr * slope.sign(), atol=1e-6)


def test_soft_labels_come_from_the_model_as_observed():
    """Batch norms of a model that clients train with neither use nor count the public images."""
    context = PROBLEM.stage_context()
    module = context.build(PROBLEM.sent)
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    made(build=lambda state: module.train())
    assert not module.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())


def test_it_learns_what_the_attacked_model_says():
    config = TINY.model_copy(update={"kernel_deviation": 0.02, "width": 4, "lr": 2e-3})
    running = training(config)
    images = PROBLEM.public.images
    soft = attacked().probabilities(images)

    def mismatch():
        with torch.no_grad():
            return float(-(soft * running.critic(images).log_softmax(1)).sum(1).mean())

    before = mismatch()
    for _ in range(40):
        running.step()
    assert mismatch() < before - 0.1


def test_the_artifact_holds_generator_and_discriminator():
    artifact = made()
    assert artifact.tensors["samples"].shape == (64, 1, 16, 16)
    generator = load(artifact)
    critic = kedmi_gan.discriminator(artifact, torch.device("cpu"))
    assert generator.latent == 6
    assert critic(generator(torch.randn(2, 6))).shape == (2, 10)
    assert not any(p.requires_grad for module in (generator, critic) for p in module.parameters())


def test_a_released_generator_is_drawn_by_its_stored_statistics():
    artifact = made(TINY.model_copy(update={"architecture": "gmi", "steps": 2}))
    latents = torch.randn(64, 6, generator=Streams(0).torch("gan_samples"))
    shown = (load(artifact)(latents) * 255).round().to(torch.uint8)
    assert torch.equal(artifact.tensors["samples"], shown)


class StoppedError(Exception):
    pass


def test_an_interrupted_training_goes_on_to_the_same_weights(monkeypatch):
    monkeypatch.setattr("fl.generators.resumable.KEEP_EVERY", 3)
    whole, kept = made(), []

    def stop(artifact):
        kept.append(artifact)
        raise StoppedError

    with pytest.raises(StoppedError):
        made(keep=stop)
    resumed = made(kept=lambda: kept[0])
    assert whole.tensors.keys() == resumed.tensors.keys()
    assert all(torch.equal(tensor, resumed.tensors[name]) for name, tensor in whole.tensors.items())


def test_it_needs_the_model_and_public_images():
    with pytest.raises(NotApplicableError, match="global model of a round, got none"):
        made(model=None)
    with pytest.raises(DataUnavailableError, match="public images"):
        made(public=None)


def test_a_gan_that_diverges_ends_there_and_says_so(monkeypatch):
    monkeypatch.setattr("fl.generators.resumable.KEEP_EVERY", 4)
    kept = []
    with pytest.raises(
        BenchError, match=r"after 4 steps of gan training, .*critic.*; give gan: a smaller lr than 1e\+20"
    ):
        made(TINY.model_copy(update={"lr": 1e20, "steps": 40}), keep=kept.append)
    assert kept == []


def test_a_global_model_that_diverged_is_told_from_a_gan_that_did():
    weights = {name: torch.full_like(tensor, torch.nan) for name, tensor in PROBLEM.sent.tensors.items()}
    with pytest.raises(BenchError, match="its federation diverged"):
        made(model=replace(PROBLEM.sent, tensors=weights))
