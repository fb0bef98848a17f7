"""The sets that are published as whole arrays: parts, pixels, labels and identity, on small files."""

import pickle

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch.nn import functional as F

from fl.cards import PARTS
from fl.data import DATASETS, load
from fl.data.array_index import image_id
from fl.errors import UsageError
from fl.specs import Dirichlet, FederationSpec, Plugin

SETS = [
    ("mnist", {}),
    ("fashion_mnist", {}),
    ("emnist", {"split": "digits"}),
    ("emnist", {"split": "letters"}),
    ("svhn", {}),
    ("cifar10", {}),
    ("cifar100", {}),
    ("medmnist/pathmnist", {}),
    ("medmnist/organamnist", {"size": 64}),
    ("medmnist/retinamnist", {}),
    ("medmnist/breastmnist", {}),
    ("medmnist/chestmnist", {}),
]
every_set = pytest.mark.parametrize(("name", "options"), SETS, ids=[f"{n}-{o}" for n, o in SETS])


def rows_of(part):
    """The official part and row that each image's id names."""
    return [(name.rpartition("-")[0], int(name.rpartition("-")[2])) for name in part.ids]


@every_set
def test_description_equals_what_is_loaded(write_set, name, options):
    written = write_set(name, **options)
    wanted = written.plugin(**options)
    info = DATASETS.get(name).describe(wanted.config)
    dataset = load(wanted)
    assert load(wanted) is dataset
    assert dataset.info == info
    assert info.public
    for part_name in PARTS:
        part = dataset.part(part_name)
        images = part.images()
        assert images.shape == (info.images[part_name], info.channels, info.size, info.size)
        assert images.dtype == torch.float32
        assert images.is_contiguous()
        assert 0 <= images.min() < images.max() <= 1
        assert len(part) == len(part.ids) == len(part.labels) == info.images[part_name] > 0


@every_set
def test_every_image_and_label_is_that_of_the_file(write_set, name, options):
    written = write_set(name, **options)
    dataset = written.load(**options)
    for part_name in PARTS:
        part = dataset.part(part_name)
        for (official, row), image, label in zip(rows_of(part), part.images(), part.labels, strict=True):
            pixels = written.images[official][row].transpose(2, 0, 1)
            np.testing.assert_allclose(image.numpy() * 255, pixels, atol=1e-4)
            np.testing.assert_array_equal(label.numpy().squeeze(), written.labels[official][row])


@every_set
def test_parts_are_disjoint_complete_and_take_the_official_test_part_as_theirs(write_set, name, options):
    written = write_set(name, **options)
    parts = {part: written.load(**options).part(part).ids for part in PARTS}
    everything = [image for ids in parts.values() for image in ids]
    expected = {image_id(part, row) for part in written.images for row in range(len(written.images[part]))}
    assert len(everything) == len(expected)
    assert set(everything) == expected
    test_images = len(written.images["test"])
    assert parts["test"] == tuple(image_id("test", row) for row in range(test_images))
    if name.startswith("medmnist/"):
        validation = len(written.images["val"])
        assert parts["evaluation"] == tuple(image_id("val", row) for row in range(validation))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("mnist", {"private": 14, "public": 3, "evaluation": 3, "test": 10}),
        ("medmnist/bloodmnist", {"private": 16, "public": 4, "evaluation": 10, "test": 10}),
    ],
)
def test_every_class_has_its_share_of_every_part(write_set, name, expected):
    dataset = write_set(name).load()
    for part, each in expected.items():
        assert dataset.part(part).labels.bincount().tolist() == [each] * dataset.info.task.classes


def test_labels_have_the_form_of_the_task(write_set):
    binary = write_set("medmnist/breastmnist", folder="a").load()
    assert (binary.info.task.kind, binary.info.task.classes, binary.info.task.outputs) == ("binary", 2, 1)
    labels = binary.part("private").labels
    assert labels.dtype == torch.float32
    assert labels.shape == (len(binary.part("private")), 1)
    assert labels.unique().tolist() == [0, 1]
    several = write_set("medmnist/chestmnist", folder="b").load()
    assert (several.info.task.kind, several.info.task.outputs) == ("multilabel", 14)
    assert several.part("test").labels.dtype == torch.float32
    assert several.part("test").labels.shape == (len(several.part("test")), 14)
    assert write_set("mnist", folder="c").load().part("test").labels.dtype == torch.int64


@pytest.mark.parametrize(
    ("name", "labels", "stays"),
    [
        ("cifar10", [2, 7], lambda label: label in (2, 7)),
        ("medmnist/pneumoniamnist", [1], lambda label: label == 1),
        ("medmnist/chestmnist", [0, 3], lambda label: bool(label[0] or label[3])),
    ],
)
def test_narrowing_keeps_images_of_these_labels_in_that_part_alone(write_set, name, labels, stays):
    written = write_set(name)
    whole, narrow = written.load(), written.load(public_labels=labels)
    assert DATASETS.get(name).describe(written.plugin(public_labels=labels).config) == narrow.info
    expected = [
        image
        for image, (official, row) in zip(
            whole.part("public").ids, rows_of(whole.part("public")), strict=True
        )
        if stays(written.labels[official][row])
    ]
    assert 0 < len(expected) < len(whole.part("public"))
    assert list(narrow.part("public").ids) == expected
    assert narrow.info.images["public"] == len(expected)
    for part in ("private", "evaluation", "test"):
        assert narrow.part(part).ids == whole.part(part).ids
    assert narrow.info.fingerprint != whole.info.fingerprint


