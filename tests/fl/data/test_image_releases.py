"""`chestxray`, `eyepacs_airogs` and `imagenet` on small files in the layouts of the releases."""

import hashlib
import json
import re
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError

from fl.cards import PARTS
from fl.data import DATASETS
from fl.data.release_index import list_images
from fl.errors import DataUnavailableError
from fl.specs import Task

FINDINGS = ("COVID", "Lung_Opacity", "Normal", "Viral Pneumonia")
SYNSETS = ("n01440764", "n01443537", "n01484850")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("LEAKBENCH_CACHE", str(tmp_path_factory.mktemp("cache")))


def save(path, seed, shape=(12, 12)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)).save(path)


def config(name, root, **options):
    return DATASETS.get(name).config(root=str(root), **{"size": 8, **options})


def read(name, root, **options):
    card, wanted = DATASETS.get(name), config(name, root, **options)
    dataset = DATASETS.implementation(name)(wanted)
    assert dataset.info == card.describe(wanted)
    return dataset


def problem(name, root, **options):
    with pytest.raises(DataUnavailableError) as caught:
        DATASETS.get(name).describe(config(name, root, **options))
    return str(caught.value)


def labels(dataset, parts=PARTS):
    return {
        image: int(label)
        for part in (dataset.part(name) for name in parts)
        for image, label in zip(part.ids, part.labels, strict=True)
    }


@pytest.fixture
def radiographs(tmp_path):
    """20 images of each finding; the mask of image n covers its left half if n is even, else its top."""
    for label, finding in enumerate(FINDINGS):
        (tmp_path / f"{finding}.metadata.xlsx").parent.mkdir(exist_ok=True)
        (tmp_path / f"{finding}.metadata.xlsx").write_bytes(b"not read")
        for number in range(20):
            save(tmp_path / finding / "images" / f"{finding}-{number}.png", 100 * label + number)
            mask = np.zeros((16, 16, 3), dtype=np.uint8)  # masks are smaller or larger than the images
            mask[(slice(None), slice(8)) if number % 2 == 0 else (slice(8), slice(None))] = 255
            path = tmp_path / finding / "masks" / f"{finding}-{number}.png"
            path.parent.mkdir(exist_ok=True)
            Image.fromarray(mask).save(path)
    return tmp_path


def test_radiographs_are_four_classes_with_lungs(radiographs):
    dataset = read("chestxray", radiographs)
    assert dataset.info.task == Task("multiclass", 4)
    assert (dataset.info.channels, dataset.info.regions, dataset.info.public) == (1, True, False)
    assert labels(dataset) == {
        f"{finding}/images/{finding}-{number}.png": label
        for label, finding in enumerate(FINDINGS)
        for number in range(20)
    }
    assert dataset.info.images == {"private": 44, "public": 12, "evaluation": 12, "test": 12}
    part = dataset.part("private")
    regions = part.regions()
    assert (regions.shape, regions.dtype) == ((44, 1, 8, 8), torch.bool)
    left = torch.zeros(1, 8, 8, dtype=torch.bool)
    left[..., :4] = True
    for name, region in zip(part.ids, regions, strict=True):
        even = int(name.rsplit("-", 1)[1].removesuffix(".png")) % 2 == 0
        assert torch.equal(region, left if even else left.mT)


def test_findings_choose_and_order_the_classes(radiographs):
    dataset = read("chestxray", radiographs, findings=["Normal", "COVID"], channels="rgb")
    assert dataset.info.task == Task("multiclass", 2)
    assert dataset.info.channels == 3
    assert {(name.split("/")[0], label) for name, label in labels(dataset).items()} == {
        ("Normal", 0),
        ("COVID", 1),
    }


def test_equal_radiographs_stay_in_one_part(radiographs):
    for number in range(20):
        shutil.copy(
            radiographs / "COVID" / "images" / f"COVID-{number}.png",
            radiographs / "Normal" / "images" / f"Normal-{100 + number}.png",
        )
    dataset = read("chestxray", radiographs)
    found = [{image.numpy().tobytes() for image in dataset.part(name).images()} for name in PARTS]
    assert sum(map(len, found)) == len(set().union(*found)) == 80


def test_a_rewritten_radiograph_is_another_data_set(radiographs, monkeypatch, tmp_path_factory):
    before = config("chestxray", radiographs).canonical
    save(radiographs / "COVID" / "images" / "COVID-3.png", 9999)
    monkeypatch.setenv("LEAKBENCH_CACHE", str(tmp_path_factory.mktemp("another")))
    assert config("chestxray", radiographs).canonical != before


def test_other_masks_are_another_data_set(radiographs):
    """Without masks, the identity is that of the images alone."""
    before = config("chestxray", radiographs).canonical
    images = hashlib.sha256()
    for image in list_images(config("chestxray", radiographs)):
        images.update(json.dumps(image, separators=(",", ":")).encode() + b"\n")
    masks = radiographs / "COVID" / "masks"
    mask = masks / "COVID-3.png"
    mask.rename(masks / "aside.png")
    save(mask, 7)
    other = config("chestxray", radiographs).canonical
    for finding in FINDINGS:
        shutil.rmtree(radiographs / finding / "masks")
    bare = config("chestxray", radiographs).canonical

    assert len({before, other, bare}) == 3
    assert json.loads(bare)["content"] == images.hexdigest()


def test_a_missing_mask_is_named(radiographs):
    dataset = read("chestxray", radiographs)
    name = dataset.part("private").ids[0]
    mask = radiographs / name.replace("/images/", "/masks/")
    mask.unlink()
    with pytest.raises(DataUnavailableError, match=re.escape(str(mask))):
        dataset.part("private").regions([0])


