"""Where the files of array sets lie, what their identity is, and what is said of missing or damaged ones."""

import os
import pickle
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import scipy.io
import torch

from fl.cards import PARTS
from fl.data import DATASETS
from fl.data.array_cards import FASHION_MNIST
from fl.errors import DataUnavailableError

PLANNING = """
import sys

sys.modules["torch"] = sys.modules["numpy"] = None
from fl.data import DATASETS

card = DATASETS.get(sys.argv[1])
config = card.config(root=sys.argv[2], size=32, normalise="dataset")
print(card.describe(config).fingerprint, config.canonical)
"""


@pytest.mark.parametrize("name", ["mnist", "emnist", "svhn", "cifar10", "medmnist/chestmnist"])
def test_known_files_are_described_without_torch_or_numpy(write_set, name):
    written = write_set(name, **({"size": 32} if name.startswith("medmnist") else {}))
    wanted = written.plugin(size=32, normalise="dataset")
    fingerprint = DATASETS.get(name).describe(wanted.config).fingerprint
    done = subprocess.run(
        [sys.executable, "-c", PLANNING, name, str(written.root)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [fingerprint, wanted.config.canonical]


@pytest.mark.parametrize("name", ["fashion_mnist", "svhn", "medmnist/retinamnist"])
def test_identity_is_the_content_wherever_it_lies(write_set, name):
    here, there, other = (
        write_set(name, folder=folder, seed=seed) for folder, seed in (("a", 0), ("b", 0), ("c", 1))
    )
    assert here.describe() == there.describe()
    assert here.plugin().canonical == there.plugin().canonical
    assert str(here.root) not in here.plugin().canonical
    assert here.describe().fingerprint != other.describe().fingerprint
    assert here.plugin().canonical != other.plugin().canonical
    assert here.describe().fingerprint != here.describe(size=20).fingerprint


def test_resolution_is_identity_as_it_is_resolved(write_set):
    written = write_set("medmnist/retinamnist", size=64)
    assert written.plugin(size=64).canonical == written.plugin(size=64, resolution=64).canonical


@pytest.mark.parametrize("name", ["mnist", "emnist"])
def test_compressed_files_are_the_same_data(write_set, compress, name):
    plain, packed = write_set(name, folder="plain"), write_set(name, folder="packed")
    for path in packed.files():
        compress(path)
    assert plain.plugin().canonical == packed.plugin().canonical
    first, second = (written.load().part("private").images() for written in (plain, packed))
    np.testing.assert_array_equal(first, second)


def test_a_change_of_a_file_is_noticed(write_set):
    written = write_set("cifar10")
    before = written.describe()
    other = write_set("cifar10", folder="other", seed=1)
    changed = next(path for path in written.files() if path.name == "data_batch_3")
    changed.write_bytes(next(p for p in other.files() if p.name == "data_batch_3").read_bytes())
    os.utime(changed, ns=(1, 1))
    assert written.describe().fingerprint != before.fingerprint


def test_the_default_root_is_a_variable_or_the_cache(write_set, monkeypatch, tmp_path):
    written = write_set("svhn")
    card = DATASETS.get("svhn")
    with pytest.raises(DataUnavailableError, match=str(tmp_path / "cache" / "data" / "train_32x32.mat")):
        card.describe(card.config())
    monkeypatch.setenv("LEAKBENCH_DATA", str(written.root))
    assert card.describe(card.config()) == written.describe()
    monkeypatch.setenv("LEAKBENCH_DATA", str(tmp_path / "nowhere"))
    assert card.describe(written.plugin().config) == written.describe()


def test_medmnist_files_may_lie_in_the_root_itself(write_set):
    written = write_set("medmnist/bloodmnist")
    card = DATASETS.get(written.name)
    assert card.describe(card.config(root=str(written.root / "medmnist"))) == written.describe()


def test_the_operating_systems_files_are_found_unless_a_root_is_named(write_set, compress, tmp_path):
    written = write_set("fashion_mnist")
    for path in written.files():
        compress(path)
    system = replace(FASHION_MNIST, system_folder=str(written.root / "FashionMNIST" / "raw"))
    assert system.locate(None) == system.locate(str(written.root))
    with pytest.raises(DataUnavailableError, match="Debian"):
        system.locate(str(tmp_path / "empty"))


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("mnist", "`bench data fetch mnist`"),
        ("cifar100", "`bench data fetch cifar100`"),
        ("medmnist/octmnist", "`bench data fetch medmnist/octmnist`"),
    ],
)
def test_missing_files_come_with_the_command_that_gets_them(name, command, tmp_path):
    config = DATASETS.get(name).config(root=str(tmp_path))
    for ask in (DATASETS.get(name).describe, DATASETS.implementation(name), lambda config: config.canonical):
        with pytest.raises(DataUnavailableError) as raised:
            ask(config)
        assert str(raised.value).startswith(f"{name}: expected {tmp_path}")
        assert command in str(raised.value)
        assert "LEAKBENCH_DATA" in str(raised.value)


