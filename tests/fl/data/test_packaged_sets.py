"""The packaged sets against scikit-learn, scikit-image and their own cards."""

import csv
import gzip
from collections import Counter

import numpy as np
import pytest
import skimage.data
import torch
from pydantic import ValidationError
from sklearn.datasets import load_digits
from torch.nn import functional as F

from fl.cards import PARTS
from fl.data import DATASETS, load, public_data
from fl.data import tiles as tile_layout
from fl.data.assets import fetch
from fl.errors import DataUnavailableError, UsageError
from fl.specs import Plugin

OFFLINE = ["digits", "faces", "retina", "photographs"]
SETS = [*OFFLINE, pytest.param("mnist5k", marks=pytest.mark.slow)]
NATIVE = {"digits": 8, "faces": 25, "retina": 64, "photographs": 64, "mnist5k": 28}


def plugin(name, **config):
    card = DATASETS.get(name)
    return Plugin(name, card.version, card.config(**config))


def every_image(dataset):
    """Images by id over all parts."""
    return {
        name: image
        for part in PARTS
        for name, image in zip(dataset.part(part).ids, dataset.part(part).images(), strict=True)
    }


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("options", [{}, {"size": 20, "normalise": "dataset", "private_labels": [1, 0]}])
def test_description_equals_what_is_loaded(name, options):
    wanted = plugin(name, **options)
    info = DATASETS.get(name).describe(wanted.config)
    dataset = load(wanted)
    assert dataset.info == info
    assert info.public
    for part_name in PARTS:
        part = dataset.part(part_name)
        images = part.images()
        assert images.shape == (info.images[part_name], info.channels, info.size, info.size)
        assert images.dtype == torch.float32
        assert 0 <= images.min() < images.max() <= 1
        assert part.labels.dtype == torch.int64
        assert len(part) == len(part.ids) == len(part.labels) == info.images[part_name] > 0
        assert set(part.labels.tolist()) <= set(range(info.task.classes))
    groups = dataset.part("private").groups
    assert info.groups == (None if groups is None else len(set(groups)))


@pytest.mark.parametrize("name", SETS)
def test_parts_are_disjoint_and_complete(name):
    dataset = load(plugin(name))
    counts = Counter(i for part in PARTS for i in dataset.part(part).ids)
    total = {"digits": 1797, "faces": 200, "retina": 324, "photographs": 206, "mnist5k": 5000}[name]
    assert set(counts.values()) == {1}
    assert len(counts) == total


@pytest.mark.parametrize("name", SETS)
def test_every_part_holds_every_class(name):
    dataset = load(plugin(name))
    for part in PARTS:
        assert len(dataset.part(part).labels.unique()) == dataset.info.task.classes


@pytest.mark.parametrize("name", SETS)
def test_normalisation_constants_are_those_of_the_public_part(name):
    dataset = load(
        plugin(name, normalise="dataset", **({} if name in ("mnist5k", "faces") else {"size": NATIVE[name]}))
    )
    images = dataset.part("public").images().double()
    assert dataset.info.mean == pytest.approx(images.mean(dim=(0, 2, 3)).tolist(), abs=1e-4)
    assert dataset.info.std == pytest.approx(images.std(dim=(0, 2, 3), correction=0).tolist(), abs=1e-4)


def test_without_normalisation_models_take_images_as_they_are():
    info = DATASETS.get("retina").describe(plugin("retina").config)
    assert (info.mean, info.std) == ((0.0,) * 3, (1.0,) * 3)


@pytest.mark.parametrize("name", OFFLINE)
def test_narrowing_drops_other_classes_from_that_part_alone(name):
    whole, narrow = load(plugin(name)), load(plugin(name, test_labels=[1]))
    assert narrow.part("test").labels.unique().tolist() == [1]
    kept = whole.part("test").labels == 1
    assert torch.equal(narrow.part("test").images(), whole.part("test").images()[kept])
    for part in ("private", "public", "evaluation"):
        assert narrow.part(part).ids == whole.part(part).ids
    assert narrow.info.task == whole.info.task


def test_narrowing_enters_identity_in_any_order():
    first, second = plugin("digits", private_labels=[3, 1, 3]), plugin("digits", private_labels=[1, 3])
    assert first.canonical == second.canonical != plugin("digits").canonical
    describe = DATASETS.get("digits").describe
    assert describe(first.config).fingerprint != describe(plugin("digits").config).fingerprint


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"private_labels": [10]}, "expected labels of 0 to 9, got 10"),
        ({"test_labels": [-1]}, "expected labels of 0 to 9, got -1"),
        ({"public_labels": []}, "at least one label"),
        ({"size": 7}, "greater than or equal to 8"),
        ({"siez": 16}, "Extra inputs"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ValidationError, match=message):
        plugin("digits", **options)


def test_digits_are_scikit_learns():
    oracle = load_digits()
    for name, image in every_image(load(plugin("digits", size=8))).items():
        np.testing.assert_allclose(image[0] * 16, oracle.images[int(name.removeprefix("digit-"))])
    private = load(plugin("digits")).part("private")
    rows = [int(name.removeprefix("digit-")) for name in private.ids]
    np.testing.assert_array_equal(private.labels, oracle.target[rows])