@pytest.mark.parametrize(
    "options", [{"normalise": "dataset"}, {"normalise": "dataset", "public_labels": [1]}]
)
@pytest.mark.parametrize("name", ["svhn", "medmnist/bloodmnist", "mnist"])
def test_normalisation_constants_are_those_of_the_whole_public_part(write_set, name, options):
    written = write_set(name)
    public = written.load().part("public")
    images = np.stack([written.images[official][row] for official, row in rows_of(public)]) / 255
    info = written.describe(size=20, **options)
    assert info.mean == pytest.approx(images.mean(axis=(0, 1, 2)).tolist())
    assert info.std == pytest.approx(images.std(axis=(0, 1, 2)).tolist())
    assert written.describe().mean == (0.0,) * info.channels


def test_constants_of_public_images_that_do_not_vary_are_refused(write_set):
    written = write_set("mnist")
    path = next(path for path in written.files() if path.name.startswith("train-images"))
    content = path.read_bytes()
    path.write_bytes(content[:16] + bytes(len(content) - 16))
    assert written.describe().images["public"] == 30
    with pytest.raises(UsageError, match="public images that vary"):
        written.describe(normalise="dataset")


def test_images_are_resized_bilinearly(write_set):
    written = write_set("medmnist/pathmnist")
    native, large, small = (
        written.load(size=size, resolution=28).part("test").images([0, 1]) for size in (28, 56, 14)
    )
    # a pixel of the doubled grid has its centre a quarter of an old pixel from the nearest old centre
    old = native[0, 1]
    expected = 0.75 * (0.75 * old[2, 3] + 0.25 * old[2, 4]) + 0.25 * (0.75 * old[3, 3] + 0.25 * old[3, 4])
    assert large[0, 1, 5, 7] == pytest.approx(expected.item(), abs=1e-6)
    torch.testing.assert_close(small.mean((2, 3)), native.mean((2, 3)), atol=0.01, rtol=0)
    assert (small - F.interpolate(native, (14, 14), mode="nearest")).abs().max() > 0.2  # averaged, not picked


@pytest.mark.parametrize("size", [28, 17, 40])
def test_an_image_has_the_same_bits_whatever_it_is_read_with(write_set, size):
    part = write_set("medmnist/retinamnist").load(size=size, resolution=28).part("private")
    one_by_one = torch.cat([part.images([position]) for position in range(len(part))])
    assert torch.equal(part.images(), one_by_one)
    assert torch.equal(part.images([5, 2, 5]), one_by_one[[5, 2, 5]])
    assert part.images([]).shape == (0, 3, size, size)


def test_changing_an_image_given_out_changes_nothing(write_set):
    part = write_set("medmnist/retinamnist").load().part("test")
    before = part.images([0])
    part.images([0]).zero_()
    assert before.any()
    assert torch.equal(part.images([0]), before)


def test_emnists_letters_are_counted_from_zero_and_its_images_stand_upright(write_set):
    written = write_set("emnist", split="letters")
    raw = next(path for path in written.files() if path.name == "emnist-letters-test-images-idx3-ubyte")
    stored = np.frombuffer(raw.read_bytes()[16:], dtype=np.uint8).reshape(-1, 28, 28)
    test = written.load(split="letters").part("test")
    np.testing.assert_allclose(test.images([0])[0, 0] * 255, stored[0].T, atol=1e-4)
    assert test.labels.unique().tolist() == list(range(26))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("mnist", {"private_labels": [10]}, "labels of 0 to 9, got 10"),
        ("cifar100", {"test_labels": [100]}, "labels of 0 to 99, got 100"),
        ("emnist", {"split": "digits", "public_labels": [10]}, "public_labels: expected labels of 0 to 9"),
        ("emnist", {"split": "uppercase"}, "byclass"),
        ("medmnist/breastmnist", {"private_labels": [2]}, "labels of 0 to 1, got 2"),
        ("medmnist/chestmnist", {"private_labels": [14]}, "labels of 0 to 13, got 14"),
        ("medmnist/pathmnist", {"resolution": 32}, "28, 64, 128 or 224"),
        ("svhn", {"root": "a\0b"}, "null character"),
        ("svhn", {"root": "~nobody-of-this-name/a"}, "a home folder that is not known here"),
        ("svhn", {"root": ""}, "at least 1 character"),
        ("svhn", {"size": 7}, "greater than or equal to 8"),
    ],
)
def test_bad_options_are_refused(name, options, message):
    with pytest.raises(ValidationError, match=message):
        DATASETS.get(name).config(**options)


def test_labels_beyond_ten_are_those_of_the_split():
    config = DATASETS.get("emnist").config(split="byclass", private_labels=[61])
    assert config.labels("private") == (61,)


def test_an_empty_private_part_is_refused(write_set):
    written = write_set("medmnist/chestmnist")
    with pytest.raises(UsageError, match=r"medmnist/chestmnist: expected private images, got none"):
        written.describe(private_labels=[13])


@every_set
def test_configurations_travel_to_other_processes(write_set, name, options):
    plugin = write_set(name, **options).plugin(**options)
    copy = pickle.loads(pickle.dumps(plugin))
    assert isinstance(copy, Plugin)
    assert copy.canonical == plugin.canonical


def test_federations_can_deal_the_private_part(write_set):
    from fl.data.partition import assign

    part = write_set("medmnist/breastmnist").load().part("private")
    spec = FederationSpec(clients=4, partition=Dirichlet(alpha=0.5))
    hands = assign(spec.partition, part.labels, clients=4, stream=np.random.default_rng(0))
    assert sorted(np.concatenate(hands).tolist()) == list(range(len(part)))
