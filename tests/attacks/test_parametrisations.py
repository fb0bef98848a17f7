"""Ways of drawing through a generator: latent vectors, its weights, its features."""

import pytest
import torch
from torch.nn import functional as F

from attacks.parametrisations import Features, Latents, Weights, styles_of
from fl.generators.architecture import Generator
from fl.generators.layout import Layout
from fl.seeds import Streams
from harness.testing.small_generators import small_generator


@pytest.mark.parametrize("mapping_layers", [0, 2])
def test_slopes_in_latents_and_weights_are_those_of_finite_differences(mapping_layers):
    generator = small_generator(1, mapping_layers=mapping_layers).double()
    stream = Streams(0).torch("rows")
    slopes = torch.randn(2, 3, 1, 16, 16, generator=stream, dtype=torch.float64)
    vectors = torch.randn(2, 3, 6, generator=stream, dtype=torch.float64)
    latents, weights = Latents(generator, 3, weight=0.7), Weights(generator, vectors)
    for way, rows in ((latents, latents.rows(vectors)), (weights, weights.rows())):

        def total(rows, way=way):
            drawn = way.draw(rows)
            own = 0 if drawn.norm is None else way.weight * drawn.norm
            return (drawn.images * slopes).sum((1, 2, 3, 4)) + own

        pulled = way.draw(rows).pull(slopes)
        for entry in (0, 1, 7, 17, 40):
            if entry >= rows.shape[1]:
                continue
            moved = torch.zeros_like(rows)
            moved[:, entry] = 1e-6
            expected = (total(rows + moved) - total(rows - moved)) / 2e-6
            assert torch.allclose(pulled[:, entry], expected, rtol=1e-4, atol=1e-6), entry


def test_both_ways_of_drawing_agree_with_the_generator():
    generator = small_generator(3, mapping_layers=1)
    vectors = torch.randn(2, 2, 6, generator=Streams(0).torch("rows"))
    latents, weights = Latents(generator, 2), Weights(generator, vectors)
    expected = generator(vectors.flatten(0, 1)).view(2, 2, 3, 16, 16)
    assert torch.allclose(latents.draw(latents.rows(vectors)).images, expected, atol=1e-6)
    assert torch.allclose(weights.draw(weights.rows()).images, expected, atol=1e-6)
    assert torch.equal(latents.latents(latents.rows(vectors)), vectors)


@pytest.mark.parametrize("block", [1, 2, 3])
def test_slopes_in_features_are_those_of_finite_differences(block):
    generator = small_generator(1).double()
    stream = Streams(0).torch("rows")
    styles = torch.randn(6, 6, generator=stream, dtype=torch.float64)
    features = styles
    for number in range(block):
        features = generator.synthesis.enter(features, number, styles)
    way = Features(generator, block, features.unflatten(0, (2, 3)), styles, radius=1.0)
    slopes = torch.randn(2, 3, 1, 16, 16, generator=stream, dtype=torch.float64)
    rows = way.rows()
    assert torch.equal(way.features(rows).flatten(0, 1), features)
    assert torch.allclose(way.draw(rows).images.flatten(0, 1), generator(styles))

    def total(rows):
        return (way.draw(rows).images * slopes).sum((1, 2, 3, 4))

    pulled = way.draw(rows).pull(slopes)
    for entry in (0, 1, 17, features[0].numel() + 5, rows.shape[1] - 1):
        moved = torch.zeros_like(rows)
        moved[:, entry] = 1e-6
        expected = (total(rows + moved) - total(rows - moved)) / 2e-6
        assert torch.allclose(pulled[:, entry], expected, rtol=1e-4, atol=1e-6), entry


@pytest.mark.parametrize(
    "layout",
    [
        Layout("transposed", 3, 64, latent=4, width=2, classes=3),
        Layout("ggl", 3, 32, latent=4, width=2, mapping_layers=1),
        Layout("biggan_deep_256", 3, 256, latent=4, width=8, shown=32, classes=3),
    ],
    ids=lambda layout: layout.family,
)
def test_all_ways_of_drawing_agree_for_every_architecture(layout):
    generator, stream = Generator(layout).eval().requires_grad_(False), Streams(0).torch("weights")
    for parameter in generator.parameters():
        parameter.normal_(0.0, 0.7 * parameter[0].numel() ** -0.5, generator=stream)
    latents = torch.randn(1, 2, 4, generator=Streams(0).torch("latents"))
    labels = torch.tensor([[2, 0]]) if layout.classes else None
    expected = generator(latents[0], None if labels is None else labels[0])
    styles = features = styles_of(generator, latents, labels)
    ways = [Latents(generator, 2, labels=labels), Weights(generator, latents, labels)]
    drawn = [ways[0].draw(ways[0].rows(latents)), ways[1].draw(ways[1].rows())]
    for number in range(len(generator.blocks)):
        features = generator.synthesis.enter(features, number, styles)
        if number % 4 == 0:
            way = Features(generator, number + 1, features[None], styles, radius=1.0)
            drawn.append(way.draw(way.rows()))
    for each in drawn:
        assert torch.allclose(each.images[0], expected, atol=1e-5)
        assert each.pull(torch.ones_like(each.images)).isfinite().all()


def test_each_images_features_stay_in_a_ball_of_their_own():
    generator = small_generator(1)
    styles = torch.randn(4, 6, generator=Streams(0).torch("styles"))
    first = generator.synthesis.enter(styles, 0, styles).unflatten(0, (2, 2))
    way = Features(generator, 1, first, styles, radius=5.0)
    moved = first.clone()
    moved[0, 0] += 1.0
    moved[1, 1] += 1e-3
    kept = way.features(way.confined(way.rows()))
    assert torch.equal(kept, first)
    rows = F.pad(moved.flatten(1), (0, way.rows().shape[1] - moved[0].numel()))
    offsets = (way.features(way.confined(rows)) - first).abs().flatten(2).sum(2)
    assert offsets[0].tolist() == pytest.approx([5.0, 0.0], rel=1e-4)
    assert offsets[1].tolist() == pytest.approx([0.0, 1e-3 * first[0, 0].numel()], rel=1e-2)