def test_a_larger_medmnist_file_has_its_own_command(tmp_path):
    card = DATASETS.get("medmnist/octmnist")
    with pytest.raises(DataUnavailableError, match=r"octmnist_128\.npz.*octmnist --size 128`"):
        card.describe(card.config(root=str(tmp_path), size=100))


def test_an_incomplete_download_names_what_is_missing(write_set):
    written = write_set("mnist")
    (written.root / "MNIST" / "raw" / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(DataUnavailableError, match=r"MNIST/raw/t10k-labels-idx1-ubyte, got no such file"):
        written.describe()


def ruin(path, content):
    path.write_bytes(content)
    return path


def idx_header(*shape, kind=8):
    return bytes([0, 0, kind, len(shape)]) + b"".join(axis.to_bytes(4, "big") for axis in shape)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("train-images-idx3-ubyte", b"", "expected an IDX file of unsigned bytes with 3 axes"),
        ("train-images-idx3-ubyte", b"\x89PNG" + bytes(40), "got the start 89504e47"),
        ("train-images-idx3-ubyte", idx_header(200, 28, 28, kind=13) + bytes(4), "unsigned bytes"),
        ("train-images-idx3-ubyte", idx_header(200, 32, 32) + bytes(200 * 32 * 32), r"\(200, 28, 28, 1\)"),
        ("train-images-idx3-ubyte", idx_header(3, 28, 28) + bytes(3 * 28 * 28), r"got \(3, 28, 28, 1\)"),
        (
            "train-labels-idx1-ubyte",
            idx_header(200) + bytes(199),
            "expected 200 bytes after the header, got 199",
        ),
        (
            "train-labels-idx1-ubyte",
            idx_header(200) + bytes(201),
            "expected 200 bytes after the header, got 201",
        ),
        ("t10k-labels-idx1-ubyte", idx_header(100) + bytes([10]) * 100, "from 0 to 9, got"),
    ],
)
def test_damaged_idx_files_are_named(write_set, file, content, message):
    written = write_set("mnist")
    path = ruin(next(path for path in written.files() if path.name == file), content)
    with pytest.raises(DataUnavailableError, match=message) as raised:
        written.describe()
    assert str(raised.value).startswith(f"{path.parent}/")
    assert str(raised.value).endswith(
        "remove it, then run `bench data fetch mnist` where the internet can be reached"
    )


def test_an_image_file_cut_short_is_found_when_it_is_loaded(write_set):
    written = write_set("mnist")
    path = next(path for path in written.files() if path.name == "train-images-idx3-ubyte")
    ruin(path, path.read_bytes()[:-1])
    with pytest.raises(DataUnavailableError, match=r"expected 156800 bytes after the header, got 156799"):
        written.load()


