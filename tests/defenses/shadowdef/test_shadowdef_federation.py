"""ShadowDef in federations: what is sent, what is kept, and that rounds can be computed again."""

from __future__ import annotations

import pytest
import torch

from fl.checkpoints import Checkpoint
from harness.store.artifacts import ArtifactStore

KINDS = [
    {"algorithm": "fedsgd", "batch_norm": "eval"},
    {"algorithm": "fedavg", "local_steps": 3, "momentum": 0.5, "rounds": 3},
]


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("kind", KINDS)
def test_off_is_plain_training_bit_for_bit(config, make_federation, kind):
    off = list(make_federation(config(noise_rescale=0.0), **{**kind, "rounds": 2}).run())
    plain = list(make_federation(None, **{**kind, "rounds": 2}).run())
    assert same(off[-1][0].model.tensors, plain[-1][0].model.tensors)
    assert all(not state for state in off[-1][0].defense_states.values())


@pytest.mark.parametrize("kind", KINDS)
def test_rounds_run_and_the_update_has_the_names_of_any_other(config, make_federation, kind):
    federation, plain = make_federation(config(shadow_steps=2), **kind), make_federation(None, **kind)
    start = federation.initial()
    ours, theirs = (each.client_update(start, 1) for each in (federation, plain))
    assert list(ours.update.tensors) == list(theirs.update.tensors)
    assert list(ours.update.buffers) == list(theirs.update.buffers)
    assert ours.protected is not None
    assert ours.protected.shape == (len(ours.image_ids), *start.model.architecture.image.shape)
    last = list(federation.run())[-1][0]
    assert all(bool(tensor.isfinite().all()) for tensor in last.model.tensors.values())
    assert set(last.defense_states) == {0, 1, 2}


@pytest.mark.parametrize("kind", KINDS)
def test_a_round_from_a_stored_checkpoint_is_the_same_to_the_bit(config, make_federation, kind, tmp_path):
    store = ArtifactStore(tmp_path / "private")
    options = {**kind, "rounds": 3}
    expected = [checkpoint for checkpoint, _ in make_federation(config(shadow_steps=2), **options).run()]
    store.put("checkpoint", expected[0].to_artifact())
    resumed = make_federation(config(shadow_steps=2), **options)
    again = [c for c, _ in resumed.run(Checkpoint.from_artifact(store.get("checkpoint")))]
    for one, other in zip(again, expected[1:], strict=True):
        assert same(one.model.tensors, other.model.tensors)
        for client, state in other.defense_states.items():
            assert same(one.defense_states[client], state)


def test_clients_have_shadows_of_their_own(config, make_federation):
    checkpoint = next(iter(make_federation(config(shadow_steps=2)).run()))[0]
    weights = [
        torch.cat([t.flatten() for name, t in state.items() if name.startswith("weights/")])
        for state in checkpoint.defense_states.values()
    ]
    assert len(weights) == 3
    assert not any(torch.equal(weights[0], other) for other in weights[1:])


def test_an_observed_update_is_recomputed_to_the_bit(config, make_federation):
    federation = make_federation(config(shadow_steps=2), algorithm="fedsgd", rounds=2)
    checkpoint = next(iter(federation.run()))[0]
    one = federation.client_update(checkpoint, 2)
    list(federation.run())
    other = federation.client_update(checkpoint, 2)
    assert same(one.update.tensors, other.update.tensors)
    assert torch.equal(one.protected, other.protected)


@pytest.mark.parametrize("placement", ["gaussian", "permuted"])
def test_placements_train_on_the_same_images_with_the_same_energy(config, make_federation, placement):
    records = {}
    for name in ("map", placement):
        federation = make_federation(config(placement=name), algorithm="fedsgd", channels=3)
        record = federation.client_update(federation.initial(), 0)
        data = federation.client(0).data
        chosen = [data.image_ids.index(image_id) for image_id in record.image_ids]
        added = record.protected.double() - data.images[chosen].double()
        records[name] = (record.image_ids, added.square().sum((1, 2, 3)).sqrt())
    assert records[placement][0] == records["map"][0]
    torch.testing.assert_close(records[placement][1], records["map"][1], rtol=1e-6, atol=0)
