"""`chexpert` on small files in the layout of CheXpert-v1.0-small."""

import csv
import re
from collections import defaultdict

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError

from fl.cards import PARTS
from fl.data import DATASETS
from fl.errors import DataUnavailableError, UsageError
from fl.specs import Task

CARD = DATASETS.get("chexpert")
HEADER = (
    "Path,Sex,Age,Frontal/Lateral,AP/PA,No Finding,Enlarged Cardiomediastinum,Cardiomegaly,Lung Opacity,"
    "Lung Lesion,Edema,Consolidation,Pneumonia,Atelectasis,Pneumothorax,Pleural Effusion,Pleural Other,"
    "Fracture,Support Devices"
)
OBSERVATIONS = next(csv.reader([HEADER]))[5:]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("LEAKBENCH_CACHE", str(tmp_path_factory.mktemp("cache")))


class Release:
    """A release of 40 patients with up to two studies for training, and 6 for validation."""

    def __init__(self, root):
        self.root = root
        self.labels = {}
        rng = np.random.default_rng(0)
        for table, patients in (("train", range(1, 41)), ("valid", range(64541, 64547))):
            rows = []
            for patient in patients:
                for study in range(1, 2 + patient % 2):
                    name = f"{table}/patient{patient:05}/study{study}"
                    rows.append(self.row(f"{name}/view1_frontal.jpg", "Frontal", rng))
                    rows.append(self.row(f"{name}/view2_lateral.jpg", "Lateral", rng))
            self.write(f"{table}.csv", rows)

    def row(self, name, view, rng):
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (12, 10), dtype=np.uint8)).save(path)
        labels = rng.choice(["1.0", "0.0", "-1.0", ""], len(OBSERVATIONS)).tolist()
        self.labels[name] = dict(zip(OBSERVATIONS, labels, strict=True))
        return [
            f"CheXpert-v1.0-small/{name}",
            "Female",
            "68",
            view,
            "AP" if view == "Frontal" else "",
            *labels,
        ]

    def write(self, table, rows):
        with (self.root / table).open("w", newline="") as file:
            file.write(f"{HEADER}\n")
            csv.writer(file).writerows(rows)

    def config(self, **options):
        return CARD.config(root=str(self.root), **{"size": 8, **options})

    def load(self, **options):
        config = self.config(**options)
        dataset = DATASETS.implementation("chexpert")(config)
        assert dataset.info == CARD.describe(config)
        return dataset

    def problem(self, error, **options):
        with pytest.raises(error) as caught:
            CARD.describe(self.config(**options))
        return str(caught.value)


@pytest.fixture
def release(tmp_path):
    return Release(tmp_path)


def all_ids(dataset):
    return [name for part in PARTS for name in dataset.part(part).ids]


def test_frontal_images_with_no_finding_are_the_default(release):
    dataset = release.load()
    assert dataset.info.task == Task("binary", 2)
    assert (dataset.info.channels, dataset.info.public, dataset.info.regions) == (1, False, False)
    assert sorted(all_ids(dataset)) == sorted(name for name in release.labels if "frontal" in name)
    for part in (dataset.part(name) for name in PARTS):
        meaning = {"1.0": 1.0, "0.0": 0.0, "-1.0": 0.0, "": 0.0}
        wanted = [[meaning[release.labels[name]["No Finding"]]] for name in part.ids]
        assert torch.equal(part.labels, torch.tensor(wanted))
        assert part.images().shape == (len(part), 1, 8, 8)


def test_parts_are_by_patient_and_valid_is_test(release):
    dataset = release.load()
    parts = defaultdict(set)
    for name in PARTS:
        part = dataset.part(name)
        assert all((f"/{group}/") in f"/{image}" for image, group in zip(part.ids, part.groups, strict=True))
        assert all(image.startswith("valid/") == (name == "test") for image in part.ids)
        for group in part.groups:
            parts[group].add(name)
    assert all(len(names) == 1 for names in parts.values())
    counted = {name: sum(names == {name} for names in parts.values()) for name in PARTS}
    assert counted == {"private": 26, "public": 7, "evaluation": 7, "test": 6}  # 40 by 55 : 15 : 15
    assert dataset.info.groups == 26