@pytest.mark.parametrize("keep", [5, 60])
@pytest.mark.parametrize("file", ["train-labels-idx1-ubyte", "t10k-images-idx3-ubyte"])
def test_a_damaged_gzip_file_is_named(write_set, compress, file, keep):
    written = write_set("mnist")
    path = next(path for path in written.files() if path.name == file)
    compress(path)
    packed = path.with_name(f"{path.name}.gz")
    ruin(packed, packed.read_bytes()[:keep])
    with pytest.raises(DataUnavailableError, match=rf"{packed}: .*gzip.*remove it, then run"):
        written.describe()
    ruin(packed, b"not gzip")
    with pytest.raises(DataUnavailableError, match=rf"{packed}: .*gzip.*remove it, then run"):
        written.describe()


class Trap:
    """Runs a command when the plain unpickler meets it."""

    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


def test_a_pickle_that_runs_something_is_refused(write_set, tmp_path):
    written, sprung = write_set("cifar10"), tmp_path / "sprung"
    path = written.root / "cifar-10-batches-py" / "data_batch_2"
    ruin(path, pickle.dumps({"data": Trap(f"touch {sprung}"), "labels": []}, protocol=2))
    with pytest.raises(DataUnavailableError, match=rf"{path}: .*which is not an array"):
        written.describe()
    assert not sprung.exists()
    pickle.loads(path.read_bytes())
    assert sprung.exists()  # the trap works


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not a pickle",
        pickle.dumps(["data"], protocol=2),
        pickle.dumps({"data": [], "fine_labels": []}, protocol=2),
        pickle.dumps({"labels": [1]}, protocol=2),
    ],
)
def test_damaged_cifar_files_are_named(write_set, content):
    written = write_set("cifar100")
    path = ruin(written.root / "cifar-100-python" / "test", content)
    with pytest.raises(DataUnavailableError, match=rf"{path}: expected .*; remove it, then run"):
        written.describe()


@pytest.mark.parametrize("name", ["X", "y"])
def test_damaged_svhn_files_are_named(write_set, name):
    written = write_set("svhn")
    path = ruin(written.root / "test_32x32.mat", b"not MATLAB" * 100)
    with pytest.raises(DataUnavailableError, match=rf"{path}: expected a MATLAB file with X and y"):
        written.describe()
    scipy.io.savemat(path, {name: np.zeros((4, 1))})
    with pytest.raises(DataUnavailableError, match=rf"{path}: expected"):
        written.describe()


def test_svhn_labels_beyond_its_ten_are_refused(write_set):
    written = write_set("svhn")
    path = written.root / "test_32x32.mat"
    content = scipy.io.loadmat(path)
    content["y"][3] = 14
    scipy.io.savemat(path, {name: content[name] for name in ("X", "y")})
    with pytest.raises(DataUnavailableError, match=rf"{path}: expected labels .* from 0 to 9, got .* to 14"):
        written.describe()