def test_digits_are_enlarged_bilinearly():
    small, large = load(plugin("digits", size=8)).part("test"), load(plugin("digits", size=16)).part("test")
    image, enlarged = small.images([0])[0, 0], large.images([0])[0, 0]
    # a pixel of the 16x16 grid has its centre a quarter of a small pixel from the nearest small centre
    expected = 0.75 * (0.75 * image[2, 3] + 0.25 * image[2, 4]) + 0.25 * (
        0.75 * image[3, 3] + 0.25 * image[3, 4]
    )
    assert enlarged[5, 7] == pytest.approx(expected.item(), abs=1e-6)


def test_faces_are_scikit_images():
    oracle = skimage.data.lfw_subset()
    dataset = load(plugin("faces"))
    for name, image in every_image(dataset).items():
        np.testing.assert_allclose(image[0], oracle[int(name.removeprefix("lfw-"))], atol=1e-7)
    for part in PARTS:
        rows = torch.tensor([int(name.removeprefix("lfw-")) for name in dataset.part(part).ids])
        assert torch.equal(dataset.part(part).labels == 1, rows < 100)


def test_retina_tiles_are_pixels_of_the_photograph():
    picture = skimage.data.retina() / 255
    tiles = {tile.id: tile for tile in tile_layout.retina_tiles()}
    images = every_image(load(plugin("retina", size=64)))
    assert images.keys() == tiles.keys()
    for name, image in images.items():
        crop = picture[tiles[name].top : tiles[name].top + 64, tiles[name].left : tiles[name].left + 64]
        np.testing.assert_allclose(image.permute(1, 2, 0), crop, atol=1e-6)


def test_retina_tiles_lie_inside_the_field():
    assert all(
        image.sum(dim=0).min() > 60 / 255 for image in every_image(load(plugin("retina", size=64))).values()
    )


def test_photograph_tiles_are_pixels_of_their_photograph():
    pictures = {p.name: getattr(skimage.data, p.name)() / 255 for p in tile_layout.PHOTOGRAPHS}
    dataset = load(plugin("photographs", size=64))
    tiles = {tile.id: tile for tile in tile_layout.photograph_tiles()}
    for part in (dataset.part(name) for name in PARTS):
        for name, group, label, image in zip(part.ids, part.groups, part.labels, part.images(), strict=True):
            tile = tiles[name]
            assert group == tile_layout.PHOTOGRAPHS[label].name
            crop = pictures[group][tile.top : tile.top + 64, tile.left : tile.left + 64]
            np.testing.assert_allclose(image.permute(1, 2, 0), crop, atol=1e-6)


@pytest.mark.parametrize("tiles", [tile_layout.retina_tiles(), tile_layout.photograph_tiles()])
def test_tiles_share_no_pixel(tiles):
    photographs = tile_layout.PHOTOGRAPHS if tiles[0].id.startswith("astro") else (tile_layout.RETINA,)
    for source, photograph in enumerate(photographs):
        covered = np.zeros((photograph.height, photograph.width), dtype=int)
        for tile in tiles:
            if tile.source == source:
                window = covered[tile.top : tile.top + 64, tile.left : tile.left + 64]
                assert window.shape == (64, 64)
                window += 1
        assert covered.max() == 1


def test_tiles_are_averaged_when_shrunk():
    large, small = load(plugin("retina", size=64)).part("test"), load(plugin("retina", size=16)).part("test")
    assert large.ids == small.ids
    # antialiasing keeps the mean and resembles a box filter; picking pixels would do neither
    torch.testing.assert_close(small.images().mean((2, 3)), large.images().mean((2, 3)), atol=0.01, rtol=0)
    torch.testing.assert_close(small.images(), F.avg_pool2d(large.images(), 4), atol=0.1, rtol=0)


@pytest.mark.slow
def test_mnist_is_the_csv_of_the_package():
    with gzip.open(fetch("mnist5k"), "rt") as file:
        rows = list(csv.reader(file))
    dataset = load(plugin("mnist5k"))
    part = dataset.part("test")
    for name, label, image in zip(part.ids, part.labels, part.images(), strict=True):
        row = [int(cell) for cell in rows[int(name.removeprefix("mnist-"))]]
        assert row[-1] == label
        np.testing.assert_array_equal(torch.round(image * 255).int().flatten(), row[:-1])


def test_images_come_in_the_order_asked_for():
    part = load(plugin("faces")).part("private")
    positions = part.positions([part.ids[4], part.ids[1], part.ids[4]])
    assert positions == [4, 1, 4]
    assert torch.equal(part.images(positions), part.images()[[4, 1, 4]])
    assert part.images([]).shape == (0, 1, 25, 25)


def test_changing_an_image_given_out_changes_nothing():
    part = load(plugin("faces")).part("private")
    before = part.images([0])
    part.images([0]).zero_()
    part.images().zero_()
    assert torch.equal(part.images([0]), before)
    assert before.any()


def test_unknown_ids_and_parts_are_refused():
    dataset = load(plugin("faces"))
    with pytest.raises(DataUnavailableError, match="'lfw-999'"):
        dataset.part("private").positions(["lfw-999"])
    with pytest.raises(UsageError, match="private, public, evaluation, test, got 'train'"):
        dataset.part("train")


def test_public_data_is_the_public_part():
    dataset = load(plugin("photographs"))
    public = public_data(dataset)
    assert torch.equal(public.images, dataset.part("public").images())
    assert torch.equal(public.labels, dataset.part("public").labels)
    np.testing.assert_allclose(public.mean_image, public.images.numpy().mean(axis=0), atol=1e-6)


def test_a_data_set_is_loaded_once():
    assert load(plugin("faces")) is load(plugin("faces"))
    assert load(plugin("faces")) is not load(plugin("faces", size=32))
