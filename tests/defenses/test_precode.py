import math
from dataclasses import replace

import pytest
import torch
from pydantic import ValidationError
from torch.nn import functional as F

from attacks.catalog import DlgConfig
from attacks.dlg import Dlg
from attacks.problem import Problem
from defenses.cards_representation import PrecodeConfig
from defenses.catalog import is_simulated
from defenses.gaussian import standard_normal
from defenses.latents import Bottlenecked, Posterior, latents, latents_behind
from defenses.observed import one_gradient_of_one_image
from defenses.precode import DECODER, Precode
from fl.data import DATASETS, load
from fl.federation import Federation
from fl.hooks import Batch
from fl.models import MODELS, materialise
from fl.seeds import Streams
from fl.specs import FederationSpec, Plugin, Task
from fl.types import ImageSpec
from harness.testing import SmallProblem

K = 6
DEFENSE = Precode(PrecodeConfig(bottleneck=K, beta=0.5))


def module_of(small):
    return materialise(small.sent, wrap=lambda wrapper, model: small.defense.wrap_model(model))


def loss_and_grads(client, small, stream):
    step = small.step(stream)
    batch = Batch(small.images, small.labels, tuple(map(str, range(small.n))))
    loss = client.loss(step, batch)
    parameters = step.trainer.parameters
    return loss, dict(zip(parameters, torch.autograd.grad(loss, list(parameters.values())), strict=True))


def by_hand(small, noise, beta=0.5):
    """The loss of the definition, written out, and its gradient."""
    model = module_of(small)
    features = model.classifier.features(small.image.normalise(small.images))
    statistics = features @ model.bottleneck.encoder.weight.T + model.bottleneck.encoder.bias
    mean, deviation = statistics[:, :K], (1 + statistics[:, K:].exp()).log()
    z = mean + deviation * noise
    decoded = z @ model.bottleneck.decoder.weight.T + model.bottleneck.decoder.bias
    logits = decoded @ model.head.weight.T + model.head.bias
    kl = sum(
        0.5 * (m**2 + s**2 - 1) - s.log() for m, s in zip(mean.flatten(), deviation.flatten(), strict=True)
    ) / len(mean)
    loss = F.cross_entropy(logits, small.labels) + beta * kl
    names, parameters = zip(*model.named_parameters(), strict=True)
    return loss, dict(zip(names, torch.autograd.grad(loss, parameters), strict=True)), z


def test_the_divergence_is_that_of_normal_distributions():
    mean = torch.tensor([[0.0, 1.0], [0.5, -2.0]])
    deviation = torch.tensor([[1.0, 1.0], [0.5, 3.0]])
    normal = torch.distributions.Normal
    expected = torch.distributions.kl_divergence(normal(mean, deviation), normal(0.0, 1.0)).sum(1).mean()
    torch.testing.assert_close(Posterior(mean, deviation).divergence(), expected)
    assert float(Posterior(mean[:1], deviation[:1]).divergence()) == 0.5


def test_a_draw_is_the_mean_and_scaled_noise():
    posterior = Posterior.of(torch.tensor([[1.0, -1.0, 0.0, 2.0]]))
    torch.testing.assert_close(posterior.mean, torch.tensor([[1.0, -1.0]]))
    expected = torch.tensor([[math.log(2), math.log(1 + math.e**2)]])
    torch.testing.assert_close(posterior.deviation, expected)
    drawn = posterior.sample(torch.tensor([[2.0, -1.0]]))
    torch.testing.assert_close(drawn, torch.tensor([[1 + 2 * math.log(2), -1 - math.log(1 + math.e**2)]]))


def test_a_vanishing_deviation_has_a_finite_divergence():
    raw = torch.full((1, 4), -300.0, requires_grad=True)
    divergence = Posterior.of(raw).divergence()
    (derivative,) = torch.autograd.grad(divergence, raw)
    assert divergence.isfinite()
    assert derivative.isfinite().all()


@pytest.mark.parametrize("n", [1, 3])
def test_loss_and_gradients_are_those_of_the_definition(n):
    small = SmallProblem(n=n, defense=DEFENSE)
    client = DEFENSE.for_client(small.client_context)
    loss, gradients = loss_and_grads(client, small, Streams(4).torch("step"))
    noise = torch.randn(n, K, generator=Streams(4).torch("step"))
    expected, by_name, _ = by_hand(small, noise)
    torch.testing.assert_close(loss, expected)
    assert set(gradients) == set(by_name)
    for name, tensor in by_name.items():
        torch.testing.assert_close(gradients[name], tensor, rtol=1e-4, atol=1e-6)
        assert tensor.any(), name


