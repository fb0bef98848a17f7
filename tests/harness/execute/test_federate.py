"""Federations as resumable rounds: whatever was lost, the bits are those of an undisturbed run."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from defenses import DEFENSES
from defenses.base import ClientDefense, Defense
from defenses.catalog import NONE
from harness.execute.federate import finish_round, run_federation, state_of, train_chunk
from harness.execute.work import FederationItem
from harness.plan.keys import checkpoint_key, federation_key

MATRIX = """
defaults:
  data: {name: digits, size: 8}
  model: {name: lenet, convs: 2}
  federation: {clients: 6, rounds: 3, chunk: 2, batch_size: 16, participation: 0.7, algorithm: %s}
  targets: 1
matrix:
  defense: [%s]
  attack: [random_guess]
"""


class CountingClient(ClientDefense):
    """Counts the rounds it took part in, and adds the count to its update."""

    def __init__(self):
        self.rounds = torch.zeros(1)

    def state_dict(self):
        return {"rounds": self.rounds}

    def load_state_dict(self, state):
        self.rounds = state["rounds"].clone()

    def protect(self, update, step):
        self.rounds = self.rounds + 1
        shifted = {name: tensor + 1e-3 * self.rounds for name, tensor in update.tensors.items()}
        return replace(update, tensors=shifted)


class Counting(Defense):
    def for_client(self, context):
        return CountingClient()


@pytest.fixture
def counting(register):
    """A defense whose clients have a state that changes their updates."""
    register(DEFENSES, replace(NONE, name="counting", implementation=f"{__name__}:Counting"))


@pytest.fixture
def item_of(trials_of):
    def make(algorithm="fedavg", defense="none"):
        spec = trials_of(MATRIX % (algorithm, defense))[0].spec
        return FederationItem(federation_key(spec), spec)

    return make


def stored(shop, item):
    """Every artifact of a federation, by round, and its summary."""
    rounds = range(1, item.spec.federation.rounds + 1)
    checkpoints = {n: shop.private.get(checkpoint_key(item.key, n)) for n in rounds}
    return checkpoints, shop.store.get(item.key)


def assert_same(left, right):
    (checkpoints, summary), (others, other_summary) = left, right
    assert summary.data == other_summary.data
    for number, checkpoint in checkpoints.items():
        assert checkpoint.data == others[number].data
        assert checkpoint.tensors.keys() == others[number].tensors.keys()
        for name, tensor in checkpoint.tensors.items():
            assert torch.equal(tensor, others[number].tensors[name]), (number, name)


def train_round(shop, item, state):
    """Compute one round's chunks and finish it."""
    results = [train_chunk(shop.materials, item, state.round, chunk) for chunk in state.chunks]
    return finish_round(shop.materials, shop.store, item, state.round, results)


@pytest.mark.parametrize("algorithm", ["fedsgd", "fedavg", "fedadam", "fedadagrad"])
@pytest.mark.parametrize("lost_in_round", [0, 1, 2])
@pytest.mark.usefixtures("counting")
def test_a_lost_federation_goes_on_with_the_same_bits(workshop, item_of, algorithm, lost_in_round):
    item = item_of(algorithm, "counting")
    undisturbed = workshop("undisturbed")
    run_federation(undisturbed.materials, undisturbed.store, item)

    first = workshop("lost")
    state = state_of(first.materials, first.store, item)
    while state.round < lost_in_round:
        state = train_round(first, item, state)
    train_chunk(first.materials, item, state.round, state.chunks[0])  # its sum is lost with the process
    second = workshop("lost")
    resumed = state_of(second.materials, second.store, item)
    assert resumed == state
    run_federation(second.materials, second.store, item)

    assert_same(stored(second, item), stored(undisturbed, item))


@pytest.mark.usefixtures("counting")
def test_lanes_that_share_a_store_agree_on_the_bits(workshop, item_of):
    """Each chunk of a round is computed by a lane of its own, the last one first."""
    item = item_of(defense="counting")
    alone, server = workshop("alone"), workshop("shared")
    run_federation(alone.materials, alone.store, item)

    state = state_of(server.materials, server.store, item)
    while not state.done:
        clients = {chunk: workshop("shared") for chunk in state.chunks}
        results = [train_chunk(clients[c].materials, item, state.round, c) for c in reversed(state.chunks)]
        state = finish_round(server.materials, server.store, item, state.round, results)

    assert_same(stored(server, item), stored(alone, item))


