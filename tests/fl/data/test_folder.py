"""`folder` on small files that the tests write."""

import csv
import json
import os
import shutil
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fl.cards import PARTS
from fl.data import DATASETS, load
from fl.data.cache import cache_dir
from fl.data.folder_index import read_index
from fl.specs import Plugin


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("LEAKBENCH_CACHE", str(tmp_path_factory.mktemp("cache")))


def picture(seed, shape=(12, 12, 3)):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


@pytest.fixture
def classes(tmp_path):
    """A folder per class: 20 images of 12x12 pixels of `cat` and of `dog`."""
    root = tmp_path / "images"
    for label, name in enumerate(("cat", "dog")):
        (root / name).mkdir(parents=True)
        for number in range(20):
            Image.fromarray(picture(100 * label + number)).save(root / name / f"{number}.png")
    return root


@pytest.fixture
def table(tmp_path):
    """A CSV of 60 images of 20 patients, three each, with a split by patient."""
    root = tmp_path / "table"
    root.mkdir()
    with (root / "images.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "finding", "person", "use"])
        for number in range(60):
            Image.fromarray(picture(number)).save(root / f"{number}.png")
            patient = number // 3
            writer.writerow([f"{number}.png", number % 2, f"p{patient}", PARTS[patient % 4]])
    return root


COLUMNS = {"csv": "images.csv", "path_column": "file", "label_column": "finding"}


def plugin(root, **config):
    card = DATASETS.get("folder")
    return Plugin("folder", card.version, card.config(root=str(root), **{"size": 12, **config}))


def describe(wanted):
    return DATASETS.get("folder").describe(wanted.config)


def contents(dataset):
    return {part: {image.numpy().tobytes() for image in dataset.part(part).images()} for part in PARTS}


@pytest.mark.parametrize(
    "options",
    [{}, {"size": 8, "channels": "gray", "normalise": "dataset", "public": True, "private_labels": [1]}],
)
def test_class_folders_are_as_described(classes, options):
    wanted = plugin(classes, **options)
    dataset = load(wanted)
    assert dataset.info == describe(wanted)
    assert dataset.info.public is options.get("public", False)
    assert dataset.info.task.classes == 2
    for name in PARTS:
        part, images = dataset.part(name), dataset.part(name).images()
        assert len(part) == dataset.info.images[name] > 0
        assert images.shape == (len(part), dataset.info.channels, dataset.info.size, dataset.info.size)
        assert part.groups is None


def test_parts_are_disjoint_and_complete_and_hold_the_files(classes):
    dataset = load(plugin(classes))
    expected = {
        np.moveaxis(picture(seed), 2, 0).astype(np.float32).tobytes(): label
        for label in (0, 1)
        for seed in range(100 * label, 100 * label + 20)
    }
    found = {}
    for part in (dataset.part(name) for name in PARTS):
        for image, label in zip(part.images(), part.labels, strict=True):
            key = (image * 255).round().numpy().tobytes()
            assert key not in found
            found[key] = int(label)
    assert found == expected
    assert dataset.info.images == {"private": 22, "public": 6, "evaluation": 6, "test": 6}


def test_normalisation_is_measured_on_the_public_part(classes):
    dataset = load(plugin(classes, normalise="dataset", public_labels=[0]))
    images = load(plugin(classes)).part("public").images().double()  # not narrowed
    assert dataset.info.mean == pytest.approx(images.mean(dim=(0, 2, 3)).tolist(), abs=1e-6)
    assert dataset.info.std == pytest.approx(images.std(dim=(0, 2, 3), correction=0).tolist(), abs=1e-6)


def brute_force(root, **options):
    """Mean and standard deviation of the public part's pixels, from the images as they are loaded."""
    images = DATASETS.implementation("folder")(plugin(root, **options).config).part("public").images()
    pixels = images.double().transpose(0, 1).flatten(1)
    return pytest.approx([*pixels.mean(1).tolist(), *pixels.std(1, correction=0).tolist()], abs=1e-6)


def constants(root, **options):
    info = describe(plugin(root, normalise="dataset", **options))
    return [*info.mean, *info.std]


def test_constants_are_measured_once_for_the_same_contents(classes, tmp_path):
    first = constants(classes)
    moved = tmp_path / "elsewhere"
    shutil.copytree(classes, moved)
    public = [image for image in read_index(plugin(classes).config).images if image.part == "public"]
    for image in public:  # what counts as unchanged is not read again
        stat = image.path.stat()
        image.path.write_bytes(b"x" * stat.st_size)
        os.utime(image.path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert constants(classes) == first
    for image in public:
        Path(str(image.path).replace(str(classes), str(moved))).touch()
    assert constants(moved) == first == brute_force(moved)


def test_constants_follow_contents_parts_and_shape(classes):
    found = [constants(classes)]
    for options in ({"size": 8}, {"channels": "gray"}, {"split": {"private": 0.4, "public": 0.3}}):
        assert constants(classes, **options) == brute_force(classes, **options)
        found.append(constants(classes, **options))
    image = next(i for i in read_index(plugin(classes).config).images if i.part == "public")
    Image.fromarray(picture(999) // 2).save(image.path)
    found.append(constants(classes))
    assert found[-1] == brute_force(classes)
    assert len(set(map(tuple, found))) == len(found)
    assert constants(classes, public_labels=[0]) == found[-1]


def test_identity_is_content_and_not_place(classes, tmp_path):
    before = plugin(classes)
    fingerprint, ids = describe(before).fingerprint, load(before).part("private").ids
    moved = tmp_path / "elsewhere"
    shutil.copytree(classes, moved)
    (moved / "cat" / "0.png").rename(moved / "cat" / "renamed.png")
    after = plugin(moved)
    assert after.canonical == before.canonical
    assert describe(after).fingerprint == fingerprint
    assert DATASETS.implementation("folder")(after.config).part("private").ids == ids
    assert str(tmp_path) not in before.canonical


def test_identity_follows_images_and_labels(classes):
    before = plugin(classes)
    fingerprints = {describe(before).fingerprint}
    canonicals = {before.canonical}
    (classes / "cat" / "3.png").rename(classes / "dog" / "from-cat.png")
    fingerprints.add(describe(before).fingerprint)
    canonicals.add(plugin(classes).canonical)
    Image.fromarray(picture(999)).save(classes / "dog" / "4.png")
    fingerprints.add(describe(before).fingerprint)
    canonicals.add(plugin(classes).canonical)
    assert len(fingerprints) == len(canonicals) == 3


def test_unchanged_files_are_read_once_and_leave_no_names_behind(classes):
    fingerprint = describe(plugin(classes)).fingerprint
    file = classes / "cat" / "0.png"
    stat, content = file.stat(), file.read_bytes()
    file.write_bytes(bytes(len(content)))  # same size, unreadable as an image
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert describe(plugin(classes)).fingerprint == fingerprint
    documents = list((cache_dir() / "folders").iterdir())
    assert len(documents) == 1
    assert len(json.loads(documents[0].read_text())) == 40
    assert "png" not in documents[0].read_text()


def test_a_broken_cache_is_rebuilt(classes):
    fingerprint = describe(plugin(classes)).fingerprint
    document = next((cache_dir() / "folders").iterdir())
    for broken in ("{", "[]", '{"key": [1]}'):
        document.write_text(broken)
        assert describe(plugin(classes)).fingerprint == fingerprint


def test_classes_are_in_the_order_of_their_names_or_numbers(tmp_path):
    for name in ("10", "9", "2"):
        (tmp_path / "numbers" / name).mkdir(parents=True)
        for number in range(8):
            Image.new("L", (8, 8), int(name) * 10 + number).save(
                tmp_path / "numbers" / name / f"{number}.png"
            )
    part = load(plugin(tmp_path / "numbers", size=8, channels="gray")).part("private")
    tens = (part.images()[:, 0, 0, 0] * 255).round().int() // 10
    assert torch.equal(tens, torch.tensor([2, 9, 10])[part.labels].int())


def test_equal_files_stay_in_one_part(classes):
    for number in range(20):
        shutil.copy(classes / "cat" / f"{number}.png", classes / "cat" / f"copy-{number}.png")
    dataset = load(plugin(classes))
    found = contents(dataset)
    assert sum(len(images) for images in found.values()) == len(set().union(*found.values())) == 40
    ids = [name for part in PARTS for name in dataset.part(part).ids]
    assert len(ids) == len(set(ids)) == 60
    assert sum(name.endswith("-1") for name in ids) == 20


def test_csv_splits_by_patient(table):
    dataset = load(plugin(table, patient_column="person", **COLUMNS))
    parts_of = defaultdict(set)
    for name in PARTS:
        for patient in dataset.part(name).groups:
            parts_of[patient].add(name)
    assert len(parts_of) == 20
    assert all(len(parts) == 1 for parts in parts_of.values())
    assert dataset.info.groups == 11
    assert dataset.info.images == {"private": 33, "public": 9, "evaluation": 9, "test": 9}
    assert dataset.info == describe(plugin(table, patient_column="person", **COLUMNS))


def test_csv_with_a_split_is_followed(table):
    dataset = load(plugin(table, patient_column="person", split_column="use", **COLUMNS))
    for number, name in enumerate(PARTS):
        assert set(dataset.part(name).groups) == {f"p{p}" for p in range(number, 20, 4)}
        own = {
            np.moveaxis(picture(3 * p + i), 2, 0).tobytes() for p in range(number, 20, 4) for i in range(3)
        }
        assert {
            (image * 255).round().byte().numpy().tobytes() for image in dataset.part(name).images()
        } == own


def test_shares_may_leave_a_part_out(classes):
    split = {"private": 0.5, "public": 0, "evaluation": 0, "test": 0.5}
    assert load(plugin(classes, split=split)).info.images == {
        "private": 20,
        "public": 0,
        "evaluation": 0,
        "test": 20,
    }


def test_the_centre_is_kept_and_not_distorted(tmp_path):
    for label in ("a", "b"):
        (tmp_path / label).mkdir()
        for number in range(10):
            wide = np.zeros((16, 48, 3), dtype=np.uint8)
            wide[:, 16:32] = 100 + 10 * (label == "b") + number
            Image.fromarray(wide).save(tmp_path / label / f"{number}.png")
    images = load(plugin(tmp_path, size=16)).part("private").images()
    assert images.min() >= 100 / 255


def test_sixteen_bits_keep_their_range(tmp_path):
    for label in ("a", "b"):
        (tmp_path / label).mkdir()
        for number in range(10):
            deep = np.full((8, 8), 257 * (100 * (label == "b") + number + 5), dtype=np.uint16)
            Image.fromarray(deep).save(tmp_path / label / f"{number}.png")
    for channels in ("gray", "rgb"):
        part = load(plugin(tmp_path, size=8, channels=channels)).part("private")
        values = (part.images()[:, 0, 4, 4] * 255).round().int()
        assert torch.equal(values >= 100, part.labels == 1)
        assert set((values % 100).tolist()) <= set(range(5, 15))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK"])
def test_pixel_types_become_gray_or_colour(tmp_path, mode):
    for label in ("a", "b"):
        (tmp_path / label).mkdir()
        for number in range(8):
            path = tmp_path / label / f"{number}.{'tif' if mode == 'CMYK' else 'png'}"
            Image.fromarray(picture(number + 50 * (label == "b"))).convert(mode).save(path)
    assert load(plugin(tmp_path, size=8)).part("private").images().shape[1:] == (3, 8, 8)
    assert load(plugin(tmp_path, size=8, channels="gray")).part("private").images().shape[1:] == (1, 8, 8)