def test_outside_training_the_means_are_passed_on():
    small = SmallProblem(n=2, defense=DEFENSE)
    model, state = module_of(small), torch.get_rng_state()
    inputs = small.image.normalise(small.images)
    with torch.no_grad():
        logits = model(inputs)
        statistics = model.bottleneck.encoder(model.classifier.features(inputs))
        expected = model.head(model.bottleneck.decoder(statistics[:, :K]))
    assert torch.equal(logits, expected)
    assert torch.equal(model(inputs), model.train()(inputs))
    assert torch.equal(torch.get_rng_state(), state)
    with latents(model, lambda posterior: posterior.mean + 1) as seen:
        moved = model(inputs)
    assert not torch.equal(moved, logits)
    assert torch.equal(seen[0].mean, statistics[:, :K])
    assert torch.equal(model(inputs), logits)


def test_the_classifiers_own_weights_do_not_depend_on_the_bottleneck():
    bare = SmallProblem().sent.tensors
    wrapped = SmallProblem(defense=DEFENSE).sent
    larger = SmallProblem(defense=Precode(PrecodeConfig(bottleneck=K + 1))).sent
    own = {name.removeprefix("classifier."): tensor for name, tensor in wrapped.tensors.items()}
    assert all(torch.equal(own[name], tensor) for name, tensor in bare.items())
    assert {name for name in own if name not in bare} == {
        f"bottleneck.{layer}.{part}" for layer in ("encoder", "decoder") for part in ("weight", "bias")
    }
    assert wrapped.tensors["bottleneck.encoder.weight"].shape[0] == 2 * K
    assert larger.tensors["bottleneck.decoder.weight"].shape[1] == K + 1
    assert wrapped.trainable[-2:] == ("head.weight", "head.bias")
    assert isinstance(module_of(SmallProblem(defense=DEFENSE)), Bottlenecked)


def test_the_wrapped_classifier_offers_what_others_do():
    card = MODELS.get("resnet20")
    task = Task("multiclass", 3)
    bare = MODELS.implementation("resnet20")(card.config(), ImageSpec(3, 16), task.outputs)
    blocks, layer, head = bare.blocks, bare.cam_layer, bare.head
    wrapped = DEFENSE.wrap_model(bare)
    assert wrapped.blocks == blocks
    assert wrapped.cam_layer is layer
    assert wrapped.get_submodule("head") is head


def test_every_step_of_every_client_draws_anew():
    make = digits_federation(DEFENSE, local_steps=2)
    federation = make()
    start = federation.initial()
    first, again, other = (federation.client_update(start, client).update.tensors for client in (0, 0, 1))
    elsewhere = make().client_update(start, 0).update.tensors
    for name, tensor in first.items():
        assert torch.equal(tensor, again[name])
        assert torch.equal(tensor, elsewhere[name])
        assert not torch.equal(tensor, other[name])
    client = DEFENSE.for_client(SmallProblem().client_context)
    small = SmallProblem(n=2, defense=DEFENSE)
    losses = [loss_and_grads(client, small, Streams(0).torch("step", step=step))[0] for step in (0, 0, 1)]
    assert losses[0] == losses[1] != losses[2]


def digits_federation(defense, **settings):
    """Return what makes a federation of four clients with 100 images each."""
    data = load(Plugin("digits", 1, DATASETS.get("digits").config(size=8)))
    convnet = MODELS.get("convnet")
    spec = {
        "algorithm": "fedavg",
        "clients": 4,
        "rounds": 1,
        "batch_size": 8,
        "lr": 0.05,
        "partition": {"name": "sizes", "sizes": [100] * 4},
        **settings,
    }
    return lambda: Federation(
        data=data,
        model=Plugin("convnet", convnet.version, convnet.config(width=4, convs=2)),
        spec=FederationSpec.model_validate(spec),
        defense=defense,
        streams=Streams(0),
    )


@pytest.mark.parametrize(
    "training",
    [
        {"local_epochs": 3, "rounds": 8, "lr": 0.05},
        {"algorithm": "fedsgd", "rounds": 150, "lr": 0.1, "batch_size": 32},
    ],
    ids=["fedavg", "fedsgd"],
)
def test_a_federation_trains_through_the_bottleneck(training):
    federation = digits_federation(Precode(PrecodeConfig(bottleneck=16)), **training)()
    rounds = list(federation.run())
    losses = [record.train_loss for _, record in rounds]
    logits, labels = federation.predict(rounds[-1][0])
    assert losses[-1] < 0.5 * losses[0]
    assert float((logits.argmax(1) == labels).float().mean()) > 0.7
    moved = rounds[-1][0].model.tensors
    start = federation.initial().model.tensors
    assert all(not torch.equal(moved[name], start[name]) for name in start if "bottleneck" in name)


