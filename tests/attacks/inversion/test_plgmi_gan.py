"""PLG-MI's GAN: pseudo labels, views, the discriminator, and the stage that trains it."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from attacks.inversion import plgmi_gan, spectral
from attacks.inversion.cards_plgmi import PlgmiGanConfig, ViewsConfig
from attacks.inversion.gan_training import Attacked
from attacks.inversion.plgmi_gan import QUANTUM, PlgmiTraining, margin, surest
from attacks.inversion.projection_critic import ProjectionCritic
from attacks.inversion.spectral import SpectralConv, SpectralLinear, normalised
from attacks.inversion.views import DRAWS, placement, resample, views
from fl.errors import BenchError, NotApplicableError
from fl.generators.stage import load
from fl.seeds import Streams
from harness.testing import SmallProblem

TINY = PlgmiGanConfig(top_n=3, steps=3, critic_steps=2, batch_size=8, latent=6, width=2)
PROBLEM = SmallProblem(observes="global_model")
UNSEEN = ViewsConfig(crop=1, flip=False, rotation=0, brightness=0, contrast=0)


def uniform(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def made(config=TINY, seen=UNSEEN, **changes):
    needs = {"gan": config.resolved(), "views": seen.resolved()}
    return plgmi_gan.train(needs, {}, replace(PROBLEM.stage_context(), **changes))


def test_the_surest_images_of_each_class_are_chosen():
    probabilities = uniform(20, 4).softmax(1)
    probabilities[7] = probabilities[3]
    chosen = surest(probabilities, 5)
    for label in range(4):
        ranked = sorted(range(20), key=lambda i: (-float(probabilities[i, label]), i))
        assert chosen[label].tolist() == ranked[:5]


def test_fewer_public_images_than_asked_for_are_all_chosen():
    chosen = surest(uniform(4, 2).softmax(1), 30)
    assert [sorted(row) for row in chosen.tolist()] == [[0, 1, 2, 3]] * 2


def test_margin_by_hand():
    logits = torch.tensor([[2.0, -1.0, 5.0], [2.0, -1.0, 5.0], [1.0, 1.0, 0.0]])
    assert margin(logits, torch.tensor([0, 2, 1])).tolist() == [3, -3, 0]


def test_margin_pulls_up_the_label_and_down_its_rival():
    logits = torch.tensor([[2.0, -1.0, 5.0, 4.0]], requires_grad=True)
    margin(logits, torch.tensor([0])).sum().backward()
    assert logits.grad.tolist() == [[-1, 0, 1, 0]]


@settings(max_examples=20)
@given(st.integers(0, 1000), st.sampled_from([7, 16]))
def test_resampling_is_torchs_in_value_and_derivative(seed, size):
    images = uniform(3, 2, size, size, seed=seed).requires_grad_()
    maps = torch.eye(2, 3) + (uniform(3, 2, 3, seed=seed + 1) - 0.5)
    weights = uniform(3, 2, size, size, seed=seed + 2)
    grid = F.affine_grid(maps, list(images.shape), align_corners=False)
    expected = F.grid_sample(images, grid, padding_mode="zeros", align_corners=False)
    found = resample(images, maps)
    assert torch.allclose(found, expected, atol=2e-5)
    (slope,) = torch.autograd.grad((found * weights).sum(), images)
    (wanted,) = torch.autograd.grad((expected * weights).sum(), images)
    assert torch.allclose(slope, wanted, atol=2e-5)


def test_a_view_of_no_extent_is_the_image():
    images = uniform(4, 3, 16, 16)
    assert torch.allclose(views(images, uniform(4, DRAWS), UNSEEN), images, atol=1e-5)


def test_flip_mirrors_half_of_the_views():
    images, draws = uniform(200, 1, 8, 8), uniform(200, DRAWS)
    seen = views(images, draws, UNSEEN.model_copy(update={"flip": True}))
    mirrored = [torch.allclose(a, b.flip(-1), atol=1e-5) for a, b in zip(seen, images, strict=True)]
    as_is = [torch.allclose(a, b, atol=1e-5) for a, b in zip(seen, images, strict=True)]
    assert all(a != b for a, b in zip(mirrored, as_is, strict=True))
    assert 70 < sum(mirrored) < 130


def test_a_crop_keeps_a_square_within_the_image():
    maps = placement(uniform(500, DRAWS), UNSEEN.model_copy(update={"crop": 0.25}))
    side, corner = maps[:, 0, 0], maps[:, :, 2].abs()
    assert torch.equal(maps[:, 0, 0], maps[:, 1, 1])
    assert not maps[:, 0, 1].any()
    assert 0.5 <= float(side.min()) < 0.55
    assert 0.95 < float(side.max()) <= 1
    assert bool((corner + side[:, None] <= 1 + 1e-6).all())


def test_a_quarter_turn_is_torchs():
    draws = torch.full((1, DRAWS), 0.5)
    draws[0, 4], draws[0, 5] = 0.0, 1.0  # turned, as far as allowed
    images = uniform(1, 1, 9, 9)
    seen = views(images, draws, UNSEEN.model_copy(update={"rotation": 90.0}))
    turned = [torch.allclose(seen, torch.rot90(images, k, (2, 3)), atol=1e-5) for k in (1, 3)]
    assert sum(turned) == 1


def test_brightness_and_contrast_are_factors():
    images, draws = uniform(1, 1, 8, 8) / 2, torch.full((1, DRAWS), 0.5)
    draws[0, 6], draws[0, 7] = 1.0, 0.0
    bright = views(images, draws, UNSEEN.model_copy(update={"brightness": 0.2}))
    assert torch.allclose(bright, 1.2 * images, atol=1e-5)
    flat = views(images, draws, UNSEEN.model_copy(update={"contrast": 1.0}))
    assert torch.allclose(flat, images.mean().expand_as(flat), atol=1e-5)


@pytest.mark.parametrize("layer", [SpectralConv(3, 5, 3), SpectralLinear(7, 4)])
def test_spectral_layers_have_a_largest_singular_value_of_one(layer):
    spectral.draw(layer, torch.Generator().manual_seed(0))
    with torch.no_grad():
        for _ in range(200):
            weight = normalised(layer)
    assert float(torch.linalg.matrix_norm(weight.flatten(1), 2)) == pytest.approx(1, abs=1e-4)


def test_where_power_iteration_ends_torchs_does_in_value_and_derivative():
    ours = SpectralLinear(7, 4)
    spectral.draw(ours, torch.Generator().manual_seed(0))
    theirs = torch.nn.Linear(7, 4)
    theirs.weight.data = ours.weight.data.clone()
    theirs = torch.nn.utils.parametrizations.spectral_norm(theirs)
    weights = uniform(4, 7)
    for _ in range(60):
        mine, other = normalised(ours), theirs.weight
    assert torch.allclose(mine, other, atol=1e-4)
    (slope,) = torch.autograd.grad((mine * weights).sum(), ours.weight)
    (wanted,) = torch.autograd.grad((other * weights).sum(), theirs.parametrizations.weight.original)
    assert torch.allclose(slope, wanted, atol=1e-4)


def test_singular_vectors_stay_in_eval_mode():
    layer = SpectralLinear(7, 4)
    spectral.draw(layer, torch.Generator().manual_seed(0))
    before = layer.direction.clone()
    layer.eval()(uniform(2, 7))
    assert torch.equal(layer.direction, before)
    layer.train()(uniform(2, 7))
    assert not torch.equal(layer.direction, before)


def test_the_projection_adds_the_labels_embedding_times_the_features():
    critic = ProjectionCritic(1, 16, classes=3, width=2)
    critic.draw(torch.Generator().manual_seed(0))
    critic.eval()
    images, labels = uniform(4, 1, 16, 16), torch.tensor([0, 1, 2, 1])
    features = critic.features(images)
    embedding = normalised(critic.embedding)
    expected = critic.linear(features).squeeze(1) + (features * embedding[:, labels].T).sum(1)
    assert torch.allclose(critic(images, labels), expected, atol=1e-4)


@pytest.mark.parametrize("size", [16, 28, 32, 17])
def test_the_discriminator_takes_any_side(size):
    critic = ProjectionCritic(3, size, classes=3, width=2)
    assert critic(uniform(2, 3, size, size), torch.tensor([0, 2])).shape == (2,)


def chosen_images():
    attacked = Attacked.of(PROBLEM.stage_context())
    images = PROBLEM.public.images
    return attacked, images[surest(attacked.probabilities(images), TINY.top_n)]


def test_the_first_generator_step_follows_the_loss():
    """Adam's first step moves every weight by lr against the sign of its slope."""
    attacked, images = chosen_images()
    running, twin = (PlgmiTraining(TINY, UNSEEN, images, attacked, Streams(0)) for _ in range(2))
    stream = Streams(0).at(step=0).torch("generator_step")
    labels = torch.randint(10, (8,), generator=stream)
    latents = torch.randn(8, 6, generator=stream)
    made_images = twin.generator(latents, labels)
    logits = attacked.logits(made_images)
    rivals = torch.stack([torch.cat([r[:y], r[y + 1 :]]).max() for r, y in zip(logits, labels, strict=True)])
    behind = (rivals - logits[range(8), labels]).mean()
    loss = TINY.alpha * behind - twin.critic(made_images, labels).mean()
    names = [f"synthesis.to_images.{leaf}" for leaf in ("weight", "bias")]
    slopes = torch.autograd.grad(loss, [twin.generator.get_parameter(name) for name in names])
    weight, bias = (running.generator.get_parameter(name) for name in names)
    before = bias.detach().clone()
    running.step()
    assert torch.allclose(weight.grad, slopes[0], rtol=1e-4, atol=1e-5)
    assert torch.allclose(bias.detach() - before, -TINY.lr * slopes[1].sign(), atol=1e-6)


