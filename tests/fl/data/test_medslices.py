"""`medslices` on the real volumes, against a reader of NRRD of its own."""

import ast
import gzip
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError

from fl.cards import PARTS
from fl.data import DATASETS, load, public_data
from fl.data.assets import cached, fetch
from fl.data.base import UNLABELLED
from fl.data.cache import cache_dir
from fl.data.medslices_volumes import MEAN, STD, VOLUMES
from fl.errors import DataUnavailableError
from fl.specs import Plugin

CARD = DATASETS.get("medslices")
PATIENTS = {
    "private": {"lung1", "brain1"},
    "public": {"breast1"},
    "evaluation": set(),
    "test": {"lung2", "brain2"},
}


def plugin(**config):
    return Plugin(CARD.name, CARD.version, CARD.config(**config))


def volume(name):
    """Voxels `slices x rows x columns`, rows from front to back and columns from right to left."""
    header, _, body = (fetch("medslices") / f"{name}.nrrd").read_bytes().partition(b"\n\n")
    fields = dict(line.split(": ", 1) for line in header.decode().splitlines() if ": " in line)
    columns, rows, slices = map(int, fields["sizes"].split())
    assert fields["space"] == "left-posterior-superior"
    assert (fields["encoding"], fields["endian"]) == ("gzip", "little")
    kind = {"short": "<i2", "int": "<i4"}[fields["type"]]
    voxels = np.frombuffer(gzip.decompress(body), kind).reshape(slices, rows, columns)
    directions = [ast.literal_eval(vector) for vector in fields["space directions"].split()]
    for axis, direction in enumerate(directions):
        along = np.arange((columns, rows, slices)[axis]) * direction[axis]  # left, posterior or superior
        voxels = np.take(voxels, np.argsort(along), axis=2 - axis)
    return voxels


def square(voxels):
    side = max(voxels.shape[1:])
    padded = np.zeros((len(voxels), side, side))
    top, left = ((side - length) // 2 for length in voxels.shape[1:])
    padded[:, top : top + voxels.shape[1], left : left + voxels.shape[2]] = voxels
    return padded


def windowed(facts):
    low, high = facts.window
    return square(np.clip((volume(f"{facts.name}_image").astype(float) - low) / (high - low), 0, 1))


def of_volume(part, name):
    return [position for position, group in enumerate(part.groups) if group == name]


def test_it_is_described_without_its_files(tmp_path, monkeypatch):
    monkeypatch.setenv("LEAKBENCH_CACHE", str(tmp_path))
    info = CARD.describe(CARD.config())
    assert cached("medslices") is None
    assert info.images == {"private": 48 + 25, "public": 21, "evaluation": 0, "test": 61 + 23}
    assert (info.channels, info.size, info.groups, info.task.classes) == (1, 64, 2, 2)
    assert info.public
    assert info.regions
    assert not CARD.ranked


def test_everything_that_changes_images_changes_the_fingerprint():
    changes = [{}, {"size": 32}, {"channels": "rgb"}, {"private_labels": [0]}]
    assert len({CARD.describe(CARD.config(**change)).fingerprint for change in changes}) == len(changes)


@pytest.mark.parametrize("part", ["public", "evaluation"])
def test_parts_without_classes_are_not_narrowed(part):
    with pytest.raises(ValidationError, match="name another data set with public:"):
        CARD.config(**{f"{part}_labels": [1]})


@pytest.mark.parametrize(("size", "message"), [(15, "16"), (513, "512")])
def test_sizes_are_bounded(size, message):
    with pytest.raises(ValidationError, match=message):
        CARD.config(size=size)


@pytest.mark.slow
@pytest.mark.parametrize(
    "options", [{}, {"size": 32, "channels": "rgb", "normalise": "dataset", "private_labels": [1]}]
)
def test_the_description_equals_what_is_loaded(options):
    wanted = plugin(**options)
    dataset, info = load(wanted), CARD.describe(wanted.config)
    assert dataset.info == info
    for name in PARTS:
        part = dataset.part(name)
        images, regions = part.images(), part.regions()
        assert images.shape == (info.images[name], info.channels, info.size, info.size)
        assert images.dtype == torch.float32
        assert regions.shape == (len(part), 1, info.size, info.size)
        assert regions.dtype == torch.bool
        assert part.labels.dtype == torch.int64
        assert part.labels.shape == (len(part),)
        assert len(part.ids) == len(part.labels) == len(part.groups) == len(part)
    assert len(set(dataset.part("private").groups)) == info.groups


@pytest.mark.slow
def test_binary_labels_are_one_output():
    binary, classes = load(plugin(task="binary")), load(plugin())
    assert (binary.info.task.kind, binary.info.task.outputs) == ("binary", 1)
    for name in PARTS:
        labels = classes.part(name).labels
        assert torch.equal(binary.part(name).labels, labels.float().view(-1, 1))


@pytest.mark.slow
def test_a_patient_is_in_one_part_and_has_one_label():
    dataset = load(plugin())
    for name, patients in PATIENTS.items():
        part = dataset.part(name)
        assert set(part.groups) == patients
        for patient, label, image_id in zip(part.groups, part.labels.tolist(), part.ids, strict=True):
            assert label == {"lung": 0, "brai": 1, "brea": UNLABELLED}[patient[:4]]
            assert image_id.startswith(f"{patient}-")
    ids = [image_id for name in PARTS for image_id in dataset.part(name).ids]
    assert len(set(ids)) == len(ids) == 178


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "part", "size"), [("brain1", "private", 256), ("breast1", "public", 120), ("lung2", "test", 512)]
)
def test_slices_and_regions_are_those_of_the_volume(name, part, size):
    facts = next(facts for facts in VOLUMES if facts.name == name)
    loaded = CARD.config(size=size)
    part = DATASETS.implementation("medslices")(loaded).part(part)
    rows = of_volume(part, name)
    np.testing.assert_allclose(part.images(rows)[:, 0], windowed(facts), atol=1e-6)
    masks = square(volume(f"{name}_label")) > 0
    np.testing.assert_array_equal(part.regions(rows)[:, 0], masks)
    assert masks.any()


