"""A round of FedAvg with batch norm against plain PyTorch: SGD by each client, a mean over state dicts."""

import copy

import torch
from torch.nn import functional as F

SIZES = (6, 4, 2)


def trained_by_hand(federation, start, client):
    """Return a client's state dict after its local epochs, the batches as the federation draws them."""
    module = federation.build(start.model).train()
    member = federation.client(client)
    optimizer = torch.optim.SGD(module.parameters(), lr=federation.spec.lr)
    for indices in member.batches(member.defense(0), 0):
        optimizer.zero_grad()
        logits = module(federation.architecture.image.normalise(member.data.images[indices]))
        F.cross_entropy(logits, member.data.labels[indices]).backward()
        optimizer.step()
    return module.state_dict()


def test_a_round_is_the_mean_of_state_dicts_with_batch_norm_s_buffers(
    make_data, make_federation, model_plugin
):
    federation = make_federation(
        data=make_data(images=12, size=9),
        model=model_plugin("convnet", width=1),
        algorithm="fedavg", clients=3, rounds=1, batch_size=2, local_epochs=2, lr=0.05, chunk=2,
        partition={"name": "sizes", "sizes": SIZES}, batch_norm="train",
    )  # fmt: skip
    start = federation.initial()
    before = copy.deepcopy(dict(start.model.tensors))
    states = [trained_by_hand(federation, start, client) for client in range(3)]
    ((end, _),) = federation.run()

    averaged = [name for name in before if before[name].is_floating_point()]
    counters = [name for name in before if not before[name].is_floating_point()]
    assert {name.rpartition(".")[2] for name in averaged} == {"weight", "bias", "running_mean", "running_var"}
    assert {name.rpartition(".")[2] for name in counters} == {"num_batches_tracked"}
    for name in averaged:
        weighted = [n * state[name].double() for n, state in zip(SIZES, states, strict=True)]
        expected = torch.stack(weighted).sum(0) / 12
        torch.testing.assert_close(end.model.tensors[name].double(), expected, rtol=1e-4, atol=1e-6)
        assert "running" not in name or not torch.equal(end.model.tensors[name], before[name])
    for name in counters:  # a mean of counts is no count: what was sent stays
        assert [int(state[name]) for state in states] == [6, 4, 2]
        assert end.model.tensors[name] == before[name] == 0
        assert end.model.tensors[name].dtype == before[name].dtype


def test_the_first_layer_s_statistics_after_one_step(make_data, make_federation, model_plugin):
    """One batch each: 0.9 of what was sent and 0.1 of the batch's, the variance divided by n - 1."""
    federation = make_federation(
        data=make_data(images=12, size=9),
        model=model_plugin("convnet", width=1),
        algorithm="fedavg", clients=3, rounds=1, batch_size=6, lr=0.05,
        partition={"name": "sizes", "sizes": SIZES}, batch_norm="train",
    )  # fmt: skip
    convolve = federation.build(federation.initial().model).body.conv1
    means, variances = [], []
    for client in range(3):
        with torch.no_grad():
            flat = convolve(federation.client(client).data.images).transpose(0, 1).flatten(1).double()
        mean = flat.sum(1, keepdim=True) / flat.shape[1]
        means.append(0.1 * mean.squeeze(1))
        variances.append(0.9 + 0.1 * (flat - mean).square().sum(1) / (flat.shape[1] - 1))
    ((end, _),) = federation.run()

    for name, found in (("running_mean", means), ("running_var", variances)):
        expected = (6 * found[0] + 4 * found[1] + 2 * found[2]) / 12
        torch.testing.assert_close(
            end.model.tensors[f"body.norm1.{name}"].double(), expected, rtol=1e-5, atol=1e-7
        )
