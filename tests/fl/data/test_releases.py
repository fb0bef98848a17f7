"""What all data sets whose files users get for themselves have in common, shown on `eyepacs_airogs`."""

import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError

from fl.data import DATASETS
from fl.data.release_config import ReleaseConfig
from fl.errors import DataUnavailableError, UsageError

CARD = DATASETS.get("eyepacs_airogs")
RELEASES = [card.name for card in DATASETS if issubclass(card.config, ReleaseConfig)]


@pytest.fixture(autouse=True)
def _own_places(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("LEAKBENCH_CACHE", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.delenv("LEAKBENCH_DATA", raising=False)


@pytest.fixture
def root(tmp_path):
    """28 photographs of each class to train with, 4 to validate and 4 to test."""
    for place, (folder, count) in enumerate({"train": 28, "validation": 4, "test": 4}.items()):
        for label, name in enumerate(("NRG", "RG")):
            for number in range(count):
                path = tmp_path / "release" / folder / name / f"{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                rng = np.random.default_rng([place, label, number])
                Image.fromarray(rng.integers(0, 256, (10, 10, 3), dtype=np.uint8)).save(path)
    return tmp_path / "release"


def config(root, **options):
    return CARD.config(root=str(root), **{"size": 8, **options})


def read(root, **options):
    wanted = config(root, **options)
    dataset = DATASETS.implementation(CARD.name)(wanted)
    assert dataset.info == CARD.describe(wanted)
    return dataset


def test_they_are_all_there():
    assert RELEASES == ["chexpert", "chestxray", "eyepacs_airogs", "celeba", "imagenet"]
    assert all(DATASETS.get(name).version == DATASETS.get(name).config.version for name in RELEASES)


@pytest.mark.parametrize("name", RELEASES)
def test_without_files_the_message_says_how_to_get_them(name, tmp_path, monkeypatch):
    card = DATASETS.get(name)
    with pytest.raises(DataUnavailableError) as caught:
        card.describe(card.config())
    text = str(caught.value)
    assert text.startswith(f"{name}: expected its folder, got neither root: nor LEAKBENCH_DATA; get ")
    assert text.endswith(
        f"then set root: of data: {name} to that folder, or LEAKBENCH_DATA to the folder in which it is "
        f"called {name}"
    )
    assert "://" not in text
    monkeypatch.setenv("LEAKBENCH_DATA", str(tmp_path))
    with pytest.raises(DataUnavailableError, match=re.escape(f"at {tmp_path / name} (LEAKBENCH_DATA)")):
        card.describe(card.config())
    with pytest.raises(DataUnavailableError, match=re.escape(f"at {tmp_path / 'x'} (root:)")):
        card.config(root=str(tmp_path / "x")).resolved()


def test_the_variable_stands_for_the_root(root, monkeypatch):
    expected = config(root).canonical
    root.rename(root.parent / CARD.name)
    monkeypatch.setenv("LEAKBENCH_DATA", str(root.parent))
    assert CARD.config(size=8).canonical == expected


def test_where_it_lies_changes_nothing(root, tmp_path):
    shutil.copytree(root, tmp_path / "elsewhere")
    first, second = read(root), read(tmp_path / "elsewhere")
    assert first.info == second.info
    for name, part in first.parts.items():
        assert part.ids == second.part(name).ids
        assert torch.equal(part.images(), second.part(name).images())


def test_what_it_holds_changes_it(root):
    before = CARD.describe(config(root)).fingerprint
    image = root / "train" / "RG" / "3.png"
    image.rename(image.with_name("other.png"))
    assert CARD.describe(config(root)).fingerprint != before


def test_images_are_listed_once_and_not_read_to_plan(root):
    expected = CARD.describe(config(root))
    for image in root.rglob("*.png"):
        image.write_bytes(b"unreadable")
    assert CARD.describe(config(root)) == expected
    assert CARD.describe(config(root, limit={"test": 3})).images["test"] == 3
    part = DATASETS.implementation(CARD.name)(config(root)).part("private")
    with pytest.raises(DataUnavailableError, match=re.escape(str(root / part.ids[0]))):
        part.images([0])


def test_limits_keep_fewer_of_the_same_images(root):
    whole, limited = read(root), read(root, limit={"private": 20, "public": None, "test": 500})
    assert whole.info.images == {"private": 44, "public": 12, "evaluation": 8, "test": 8}
    assert limited.info.images == {"private": 20, "public": 12, "evaluation": 8, "test": 8}
    fewer = read(root, limit={"private": 7}).part("private")
    assert set(fewer.ids) < set(limited.part("private").ids) < set(whole.part("private").ids)
    assert list(fewer.ids) == sorted(fewer.ids)
    assert len(read(root, limit={"private": 7}, private_labels=[1]).part("private")) == 7


def test_the_public_part_is_limited_by_default():
    assert CARD.config().limit.model_dump() == {
        "private": None,
        "public": 2000,
        "evaluation": None,
        "test": None,
    }


def test_normalisation_is_measured_on_the_public_part(root):
    info = CARD.describe(config(root, normalise="dataset", limit={"public": 2}, public_labels=[1]))
    images = read(root).part("public").images().double()  # neither limited nor narrowed
    assert info.mean == pytest.approx(images.mean((0, 2, 3)).tolist(), abs=1e-6)
    assert info.std == pytest.approx(images.std((0, 2, 3), correction=0).tolist(), abs=1e-6)


def test_normalisation_of_imagenet_weights(root):
    colour = CARD.describe(config(root, normalise="imagenet"))
    assert (colour.mean, colour.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    gray = CARD.describe(config(root, normalise="imagenet", channels="gray"))
    assert (gray.mean, gray.std) == ((0.449,), (0.226,))


def test_an_empty_part_is_refused_only_where_it_matters(root):
    for label in ("RG", "NRG"):
        for image in sorted((root / "train" / label).iterdir())[1:]:
            image.unlink()
    assert CARD.describe(config(root)).images["public"] == 0
    with pytest.raises(
        UsageError, match="expected images in the public part, got none; change public_labels:"
    ):
        CARD.describe(config(root, public_labels=[1]))


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"root": "a\0b"}, "null character"),
        ({"root": "~nobody-of-this-name/a"}, "a home folder that is not known here"),
        ({"limit": {"public": 0}}, "greater than or equal to 1"),
        ({"limit": {"train": 5}}, "Extra inputs"),
    ],
)
def test_bad_options(options, text):
    with pytest.raises(ValidationError, match=text):
        CARD.config(**options)


PLANNING = """
import sys

sys.modules["torch"] = sys.modules["numpy"] = None
from fl.data import DATASETS

card = DATASETS.get("eyepacs_airogs")
config = card.config(root=sys.argv[1], size=8, normalise="dataset")
assert card.describe(config).images["private"] == 44
assert '"content"' in config.canonical
"""


def test_planning_imports_neither_torch_nor_numpy(root):
    done = subprocess.run(
        [sys.executable, "-c", PLANNING, str(root)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
