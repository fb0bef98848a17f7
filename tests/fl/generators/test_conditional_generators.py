from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from fl.cards import DataInfo, Setting
from fl.errors import DataUnavailableError
from fl.generators import GeneratorConfig, generator_unfit, quality, stage
from fl.generators.architecture import Critic, Generator, initialise
from fl.generators.layout import FACES, Layout
from fl.generators.training import Training
from fl.seeds import Streams
from fl.specs import Task, ThreatModel
from fl.stage_context import StageContext

SMALL = GeneratorConfig(width=4, latent=8, steps=6, batch_size=8, conditional=True)


class Halves:
    """Public images of 16 x 16: of class 0 the left half is bright, of class 1 the right one."""

    def __init__(self, labels=None, number=64):
        stream = Streams(0).torch("halves")
        sides = torch.arange(number) % 2
        bright = (torch.arange(16) >= 8).float()[None, :] == sides[:, None].float()
        noise = 0.2 * torch.rand(number, 1, 16, 16, generator=stream)
        self.images = 0.7 * bright[:, None, None, :].float() + noise
        self.labels = sides if labels is None else labels
        self.mean_image = self.images.mean(0)


def context(public, **changes):
    settings = {
        "streams": Streams(0),
        "device": torch.device("cpu"),
        "public": public,
        "build": None,
        "progress": lambda share, words: None,
    }
    return StageContext(**settings | changes)


def run(config, public, *, classes, **changes):
    needs = {"generator": config.resolved(), "image": [1, 16], "classes": classes}
    return stage.train(needs, {}, context(public, **changes))


def built(layout, kind=Generator):
    module = kind(layout)
    initialise(module, Streams(0).torch("weights"))
    return module.eval().requires_grad_(False)


@pytest.mark.parametrize("family", ["upsampling", "transposed"])
def test_labels_decide_what_is_drawn(family):
    generator = built(Layout(family, 1, 64, latent=5, width=2, classes=3))
    z = torch.randn(3, 5, generator=Streams(0).torch("z"))
    labels = torch.tensor([0, 2, 2])
    images = generator(z, labels)
    assert torch.equal(images, generator(z, F.one_hot(labels, 3).float()))
    assert torch.equal(generator.styles(z, labels)[:, :5], generator.mapping(z))
    others = generator(z, torch.tensor([1, 2, 2]))
    assert (others - images).abs().flatten(1).amax(1).gt(0).tolist() == [True, False, False]
    assert generator.classes == 3


def test_several_labels_add_their_embeddings():
    generator = built(Layout("upsampling", 1, 16, latent=5, width=2, classes=3))
    z = torch.zeros(3, 5)
    both, first, second = generator.styles(z, torch.tensor([[1.0, 1, 0], [1, 0, 0], [0, 1, 0]]))
    assert torch.allclose(both, first + second)


def test_labels_are_neither_left_out_nor_given_for_nothing():
    with_classes = built(Layout("upsampling", 1, 16, latent=5, width=2, classes=3))
    without = built(Layout("upsampling", 1, 16, latent=5, width=2))
    with pytest.raises(ValueError, match="expected labels of 3 classes, got none"):
        with_classes(torch.zeros(1, 5))
    with pytest.raises(ValueError, match="expected no labels, got some"):
        without(torch.zeros(1, 5), torch.tensor([1]))


def test_the_critic_adds_the_product_of_embedding_and_features():
    critic = built(Layout("upsampling", 1, 16, latent=5, width=2, classes=3), Critic)
    images = torch.rand(4, 1, 16, 16, generator=Streams(0).torch("images"))
    labels = torch.tensor([2, 0, 1, 1])
    features = images * 2 - 1
    for layer in list(critic.layers)[:-1]:
        features = layer(features)
    own = features @ critic.layers[-1].weight[0] + critic.layers[-1].bias
    products = torch.stack([features[i] @ critic.embedding.weight[:, c] for i, c in enumerate(labels)])
    assert torch.allclose(critic(images, labels), own + products, atol=1e-5)
    assert critic.embedding.weight.std() == pytest.approx((2 / features.shape[1]) ** 0.5, rel=0.15)


def test_options_added_later_leave_old_keys_alone():
    config = GeneratorConfig()
    assert not {"conditional", "architecture"} & config.resolved().keys()
    assert GeneratorConfig(conditional=True).canonical != config.canonical
    assert GeneratorConfig(architecture="ggl").canonical != config.canonical
    generator = Generator(Layout("upsampling", 1, 16, latent=5, width=2))
    assert not any("embedding" in name for name in generator.state_dict())


