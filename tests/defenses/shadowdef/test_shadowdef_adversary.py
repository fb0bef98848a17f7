"""The attacker who knows the mechanism, given the batch that was trained on."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from defenses.base import AdversaryContext
from defenses.cards_shadowdef import GENERATOR
from defenses.shadowdef import adversary
from fl.seeds import Streams
from fl.types import Knowledge, Observation, RoundView
from harness.testing.small_images import SmallPublicData


@pytest.fixture
def attacked():
    """From a federation to the private batch, the one trained on, its labels, and the attacker's context."""

    def make(federation, client=0):
        start = federation.initial()
        record, member = federation.client_update(start, client), federation.client(client)
        chosen = [member.data.image_ids.index(image_id) for image_id in record.image_ids]
        observation = Observation(
            kind="update",
            clients=(client,),
            history=(RoundView(0, start.model, record.update),),
            task=federation.data.info.task,
            image=start.model.architecture.image,
            knowledge=Knowledge(labels=record.labels, local_training=member.local(0)),
        )
        part = federation.data.part("public")
        context = AdversaryContext(
            observation=observation,
            rounds=federation.spec.rounds,
            public=SmallPublicData(part.images(range(len(part))), part.labels),
            artifacts=federation._artifacts,
            build=federation.build,
            stream=Streams(0).torch("unperturb"),
        )
        return member.data.images[chosen], record.protected, record.labels, context

    return make


def error(one, other):
    return float((one - other).square().mean())


@pytest.mark.parametrize(
    "options",
    [
        {"algorithm": "fedsgd"},
        {"algorithm": "fedavg", "kind": "binary", "classes": 2, "channels": 3},
        {"algorithm": "fedsgd", "kind": "multilabel", "batch_norm": "eval"},
    ],
)
def test_who_knows_the_mechanism_comes_nearer_to_the_private_batch(
    config, make_federation, attacked, options
):
    federation = make_federation(config(noise_rescale=0.5, latent_steps=120), **options)
    gains = []
    for client in range(3):
        private, trained, labels, context = attacked(federation, client)
        found = federation.defense.unperturb(trained, labels, context)
        assert found.shape == trained.shape
        gains.append(error(trained, private) / error(found, private))
    assert min(gains) > 1


def test_an_estimate_trusts_draws_as_far_as_they_agree():
    generator = torch.Generator().manual_seed(0)
    pattern = torch.randn(1, 2, 3, 24, 24, generator=generator) + 1
    noise = torch.randn(5, 2, 3, 24, 24, generator=generator)
    torch.testing.assert_close(adversary.estimate(pattern.expand(5, -1, -1, -1, -1)), pattern[0])
    centre = pattern.mean((3, 4), keepdim=True)[0]
    unlike = adversary.estimate(noise + 1)
    assert error(unlike, torch.ones_like(unlike)) < 0.1 * error((noise + 1).mean(0), torch.ones_like(unlike))
    assert error(adversary.estimate(pattern + noise), pattern[0]) < error(
        (pattern + noise).mean(0), pattern[0]
    )
    assert error(adversary.estimate(pattern + noise), pattern[0]) < error(centre, pattern[0])
    assert torch.equal(adversary.estimate(noise[:1]), noise[0])


def test_white_noise_cannot_be_foreseen(config, make_federation, attacked):
    federation = make_federation(config(placement="gaussian"), algorithm="fedsgd")
    _, trained, labels, context = attacked(federation)
    assert federation.defense.unperturb(trained, labels, context) is trained


def test_of_permuted_noise_only_its_mean_is_taken_away(config, make_federation, attacked):
    federation = make_federation(config(placement="permuted"), algorithm="fedsgd")
    private, trained, labels, context = attacked(federation)
    context = replace(context, public=None)
    found = federation.defense.unperturb(trained, labels, context)
    taken = trained - found
    torch.testing.assert_close(taken, taken[..., :1, :1].expand_as(taken), atol=1e-6, rtol=0)
    assert error(found, private) < error(trained, private)


def test_a_defense_that_is_off_has_nothing_to_take_away(config, make_federation, attacked):
    federation = make_federation(config(noise_rescale=0.0), algorithm="fedsgd")
    context = AdversaryContext(None, 1, None, {}, federation.build, Streams(0).torch("x"))
    images = torch.rand(2, 1, 16, 16, generator=Streams(0).torch("images"))
    assert federation.defense.unperturb(images, torch.zeros(2).long(), context) is images


def test_a_perfect_mimic_leaves_nothing(config, make_federation, attacked, monkeypatch):
    """With the client's own offset at every guess, the fixed point is the private batch."""
    federation = make_federation(config(), algorithm="fedsgd")
    private, trained, labels, context = attacked(federation)
    offset = trained - private
    monkeypatch.setattr(adversary._Mimic, "offset", lambda self, *guess: offset)
    found = federation.defense.unperturb(trained, labels, replace(context, public=None))
    torch.testing.assert_close(found, private)


def test_nothing_private_is_needed(config, make_federation, attacked):
    federation = make_federation(config(), algorithm="fedsgd")
    _, trained, labels, context = attacked(federation)
    assert set(context.artifacts) == {GENERATOR}
    before = {name: t.clone() for name, t in context.observation.sent.tensors.items()}
    federation.defense.unperturb(trained, labels, context)
    assert all(torch.equal(context.observation.sent.tensors[name], t) for name, t in before.items())
