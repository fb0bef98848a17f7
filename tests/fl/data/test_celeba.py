"""`celeba` on small files in the layout that torchvision's loader has."""

import re

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError

from fl.cards import PARTS
from fl.data import DATASETS
from fl.errors import DataUnavailableError, UsageError
from fl.specs import Task

CARD = DATASETS.get("celeba")
ATTRIBUTES = ("Bald", "Male", "Smiling", "Young")
PERSONS, EACH = 30, 4


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("LEAKBENCH_CACHE", str(tmp_path_factory.mktemp("cache")))


class Release:
    """30 persons with 4 images each, the first two with 8: 22 persons train, 4 validate, 4 test."""

    def __init__(self, root):
        self.root = root
        (root / "img_align_celeba").mkdir()
        rng = np.random.default_rng(0)
        persons = [person for person in range(1, PERSONS + 1) for _ in range(EACH * (1 + (person <= 2)))]
        self.person, self.flags, self.subset = {}, {}, {}
        for number, person in enumerate(rng.permutation(persons), 1):
            name = f"{number:06}.jpg"
            # like the original, taller than wide; every file has a size of its own
            noise = rng.integers(0, 256, (22, 18, 3), dtype=np.uint8)
            Image.fromarray(noise).save(root / "img_align_celeba" / name, comment=b"." * number)
            self.person[name] = int(person)
            self.flags[name] = rng.choice([-1, 1], len(ATTRIBUTES)).tolist()
            self.subset[name] = 0 if person <= 22 else 1 if person <= 26 else 2
        self.write()

    def write(self):
        header = [str(len(self.flags)), " ".join(ATTRIBUTES)]
        rows = [f"{name} {' '.join(f'{flag:2}' for flag in flags)}" for name, flags in self.flags.items()]
        (self.root / "list_attr_celeba.txt").write_text("\n".join([*header, *rows]) + "\n")
        for table, values in (("identity_CelebA", self.person), ("list_eval_partition", self.subset)):
            text = "".join(f"{name} {value}\n" for name, value in values.items())
            (self.root / f"{table}.txt").write_text(text)

    def config(self, **options):
        return CARD.config(root=str(self.root), **{"size": 8, **options})

    def load(self, **options):
        config = self.config(**options)
        dataset = DATASETS.implementation("celeba")(config)
        assert dataset.info == CARD.describe(config)
        return dataset

    def problem(self, error, **options):
        with pytest.raises(error) as caught:
            CARD.describe(self.config(**options))
        return str(caught.value)


@pytest.fixture
def release(tmp_path):
    return Release(tmp_path)


def labels(part):
    names = [image.removeprefix("img_align_celeba/") for image in part.ids]
    return dict(zip(names, part.labels.int().tolist(), strict=True))


def persons(release, part):
    return {release.person[name] for name in labels(part)}


def test_smiling_is_the_default(release):
    dataset = release.load()
    assert dataset.info.task == Task("binary", 2)
    found = {}
    for part in (dataset.part(name) for name in PARTS):
        found |= labels(part)
    assert found == {name: [int(flags[2] == 1)] for name, flags in release.flags.items()}
    assert dataset.part("test").images([0]).shape == (1, 3, 8, 8)


def test_several_attributes_are_multilabel(release):
    dataset = release.load(task="multilabel", attributes=["Young", "Bald"])
    assert dataset.info.task == Task("multilabel", 2)
    for part in (dataset.part(name) for name in PARTS):
        flags = [release.flags[name] for name in labels(part)]
        assert torch.equal(part.labels, (torch.tensor(flags) > 0)[:, [3, 0]].float())


def test_no_person_is_in_two_parts_and_the_partition_holds(release):
    dataset = release.load()
    found = {name: persons(release, dataset.part(name)) for name in PARTS}
    assert sum(map(len, found.values())) == len(set().union(*found.values())) == PERSONS
    assert found["test"] == {27, 28, 29, 30}
    assert found["evaluation"] == {23, 24, 25, 26}
    assert (len(found["private"]), len(found["public"])) == (17, 5)  # 22 by 55 : 15
    assert dataset.info.groups == 17
    groups = dataset.part("private").groups
    assert [int(group) for group in groups] == [
        release.person[name] for name in labels(dataset.part("private"))
    ]


def test_a_person_whom_the_partition_splits_stays_in_the_later_part(release):
    torn = sorted(name for name, person in release.person.items() if person == 28)
    release.subset[torn[0]], release.subset[torn[1]] = 0, 1
    release.write()
    dataset = release.load()
    held = {name for part in PARTS for name in labels(dataset.part(part))}
    assert held == set(release.person) - {torn[0], torn[1]}
    assert 28 in persons(release, dataset.part("test"))


def test_persons_as_classes(release):
    dataset = release.load(task="multiclass", identities=2)
    assert dataset.info.task == Task("multiclass", 2)
    known = {name: person - 1 for name, person in release.person.items() if person <= 2}
    found = {}
    for name in ("private", "evaluation", "test"):
        assert persons(release, dataset.part(name)) == {1, 2}
        assert found.keys().isdisjoint(labels(dataset.part(name)))
        found |= labels(dataset.part(name))
    assert found == known
    assert dataset.info.images == {"private": 10, "public": 112, "evaluation": 4, "test": 2}
    strangers = labels(dataset.part("public"))
    assert set(strangers) == set(release.person) - set(known)
    assert set(strangers.values()) == {-1}


def test_tables_that_disagree(release):
    del release.person["000007.jpg"]
    release.write()
    table = release.root / "identity_CelebA.txt"
    assert release.problem(UsageError) == f"{table}: expected a line for 000007.jpg, got none"


def test_mistakes_are_named_with_their_line(release):
    release.flags["000001.jpg"][2] = 0
    release.flags["000003.jpg"].pop()
    release.write()
    table = release.root / "list_attr_celeba.txt"
    assert release.problem(UsageError).splitlines() == [
        f"{table}:3: expected an image and 4 values of 1 or -1, got 0",
        f"{table}:5: expected an image and 4 values of 1 or -1, got 3 values",
    ]


def test_unknown_values_of_the_partition(release):
    release.subset["000002.jpg"] = 3
    release.write()
    table = release.root / "list_eval_partition.txt"
    assert release.problem(UsageError) == f"{table}:2: expected 0, 1 or 2, got '3'"
    table.write_text("000001.jpg\n")
    assert f"{table}:1: expected an image and a number, got '000001.jpg'" in release.problem(UsageError)


def test_unknown_attributes_and_too_few_persons(release):
    text = release.problem(UsageError, attributes=["Happy"])
    assert "list_attr_celeba.txt:2: expected the attribute 'Happy', got Bald Male Smiling Young" in text
    text = release.problem(UsageError, task="multiclass")
    assert text == "celeba: expected at least 1000 persons, got 30"


def test_missing_files(release):
    (release.root / "img_align_celeba" / "000005.jpg").unlink()
    text = release.problem(DataUnavailableError)
    assert re.search(r"identity_CelebA.txt:5: expected an image at .*000005.jpg, got: No such file", text)
    (release.root / "identity_CelebA.txt").unlink()
    assert "or by torchvision" in release.problem(DataUnavailableError)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"attributes": ["Male", "Young"]}, "task: binary needs one attribute, got 2"),
        ({"task": "multilabel"}, "task: multilabel needs several attributes, got 1"),
        ({"task": "multilabel", "attributes": ["Male", "Male"]}, "each attribute once"),
        ({"size": 200}, "less than or equal to 178"),
    ],
)
def test_bad_options(options, text):
    with pytest.raises(ValidationError, match=text):
        CARD.config(**options)