@pytest.mark.usefixtures("counting")
def test_a_clients_defense_keeps_its_state_between_rounds(workshop, item_of):
    item, shop = item_of(defense="counting"), workshop()
    run_federation(shop.materials, shop.store, item)
    federation = shop.materials.federation(item.spec)
    took_part = [client for number in range(3) for client in federation.participants(number)]
    states = shop.materials.checkpoint(item.spec, 3).defense_states

    assert {client: int(state["rounds"]) for client, state in states.items()} == {
        client: took_part.count(client) for client in set(took_part)
    }


def test_the_state_says_what_is_left(workshop, item_of):
    item, shop = item_of(), workshop()
    state = state_of(shop.materials, shop.store, item)
    assert (state.round, state.rounds, state.done) == (0, 3, False)
    assert state.chunks == tuple(c.index for c in shop.materials.federation(item.spec).chunks(0))

    state = train_round(shop, item, state)
    assert (state.round, state.done) == (1, False)
    run_federation(shop.materials, shop.store, item)
    finished = state_of(shop.materials, shop.store, item)
    assert (finished.round, finished.chunks, finished.done) == (3, (), True)


def test_a_federation_that_lacks_only_its_summary_gets_it(workshop, item_of):
    item, shop = item_of(), workshop()
    run_federation(shop.materials, shop.store, item)
    summary = shop.store.get(item.key)
    shop.store.discard(item.key)

    again = workshop()
    assert state_of(again.materials, again.store, item).done
    assert again.store.get(item.key).data == summary.data


def test_nothing_is_summed_up_before_the_last_round(workshop, item_of):
    item, shop = item_of(), workshop()
    state = state_of(shop.materials, shop.store, item)
    while state.round < state.rounds - 1:
        state = train_round(shop, item, state)

    assert not shop.store.has(item.key)
    assert train_round(shop, item, state).done
    assert shop.store.has(item.key)


def test_the_summary_has_the_untrained_model_and_every_round(workshop, item_of):
    item, shop = item_of(), workshop()
    run_federation(shop.materials, shop.store, item)
    rounds = shop.store.read_json(item.key)["rounds"]
    federation = shop.materials.federation(item.spec)

    assert [row["round"] for row in rounds] == [0, 1, 2, 3]
    assert rounds[0].get("bytes_up") is None
    for number, row in enumerate(rounds):
        logits, labels = federation.predict(shop.materials.checkpoint(item.spec, number))
        assert row["accuracy"] == pytest.approx((logits.argmax(1) == labels).double().mean().item())
    sent = shop.materials.checkpoint(item.spec, 0).model
    floats = sum(sent.tensors[name].numel() for name in sent.trainable)
    for row in rounds[1:]:
        assert row["participants"] == 4
        assert row["refused"] == 0
        assert row["bytes_up"] == 4 * 4 * floats
        assert 0 < row["update_norm_mean"] <= row["update_norm_max"]


def test_checkpoints_are_private(workshop, item_of):
    item, shop = item_of(), workshop()
    run_federation(shop.materials, shop.store, item)
    key = checkpoint_key(item.key, 1)

    assert shop.private.has(key)
    assert not shop.store.has(key)
    assert (shop.folder / "private").stat().st_mode & 0o077 == 0


def test_a_federation_without_rounds_is_the_untrained_model(workshop, trials_of):
    (trial,) = trials_of(
        """
        defaults:
          data: {name: digits, size: 8}
          model: {name: lenet, convs: 2}
          federation: {clients: 4, rounds: 0, batch_size: 1}
          targets: 1
        matrix: {attack: [random_guess]}
        """
    )
    item, shop = FederationItem(federation_key(trial.spec), trial.spec), workshop()
    run_federation(shop.materials, shop.store, item)

    assert [row["round"] for row in shop.store.read_json(item.key)["rounds"]] == [0]


def test_a_federation_out_of_time_keeps_the_rounds_it_finished(workshop, item_of):
    item, shop = item_of(), workshop()
    with pytest.raises(TimeoutError, match="0 of 3 rounds within 0 s"):
        run_federation(shop.materials, shop.store, replace(item, timeout_s=0.0))
    assert state_of(shop.materials, shop.store, item).round == 0

    train_round(shop, item, state_of(shop.materials, shop.store, item))
    with pytest.raises(TimeoutError, match="1 of 3 rounds"):
        run_federation(shop.materials, shop.store, replace(item, timeout_s=0.0))
    assert state_of(shop.materials, shop.store, item).round == 1


def test_a_finished_federation_needs_no_time(workshop, item_of):
    item, shop = item_of(), workshop()
    run_federation(shop.materials, shop.store, item)
    run_federation(shop.materials, shop.store, replace(item, timeout_s=0.0))
