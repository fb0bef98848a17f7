"""MID as a variational bottleneck: loss, layers, training, and what its gradients give away."""

import pytest
import torch
from pydantic import ValidationError
from torch.nn import functional as F

from attacks.catalog import DlgConfig
from attacks.dlg import Dlg
from defenses.cards_dependence import MidVibConfig
from defenses.catalog import is_simulated
from defenses.latents import HEAD, Bottlenecked, Drawing, Posterior, latents, latents_behind
from defenses.mid_vib import SHIFT, MidVib
from fl.data import DATASETS, load
from fl.federation import Federation
from fl.hooks import Batch
from fl.models import MODELS, materialise
from fl.seeds import Streams
from fl.specs import FederationSpec, Plugin, Task
from fl.types import ImageSpec
from harness.testing import SmallProblem

K = 6
DEFENSE = MidVib(MidVibConfig(bottleneck=K, beta=0.5))


def module_of(small):
    return materialise(small.sent, wrap=lambda wrapper, model: small.defense.wrap_model(model))


def by_hand(small, noise, beta=0.5):
    """The loss of the definition, written out, its gradient, and the latents."""
    model = module_of(small)
    features = model.classifier.features(small.image.normalise(small.images))
    statistics = features @ model.bottleneck.encoder.weight.T + model.bottleneck.encoder.bias
    mean, deviation = statistics[:, :K], (1 + (statistics[:, K:] - 5).exp()).log()
    z = mean + deviation * noise
    logits = z @ model.head.weight.T + model.head.bias
    kl = -0.5 * (1 + 2 * deviation.log() - mean**2 - deviation**2).sum(1).mean()
    loss = F.cross_entropy(logits, small.labels) + beta * kl
    names, parameters = zip(*model.named_parameters(), strict=True)
    return loss, dict(zip(names, torch.autograd.grad(loss, parameters), strict=True)), z.detach()


@pytest.mark.parametrize("n", [1, 3])
def test_loss_and_gradients_are_those_of_the_definition(n):
    small = SmallProblem(n=n, defense=DEFENSE)
    step = small.step(Streams(4).torch("step"))
    client = DEFENSE.for_client(small.client_context)
    loss = client.loss(step, Batch(small.images, small.labels, tuple(map(str, range(n)))))
    parameters = step.trainer.parameters
    gradients = torch.autograd.grad(loss, list(parameters.values()))
    expected, by_name, _ = by_hand(small, torch.randn(n, K, generator=Streams(4).torch("step")))
    torch.testing.assert_close(loss, expected)
    assert set(parameters) == set(by_name)
    for name, gradient in zip(parameters, gradients, strict=True):
        torch.testing.assert_close(gradient, by_name[name], rtol=1e-3, atol=1e-5)
        assert gradient.any(), name


def test_outside_training_the_head_sees_the_means():
    small = SmallProblem(n=2, defense=DEFENSE)
    model, inputs = module_of(small), small.image.normalise(small.images)
    with torch.no_grad():
        means = model.bottleneck.encoder(model.classifier.features(inputs))[:, :K]
        assert torch.equal(model(inputs), model.head(means))
        assert torch.equal(model.features(inputs), means)


def test_deviations_are_small_at_the_start():
    small = SmallProblem(n=2, defense=DEFENSE)
    model, inputs = module_of(small), small.image.normalise(small.images)
    with torch.no_grad(), latents(model, lambda p: p.mean) as seen:
        model(inputs)
        statistics = model.bottleneck.encoder(model.classifier.features(inputs))
    torch.testing.assert_close(seen[0].deviation, F.softplus(statistics[:, K:] + SHIFT))
    assert seen[0].deviation.max() < 0.1
    at_the_start = Posterior.of(torch.zeros(1, 2 * K), SHIFT)
    assert float(at_the_start.deviation[0, 0]) < 0.01
    assert float(at_the_start.divergence()) / K == pytest.approx(4.5, abs=0.05)


