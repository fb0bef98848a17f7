"""`folder` with binary and multilabel tables."""

import csv
import re

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError

from fl.cards import PARTS
from fl.data import DATASETS
from fl.errors import UsageError
from fl.specs import Task

CARD = DATASETS.get("folder")
FLAGS = ("1", "0", "", "1.0", "0.0", "-1", "-1.0")
MEANING = {"1": 1, "0": 0, "": 0, "1.0": 1, "0.0": 0}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("LEAKBENCH_CACHE", str(tmp_path_factory.mktemp("cache")))


def picture(number):
    """An image whose upper left pixel tells its number."""
    pixels = np.random.default_rng(number).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    pixels[0, 0] = number
    return Image.fromarray(pixels)


def write(root, header, rows):
    """Write a table of one image per row; the path is put in front."""
    root.mkdir(exist_ok=True)
    with (root / "t.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", *header])
        for number, row in enumerate(rows):
            picture(number).save(root / f"{number}.png")
            writer.writerow([f"{number}.png", *row])
    return root


def config(root, **options):
    return CARD.config(root=str(root), csv="t.csv", size=8, **options)


def read(root, **options):
    wanted = config(root, **options)
    dataset = DATASETS.implementation("folder")(wanted)
    assert dataset.info == CARD.describe(wanted)
    return dataset


def labels_by_number(dataset, parts=PARTS):
    found = {}
    for part in (dataset.part(name) for name in parts):
        for image, label in zip(part.images() if len(part) else (), part.labels, strict=True):
            found[round(float(image[0, 0, 0] * 255))] = tuple(label.tolist())
    return found


def test_a_column_of_zeros_and_ones_is_binary(tmp_path):
    cells = [list(MEANING)[number % 5] for number in range(40)]
    root = write(tmp_path / "t", ["sick"], [[cell] for cell in cells])
    dataset = read(root, task="binary", label_columns=["sick"])
    assert dataset.info.task == Task("binary", 2)
    for name in PARTS:
        labels = dataset.part(name).labels
        assert labels.dtype == torch.float32
        assert labels.shape == (dataset.info.images[name], 1)
    assert labels_by_number(dataset) == {n: (MEANING[cell],) for n, cell in enumerate(cells)}


def test_label_column_may_hold_them_too(tmp_path):
    root = write(tmp_path / "t", ["label"], [[number % 2] for number in range(40)])
    found = labels_by_number(read(root, task="binary"))
    assert found == {number: (number % 2,) for number in range(40)}


def test_two_class_folders_are_binary(tmp_path):
    for label, name in enumerate(("healthy", "sick")):
        (tmp_path / "c" / name).mkdir(parents=True)
        for number in range(10):
            picture(2 * number + label).save(tmp_path / "c" / name / f"{number}.png")
    wanted = CARD.config(root=str(tmp_path / "c"), size=8, task="binary")
    found = labels_by_number(DATASETS.implementation("folder")(wanted))
    assert found == {number: (number % 2,) for number in range(20)}
    (tmp_path / "c" / "third").mkdir()
    picture(99).save(tmp_path / "c" / "third" / "x.png")
    with pytest.raises(
        UsageError, match=re.escape("two classes for task: binary, got 3 (healthy, sick, third)")
    ):
        CARD.describe(wanted)