def test_missing_radiographs(radiographs):
    shutil.rmtree(radiographs / "Normal" / "images")
    text = problem("chestxray", radiographs)
    assert text.startswith(f"{radiographs / 'Normal/images'}: expected a folder of images, got: No such file")
    assert "get the COVID-19 Radiography Database" in text
    assert "://" not in text
    (radiographs / "Normal" / "images").mkdir()
    assert "expected images, got none" in problem("chestxray", radiographs)


@pytest.fixture
def fundi(tmp_path):
    """AIROGS-light: 28 photographs of each class to train with, 6 to validate, 4 to test."""
    counts = {"train": 28, "validation": 6, "test": 4}
    for place, (folder, count) in enumerate(counts.items()):
        for label, name in enumerate(("NRG", "RG")):
            for number in range(count):
                seed = 1000 * place + 100 * label + number
                save(tmp_path / folder / name / f"{name}{number:04}.jpg", seed, (16, 16, 3))
    return tmp_path


@pytest.mark.parametrize(("task", "shape"), [("binary", (1,)), ("multiclass", ())])
def test_fundi_are_glaucoma_or_not(fundi, task, shape):
    dataset = read("eyepacs_airogs", fundi, task=task)
    assert dataset.info.task == Task(task, 2)
    assert dataset.info.channels == 3
    assert dataset.info.images == {"private": 44, "public": 12, "evaluation": 12, "test": 8}
    assert dataset.part("private").labels.shape == (44, *shape)
    assert dataset.part("private").groups is None
    found = labels(dataset)
    assert len(found) == 76
    assert all(label == ("/RG/" in name) for name, label in found.items())
    folders = {name: {image.split("/")[0] for image in dataset.part(name).ids} for name in PARTS}
    expected = {"private": "train", "public": "train", "evaluation": "validation", "test": "test"}
    assert folders == {name: {folder} for name, folder in expected.items()}


def test_a_fundus_of_the_test_set_is_not_trained_on(fundi):
    shutil.copy(fundi / "test" / "RG" / "RG0000.jpg", fundi / "train" / "RG" / "again.jpg")
    shutil.copy(fundi / "validation" / "RG" / "RG0001.jpg", fundi / "test" / "NRG" / "moved.jpg")
    found = labels(read("eyepacs_airogs", fundi))
    assert len(found) == 76
    assert found.keys() & {"train/RG/again.jpg", "validation/RG/RG0001.jpg"} == set()


def test_narrowing_fundi(fundi):
    assert set(labels(read("eyepacs_airogs", fundi, test_labels=[1]), ["test"]).values()) == {1}
    with pytest.raises(ValidationError, match="labels of 0 to 1, got 2"):
        config("eyepacs_airogs", fundi, test_labels=[2])


@pytest.fixture
def synsets(tmp_path):
    """40 training and 5 validation images of three synsets; no two training files of one have one size."""
    for label, synset in enumerate(SYNSETS):
        for folder, count in (("train", 40), ("val", 5)):
            for number in range(count):
                path = tmp_path / folder / synset / f"{synset}_{number}.JPEG"
                save(path, number + 50 * label, (9, 12, 3))
                path.write_bytes(path.read_bytes().ljust(2000 + number, b"\0"))
    (tmp_path / "train" / "README").mkdir()
    return tmp_path


def test_synsets_are_classes_in_the_order_of_their_names(synsets):
    dataset = read("imagenet", synsets)
    assert dataset.info.task == Task("multiclass", 3)
    assert dataset.info.images == {"private": 78, "public": 21, "evaluation": 21, "test": 15}
    found = labels(dataset)
    assert len(found) == 135
    assert all(name.split("/")[1] == SYNSETS[label] for name, label in found.items())
    assert all(name.startswith("val/") for name in dataset.part("test").ids)
    assert dataset.part("private").images([3, 1]).shape == (2, 3, 8, 8)


def test_files_of_one_size_stay_in_one_part(synsets):
    for number in range(40):
        place = synsets / "train" / SYNSETS[0]
        shutil.copy(place / f"{SYNSETS[0]}_{number}.JPEG", place / f"copy{number}.JPEG")
    dataset = read("imagenet", synsets)
    found = [{image.numpy().tobytes() for image in dataset.part(name).images()} for name in PARTS[:3]]
    assert sum(map(len, found)) == len(set().union(*found)) == 120


@pytest.mark.parametrize("options", [{"first": 2}, {"synsets": SYNSETS[1::-1]}])
def test_a_subset_of_the_synsets(synsets, options):
    shutil.rmtree(synsets / "val" / SYNSETS[2])
    dataset = read("imagenet", synsets, **options)
    assert dataset.info.task.classes == 2
    assert all(name.split("/")[1] == SYNSETS[label] for name, label in labels(dataset).items())


def test_synsets_that_are_not_there(synsets):
    text = problem("imagenet", synsets, synsets=["n01440764", "n99999999"])
    assert "expected a folder n99999999" in text
    assert "expected at least 4 folders of synsets" in problem("imagenet", synsets, first=4)
    shutil.rmtree(synsets / "val")
    assert str(synsets / "val") in problem("imagenet", synsets)
    shutil.rmtree(synsets / "train")
    assert "expected a folder per synset" in problem("imagenet", synsets)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"synsets": ["a", "a"]}, "each synset once"),
        ({"synsets": ["a", "b"], "first": 2}, "synsets: or first:, got both"),
    ],
)
def test_bad_choices_of_synsets(options, text):
    with pytest.raises(ValidationError, match=text):
        config("imagenet", "somewhere", **options)
