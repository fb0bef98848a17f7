"""The array sets against torchvision's and MedMNIST's own readers of the same files."""

import hashlib

import medmnist
import numpy as np
import pytest
import torchvision
from medmnist import INFO

from fl.cards import PARTS
from fl.data import DATASETS
from fl.data.medmnist_sets import RESOLUTIONS

FLAGS = sorted(flag for flag in INFO if not flag.endswith("3d"))
KINDS = {
    "multi-class": "multiclass",
    "ordinal-regression": "multiclass",
    "binary-class": "binary",
    "multi-label, binary-class": "multilabel",
}


def compare(dataset, oracle):
    """Compare every image with that in the official part `oracle[part]`: `N x H x W x C` bytes and labels."""
    for part in (dataset.part(name) for name in PARTS):
        for name, image, label in zip(part.ids, part.images(), part.labels, strict=True):
            official, _, row = name.rpartition("-")
            pixels, labels = oracle[official]
            np.testing.assert_allclose(image.permute(1, 2, 0) * 255, pixels[int(row)], atol=1e-4)
            np.testing.assert_array_equal(label.numpy().squeeze(), np.squeeze(labels[int(row)]))


@pytest.mark.parametrize(("name", "reader"), [("mnist", "MNIST"), ("fashion_mnist", "FashionMNIST")])
def test_mnist_and_fashion_mnist_are_torchvisions(write_set, name, reader):
    written = write_set(name)
    read = getattr(torchvision.datasets, reader)
    sets = {"train": read(written.root, train=True), "test": read(written.root, train=False)}
    compare(
        written.load(),
        {part: (found.data.numpy()[..., None], found.targets.numpy()) for part, found in sets.items()},
    )


@pytest.mark.parametrize(("split", "first"), [("balanced", 0), ("letters", 1)])
def test_emnist_is_torchvisions_transposed_and_counted_from_zero(write_set, split, first):
    written = write_set("emnist", split=split)
    sets = {
        part: torchvision.datasets.EMNIST(written.root, split, train=part == "train")
        for part in written.images
    }
    compare(
        written.load(split=split),
        {
            part: (found.data.numpy().transpose(0, 2, 1)[..., None], found.targets.numpy() - first)
            for part, found in sets.items()
        },
    )


@pytest.mark.parametrize(("name", "reader"), [("cifar10", "CIFAR10"), ("cifar100", "CIFAR100")])
def test_cifar_is_torchvisions(write_set, monkeypatch, name, reader):
    written = write_set(name)
    digests = {
        p.name: hashlib.md5(p.read_bytes(), usedforsecurity=False).hexdigest() for p in written.files()
    }
    read = getattr(torchvision.datasets, reader)
    for listed in ("train_list", "test_list"):
        monkeypatch.setattr(read, listed, [[file, digests[file]] for file, _ in getattr(read, listed)])
    monkeypatch.setattr(read, "meta", {**read.meta, "md5": digests[read.meta["filename"]]})
    sets = {"train": read(written.root, train=True), "test": read(written.root, train=False)}
    compare(written.load(), {part: (found.data, found.targets) for part, found in sets.items()})


def test_svhn_is_torchvisions(write_set, monkeypatch):
    written = write_set("svhn")
    read = torchvision.datasets.SVHN
    digests = {
        p.name: hashlib.md5(p.read_bytes(), usedforsecurity=False).hexdigest() for p in written.files()
    }
    monkeypatch.setattr(
        read,
        "split_list",
        {part: ["", file, digests.get(file)] for part, (_, file, _) in read.split_list.items()},
    )
    sets = {part: read(written.root, split=part) for part in ("train", "test")}
    compare(
        written.load(),
        {part: (found.data.transpose(0, 2, 3, 1), found.labels) for part, found in sets.items()},
    )


@pytest.mark.parametrize(
    ("flag", "size"), [("pathmnist", 28), ("chestmnist", 28), ("breastmnist", 128), ("retinamnist", 64)]
)
def test_medmnist_is_the_librarys(write_set, flag, size):
    written = write_set(f"medmnist/{flag}", size=size)
    read = getattr(medmnist, INFO[flag]["python_class"])
    sets = {
        part: read(split=part, root=str(written.root / "medmnist"), size=size)
        for part in ("train", "val", "test")
    }
    compare(
        written.load(size=size),
        {
            part: (found.imgs if found.imgs.ndim == 4 else found.imgs[..., None], found.labels)
            for part, found in sets.items()
        },
    )


def test_every_two_dimensional_set_has_a_card():
    names = [card.name for card in DATASETS if card.name.startswith("medmnist/")]
    assert sorted(name.removeprefix("medmnist/") for name in names) == FLAGS
    assert len(FLAGS) == 12


@pytest.mark.parametrize("flag", FLAGS)
def test_facts_are_the_librarys(flag):
    oracle, card = INFO[flag], DATASETS.get(f"medmnist/{flag}")
    published = card.config().published
    assert published.task.kind == KINDS[oracle["task"]]
    assert card.config.classes == published.task.classes == len(oracle["label"])
    assert published.channels == oracle["n_channels"]
    assert published.images == tuple(oracle["n_samples"][part] for part in ("train", "val", "test"))
    assert card.licence == oracle["license"]
    for resolution, md5 in zip(RESOLUTIONS, published.md5, strict=True):
        suffix = "" if resolution == 28 else f"_{resolution}"
        assert published.url(resolution) == oracle[f"url{suffix}"]
        assert md5 == oracle[f"MD5{suffix}"]
    if flag != "retinamnist":  # the library numbers its grades 0 to 4
        names = [oracle["label"][str(label)] for label in range(len(oracle["label"]))]
        assert [name.lower() for name in card.class_names] == [name.lower() for name in names]


def test_class_names_are_torchvisions():
    names = torchvision.datasets.FashionMNIST.classes
    assert [name.lower() for name in DATASETS.get("fashion_mnist").class_names] == [n.lower() for n in names]


def test_emnists_splits_have_as_many_classes_as_torchvision_names():
    for split, classes in torchvision.datasets.EMNIST.classes_split_dict.items():
        known = len([name for name in classes if name != "N/A"])
        assert DATASETS.get("emnist").config(split=split).facts.task.classes == known


@pytest.mark.parametrize(
    ("options", "file"),
    [
        ({}, "bloodmnist.npz"),
        ({"size": 29}, "bloodmnist_64.npz"),
        ({"size": 64}, "bloodmnist_64.npz"),
        ({"size": 100}, "bloodmnist_128.npz"),
        ({"size": 224}, "bloodmnist_224.npz"),
        ({"size": 300}, "bloodmnist_224.npz"),
        ({"size": 64, "resolution": 28}, "bloodmnist.npz"),
    ],
)
def test_the_smallest_file_that_is_large_enough_is_read(options, file):
    assert DATASETS.get("medmnist/bloodmnist").config(**options).file == file
