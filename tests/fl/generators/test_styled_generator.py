import pytest
import torch
from torch.nn import functional as F

import fl.data
from fl.data import DATASETS
from fl.generators import GeneratorConfig, files, stage, styled
from fl.generators.architecture import Critic, Generator, initialise
from fl.generators.layout import Layout
from fl.generators.training import Training
from fl.seeds import Streams
from fl.specs import Plugin
from fl.stage_context import StageContext

SMALL = GeneratorConfig(
    architecture="styled", kind="dcgan", width=4, latent=8, mapping_layers=2, steps=20, batch_size=16, lr=1e-3
)


def layout(size=16, channels=1, **changes):
    return Layout("styled", channels, size, **{"latent": 8, "width": 4, "mapping_layers": 2} | changes)


def built(made=None, seed=0):
    generator = Generator(made or layout())
    initialise(generator, Streams(seed).torch("generator_weights"))
    return generator.eval().requires_grad_(False)


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=Streams(seed).torch("drawn"))


@pytest.mark.parametrize(("size", "layers"), [(16, 3), (28, 4), (32, 4), (45, 5), (64, 5), (128, 6)])
@pytest.mark.parametrize("channels", [1, 3])
def test_there_is_a_style_for_every_side_length(size, layers, channels):
    generator = built(layout(size, channels, width=2))
    assert generator.layers == layers
    images = generator.synthesis(drawn(3, layers, 8))
    assert images.shape == (3, channels, size, size)
    assert 0 <= images.min() < images.max() <= 1
    assert Critic(generator.layout)(images).shape == (3,)


def test_other_generators_have_one_style():
    assert Generator(Layout("upsampling", 1, 16, 8, 4)).layers == 1


def test_one_style_for_all_layers_is_the_plain_call():
    generator = built()
    latents = drawn(4, 8)
    styles = generator.styles(latents)
    assert not torch.allclose(styles, latents)
    repeated = styles[:, None].expand(-1, generator.layers, -1)
    assert torch.equal(generator.synthesis(repeated), generator(latents))


@pytest.mark.parametrize("number", [0, 1, 2])
def test_every_layer_listens_to_its_own_style_alone(number):
    generator = built()
    styles = drawn(2, 3, 8)
    before = [styles]
    for block in range(number):
        before.append(generator.synthesis.enter(before[-1], block, styles))
    other = styles.clone()
    other[:, number] += 1
    entering = before[-1]
    own = generator.synthesis.enter(entering, number, other)
    assert not torch.allclose(own, generator.synthesis.enter(entering, number, styles))
    for block in range(number):
        assert torch.equal(generator.synthesis.enter(before[block], block, other), before[block + 1])
    assert not torch.allclose(generator.synthesis(other), generator.synthesis(styles))


def test_a_modulated_convolution_is_one_with_scaled_weights():
    """Equations 1 and 3 of Karras et al. 2020, with the weights of each image built by hand."""
    layer = styled.ModulatedConvolution(5, 3, 2)
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, generator=Streams(0).torch("weights", entries=parameter.numel()))
    features, styles = drawn(4, 3, 6, 6), drawn(4, 5, seed=1)
    for found, image, style in zip(layer(features, styles), features, styles, strict=True):
        scales = layer.scale.weight @ style + layer.scale.bias + 1
        weights = layer.conv.weight * scales[None, :, None, None]
        weights = torch.stack([weight / weight.norm() for weight in weights])
        expected = F.conv2d(image[None], weights, layer.conv.bias, padding=1)[0]
        assert torch.allclose(found, expected, atol=1e-5)


def test_activations_keep_their_size_through_the_layers():
    generator = built(layout(64, latent=64, width=32))
    features = styles = drawn(16, generator.layers, 64)
    for block in range(generator.layers):
        features = generator.synthesis.enter(features, block, styles)
        assert features.square().mean().sqrt() == pytest.approx(1.0, abs=0.3)


def test_an_image_does_not_depend_on_its_neighbours():
    generator = built()
    first, second = drawn(4, 8), drawn(4, 8, seed=1)
    second[2] = first[2]
    assert torch.allclose(generator(first)[2], generator(second)[2], atol=1e-6)
    assert not torch.allclose(generator(first)[1], generator(second)[1])


def test_it_can_be_called_under_vmap():
    generator = built()
    latents, styles = drawn(3, 8), drawn(3, 3, 8)
    alone = torch.vmap(lambda z: generator(z[None])[0])(latents)
    layered = torch.vmap(lambda w: generator.synthesis(w[None])[0])(styles)
    assert torch.allclose(alone, generator(latents), atol=1e-6)
    assert torch.allclose(layered, generator.synthesis(styles), atol=1e-6)


def test_classes_are_appended_to_the_style():
    generator = built(layout(classes=3))
    latents, labels = drawn(2, 8), torch.tensor([0, 2])
    styles = generator.styles(latents, labels)
    assert styles.shape == (2, 16)
    images = generator.synthesis(styles[:, None].expand(-1, 3, -1))
    assert torch.equal(images, generator(latents, labels))
    assert not torch.allclose(images[0], generator(latents, labels.flip(0))[0])


def test_mixed_styles_change_hands_once():
    first, second = torch.zeros(4000, 2), torch.ones(4000, 2)
    styles = styled.mixed(first, second, 5, Streams(0).torch("mixing"))
    assert styles.shape == (4000, 5, 2)
    assert torch.equal(styles[..., 0], styles[..., 1])
    assert bool((styles[:, 0] == 0).all())
    assert bool((styles.diff(dim=1) >= 0).all())
    places = torch.bincount((styles[..., 0] == 0).sum(1), minlength=6)
    assert places[0] == 0
    assert (places[5] / 4000).item() == pytest.approx(1 - styled.MIXING, abs=0.02)
    assert (places[1:5] / 4000).tolist() == pytest.approx([styled.MIXING / 4] * 4, abs=0.03)


@pytest.mark.parametrize("kind", ["dcgan", "wgan_gp"])
def test_training_moves_every_weight(kind):
    images = torch.rand(8, 1, 16, 16, generator=Streams(0).torch("images"))
    config = SMALL.model_copy(update={"kind": kind, "batch_size": 4})
    training = Training(config, layout(), images, Streams(0))
    before = {name: tensor.clone() for name, tensor in training.generator.state_dict().items()}
    training.step()
    for name, tensor in training.generator.state_dict().items():
        assert not torch.equal(tensor, before[name]), name


def test_the_stage_trains_it_and_a_file_gives_it_back(tmp_path):
    card = DATASETS.get("digits")
    public = fl.data.public_data(fl.data.load(Plugin(card.name, card.version, card.config())))
    context = StageContext(Streams(0), torch.device("cpu"), public, None, lambda share, words: None)
    artifact = stage.train({"generator": SMALL.resolved(), "image": [1, 16]}, {}, context)
    generator = stage.load(artifact)
    assert generator.layout == layout()
    files.write(tmp_path / "styled.safetensors", generator)
    again = files.read(str(tmp_path / "styled.safetensors"))
    styles = drawn(2, 3, 8)
    assert torch.equal(again.synthesis(styles), generator.synthesis(styles))
    first = stage.train({"generator": SMALL.resolved() | {"steps": 1}, "image": [1, 16]}, {}, context)
    assert artifact.data["quality"]["generated"] < first.data["quality"]["generated"]