@pytest.mark.parametrize(("kind", "steps"), [("dcgan", 80), ("wgan_gp", 40)])
def test_a_trained_generator_draws_what_it_is_asked_for(kind, steps):
    config = GeneratorConfig(
        **SMALL.model_dump() | {"kind": kind, "steps": steps, "lr": 2e-3, "average": 0.5}
    )
    artifact = run(config, Halves(), classes=2)
    generator = stage.load(artifact)
    z = torch.randn(16, 8, generator=Streams(3).torch("z"))
    for label in (0, 1):
        images = generator(z, torch.full((16,), label))
        left, right = images[..., :8].mean(), images[..., 8:].mean()
        assert (left > right + 0.2) == (label == 0)
        assert (right > left + 0.2) == (label == 1)
    figures = artifact.data["quality"]
    assert figures["own_class"] < 0.5 * figures["other_classes"]


def test_samples_are_a_row_for_each_class():
    artifact = run(SMALL, Halves(), classes=2)
    generator = stage.load(artifact)
    assert artifact.tensors["samples"].shape == (16, 1, 16, 16)
    z = torch.randn(8, 8, generator=Streams(0).torch("generator_samples"))
    rows = [generator(z, torch.full((8,), label)) for label in (0, 1)]
    assert torch.equal(artifact.tensors["samples"], (torch.cat(rows) * 255).round().to(torch.uint8))
    assert stage.class_labels(1).tolist() == [[0.0], [1.0]]


@pytest.mark.parametrize(
    "labels", [torch.arange(64).remainder(2).view(-1, 1).float(), torch.eye(4)[torch.arange(64) % 4]]
)
def test_labels_of_sigmoid_tasks_will_do(labels):
    artifact = run(SMALL, Halves(labels), classes=labels.shape[1])
    assert stage.load(artifact).classes == labels.shape[1]
    assert {"own_class", "other_classes"} <= artifact.data["quality"].keys()


def test_an_interrupted_training_goes_on_with_the_same_labels(monkeypatch):
    monkeypatch.setattr("fl.generators.resumable.KEEP_EVERY", 2)
    kept = []
    whole = run(SMALL, Halves(), classes=2, keep=kept.append)
    rest = run(SMALL, Halves(), classes=2, kept=lambda: kept[0])
    assert len(kept) == 2
    assert all(torch.equal(tensor, rest.tensors[name]) for name, tensor in whole.tensors.items())


def test_images_of_no_class_are_told():
    labels = torch.arange(64) % 2
    labels[:5] = -1
    with pytest.raises(DataUnavailableError, match=r"a label for every public image .* got 5 of 64 without"):
        run(SMALL, Halves(labels), classes=2)


def test_labels_stay_with_their_images():
    public = Halves()
    config = GeneratorConfig(**SMALL.model_dump() | {"batch_size": 64})
    images, _ = stage.split(public.images, Streams(0))
    labels, _ = stage.split(public.labels, Streams(0))
    assert torch.equal((images[..., 8:].mean((1, 2, 3)) > images[..., :8].mean((1, 2, 3))).long(), labels)
    layout = Layout("upsampling", 1, 16, 8, 4, classes=2)
    training = Training(config, layout, images, Streams(0), labels)
    training.step()
    assert training.done == 1


def test_the_distance_by_class_is_that_of_its_sets():
    """On a line: class 0 at 0, class 1 at 1, and samples that take after their class, or after the other."""
    labels = torch.arange(40) % 2
    images = labels.float().view(-1, 1, 1, 1)
    stream = Streams(0).torch("directions")
    right = quality.by_class(images, images, labels, stream)
    wrong = quality.by_class(1 - images, images, labels, stream)
    assert right == pytest.approx({"own_class": 0.0, "other_classes": 1.0})
    assert wrong == pytest.approx({"own_class": 1.0, "other_classes": 0.0})
    assert quality.by_class(images[:10], images[:10], labels[:10], stream) == {}


def setting(task=None, *, public=None, channels=1, size=16):
    info = DataInfo(task or Task("multiclass", 10), channels, size, {"public": 100}, True, "x")
    return Setting(info, None, None, ThreatModel(), "update", public=public)


def test_it_is_only_for_those_who_have_labels_of_its_task():
    assert generator_unfit(SMALL, setting(), labels=True) is None
    assert "without labels" in generator_unfit(SMALL, setting())
    others = replace(setting(Task("multiclass", 3)).data, fingerprint="y")
    assert "another task's" in generator_unfit(SMALL, setting(public=others), labels=True)
    with pytest.raises(ValueError, match="leave out conditional"):
        GeneratorConfig(checkpoint=FACES, conditional=True)