def test_the_latents_of_one_image_are_read_from_the_decoders_gradient():
    small = SmallProblem(defense=DEFENSE)
    noise = torch.randn(1, K, generator=Streams(small.seed).torch("step", step=0))
    _, _, z = by_hand(small, noise)
    torch.testing.assert_close(latents_behind(small.observation, DECODER), z.detach(), rtol=1e-4, atol=1e-5)


def test_derivatives_of_the_objective_are_exact_at_known_latents():
    """The noise that gives the latents moves with the guess, and not with the weights."""
    small = SmallProblem(defense=DEFENSE)
    task = small.attack_task(DlgConfig(), adaptive=True, mirrored=False)
    problem = Problem.of(task, small.env(), unroll=False)
    assert problem.simulated
    inputs = small.image.normalise(SmallProblem(seed=1).images)
    direction = torch.randn(inputs.shape, generator=Streams(0).torch("direction"))

    def distance(at):
        found = problem.gradients(at, small.labels)
        return sum((found[name] - seen).double().square().sum() for name, seen in problem.observed.items())

    leaf = inputs.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(distance(leaf), leaf)
    steps = [float(distance(inputs + sign * 1e-2 * direction).detach()) for sign in (1, -1)]
    assert float((gradient * direction).sum()) == pytest.approx((steps[0] - steps[1]) / 2e-2, rel=0.02)


def test_of_several_images_only_gradients_that_ignore_the_draw_are_compared():
    small = SmallProblem(n=3, defense=DEFENSE)
    client = DEFENSE.simulated(small.client_context, small.observation)
    simulate = small.simulator(client)
    update = simulate(small.images, small.labels, small.sent, Streams(0).torch("x")).tensors
    other = simulate(small.images, small.labels, small.sent, Streams(1).torch("x")).tensors
    _, at_the_means, _ = by_hand(small, torch.zeros(3, K))
    for name, tensor in update.items():
        assert torch.equal(tensor, other[name])
        if name.startswith("classifier."):
            torch.testing.assert_close(tensor, at_the_means[name], rtol=1e-4, atol=1e-6)
        else:
            assert not tensor.any()


def test_who_knows_of_the_bottleneck_recovers_the_image():
    assert is_simulated(Plugin("precode", 1, PrecodeConfig()))
    small = SmallProblem(defense=Precode(PrecodeConfig(bottleneck=K)), know_labels=True)
    psnr = {}
    for adaptive in (False, True):
        task = small.attack_task(DlgConfig(iterations=40), adaptive=adaptive, mirrored=False)
        (answer,) = Dlg().solve([task], small.env())
        psnr[adaptive] = float(-10 * (answer.images - small.images).square().mean().log10())
    assert psnr[True] > psnr[False] + 10


def test_noise_is_drawn_on_the_cpu_from_the_steps_stream():
    like = torch.zeros(2, 3)
    drawn = standard_normal(like, Streams(0).torch("step"))
    assert torch.equal(drawn, torch.randn(2, 3, generator=Streams(0).torch("step")))


@pytest.mark.parametrize("options", [{"beta": -1e-3}, {"bottleneck": 0}])
def test_options_out_of_range_are_refused(options):
    with pytest.raises(ValidationError):
        PrecodeConfig(**options)


@pytest.mark.parametrize(
    ("problem", "local", "alone"),
    [
        ({}, {}, True),
        ({}, None, True),
        ({"n": 2}, {}, False),
        ({"observes": "aggregate"}, {}, False),
        ({"kind": "delta"}, {}, True),
        ({"kind": "delta"}, None, False),
        ({"kind": "delta"}, {"steps": 2}, False),
        ({"kind": "delta"}, {"weight_decay": 0.1}, False),
    ],
)
def test_only_one_gradient_of_one_image_gives_its_latents_away(problem, local, alone):
    observation = SmallProblem(**problem).observation
    knowledge = observation.knowledge
    known = None if local is None else replace(knowledge.local_training, **local)
    observation = replace(observation, knowledge=replace(knowledge, local_training=known))
    assert one_gradient_of_one_image(observation) is alone