@pytest.mark.parametrize("uncertain", ["zeros", "ones", "drop"])
def test_uncertain_labels_follow_the_policy(tmp_path, uncertain):
    rows = [[FLAGS[number % 7], FLAGS[(number // 7) % 7]] for number in range(98)]
    dataset = read(
        write(tmp_path / "t", ["a", "b"], rows),
        task="multilabel",
        label_columns=["a", "b"],
        uncertain=uncertain,
    )
    meaning = MEANING | dict.fromkeys(("-1", "-1.0"), {"zeros": 0, "ones": 1, "drop": None}[uncertain])
    expected = {n: tuple(meaning[cell] for cell in row) for n, row in enumerate(rows)}
    assert labels_by_number(dataset) == {n: row for n, row in expected.items() if None not in row}
    assert dataset.info.task == Task("multilabel", 2)


def test_names_in_one_column_become_sorted_outputs(tmp_path):
    cells = ["b|a", "", "a", " c | b ", "b||b"] * 8
    dataset = read(
        write(tmp_path / "t", ["finding"], [[cell] for cell in cells]),
        task="multilabel",
        label_columns=["finding"],
        label_separator="|",
    )
    vectors = [(1, 1, 0), (0, 0, 0), (1, 0, 0), (0, 1, 1), (0, 1, 0)] * 8
    assert labels_by_number(dataset) == dict(enumerate(vectors))
    assert dataset.part("private").labels.dtype == torch.float32


def test_narrowing_keeps_images_with_any_of_the_outputs(tmp_path):
    rows = [[number % 2, number // 2 % 2, number // 4 % 2] for number in range(64)]
    options = {"task": "multilabel", "label_columns": ["a", "b", "c"]}
    root = write(tmp_path / "t", "abc", rows)
    everything = labels_by_number(read(root, **options), ["private"])
    narrowed = labels_by_number(read(root, private_labels=[0, 2], **options), ["private"])
    assert (0, 0, 0) in everything.values()
    assert narrowed == {n: row for n, row in everything.items() if row[0] or row[2]}


def test_narrowing_binary_keeps_a_class(tmp_path):
    root = write(tmp_path / "t", ["label"], [[number % 2] for number in range(40)])
    found = labels_by_number(read(root, task="binary", public_labels=[1]), ["public"])
    assert set(found.values()) == {(1,)}


def test_names_of_columns_do_not_matter_but_their_order_does(tmp_path):
    rows = [[number % 2, number // 2 % 2] for number in range(32)]
    options = {"task": "multilabel"}
    first = config(write(tmp_path / "t", "ab", rows), label_columns=["a", "b"], **options)
    second = config(write(tmp_path / "u", "xy", rows), label_columns=["x", "y"], **options)
    turned = config(tmp_path / "t", label_columns=["b", "a"], **options)
    assert first.canonical == second.canonical != turned.canonical


def test_multiclass_ids_are_as_before_the_task_option(tmp_path):
    root = write(tmp_path / "t", ["label"], [[number % 3] for number in range(40)])
    assert set(config(root).resolved()) == {
        *("channels", "content", "normalise", "public", "size", "split"),
        *(f"{part}_labels" for part in PARTS),
    }
    assert config(root, task="multiclass").canonical == config(root).canonical


def test_wrong_cells_are_all_named(tmp_path):
    root = write(tmp_path / "t", "ab", [[1, 0], ["yes", -1], [0, "2"]])
    with pytest.raises(UsageError) as caught:
        CARD.describe(config(root, task="multilabel", label_columns=["a", "b"]))
    assert str(caught.value).splitlines() == [
        f"{root / 't.csv'}:3: column 'a': expected 1, 0, nothing, got 'yes'",
        f"{root / 't.csv'}:3: column 'b': expected 1, 0, nothing, got '-1'; -1 needs uncertain: zeros, ones "
        "or drop",
        f"{root / 't.csv'}:4: column 'b': expected 1, 0, nothing, got '2'",
    ]


@pytest.mark.parametrize(
    ("header", "rows", "options", "text"),
    [
        ("ab", [[1, 0]], {"label_columns": ["a", "c"]}, "t.csv:1: expected a column 'c', got path, a, b"),
        ("ab", [[-1, 0]], {"label_columns": ["a", "b"], "uncertain": "drop"}, "got only uncertain ones"),
        (
            ["a"],
            [["x"]],
            {"label_columns": ["a"], "label_separator": ";"},
            "at least two names in column 'a'",
        ),
        (["a"], [[1], [1]], {"task": "binary", "label_columns": ["a"]}, "at least two classes, got 1 ('1')"),
        ("ab", [[1, 0]], {"label_columns": ["a", "b"], "test_labels": [2]}, "(0 = a, 1 = b), got 2"),
    ],
)
def test_tables_that_do_not_fit(tmp_path, header, rows, options, text):
    root = write(tmp_path / "t", header, rows)
    with pytest.raises(UsageError, match=re.escape(text)):
        CARD.describe(config(root, **{"task": "multilabel", **options}))


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"label_columns": ["a"]}, "label_columns needs csv: and task: binary or multilabel"),
        ({"task": "binary", "label_columns": ["a", "b"]}, "task: binary has one of label_columns, got 2"),
        (
            {"task": "multilabel", "label_columns": ["a", "a"]},
            "expected each of label_columns once, got a, a",
        ),
        ({"task": "multilabel", "label_columns": ["a"]}, "two or more of 0/1"),
        ({"task": "multilabel"}, "task: multilabel needs csv: and label_columns:"),
        ({"task": "binary", "label_separator": "|"}, "label_separator needs task: multilabel"),
        ({"uncertain": "zeros"}, "uncertain needs columns of 0/1"),
        (
            {
                "task": "multilabel",
                "label_columns": ["a"],
                "label_separator": "|",
                "uncertain": "ones",
            },
            "uncertain needs columns of 0/1",
        ),
    ],
)
def test_options_that_do_not_fit(options, text):
    with pytest.raises(ValidationError, match=re.escape(text)):
        CARD.config(root="somewhere", csv="t.csv", **options)
