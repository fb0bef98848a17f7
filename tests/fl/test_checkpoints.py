"""Checkpoints and chunk results through the bytes of a safetensors file."""

import json
import math

import torch
from safetensors.torch import load, save

from fl.checkpoints import Checkpoint, ChunkResult, ClientSummary
from fl.types import Artifact


def through_bytes(artifact):
    tensors = load(save({name: t.contiguous() for name, t in artifact.tensors.items()}))
    return Artifact(tensors, json.loads(json.dumps(artifact.data, allow_nan=False)))


def equal(a, b):
    return set(a) == set(b) and all(
        a[n].dtype == b[n].dtype and torch.equal(a[n].view(-1).nan_to_num(7), b[n].view(-1).nan_to_num(7))
        for n in a
    )


def test_a_checkpoint_keeps_every_bit(make_data, make_federation, model_plugin):
    federation = make_federation(
        data=make_data(size=9, mean=(0.1,), std=(1 / 3,)),
        model=model_plugin("convnet", width=1),
        batch_norm="train",
        freeze="middle",
    )
    model = next(federation.run())[0].model
    states = {3: {"mask/a": torch.tensor([1e-45, -0.0]), "count": torch.tensor(2)}, 11: {}}
    checkpoint = Checkpoint(5, model, states)
    again = Checkpoint.from_artifact(through_bytes(checkpoint.to_artifact()))

    assert again.round == 5
    assert again.model.architecture == model.architecture
    assert (again.model.trainable, again.model.batch_norm) == (model.trainable, "train")
    assert equal(again.model.tensors, model.tensors)
    assert list(again.defense_states) == [3, 11]
    assert equal(again.defense_states[3], states[3])
    assert again.defense_states[11] == {}


def test_training_goes_on_from_a_stored_checkpoint(make_federation):
    settings = {"algorithm": "fedavg", "rounds": 3}
    checkpoints = [checkpoint for checkpoint, _ in make_federation(**settings).run()]
    stored = Checkpoint.from_artifact(through_bytes(checkpoints[0].to_artifact()))

    assert equal(
        list(make_federation(**settings).run(stored))[-1][0].model.tensors, checkpoints[-1].model.tensors
    )


def test_chunk_results_give_the_same_round(make_federation):
    federation = make_federation(chunk=2, algorithm="fedavg")
    start = federation.initial()
    results = [federation.train_chunk(start, chunk) for chunk in federation.chunks(0)]
    stored = [ChunkResult.from_artifact(through_bytes(result.to_artifact())) for result in results]
    (direct, record), (indirect, same) = (federation.finish_round(start, r) for r in (results, stored))

    assert equal(direct.model.tensors, indirect.model.tensors)
    assert record == same


def test_a_chunk_of_refusals_and_divergence_survives():
    refused = ClientSummary(4, math.nan, math.nan, 0, 0, 80, "manipulated")
    diverged = ClientSummary(5, math.inf, math.nan, 3, 80, 80, None)
    result = ChunkResult(2, 1, {}, {}, 3, (refused, diverged), {4: {}, 5: {"s": torch.ones(1)}})
    again = ChunkResult.from_artifact(through_bytes(result.to_artifact()))

    assert repr(again.clients) == repr(result.clients)  # nan != nan
    assert (again.round, again.chunk, again.n_images, again.sums) == (2, 1, 3, {})
    assert equal(again.defense_states[5], {"s": torch.ones(1)})
