"""Small files in the formats of torchvision's and MedMNIST's data sets, with what they hold."""

from __future__ import annotations

import gzip
import pickle
import struct
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import scipy.io

from fl.data import DATASETS
from fl.specs import Plugin

PER_CLASS = 20
"""Images of each class in an official training part; half as many in the others."""


class Written(NamedTuple):
    """A data set that was written.

    Attributes:
        name: Its registered name.
        root: What `root:` must be.
        images: Upright images of each official part, `N x H x W x C`.
        labels: Their labels counted from 0: `N`, or `N x outputs`.
    """

    name: str
    root: Path
    images: dict[str, np.ndarray]
    labels: dict[str, np.ndarray]

    def plugin(self, **options):
        card = DATASETS.get(self.name)
        return Plugin(self.name, card.version, card.config(root=str(self.root), **options))

    def describe(self, **options):
        return DATASETS.get(self.name).describe(self.plugin(**options).config)

    def load(self, **options):
        """A fresh data set, not one that `fl.data.load` keeps."""
        return DATASETS.implementation(self.name)(self.plugin(**options).config)

    def files(self):
        return sorted(path for path in self.root.rglob("*") if path.is_file())


def idx(array):
    """The bytes of an IDX file."""
    axes = struct.pack(f">{array.ndim}I", *array.shape)
    return bytes([0, 0, 8, array.ndim]) + axes + array.astype(np.uint8).tobytes()


def python2_pickle(rows, **texts_and_lists):
    """The dictionary of a CIFAR batch as Python 2 pickled it, with byte strings for texts and array data."""

    def text(value):
        return b"T" + struct.pack("<i", len(value)) + value

    def number(value):
        return b"J" + struct.pack("<i", value)

    dtype = b"cnumpy\ndtype\n(" + text(b"u1") + b"K\x00K\x01tR(K\x03" + text(b"|") + b"NNN"
    dtype += number(-1) + number(-1) + b"K\x00tb"
    array = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00t" + text(b"b") + b"tR"
    array += b"(K\x01(" + number(rows.shape[0]) + number(rows.shape[1]) + b"t" + dtype + b"I00\n"
    array += text(rows.tobytes()) + b"tb"
    items = text(b"data") + array
    for key, value in texts_and_lists.items():
        listed = b"](" + b"".join(number(int(each)) for each in value) + b"e"
        items += text(key.encode()) + (text(value) if isinstance(value, bytes) else listed)
    return b"\x80\x02}(" + items + b"u."


def _drawn(rng, parts, *, classes, side, channels):
    images, labels = {}, {}
    for part in parts:
        each = PER_CLASS if part == "train" else PER_CLASS // 2
        labels[part] = rng.permutation(np.repeat(np.arange(classes), each))
        images[part] = rng.integers(0, 256, (len(labels[part]), side, side, channels), dtype=np.uint8)
    return images, labels


def _write_mnist_family(root, name, images, labels, options):
    folder = root / {"mnist": "MNIST", "fashion_mnist": "FashionMNIST", "emnist": "EMNIST"}[name] / "raw"
    folder.mkdir(parents=True)
    for part in images:
        pixels, classes = images[part][..., 0], labels[part]
        prefix = {"train": "train", "test": "t10k"}[part]
        if name == "emnist":
            split = options.get("split", "balanced")
            prefix = f"emnist-{split}-{part}"
            pixels, classes = pixels.transpose(0, 2, 1), classes + (split == "letters")
        (folder / f"{prefix}-images-idx3-ubyte").write_bytes(idx(pixels))
        (folder / f"{prefix}-labels-idx1-ubyte").write_bytes(idx(classes))


def _write_cifar(root, name, images, labels):
    folder = root / {"cifar10": "cifar-10-batches-py", "cifar100": "cifar-100-python"}[name]
    folder.mkdir(parents=True)
    batches = {"cifar10": [f"data_batch_{n}" for n in range(1, 6)], "cifar100": ["train"]}[name]
    test = {"cifar10": "test_batch", "cifar100": "test"}[name]
    for part, files in (("train", batches), ("test", [test])):
        rows = images[part].transpose(0, 3, 1, 2).reshape(len(images[part]), -1)
        for file, chosen in zip(files, np.array_split(np.arange(len(rows)), len(files)), strict=True):
            kinds = {"labels": labels[part][chosen]}
            if name == "cifar100":
                kinds = {"coarse_labels": labels[part][chosen] // 5, "fine_labels": labels[part][chosen]}
            content = python2_pickle(rows[chosen], batch_label=b"a batch", **kinds)
            (folder / file).write_bytes(content)
    key, meta = {"cifar10": ("label_names", "batches.meta"), "cifar100": ("fine_label_names", "meta")}[name]
    (folder / meta).write_bytes(pickle.dumps({key: ["a", "b"]}, protocol=2))


def _write_svhn(root, images, labels):
    root.mkdir(parents=True, exist_ok=True)
    for part in images:
        content = {
            "X": images[part].transpose(1, 2, 3, 0),
            "y": np.where(labels[part], labels[part], 10)[:, None],
        }
        path = root / f"{part}_32x32.mat"
        scipy.io.savemat(path, content, do_compression=True)
        path.write_bytes(b"MATLAB 5.0 MAT-file".ljust(116) + path.read_bytes()[116:])  # without the time


def _write_medmnist(root, config, images, labels):
    folder = root / "medmnist"
    folder.mkdir(parents=True)
    arrays = {}
    for part in images:
        arrays[f"{part}_images"] = images[part] if images[part].shape[-1] == 3 else images[part][..., 0]
        arrays[f"{part}_labels"] = labels[part].reshape(len(labels[part]), -1).astype(np.uint8)
    np.savez_compressed(folder / config.file, **arrays)


@pytest.fixture
def write_set(tmp_path, monkeypatch):
    """Write a small set in the format of `name` below a folder and return what it holds."""
    monkeypatch.setenv("LEAKBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("LEAKBENCH_DATA", raising=False)

    def write(name, *, folder="data", seed=0, **options):
        config = DATASETS.get(name).config(**options)
        facts, root = config.facts, tmp_path / folder
        images, labels = _drawn(
            np.random.default_rng(seed),
            facts.shares,
            classes=facts.task.classes,
            side=facts.side,
            channels=facts.channels,
        )
        if facts.task.kind == "multilabel":
            labels = {
                part: np.stack([classes % 2, *(classes == n for n in range(12)), classes < 0], axis=1) * 1
                for part, classes in labels.items()
            }
        if name in ("cifar10", "cifar100"):
            _write_cifar(root, name, images, labels)
        elif name == "svhn":
            _write_svhn(root, images, labels)
        elif name.startswith("medmnist/"):
            _write_medmnist(root, config, images, labels)
        else:
            _write_mnist_family(root, name, images, labels, options)
        return Written(name, root, images, labels)

    return write


@pytest.fixture
def compress():
    """Replace a file by its gzip version, under its name with `.gz`."""

    def replace(path):
        path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()

    return replace
