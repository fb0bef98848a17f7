"""What `folder` says about files that are not a data set: the path, what was expected, what to do."""

import hashlib
import re

import pytest
from PIL import Image
from pydantic import ValidationError

from fl.data import DATASETS, load
from fl.errors import DataUnavailableError, UsageError
from fl.specs import Plugin

CARD = DATASETS.get("folder")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("LEAKBENCH_CACHE", str(tmp_path_factory.mktemp("cache")))


def save(path, value=0, side=16):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (side, side), (value, 0, 0)).save(path)
    return path


@pytest.fixture
def root(tmp_path):
    for label in ("a", "b"):
        for number in range(8):
            save(tmp_path / "root" / label / f"{number}.png", number + 100 * (label == "b"))
    return tmp_path / "root"


def describe(root, **config):
    return CARD.describe(CARD.config(root=str(root), **{"size": 16, **config}))


def message(error, root, **config):
    with pytest.raises(error) as caught:
        describe(root, **config)
    assert type(caught.value) is error
    return str(caught.value)


def write_table(root, text):
    (root / "t.csv").write_text(text)
    return {"csv": "t.csv"}


def test_missing_folder(tmp_path):
    text = message(DataUnavailableError, tmp_path / "nowhere")
    assert str(tmp_path / "nowhere") in text
    assert "set root:" in text


def test_folder_without_classes(tmp_path):
    save(tmp_path / "loose" / "x.png")
    assert "expected a folder per class with images in it, got none" in message(
        UsageError, tmp_path / "loose"
    )


def test_class_without_images(root):
    (root / "c").mkdir()
    (root / "c" / "notes.txt").touch()
    text = message(UsageError, root)
    assert f"{root / 'c'}: expected images" in text
    assert "add some or remove the folder" in text


def test_one_class(tmp_path):
    save(tmp_path / "root" / "only" / "x.png")
    assert "expected at least two classes, got 1 ('only')" in message(UsageError, tmp_path / "root")


def test_all_undersized_images_are_named(root):
    small = [save(root / "a" / "s1.png", side=15), save(root / "b" / "s2.png", side=9)]
    lines = message(UsageError, root).splitlines()
    assert len(lines) == 2
    assert (
        lines[0]
        == f"{small[0]}: expected at least 16 pixels a side, got 15x15; lower size: or remove the image"
    )
    assert str(small[1]) in lines[1]


def test_long_lists_are_cut(root):
    text = message(UsageError, root, size=17)
    assert len(text.splitlines()) == 11
    assert text.endswith("... and 6 more")


def test_a_damaged_png_is_found_before_any_work(root):
    path = root / "a" / "3.png"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    text = message(DataUnavailableError, root)
    assert text.startswith(f"{path}: expected an image, got a damaged or unknown file")
    assert "replace or remove it" in text
    assert message(DataUnavailableError, root) == text  # and again from the cache


@pytest.mark.parametrize("content", [b"", b"not an image", b"\x89PNG\r\n\x1a\n"])
def test_foreign_files(root, content):
    (root / "a" / "x.png").write_bytes(content)
    assert str(root / "a" / "x.png") in message(DataUnavailableError, root)


def test_a_truncated_jpeg_is_named_by_its_content_when_it_is_read(root):
    path = root / "a" / "x.jpg"  # a file's name may be a patient's, and the message goes into the results
    Image.effect_noise((64, 64), 90).save(path, quality=95)
    path.write_bytes(path.read_bytes()[:-1500])
    dataset = load(Plugin("folder", 1, CARD.config(root=str(root), size=16)))
    name = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    holder = next(part for part in dataset.parts.values() if name in part.ids)
    with pytest.raises(DataUnavailableError, match=f"sha256 begins with {name}") as caught:
        holder.images()
    assert str(root) not in str(caught.value)
    assert caught.value.__suppress_context__


def test_pixels_without_a_range(root):
    Image.new("F", (16, 16), 0.5).save(root / "a" / "x.tif")
    assert "expected 8 or 16 bits per channel, got Pillow mode 'F'" in message(DataUnavailableError, root)


def test_too_few_images_for_the_parts(tmp_path):
    for label in ("a", "b"):
        save(tmp_path / "root" / label / "x.png", value=ord(label))
    text = message(UsageError, tmp_path / "root")
    assert "expected images in the public part, got none" in text
    assert "split:" in text


