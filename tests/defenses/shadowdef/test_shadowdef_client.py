"""One client's step by step: what moves, what stays, and what is put back."""

from __future__ import annotations

import math

import pytest
import torch

from defenses.cards_shadowdef import GENERATOR
from defenses.shadowdef import injection, mechanism, rehearsal
from defenses.shadowdef.latents import fit_latents
from defenses.shadowdef.shadow import public_shadow
from fl.generators.stage import load
from fl.seeds import Streams
from harness.testing import SmallProblem

MODELS = [
    {"model": "resnet20", "batch_norm": "train", "algorithm": "fedavg", "momentum": 0.9},
    {"batch_norm": "eval", "channels": 3, "kind": "binary", "classes": 2, "algorithm": "fedavg"},
    {"kind": "multilabel", "algorithm": "fedavg", "momentum": 0.9},
    {"model": "lenet", "options": {"convs": 2}, "channels": 3, "algorithm": "fedsgd"},
]


def bits(tensors):
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def spied(monkeypatch, name):
    """Keep what a method of the mechanism returns."""
    seen = []
    method = getattr(mechanism.Mechanism, name)

    def spy(self, *arguments):
        seen.append(method(self, *arguments))
        return seen[-1]

    monkeypatch.setattr(mechanism.Mechanism, name, spy)
    return seen


@pytest.mark.parametrize("options", MODELS)
def test_a_step_leaves_training_and_the_received_model_as_they_were(config, make_federation, bench, options):
    at = bench(make_federation(config(), **options))
    trainer, batch = at.trainer, at.batch()
    if trainer.optimizer is not None:  # velocity, and batch-norm statistics unlike those received
        trainer.descend({name: torch.ones_like(p) for name, p in trainer.parameters.items()})
        trainer.forward(batch.images)
    before = bits(trainer.model.state_dict()), bits(at.received.tensors)
    velocity = [] if trainer.optimizer is None else [bits(s) for s in trainer.optimizer.state.values()]
    modes = [module.training for module in trainer.model.modules()]
    clean, stream = batch.images.clone(), at.step()
    noisy = at.defense.perturb_batch(stream, batch)

    assert same(trainer.model.state_dict(), before[0])
    assert same(at.received.tensors, before[1])
    if trainer.optimizer is not None:
        after = [bits(state) for state in trainer.optimizer.state.values()]
        assert len(after) == len(velocity)
        assert all(same(one, other) for one, other in zip(after, velocity, strict=True))
    assert [module.training for module in trainer.model.modules()] == modes
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in trainer.model.modules())
    assert torch.equal(batch.images, clean)
    assert noisy.labels is batch.labels
    assert noisy.image_ids == batch.image_ids
    assert not torch.equal(noisy.images, clean)
    assert bool(noisy.images.isfinite().all())


def test_noise_is_what_the_parts_make_of_it(config, make_federation, bench, monkeypatch):
    """|N4| <= |N|; weaker where Grad-CAM++ looks; its peak is rho max(x), in the model's input space."""
    options = config()
    noises, areas = spied(monkeypatch, "noise"), spied(monkeypatch, "salient")
    at = bench(make_federation(options, channels=3), round_=1)
    batch = at.batch()
    noisy = at.defense.perturb_batch(at.step(), batch)
    (noise,), (area,) = noises, areas

    torch.testing.assert_close(noise.sum((1, 2, 3)), torch.ones(4))
    steered = injection.steer(noise, area, injection.attenuation(options, 1, 4))
    assert bool((steered.abs() <= noise.abs()).all())
    share = steered.abs() / noise.abs()
    inside = (area > 0).unsqueeze(1).expand_as(share)
    assert bool(inside.any())
    assert float(share[inside].mean()) < float(share[~inside].mean())
    added = at.normalise(noisy.images) - at.normalise(batch.images)
    peak = 0.19 * math.exp(1 / 4) * at.normalise(batch.images).amax((1, 2, 3)).abs()
    torch.testing.assert_close(added.amax((1, 2, 3)), peak, rtol=1e-4, atol=1e-5)
    expected = steered * (peak / steered.amax((1, 2, 3))).view(-1, 1, 1, 1)
    torch.testing.assert_close(added, expected, rtol=1e-3, atol=1e-5)