@pytest.mark.slow
def test_smaller_slices_are_those_that_pillow_makes():
    facts = VOLUMES[0]
    part = load(plugin()).part("private")
    rows = of_volume(part, facts.name)
    for image, original in zip(part.images(rows)[::12, 0], windowed(facts)[::12], strict=True):
        pillow = Image.fromarray(original.astype(np.float32)).resize((64, 64), Image.Resampling.BILINEAR)
        np.testing.assert_allclose(image, np.asarray(pillow), atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("size", [32, 64])
def test_regions_stay_where_the_tumour_is(size):
    part = load(plugin(size=size)).part("private")
    rows = of_volume(part, "brain1")
    masks = volume("brain1_label") > 0
    for region, mask in zip(part.regions(rows)[:, 0].numpy(), masks, strict=True):
        assert region.any() == mask.any()
        if mask.any():
            factor = len(mask) // size
            centre = np.argwhere(mask).mean(axis=0)
            found = (np.argwhere(region) + 0.5).mean(axis=0) * factor - 0.5
            assert np.abs(found - centre).max() < factor
            assert region.sum() * factor**2 == pytest.approx(mask.sum(), rel=0.35)


@pytest.mark.slow
def test_windows_are_those_stated():
    for facts in VOLUMES:
        voxels = volume(f"{facts.name}_image")
        assert (facts.slices, facts.rows, facts.columns) == voxels.shape
        if facts.name.startswith("lung"):
            assert facts.window == (-1000, 400)
        else:
            assert facts.window == (voxels.min(), np.percentile(voxels, 99.5))


@pytest.mark.slow
def test_every_slice_shows_a_body():
    for facts in VOLUMES:
        assert (windowed(facts) > 0.1).mean(axis=(1, 2)).min() > 0.15


@pytest.mark.slow
def test_normalisation_constants_are_those_of_the_public_part():
    info = CARD.describe(CARD.config(normalise="dataset", channels="rgb"))
    images = windowed(next(facts for facts in VOLUMES if facts.part == "public"))
    assert info.mean == (MEAN,) * 3
    assert info.std == (STD,) * 3
    assert pytest.approx(images.mean(), abs=1e-4) == MEAN
    assert pytest.approx(images.std(), abs=1e-4) == STD


@pytest.mark.slow
def test_rgb_is_the_gray_image_three_times():
    gray, rgb = load(plugin()).part("test"), load(plugin(channels="rgb")).part("test")
    assert torch.equal(rgb.images([3, 70]), gray.images([3, 70]).expand(-1, 3, -1, -1))
    assert torch.equal(rgb.regions([3, 70]), gray.regions([3, 70]))


@pytest.mark.slow
def test_images_and_regions_come_in_the_order_asked_for():
    part = load(plugin()).part("private")
    order = [57, 33, 57]
    assert torch.equal(part.images(order), part.images()[order])
    assert torch.equal(part.regions(order), part.regions()[order])
    assert part.regions(order).any()


@pytest.mark.slow
def test_the_attackers_images_are_of_no_class():
    public = public_data(load(plugin()))
    assert public.labels.unique().tolist() == [UNLABELLED]
    assert public.mean_image.shape == (1, 64, 64)


@pytest.mark.slow
def test_a_changed_file_in_the_cache_is_refused(tmp_path, monkeypatch):
    folder = fetch("medslices")
    copy = tmp_path / folder.relative_to(cache_dir())
    shutil.copytree(folder, copy)
    monkeypatch.setenv("LEAKBENCH_CACHE", str(tmp_path))
    changed = copy / "brain1_label.nrrd"
    content = bytearray(changed.read_bytes())
    content[-100] ^= 1
    changed.write_bytes(content)
    with pytest.raises(DataUnavailableError, match="bench data fetch medslices"):
        DATASETS.implementation("medslices")(CARD.config(size=16))


def test_other_sets_mark_no_regions():
    card = DATASETS.get("digits")
    dataset = load(Plugin("digits", card.version, card.config()))
    assert dataset.part("private").regions([0]) is None
    assert not dataset.info.regions
    assert card.ranked
