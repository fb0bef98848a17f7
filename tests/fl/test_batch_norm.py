"""The tiers of batch-norm statistics against what clients really computed with."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from fl.batch_norm import SUFFIXES, batch_statistics, inferred_statistics
from fl.errors import NotApplicableError
from fl.observe import candidates, observe
from fl.specs import KnowledgeSpec, ObserveSpec, ThreatModel
from fl.types import ImageSpec, LocalTraining, Update


def seen_by(federation, tier, **observe_spec):
    threat_model = ThreatModel(knowledge=KnowledgeSpec(batch_norm=tier))
    target = candidates(federation, ObserveSpec(**observe_spec))[0]
    return observe(federation, {0: federation.initial()}, target, threat_model)


def true_statistics(federation, secret):
    """Computed from the private batch, layer by layer, in train mode."""
    part = federation.data.part("private")
    hidden = part.images(part.positions(secret.image_ids))
    module = federation.build(federation.initial().model).train()
    found = {}
    for name, layer in module.body.named_children():
        if isinstance(layer, nn.BatchNorm2d):
            flat = hidden.detach().movedim(1, 0).flatten(1).double()
            found[f"body.{name}.running_mean"] = flat.mean(1).float()
            found[f"body.{name}.running_var"] = flat.var(1, correction=0).float()
        hidden = layer(hidden)
    return found


@pytest.mark.parametrize(
    "sends", [{"algorithm": "fedsgd"}, {"algorithm": "fedavg", "local_steps": 1, "lr": 0.3}]
)
@pytest.mark.parametrize("batch_size", [1, 3])
def test_after_one_step_inferred_statistics_are_the_batch_s(
    sends, batch_size, make_data, make_federation, model_plugin
):
    federation = make_federation(
        data=make_data(size=9, images=12),
        model=model_plugin("convnet", width=2, convs=4),
        batch_norm="train",
        batch_size=batch_size,
        clients=2,
        **sends,
    )
    seen = seen_by(federation, "inferred")
    secret = replace(seen.secret, image_ids=seen.secret.image_ids[:batch_size])
    truth = true_statistics(federation, secret)
    found = seen.observation.knowledge.batch_norm
    assert found.keys() == truth.keys()
    for name, values in truth.items():
        torch.testing.assert_close(found[name], values, rtol=1e-4, atol=1e-5)


def test_exact_statistics_are_the_inferred_ones(make_data, make_federation, model_plugin):
    federation = make_federation(
        data=make_data(size=9), model=model_plugin("convnet", width=2), batch_norm="train", batch_size=4
    )
    exact, inferred = (
        seen_by(federation, tier).observation.knowledge.batch_norm for tier in ("exact", "inferred")
    )
    for name in exact:
        torch.testing.assert_close(inferred[name], exact[name], rtol=1e-4, atol=1e-5)


def test_after_several_steps_they_are_a_mean_that_favours_later_ones():
    """Running statistics by hand: steps' means 1, 2, 4 and variances of 4 values each."""
    module = nn.Sequential(nn.BatchNorm2d(1))
    before = {"0.running_mean": torch.tensor([7.0]), "0.running_var": torch.tensor([3.0])}
    mean, variance = 7.0, 3.0
    for step_mean, step_variance in ((1.0, 0.5), (2.0, 1.5), (4.0, 1.0)):
        mean, variance = 0.9 * mean + 0.1 * step_mean, 0.9 * variance + 0.1 * step_variance * 4 / 3
    after = {"0.running_mean": torch.tensor([mean]), "0.running_var": torch.tensor([variance])}
    found = inferred_statistics(
        module,
        before,
        Update("delta", {}, after, 9),
        image=ImageSpec(1, 2),
        clients=1,
        local=LocalTraining(lr=0.1, steps=3, batch_size=1, epochs=1),
    )
    shares = torch.tensor([0.81, 0.9, 1.0]) / 2.71
    expected = [float(shares @ torch.tensor(values)) for values in ([1.0, 2.0, 4.0], [0.5, 1.5, 1.0])]
    assert [float(found[f"0{suffix}"]) for suffix in SUFFIXES] == pytest.approx(expected, rel=1e-5)


def test_of_an_aggregate_they_are_the_mean_over_clients(make_data, make_federation, model_plugin):
    federation = make_federation(
        data=make_data(size=9), model=model_plugin("convnet", width=2), batch_norm="train", batch_size=4
    )
    seen = seen_by(federation, "inferred", kind="aggregate", clients=2)
    ids = seen.secret.image_ids
    truths = [
        true_statistics(federation, replace(seen.secret, image_ids=part)) for part in (ids[:4], ids[4:])
    ]
    for name, found in seen.observation.knowledge.batch_norm.items():
        torch.testing.assert_close(found, (truths[0][name] + truths[1][name]) / 2, rtol=1e-3, atol=1e-5)


def test_where_clients_share_no_statistics_nothing_is_inferred(make_data, make_federation, model_plugin):
    federation = make_federation(data=make_data(size=9), model=model_plugin("convnet", width=1))
    assert seen_by(federation, "inferred").observation.knowledge.batch_norm is None


def test_with_a_proxy_clients_keep_their_statistics(make_data, make_federation, model_plugin):
    federation = make_federation(
        data=make_data(size=9), model=model_plugin("convnet", width=1), batch_norm="train", batch_size=2
    )
    observation = seen_by(federation, "proxy").observation
    assert observation.knowledge.batch_norm is None
    assert observation.update.buffers == {}


def test_a_plain_average_over_batches_is_refused():
    module = nn.Sequential(nn.BatchNorm2d(1, momentum=None))
    buffers = {"0.running_mean": torch.zeros(1), "0.running_var": torch.ones(1)}
    with pytest.raises(NotApplicableError, match="momentum"):
        inferred_statistics(
            module,
            buffers,
            Update("gradient", {}, buffers, 1),
            image=ImageSpec(1, 2),
            clients=1,
            local=None,
        )


def test_inferring_leaves_the_model_alone():
    module = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2)).train()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    inferred_statistics(
        module, before, Update("gradient", {}, before, 1), image=ImageSpec(1, 4), clients=1, local=None
    )
    assert module.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())


def test_statistics_do_not_depend_on_the_mode_of_the_first_layer():
    module = nn.Sequential(nn.BatchNorm2d(1))
    images = torch.rand(5, 1, 3, 3, generator=torch.Generator().manual_seed(0))
    found = batch_statistics(module.eval(), images)
    assert float(found["0.running_mean"]) == pytest.approx(float(images.mean()), rel=1e-6)
    assert float(found["0.running_var"]) == pytest.approx(float(images.var(correction=0)), rel=1e-6)