def test_the_first_discriminator_step_follows_the_hinge_loss():
    attacked, images = chosen_images()
    config = TINY.model_copy(update={"critic_steps": 1, "lr": 1e-6})
    running, twin = (PlgmiTraining(config, UNSEEN, images, attacked, Streams(0)) for _ in range(2))
    first = Streams(0).at(step=0)
    stream = first.torch("generator_step")
    labels = torch.randint(10, (8,), generator=stream)
    twin.critic(twin.generator(torch.randn(8, 6, generator=stream), labels), labels)  # power iteration
    stream = first.torch("critic_step", turn=0)
    labels = torch.randint(10, (8,), generator=stream)
    fake = twin.generator(torch.randn(8, 6, generator=stream), labels).detach()
    chosen = torch.randint(30, (8,), generator=stream)
    real = images.flatten(0, 1)[chosen]
    real = real + QUANTUM * torch.rand(real.shape, generator=stream)
    told_real = twin.critic(real, chosen // TINY.top_n)
    told_fake = twin.critic(fake, labels)
    loss = F.relu(1 - told_real).mean() + F.relu(1 + told_fake).mean()
    (slope,) = torch.autograd.grad(loss, twin.critic.get_parameter("linear.weight"))
    weight = running.critic.get_parameter("linear.weight")
    before = weight.detach().clone()
    running.step()
    assert torch.allclose(weight.detach() - before, -config.lr * slope.sign(), atol=1e-7)


def test_the_artifact_draws_by_class():
    artifact = made()
    generator = load(artifact)
    assert (generator.latent, generator.classes) == (6, 10)
    critic = plgmi_gan.discriminator(artifact, torch.device("cpu"))
    labels = torch.tensor([0, 9])
    assert critic(generator(torch.randn(2, 6), labels), labels).shape == (2,)
    assert not any(p.requires_grad for module in (generator, critic) for p in module.parameters())
    probabilities = Attacked.of(PROBLEM.stage_context()).probabilities(PROBLEM.public.images)
    expected = probabilities.topk(3, dim=0)[0].mean(0)
    assert artifact.data["confidence"] == pytest.approx(expected.tolist(), rel=1e-5)


class StoppedError(Exception):
    pass


def test_an_interrupted_gan_goes_on_to_the_same_weights(monkeypatch):
    monkeypatch.setattr("fl.generators.resumable.KEEP_EVERY", 2)
    whole, kept = made(seen=ViewsConfig()), []

    def stop(artifact):
        kept.append(artifact)
        raise StoppedError

    with pytest.raises(StoppedError):
        made(seen=ViewsConfig(), keep=stop)
    resumed = made(seen=ViewsConfig(), kept=lambda: kept[0])
    assert whole.tensors.keys() == resumed.tensors.keys()
    assert all(torch.equal(tensor, resumed.tensors[name]) for name, tensor in whole.tensors.items())


def test_views_matter_to_what_is_trained():
    plain, seen = made(), made(seen=ViewsConfig())
    assert not torch.equal(plain.tensors["samples"], seen.tensors["samples"])


def test_it_needs_the_attacked_model():
    with pytest.raises(NotApplicableError, match="global model of a round, got none"):
        made(model=None)


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