def test_the_shadow_moves_half_way_and_nothing_else_of_the_generator_does(
    config, make_federation, bench, artifacts, monkeypatch
):
    tuned = spied(monkeypatch, "tune")
    at = bench(make_federation(config()))
    public = load(artifacts()[GENERATOR]).state_dict()
    batch = at.batch()
    at.defense.perturb_batch(at.step(), batch)
    first = bits(at.defense.state_dict())
    weights = {name: tensor for name, tensor in first.items() if name.startswith("weights/")}
    assert weights.keys() == {f"weights/{name}" for name in tuned[0]}
    assert not any("mapping" in name for name in weights)
    for name, new in tuned[0].items():
        old = public[f"synthesis.{name}"]
        assert not torch.equal(new, old)
        torch.testing.assert_close(weights[f"weights/{name}"], (new + old) / 2, rtol=0, atol=1e-7)

    at.defense.perturb_batch(at.step(1), batch)
    second = at.defense.state_dict()
    for name, new in tuned[1].items():
        expected = (new + weights[f"weights/{name}"]) / 2
        torch.testing.assert_close(second[f"weights/{name}"], expected, rtol=0, atol=1e-7)
    latents = [name for name in first if name.startswith("latents/")]
    assert len(latents) == 4
    assert all(torch.equal(first[name], second[name]) for name in latents)


def test_maps_are_remembered_by_the_recursion_and_used_once_the_shadow_rests(
    config, make_federation, bench, monkeypatch
):
    noises, tuned = spied(monkeypatch, "noise"), spied(monkeypatch, "tune")
    at = bench(make_federation(config(noise_momentum=0.1, shadow_final=2)))
    batch = at.batch()
    at.defense.perturb_batch(at.step(round_=0), batch)
    at.defense.perturb_batch(at.step(round_=1), batch)
    memory = 0.1 * noises[0] + 0.9 * noises[1]
    state = bits(at.defense.state_dict())
    for image_id, expected in zip(batch.image_ids, memory, strict=True):
        torch.testing.assert_close(state[f"maps/{image_id}"], expected, rtol=0, atol=0)

    noisy = at.defense.perturb_batch(at.step(round_=2), batch)
    assert (len(noises), len(tuned)) == (2, 2)  # no shadow from round shadow_final on
    assert same(bits(at.defense.state_dict()), state)
    added = at.normalise(noisy.images) - at.normalise(batch.images)
    for one, its in zip(added, memory, strict=True):
        assert float(torch.corrcoef(torch.stack([one.flatten(), its.flatten()]))[0, 1]) > 0.8


def test_an_image_met_after_the_shadow_came_to_rest_gets_a_map_once(
    config, make_federation, bench, monkeypatch
):
    noises, tuned = spied(monkeypatch, "noise"), spied(monkeypatch, "tune")
    at = bench(make_federation(config(shadow_final=1)))
    at.defense.perturb_batch(at.step(round_=0), at.batch(2))
    before = bits(at.defense.state_dict())
    at.defense.perturb_batch(at.step(round_=1), at.batch(4))
    after = bits(at.defense.state_dict())
    at.defense.perturb_batch(at.step(round_=2), at.batch(4))
    assert (len(noises), len(tuned)) == (2, 1)
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    assert len([name for name in after if name.startswith("maps/")]) == 4


def test_state_comes_back_from_tensors(config, make_federation, bench):
    at = bench(make_federation(config()))
    batch = at.batch()
    at.defense.perturb_batch(at.step(), batch)
    state = bits(at.defense.state_dict())
    heir = at.client.defense(1, state)
    assert same(heir.state_dict(), state)
    one, other = (d.perturb_batch(at.step(round_=1), batch).images for d in (at.defense, heir))
    assert torch.equal(one, other)


@pytest.mark.parametrize("placement", ["gaussian", "permuted"])
def test_placements_differ_in_nothing_but_where(config, make_federation, bench, placement):
    added, states = {}, {}
    for name in ("map", placement):
        at = bench(make_federation(config(placement=name), channels=3))
        batch = at.batch()
        added[name] = at.defense.perturb_batch(at.step(), batch).images.double() - batch.images.double()
        states[name] = bits(at.defense.state_dict())
    energy = {name: noise.square().sum((1, 2, 3)).sqrt() for name, noise in added.items()}
    torch.testing.assert_close(energy[placement], energy["map"], rtol=1e-6, atol=0)
    assert not torch.allclose(added[placement], added["map"], atol=1e-3)
    assert same(states[placement], states["map"])


def test_only_placements_that_draw_use_the_steps_stream(config, make_federation, bench):
    for placement, draws in (("map", False), ("gaussian", True), ("permuted", True)):
        at = bench(make_federation(config(placement=placement)))
        step = at.step()
        before = step.stream.get_state()
        at.defense.perturb_batch(step, at.batch())
        assert torch.equal(step.stream.get_state(), before) is not draws


def test_off_does_nothing(config, make_federation, bench):
    at = bench(make_federation(config(noise_rescale=0.0)))
    batch, step = at.batch(), at.step()
    before = step.stream.get_state()
    assert at.defense.perturb_batch(step, batch) is batch
    assert at.defense.state_dict() == {}
    assert torch.equal(step.stream.get_state(), before)