def test_what_the_bottleneck_adds_and_what_it_leaves():
    bare, wrapped = SmallProblem().sent.tensors, SmallProblem(defense=DEFENSE).sent
    body = {name: tensor for name, tensor in bare.items() if not name.startswith("head")}
    assert all(torch.equal(wrapped.tensors[f"classifier.{name}"], tensor) for name, tensor in body.items())
    assert set(wrapped.tensors) - {f"classifier.{name}" for name in body} == {
        "bottleneck.encoder.weight",
        "bottleneck.encoder.bias",
        "head.weight",
        "head.bias",
    }
    features = bare["head.weight"].shape[1]
    assert wrapped.tensors["bottleneck.encoder.weight"].shape == (2 * K, features)
    assert wrapped.tensors["head.weight"].shape == (10, K)
    assert wrapped.trainable[-2:] == ("head.weight", "head.bias")
    half = SmallProblem(defense=MidVib(MidVibConfig())).sent.tensors
    assert half["head.weight"].shape == (10, features // 2)


def test_the_wrapped_classifier_offers_what_others_do():
    card = MODELS.get("resnet20")
    bare = MODELS.implementation("resnet20")(card.config(), ImageSpec(3, 16), Task("multiclass", 3).outputs)
    blocks, layer = bare.blocks, bare.cam_layer
    wrapped = DEFENSE.wrap_model(bare)
    assert isinstance(wrapped, Bottlenecked)
    assert wrapped.blocks == blocks
    assert wrapped.cam_layer is layer
    assert wrapped.head.out_features == 3


def test_the_latents_of_one_image_are_read_from_the_heads_gradient():
    small = SmallProblem(defense=DEFENSE)
    _, _, z = by_hand(small, torch.randn(1, K, generator=Streams(small.seed).torch("step", step=0)))
    torch.testing.assert_close(latents_behind(small.observation, HEAD), z, rtol=1e-4, atol=1e-5)


def test_who_knows_of_the_bottleneck_meets_the_observation_at_the_truth():
    small = SmallProblem(defense=DEFENSE)
    simulated = DEFENSE.simulated(small.client_context, small.observation)
    found = small.simulator(simulated)(small.images, small.labels, small.sent, Streams(9).torch("x")).tensors
    for name, tensor in small.update.tensors.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-3, atol=1e-4)


def test_of_several_images_gradients_that_depend_on_the_draw_are_left_out():
    small = SmallProblem(n=3, defense=DEFENSE)
    simulated = DEFENSE.simulated(small.client_context, small.observation)
    update = small.simulator(simulated)(small.images, small.labels, small.sent, Streams(0).torch("x")).tensors
    _, at_the_means, _ = by_hand(small, torch.zeros(3, K))
    for name, tensor in update.items():
        if name.startswith("classifier."):
            torch.testing.assert_close(tensor, at_the_means[name], rtol=1e-3, atol=1e-5)
        else:
            assert not tensor.any()


def test_who_knows_of_the_bottleneck_recovers_the_image():
    assert is_simulated(Plugin("mid_vib", 1, MidVibConfig()))
    small = SmallProblem(defense=DEFENSE, know_labels=True)
    psnr = {}
    for adaptive in (False, True):
        task = small.attack_task(DlgConfig(iterations=40), adaptive=adaptive, mirrored=False)
        (answer,) = Dlg().solve([task], small.env())
        psnr[adaptive] = float(-10 * (answer.images - small.images).square().mean().log10())
    assert psnr[True] > psnr[False] + 10


TRAINING = {
    "fedavg": {"local_epochs": 3, "rounds": 10, "lr": 0.1, "batch_size": 8},
    "fedsgd": {"algorithm": "fedsgd", "rounds": 200, "lr": 0.2, "batch_size": 32},
}


@pytest.mark.parametrize("training", sorted(TRAINING))
def test_a_federation_trains_and_beta_lowers_the_divergence(training):
    data = load(Plugin("digits", 1, DATASETS.get("digits").config(size=8)))
    convnet = MODELS.get("convnet")
    divergences, accuracies = {}, {}
    for beta in (0.0, 1e-2):
        defense = MidVib(MidVibConfig(bottleneck=8, beta=beta))
        spec = {
            "algorithm": "fedavg",
            "clients": 4,
            "partition": {"name": "sizes", "sizes": [100] * 4},
            **TRAINING[training],
        }
        federation = Federation(
            data=data,
            model=Plugin("convnet", convnet.version, convnet.config(width=4, convs=2)),
            spec=FederationSpec.model_validate(spec),
            defense=defense,
            streams=Streams(0),
        )
        last = [checkpoint for checkpoint, _ in federation.run()][-1]
        logits, labels = federation.predict(last)
        accuracies[beta] = float((logits.argmax(1) == labels).float().mean())
        model = materialise(last.model, wrap=lambda wrapper, module, by=defense: by.wrap_model(module)).eval()
        images = last.model.architecture.image.normalise(data.part("test").images(range(32)))
        with torch.no_grad(), latents(model, lambda p: p.mean) as seen:
            model(images)
        divergences[beta] = float(seen[0].divergence())
    assert divergences[1e-2] < 0.8 * divergences[0.0]
    assert accuracies[0.0] > 0.6
    assert accuracies[1e-2] > 0.5


def test_every_step_draws_anew_from_its_stream():
    small = SmallProblem(n=2, defense=DEFENSE)
    client = DEFENSE.for_client(small.client_context)
    assert isinstance(client, Drawing)
    batch = Batch(small.images, small.labels, ("0", "1"))
    losses = [
        client.loss(small.step(Streams(0).torch("step", step=step)), batch).item() for step in (0, 0, 1)
    ]
    assert losses[0] == losses[1] != losses[2]


@pytest.mark.parametrize("options", [{"beta": -1e-3}, {"bottleneck": 0}])
def test_options_out_of_range_are_refused(options):
    with pytest.raises(ValidationError):
        MidVibConfig(**options)