def test_narrowing_to_a_class_that_is_not_there(root):
    assert "(0 = a, 1 = b), got 2" in message(UsageError, root, test_labels=[2])


def test_normalising_without_a_public_part(root):
    split = {"private": 0.8, "public": 0, "evaluation": 0, "test": 0.2}
    assert "set normalise: none" in message(UsageError, root, split=split, normalise="dataset")


def test_normalising_constant_images(tmp_path):
    for label in ("a", "b"):
        for number in range(8):
            save(tmp_path / "root" / label / f"{number}.png", number)
    # green and blue are zero everywhere
    assert "images that vary" in message(UsageError, tmp_path / "root", normalise="dataset", channels="rgb")


def test_missing_table(root):
    text = message(DataUnavailableError, root, csv="none.csv")
    assert str(root / "none.csv") in text
    assert "No such file" in text


def test_missing_columns_are_all_named(root):
    options = write_table(root, "paths,class\na/0.png,1\n")
    lines = message(UsageError, root, **options).splitlines()
    assert len(lines) == 2
    assert (
        f"{root / 't.csv'}:1: expected a column 'path', got paths, class; did you mean path_column: paths?"
        in lines
    )
    assert lines[1].endswith("set label_column:")


def test_missing_images_are_all_named_with_their_line(root):
    options = write_table(root, "path,label\na/0.png,x\na/gone.png,x\nb/gone.png,y\n")
    lines = message(DataUnavailableError, root, **options).splitlines()
    assert lines[0] == f"{root / 't.csv'}:3: expected an image at {root / 'a/gone.png'}, got no file"
    assert lines[1].startswith(f"{root / 't.csv'}:4:")


def test_empty_cells_and_wrong_parts_are_named_with_their_line(root):
    options = write_table(root, "path,label,use\na/0.png,,private\na/1.png,x,train\n,x,test\n")
    lines = message(UsageError, root, split_column="use", **options).splitlines()
    assert lines[0].endswith("t.csv:2: expected a value in column 'label', got none")
    assert lines[1].endswith(
        "t.csv:3: expected private, public, evaluation, test in column 'use', got 'train'"
    )
    assert lines[2].endswith("t.csv:4: expected a value in column 'path', got none")


def test_short_rows(root):
    options = write_table(root, "path,label\na/0.png\n")
    assert "t.csv:2: expected a value in column 'label', got none" in message(UsageError, root, **options)


def test_empty_table(root):
    assert "expected rows, got none" in message(UsageError, root, **write_table(root, "path,label\n"))
    assert "got no columns" in message(UsageError, root, **write_table(root, ""))


def test_table_in_another_encoding(root):
    (root / "t.csv").write_bytes("path,label\na/0.png,M\xe4dchen\n".encode("latin-1"))
    assert "expected a CSV in UTF-8" in message(UsageError, root, csv="t.csv")


def test_a_patient_in_two_parts(root):
    rows = "path,label,use,who\na/0.png,x,private,p1\nb/0.png,y,test,p1\n"
    options = write_table(root, rows)
    text = message(UsageError, root, split_column="use", patient_column="who", **options)
    assert "patient 'p1' in one part only" in text
    assert "t.csv:2" in text
    assert "t.csv:3" in text


def test_an_image_in_two_parts(root):
    save(root / "b" / "same.png", value=0)  # as a/0.png
    options = write_table(root, "path,label,use\na/0.png,x,private\nb/same.png,y,test\n")
    assert "in one part only, got" in message(UsageError, root, split_column="use", **options)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"split": {"private": 0.9}}, "expected shares that sum to 1, got 1.35"),
        ({"split": {"private": 0}}, "greater than 0"),
        ({"patient_column": "who"}, "split_column and patient_column need csv:"),
        (
            {"csv": "t.csv", "split_column": "use", "split": {"private": 0.7, "public": 0}},
            "expected split_column: or split:, got both",
        ),
        ({"channels": "grey"}, "'gray' or 'rgb'"),
        ({"csv": "a\0b"}, "null character"),
        ({"root": "~nobody-of-this-name/a"}, "a home folder that is not known here"),
        ({"size": 0}, "greater than or equal to 8"),
    ],
)
def test_bad_options(options, text):
    with pytest.raises(ValidationError, match=re.escape(text)):
        CARD.config(**{"root": "somewhere", **options})