@pytest.mark.parametrize("uncertain", ["zeros", "ones", "drop"])
def test_several_observations_are_multilabel(release, uncertain):
    chosen = ["Edema", "Cardiomegaly"]
    dataset = release.load(observations=chosen, uncertain=uncertain, views="all")
    assert dataset.info.task == Task("multilabel", 2)
    meaning = {"1.0": 1, "0.0": 0, "": 0, "-1.0": {"zeros": 0, "ones": 1, "drop": None}[uncertain]}
    expected = {name: [meaning[labels[o]] for o in chosen] for name, labels in release.labels.items()}
    found = {}
    for part in (dataset.part(name) for name in PARTS):
        found |= dict(zip(part.ids, part.labels.int().tolist(), strict=True))
    assert found == {name: labels for name, labels in expected.items() if None not in labels}


def test_a_part_is_narrowed_to_outputs_that_there_are(release):
    dataset = release.load(observations=["Edema", "Fracture"], private_labels=[1])
    assert dataset.part("private").labels[:, 1].eq(1).all()
    text = release.problem(UsageError, observations=["Edema", "Fracture"], private_labels=[0, 2])
    assert text == "chexpert: private_labels: expected labels of 0 to 1, got 2"


def test_lateral_views(release):
    assert all("lateral" in name for name in all_ids(release.load(views="lateral")))


def test_the_large_release_names_other_folders(release):
    text = (release.root / "train.csv").read_text()
    before = release.config().canonical
    (release.root / "train.csv").write_text(text.replace("CheXpert-v1.0-small/", "CheXpert-v1.0/"))
    assert release.config().canonical == before


def test_mistakes_are_named_with_their_line(release):
    rows = [
        ["CheXpert-v1.0-small/train/study1/x.jpg", "", "", "Frontal", "AP", *["1.0"] * 14],
        ["CheXpert-v1.0-small/train/patient00001/study1/view1_frontal.jpg", "", "", "Top", "", *["0.0"] * 14],
        [
            "CheXpert-v1.0-small/train/patient00002/study1/view1_frontal.jpg",
            "",
            "",
            "Frontal",
            "",
            *["2"] * 14,
        ],
    ]
    release.write("train.csv", rows)
    table = release.root / "train.csv"
    assert release.problem(UsageError).splitlines() == [
        f"{table}:2: column 'Path': expected .../train/patientN/... or .../valid/patientN/..., got "
        "'CheXpert-v1.0-small/train/study1/x.jpg'",
        f"{table}:3: column 'Frontal/Lateral': expected Frontal or Lateral, got 'Top'",
        f"{table}:4: column 'No Finding': expected 1, 0, -1, nothing, got '2'",
    ]


def test_missing_images_and_tables_are_named(release):
    name = "train/patient00003/study1/view1_frontal.jpg"
    (release.root / name).unlink()
    assert f"expected an image at {release.root / name}, got: No such file" in release.problem(
        DataUnavailableError
    )
    (release.root / "valid.csv").unlink()
    text = release.problem(DataUnavailableError)
    assert text.startswith(f"{release.root / 'valid.csv'}: expected a CSV, got: No such file or directory")
    assert "get CheXpert-v1.0-small" in text


def test_an_image_in_two_lines(release):
    table = release.root / "train.csv"
    lines = table.read_text().splitlines()
    table.write_text("\n".join([*lines, lines[1]]) + "\n")
    name = "train/patient00001/study1/view1_frontal.jpg"
    assert release.problem(UsageError) == (
        f"{table}:{len(lines) + 1}: expected each image once, got {name} here and in {table}:2"
    )


def test_a_table_without_its_columns(release):
    (release.root / "train.csv").write_text("Path,No Finding\n")
    assert release.problem(UsageError) == (
        f"{release.root / 'train.csv'}:1: expected a column 'Frontal/Lateral', got Path, No Finding"
    )


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"observations": ["Edema", "Edema"]}, "expected each observation once"),
        ({"observations": ["Flu"]}, "No Finding"),
        ({"observations": []}, "at least 1 item"),
        ({"uncertain": "ignore"}, "'zeros', 'ones' or 'drop'"),
    ],
)
def test_bad_options(options, text):
    with pytest.raises(ValidationError, match=re.escape(text)):
        CARD.config(**options)
