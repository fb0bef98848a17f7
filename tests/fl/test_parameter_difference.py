"""Gradients inferred from the model sent and the model returned, in float32."""

import pytest
import torch

from defenses.catalog import FixedStepConfig
from defenses.fixed_step import FixedStep
from fl.observe import candidates, draw_targets, observe
from fl.parameter_difference import infer_gradient, returned_model
from fl.specs import KnowledgeSpec, ObserveSpec, ThreatModel
from fl.types import LocalTraining, Update

DIFFERENCE = ObserveSpec(form="parameter_difference")


def relative_error(found, true):
    difference = torch.cat([(found[n].double() - true[n].double()).flatten() for n in true])
    return (difference.norm() / torch.cat([t.double().flatten() for t in true.values()]).norm()).item()


def seen(federation, checkpoints, spec=DIFFERENCE, threat_model=None):
    """Both forms of one target."""
    target = draw_targets(federation, spec, 1)[0]
    return target, *(
        observe(federation, checkpoints, target, threat_model or ThreatModel(), form=form).observation
        for form in ("parameter_difference", "shared")
    )


def all_checkpoints(federation):
    return {c.round: c for c in [federation.initial(), *(c for c, _ in federation.run())]}


@pytest.mark.parametrize("round_", [0, 2])
@pytest.mark.parametrize("options", [{"algorithm": "fedsgd"}, {"algorithm": "fedavg", "local_steps": 1}])
def test_one_step_at_lr_0_01_gives_the_gradient(options, round_, make_federation):
    federation = make_federation(**options, lr=0.01, rounds=2, batch_size=6)
    checkpoints = all_checkpoints(federation)
    spec = ObserveSpec(form="parameter_difference", round=round_)
    target, inferred, shared = seen(federation, checkpoints, spec)
    held = federation.client(target.clients[0])
    sgd = make_federation(algorithm="fedsgd", lr=0.01, rounds=2, batch_size=6)
    true = sgd.client_update(checkpoints[round_], target.clients[0], batch=target.batch).update.tensors

    assert inferred.update.kind == "gradient"
    assert inferred.update.n_images == shared.update.n_images == len(held.data)
    assert inferred.sent is shared.sent
    assert 0 < relative_error(inferred.update.tensors, true) < 1e-3
    assert all(tensor.dtype == torch.float32 for tensor in inferred.update.tensors.values())
    assert inferred.knowledge.local_training == LocalTraining(0.01, 1, 6, 1)


def test_several_steps_give_about_the_mean_gradient_over_all_images(make_data, make_federation):
    federation = make_federation(
        data=make_data(images=48), algorithm="fedavg", lr=2e-4, batch_size=3, local_epochs=2, clients=2
    )
    target, inferred, shared = seen(federation, {0: federation.initial()})
    whole = make_federation(data=make_data(images=48), algorithm="fedsgd", batch_size=24, clients=2)
    true = whole.client_update(whole.initial(), target.clients[0]).update.tensors
    local = shared.knowledge.local_training

    assert inferred.update.n_images == 24
    assert local.steps == 16
    assert relative_error(inferred.update.tensors, true) < 0.05
    for name, delta in shared.update.tensors.items():
        expected = -delta.double() / (local.lr * 16)
        torch.testing.assert_close(inferred.update.tensors[name].double(), expected, rtol=1e-2, atol=1e-4)


def test_images_that_no_local_step_took_are_not_behind_the_gradient(make_data, make_federation):
    federation = make_federation(
        data=make_data(images=48), algorithm="fedavg", local_steps=2, batch_size=4, clients=2
    )
    knows = ThreatModel(knowledge=KnowledgeSpec(labels="known"))
    _, inferred, shared = seen(federation, {0: federation.initial()}, threat_model=knows)

    assert (inferred.update.n_images, shared.update.n_images) == (8, 24)
    assert len(inferred.knowledge.labels) == 8


