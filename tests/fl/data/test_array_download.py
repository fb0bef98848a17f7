"""Downloading array sets with torchvision's downloader, from a server on this machine."""

import gzip
import hashlib
import socket
import tarfile
import threading
import zipfile
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest
from torchvision import datasets

from fl.data import DATASETS, medmnist_sets
from fl.data.array_download import fetch
from fl.errors import DataUnavailableError

READERS = {
    "mnist": datasets.MNIST,
    "fashion_mnist": datasets.FashionMNIST,
    "cifar10": datasets.CIFAR10,
    "cifar100": datasets.CIFAR100,
}


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        pass


@pytest.fixture
def publisher(tmp_path, monkeypatch):
    """A folder and the address at which a server publishes it."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    folder = tmp_path / "published"
    folder.mkdir()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=folder))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield folder, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def md5(path):
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()


def publish_gzip(files, folder):
    """Compress the files into `folder` and return names and digests as torchvision lists them."""
    listed = []
    for path in files:
        packed = folder / f"{path.name}.gz"
        packed.write_bytes(gzip.compress(path.read_bytes()))
        listed.append((packed.name, md5(packed)))
    return listed


def fetched_config(name, tmp_path, **options):
    return DATASETS.get(name).config(root=str(tmp_path / "fetched"), **options)


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
def test_mnist_and_fashion_mnist(write_set, publisher, monkeypatch, tmp_path, name):
    written, (folder, address) = write_set(name), publisher
    read = READERS[name]
    monkeypatch.setattr(read, "mirrors", [f"{address}/"])
    monkeypatch.setattr(read, "resources", publish_gzip(written.files(), folder))
    config = fetched_config(name, tmp_path)
    assert fetch(config) == tmp_path / "fetched" / read.__name__ / "raw"
    assert DATASETS.get(name).describe(config) == written.describe()


def test_emnist(write_set, publisher, monkeypatch, tmp_path):
    folder, address = publisher
    digits, letters = (
        write_set("emnist", split="mnist"),
        write_set("emnist", folder="letters", split="letters"),
    )
    archive = folder / "gzip.zip"
    with zipfile.ZipFile(archive, "w") as zipped:
        for path in digits.files() + letters.files():
            zipped.writestr(f"gzip/{path.name}.gz", gzip.compress(path.read_bytes()))
    monkeypatch.setattr(datasets.EMNIST, "url", f"{address}/gzip.zip")
    monkeypatch.setattr(datasets.EMNIST, "md5", md5(archive))
    config = fetched_config("emnist", tmp_path, split="letters")
    fetch(config)
    assert DATASETS.get("emnist").describe(config) == letters.describe(split="letters")


def test_svhn(write_set, publisher, monkeypatch, tmp_path):
    written, (folder, address) = write_set("svhn"), publisher
    listed = {}
    for path in written.files():
        (folder / path.name).write_bytes(path.read_bytes())
        listed[path.name.partition("_")[0]] = [f"{address}/{path.name}", path.name, md5(path)]
    monkeypatch.setattr(datasets.SVHN, "split_list", listed | {"extra": ["", "", ""]})
    config = fetched_config("svhn", tmp_path)
    assert fetch(config) == tmp_path / "fetched"
    assert DATASETS.get("svhn").describe(config) == written.describe()


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_cifar(write_set, publisher, monkeypatch, tmp_path, name):
    written, (folder, address) = write_set(name), publisher
    read = READERS[name]
    archive = folder / read.filename
    with tarfile.open(archive, "w:gz") as packed:
        for path in written.files():
            packed.add(path, path.relative_to(written.root))
    monkeypatch.setattr(read, "url", f"{address}/{archive.name}")
    monkeypatch.setattr(read, "tgz_md5", md5(archive))
    config = fetched_config(name, tmp_path)
    fetch(config)
    assert DATASETS.get(name).describe(config) == written.describe()


def test_medmnist(write_set, publisher, monkeypatch, tmp_path):
    name = "medmnist/pneumoniamnist"
    written, (folder, address) = write_set(name, size=64), publisher
    (path,) = written.files()
    (folder / path.name).write_bytes(path.read_bytes())
    monkeypatch.setattr(medmnist_sets, "HOST", address)
    config = fetched_config(name, tmp_path, size=64)
    with pytest.raises(
        DataUnavailableError, match=r"not be downloaded .*corrupted.*pneumoniamnist --size 64`"
    ):
        fetch(config)  # other content than the published digest says
    assert list((tmp_path / "fetched" / "medmnist").iterdir()) == []
    digests = ("", md5(path), "", "")
    monkeypatch.setattr(type(config), "published", config.published._replace(md5=digests))
    assert fetch(config) == tmp_path / "fetched" / "medmnist"
    assert DATASETS.get(name).describe(config) == written.describe(size=64)
    (folder / path.name).unlink()
    fetch(config)  # what is there already is not asked for again


def test_a_publisher_that_cannot_be_reached_is_named_in_one_line(monkeypatch, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as closed:
        address = f"http://127.0.0.1:{closed.getsockname()[1]}/"
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(datasets.MNIST, "mirrors", [address])
    config = fetched_config("mnist", tmp_path)
    with pytest.raises(DataUnavailableError, match=r"mnist could not be downloaded .*refused") as raised:
        fetch(config)
    assert "\n" not in str(raised.value)
    assert "`bench data fetch mnist`" in str(raised.value)