def test_damaged_medmnist_files_are_named(write_set, tmp_path):
    written = write_set("medmnist/breastmnist")
    (path,) = (path for path in written.files() if path.suffix == ".npz")
    whole = path.read_bytes()
    arrays = dict(np.load(path))
    ruin(path, whole[: len(whole) // 2])
    with pytest.raises(DataUnavailableError, match=rf"{path}: expected a MedMNIST archive with train_images"):
        written.describe()
    sprung = tmp_path / "sprung"
    replacements = {
        "train_images": np.zeros((40, 28, 28, 3), dtype=np.uint8),
        "test_images": np.zeros((20, 28, 28)),
        "val_images": np.zeros((19, 28, 28), dtype=np.uint8),
        "val_labels": np.array([[Trap(f"touch {sprung}")]] * 20, dtype=object),
        "test_labels": np.full((20, 1), 2, dtype=np.uint8),
    }
    for key, wrong in replacements.items():
        np.savez_compressed(path, **{**arrays, key: wrong})
        with pytest.raises(DataUnavailableError, match=rf"{path}: expected .*; remove it, then run"):
            written.describe()
    assert not sprung.exists()


def test_medmnist_images_are_mapped_from_the_cache(write_set, tmp_path):
    written = write_set("medmnist/pathmnist")
    written.load()
    unpacked = sorted((tmp_path / "cache" / "unpacked").glob("*.npy"))
    assert [path.name.split("-")[:2] for path in unpacked] == [
        ["pathmnist", p] for p in ("test", "train", "val")
    ]
    stamps = [path.stat().st_mtime_ns for path in unpacked]
    written.load()
    assert [path.stat().st_mtime_ns for path in unpacked] == stamps
    np.testing.assert_array_equal(np.load(unpacked[0]), written.images["test"])


def test_what_was_unpacked_lasts_as_long_as_the_archive(write_set, tmp_path):
    written = write_set("medmnist/pathmnist")
    (archive,) = (path for path in written.files() if path.suffix == ".npz")
    other = written.load().part("test").images() * 255
    cache = tmp_path / "cache" / "unpacked"
    before = {path: path.stat().st_mtime_ns for path in cache.glob("*.npy")}

    archive.write_bytes(archive.read_bytes())  # the same content, another time of change
    assert torch.equal(written.load().part("test").images() * 255, other)
    assert {path: path.stat().st_mtime_ns for path in cache.glob("*.npy")} == before

    arrays = dict(np.load(archive))
    np.savez_compressed(archive, **{**arrays, "test_images": 255 - arrays["test_images"]})
    found = written.load().part("test").images() * 255
    assert torch.allclose(found, 255 - other)
    after = set(cache.glob("*.npy"))
    assert len(after) == len(before) == 3
    assert len(after & set(before)) == 2  # nothing is left of the other test images


@pytest.mark.parametrize("name", ["medmnist/pathmnist", "medmnist/pneumoniamnist"])
def test_an_archive_that_is_not_compressed_is_mapped_itself(name, write_set, tmp_path):
    written = write_set(name)
    (archive,) = (path for path in written.files() if path.suffix == ".npz")
    expected = {part: written.load().part(part).images() for part in PARTS}
    shutil.rmtree(tmp_path / "cache")
    np.savez(archive, **dict(np.load(archive)))
    found = written.load()
    for part in PARTS:
        assert torch.equal(found.part(part).images(), expected[part])
    assert not (tmp_path / "cache" / "unpacked").exists()


def test_an_uncompressed_archive_that_is_cut_or_says_more_than_it_holds_is_named(write_set):
    written = write_set("medmnist/pneumoniamnist")
    (archive,) = (path for path in written.files() if path.suffix == ".npz")
    arrays = dict(np.load(archive))
    np.savez(archive, **arrays)
    n = len(arrays["test_images"])
    whole = archive.read_bytes()
    claimed = whole.replace(f"({n}, 28, 28)".encode(), f"({n + 1}, 28, 28)".encode())
    assert len(claimed) == len(whole)
    assert claimed != whole
    archive.write_bytes(claimed)
    with pytest.raises(DataUnavailableError, match=rf"{archive}: expected .*; remove it, then run"):
        written.load()
    archive.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataUnavailableError, match=rf"{archive}: expected a MedMNIST archive"):
        written.load()


def test_a_cache_without_room_for_images_is_named(write_set, tmp_path):
    written = write_set("medmnist/pathmnist")
    (tmp_path / "cache").mkdir(exist_ok=True)
    (tmp_path / "cache" / "unpacked").write_text("in the way")
    with pytest.raises(DataUnavailableError, match="set LEAKBENCH_CACHE to another folder"):
        written.load()


def test_sets_with_the_same_files_are_different_data(write_set):
    digits, clothes = write_set("mnist"), write_set("fashion_mnist")
    ids = [written.load().part("private").ids for written in (digits, clothes)]
    assert ids[0] != ids[1]  # the split goes by the name of the set too
