import pytest
import torch
from torch.func import functional_call
from torch.nn import functional as F

from fl.generators.architecture import Critic, Generator, initialise
from fl.generators.layout import FACES_LAYOUT, Layout
from fl.generators.synthesis import area_means, averaged
from fl.seeds import Streams


def built(layout, seed=0):
    generator = Generator(layout)
    initialise(generator, Streams(seed).torch("generator_weights"))
    return generator.eval().requires_grad_(False)


def latents(generator, number, seed=0):
    return torch.randn(number, generator.latent, generator=Streams(seed).torch("latents"))


@pytest.mark.parametrize("size", [16, 17, 25, 28, 32, 45, 64, 128])
@pytest.mark.parametrize("channels", [1, 3])
def test_images_have_the_layouts_shape_and_lie_in_the_unit_interval(size, channels):
    layout = Layout("upsampling", channels, size, latent=8, width=2)
    images = built(layout)(latents(built(layout), 3))
    assert images.shape == (3, channels, size, size)
    assert 0 <= images.min() < images.max() <= 1
    assert Critic(layout)(images).shape == (3,)


def test_weights_are_a_function_of_the_stream():
    layout = Layout("upsampling", 1, 16, latent=8, width=4, mapping_layers=2)
    same, other = built(layout), built(layout, seed=1)
    for (name, first), again in zip(
        built(layout).state_dict().items(), same.state_dict().values(), strict=True
    ):
        assert torch.equal(first, again), name
    assert not torch.equal(same.synthesis.to_images.weight, other.synthesis.to_images.weight)


@pytest.mark.parametrize(
    "layout", [Layout("upsampling", 3, 28, 16, 4), Layout("transposed", 3, 64, 16, 4), FACES_LAYOUT]
)
def test_an_image_does_not_depend_on_its_neighbours(layout):
    generator = built(layout)
    first, second = latents(generator, 4), latents(generator, 4, seed=1)
    second[2] = first[2]
    assert torch.allclose(generator(first)[2], generator(second)[2], atol=1e-6)
    assert not torch.equal(generator(first)[1], generator(second)[1])


def test_synthesis_walks_through_its_blocks():
    generator = built(Layout("upsampling", 1, 28, latent=8, width=4, mapping_layers=2))
    vectors = latents(generator, 2)
    features = generator.mapping(vectors)
    assert not torch.allclose(features, vectors)
    expected = generator(vectors)
    styles, synthesis = features, generator.synthesis
    for number in range(len(generator.blocks)):
        assert torch.equal(synthesis.after(features, number, styles), expected)
        features = synthesis.enter(features, number, styles)
    sides = [synthesis.after(features, len(generator.blocks), styles).shape[-1], features.shape[-1]]
    assert sides == [28, 28]


def test_without_mapping_layers_styles_are_the_latents():
    generator = built(Layout("upsampling", 1, 16, latent=8, width=4))
    vectors = latents(generator, 2)
    assert torch.equal(generator.mapping(vectors), vectors)


@pytest.mark.parametrize("family", ["upsampling", "transposed"])
def test_copies_with_weights_of_their_own_can_be_called_at_once(family):
    generator = built(Layout(family, 3, 64, latent=8, width=2))
    others = built(Layout(family, 3, 64, latent=8, width=2), seed=1)
    vectors = latents(generator, 2)
    pairs = zip(generator.named_parameters(), others.parameters(), strict=True)
    weights = {name: torch.stack([mine, theirs]) for (name, mine), theirs in pairs}
    images = torch.vmap(lambda own, z: functional_call(generator, own, (z[None],))[0])(weights, vectors)
    assert torch.allclose(images[0], generator(vectors[:1])[0], atol=1e-5)
    assert torch.allclose(images[1], others(vectors[1:])[0], atol=1e-5)


@pytest.mark.parametrize(("pixels", "size"), [(64, 32), (64, 25), (256, 224), (7, 7)])
def test_averaging_by_matrices_is_adaptive_pooling(pixels, size):
    images = torch.rand(2, 3, pixels, pixels, generator=Streams(0).torch("images"))
    rows = area_means(pixels, size)
    expected = F.adaptive_avg_pool2d(images, size)
    assert torch.allclose(rows @ images @ rows.T, expected, atol=1e-6)
    assert torch.equal(averaged(images, size), expected)


def test_larger_images_are_averaged_down():
    layout = Layout("transposed", 3, 64, latent=8, width=2)
    full, small = built(layout), built(layout.showing(32))
    small.load_state_dict(full.state_dict())
    vectors = latents(full, 2)
    expected = full(vectors).unflatten(3, (32, 2)).unflatten(2, (32, 2)).mean((3, 5))
    assert torch.allclose(small(vectors), expected, atol=1e-6)
    assert layout.showing(64) == layout