def test_an_attacker_who_differentiates_sees_the_batch_as_it_is(config, artifacts):
    from defenses.shadowdef.defense import ShadowDef

    small = SmallProblem(n=2, defense=ShadowDef(config()), artifacts=artifacts())
    client = small.defense.for_client(small.client_context)
    simulate = small.simulator(client)
    images = small.images.clone().requires_grad_()
    seen = simulate(images, small.labels, small.sent, Streams(0).torch("simulation")).tensors
    clean = SmallProblem(n=2).update.tensors
    for name, tensor in clean.items():
        torch.testing.assert_close(seen[name].detach(), tensor)
    assert client.state_dict() == {}


def test_no_images_get_no_noise(config, make_federation, bench):
    at = bench(make_federation(config()))
    batch = at.batch(0)
    assert at.defense.perturb_batch(at.step(), batch) is batch


def test_latents_of_images_are_fitted_each_for_itself(config, artifacts, make_federation, bench):
    """Alone or together; nearer than where they began; and not moved again."""
    options = config(latent_steps=40)
    at = bench(make_federation(options))
    shadow = public_shadow(artifacts()[GENERATOR], options, Streams(0), torch.device("cpu"))
    start = torch.randn(4, shadow.latent, generator=Streams(0).torch("z"))
    image, images = at.received.architecture.image, at.batch().images
    together = fit_latents(shadow, images, start, config=options, image=image)
    alone = torch.cat(
        [fit_latents(shadow, images[[i]], start[[i]], config=options, image=image) for i in range(4)]
    )
    torch.testing.assert_close(together, alone, rtol=1e-3, atol=1e-3)

    def error(latents):
        return (shadow.images(shadow.styles(latents)) - images).square().mean((1, 2, 3))

    assert bool((error(together) < error(start)).all())


def test_a_fit_ends_once_the_error_rises_and_only_after_the_warm_up(
    config, artifacts, make_federation, bench
):
    at = bench(make_federation(config()))
    options = config(latent_lr=0.3, latent_patience=1, latent_steps=30, latent_warmup=5)
    shadow = public_shadow(artifacts()[GENERATOR], options, Streams(0), torch.device("cpu"))
    drawn, own = [], shadow.images

    def counted(styles, weights=None):
        drawn.append(len(styles))
        return own(styles, weights)

    shadow.images = counted
    start = torch.randn(2, shadow.latent, generator=Streams(0).torch("z"))
    image = at.received.architecture.image
    fit_latents(shadow, at.batch(2).images, start, config=options, image=image)
    assert 6 <= len(drawn) < 30


def test_statistics_of_a_batch_are_those_of_its_batch_norm_inputs(config, make_federation, bench):
    """The first layer's, against a convolution by hand; recovered ones equal them in the first step."""
    at = bench(make_federation(config()))
    batch, model = at.batch(), at.trainer.model
    with rehearsal.rolled_back(at.trainer):
        trace = rehearsal.client_probe(at.trainer)(batch.images, batch.labels)
        recovered = rehearsal.recovered_statistics(model, at.received.tensors, at.trainer.float_buffers())
    hidden = model.body[0](at.normalise(batch.images)).transpose(0, 1).flatten(1)
    torch.testing.assert_close(trace.statistics[0].mean, hidden.mean(1))
    torch.testing.assert_close(trace.statistics[0].variance, hidden.var(1, correction=0))
    assert len(recovered) == len(trace.statistics) == 3
    for ours, theirs in zip(recovered, trace.statistics, strict=True):
        torch.testing.assert_close(ours.mean, theirs.mean, rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(ours.variance, theirs.variance, rtol=0.05, atol=1e-4)  # unbiased


def test_the_rehearsed_gradient_is_that_of_the_clean_batch(config, make_federation, bench):
    at = bench(make_federation(config()))
    batch = at.batch()
    with rehearsal.rolled_back(at.trainer):
        trace = rehearsal.client_probe(at.trainer)(batch.images, batch.labels)
    clean = make_federation(None)
    trainer = clean._trainer(clean.initial().model, 0)
    loss = trainer.task_loss(trainer.forward(batch.images), batch.labels)
    expected = torch.autograd.grad(loss, list(trainer.parameters.values()))
    assert all(torch.equal(one, other) for one, other in zip(trace.gradients, expected, strict=True))


def test_tuning_brings_the_shadow_nearer_to_the_batch(config, make_federation, bench, artifacts):
    options = config(shadow_steps=20)
    at = bench(make_federation(options))
    batch, step = at.batch(), at.step()
    shadow = public_shadow(artifacts()[GENERATOR], options, Streams(0), torch.device("cpu"))
    before = bits(shadow.weights)
    styles = shadow.styles(torch.randn(4, shadow.latent, generator=Streams(0).torch("z"))).detach()
    model = rehearsal.received_model(at.trainer, at.received)
    mech = mechanism.Mechanism(options, 4, 4)
    tuned = mech.tune(shadow, styles, step, batch, model)
    error = [(shadow.images(styles, w) - batch.images).square().mean() for w in (None, tuned)]
    assert float(error[1]) < float(error[0])
    assert same(shadow.weights, before)