def test_without_the_learning_rate_only_the_direction_is_known(make_federation):
    federation = make_federation(algorithm="fedavg", local_steps=1, lr=0.02, batch_size=6)
    start = {0: federation.initial()}
    blind = ThreatModel(knowledge=KnowledgeSpec(local_hyperparameters=False))
    _, known, _ = seen(federation, start)
    _, unknown, _ = seen(federation, start, threat_model=blind)

    assert unknown.knowledge.local_training is None
    for name, tensor in known.update.tensors.items():
        torch.testing.assert_close(unknown.update.tensors[name], 0.02 * tensor, rtol=1e-5, atol=1e-9)


def test_the_round_s_learning_rate_is_divided_out(make_federation):
    federation = make_federation(
        lr=0.5, rounds=3, schedule={"name": "step", "milestones": (2,), "factor": 0.02}, batch_size=6
    )
    checkpoints = all_checkpoints(federation)
    spec = ObserveSpec(form="parameter_difference", round=2)
    _, inferred, shared = seen(federation, checkpoints, spec)

    assert inferred.knowledge.local_training.lr == 0.01
    assert relative_error(inferred.update.tensors, shared.update.tensors) < 1e-3


@pytest.mark.parametrize("freeze", ["batch_norm", "all_but_last", "middle"])
@pytest.mark.parametrize("algorithm", ["fedsgd", "fedavg"])
def test_frozen_parameters_are_absent(algorithm, freeze, make_data, make_federation, model_plugin):
    federation = make_federation(
        data=make_data(size=9),
        model=model_plugin("convnet", width=1),
        algorithm=algorithm,
        freeze=freeze,
        batch_norm="train",
        lr=0.01,
    )
    _, inferred, shared = seen(federation, {0: federation.initial()})

    assert set(inferred.update.tensors) == set(shared.update.tensors) == set(shared.sent.trainable)
    assert set(inferred.update.buffers) == set(shared.update.buffers)
    assert (inferred.update.buffers == {}) == (freeze == "batch_norm")


def test_candidates_and_draws_do_not_depend_on_the_form(make_federation):
    federation = make_federation()

    assert candidates(federation, DIFFERENCE) == candidates(federation, ObserveSpec())


def test_signs_zeros_and_exact_numbers():
    sent = {"w": torch.tensor([1.0, 2.0, 4.0]), "frozen": torch.ones(1)}
    update = Update("gradient", {"w": torch.tensor([2.0, 0.0, -4.0])}, {"mean": torch.ones(2)}, 1)
    returned = returned_model(sent, update, lr=0.5)
    inferred = infer_gradient(sent, {"w": returned["w"]}, reach=0.5)

    assert returned["w"].tolist() == [0.0, 2.0, 6.0]
    assert set(returned) == {"w", "frozen", "mean"}
    assert inferred["w"].tolist() == [2.0, 0.0, -4.0]
    assert not torch.signbit(inferred["w"][1])
    assert not torch.signbit(infer_gradient(sent, sent, reach=-1.0)["w"]).any()
    delta = Update("delta", {"w": torch.tensor([-1.0, 0.0, 2.0])}, {}, 1)
    assert torch.equal(returned_model(sent, delta, lr=0.5)["w"], returned["w"])


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("form", ["shared", "parameter_difference"])
def test_an_adaptive_attacker_knows_the_step_of_a_rounded_delta(form, momentum, make_federation):
    defense = FixedStep(FixedStepConfig(step=0.05))
    options = {"algorithm": "fedavg", "local_steps": 4, "momentum": momentum, "lr": 0.1, "batch_size": 2}
    federation = make_federation(defense=defense, **options)
    start = federation.initial()
    target = draw_targets(federation, ObserveSpec(form=form), 1)[0]
    observation = observe(federation, {0: start}, target, ThreatModel(), form=form).observation
    entries = torch.cat([tensor.flatten() for tensor in observation.update.tensors.values()])
    smallest = entries[entries != 0].abs().min()
    torch.testing.assert_close(defense.estimate(observation), smallest, rtol=1e-4, atol=0)
