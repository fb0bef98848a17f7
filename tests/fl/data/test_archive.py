"""Only the named members leave an archive, only into the given folder, only with the right content."""

import hashlib
import io
import tarfile
import zipfile

import pytest

from fl.data.archive import Member, unpack
from fl.errors import DataUnavailableError


def member(path, content=b"content"):
    return Member(path, len(content), hashlib.sha256(content).hexdigest())


def write(path, entries):
    """Write an archive of (name, content) entries; content may be a prepared tar entry."""
    if path.suffix == ".whl":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in entries:
                archive.writestr(name, content)
    else:
        with tarfile.open(path, "w:gz") as archive:
            for name, content in entries:
                if isinstance(content, tarfile.TarInfo):
                    archive.addfile(content)
                else:
                    entry = tarfile.TarInfo(name)
                    entry.size = len(content)
                    archive.addfile(entry, io.BytesIO(content))
    return path


def special(name, kind, target=""):
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname = kind, target
    return entry


@pytest.fixture(params=["package.whl", "package.tar.gz"])
def archive(request, tmp_path):
    return tmp_path / request.param


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "inner" / "out").mkdir(parents=True)
    return tmp_path / "inner" / "out"


def everything(tmp_path):
    return {path.name: path.read_bytes() for path in (tmp_path / "inner").rglob("*") if path.is_file()}


def test_named_members_are_copied_and_nothing_else(archive, folder, tmp_path):
    entries = [("p/a.bin", b"content"), ("p/b.bin", b"other"), ("p/setup.py", b"evil"), ("p/deep/c", b"")]
    write(archive, entries)
    unpack(archive, [member("p/b.bin", b"other"), member("p/a.bin"), member("p/deep/c", b"")], folder)
    assert everything(tmp_path) == {"a.bin": b"content", "b.bin": b"other", "c": b""}


@pytest.mark.parametrize("name", ["../../escaped", "/tmp/leakbench-escaped", "p/../../../escaped"])
def test_names_in_the_archive_never_become_paths(archive, folder, tmp_path, name):
    write(archive, [(name, b"evil"), ("p/a.bin", b"content")])
    unpack(archive, [member("p/a.bin")], folder)
    assert everything(tmp_path) == {"a.bin": b"content"}
    with pytest.raises(DataUnavailableError):
        unpack(archive, [member(name)], folder)  # even when asked for, the content is another
    assert {path.parent for path in tmp_path.rglob("*") if path.is_file()} == {folder, tmp_path}


def test_a_missing_member_is_named(archive, folder):
    write(archive, [("p/a.bin", b"content")])
    with pytest.raises(
        DataUnavailableError, match=f"expected p/gone inside {archive.name}, got an archive without"
    ):
        unpack(archive, [member("p/a.bin"), member("p/gone")], folder)


@pytest.mark.parametrize("found", [b"c0ntent", b"content and more", b"cont", b""])
def test_another_content_is_refused(archive, folder, found):
    write(archive, [("p/a.bin", found)])
    with pytest.raises(DataUnavailableError, match=r"expected p/a\.bin with sha256"):
        unpack(archive, [member("p/a.bin")], folder)


def test_no_more_is_written_than_the_member_should_have(archive, folder, tmp_path):
    write(archive, [("p/a.bin", b"\0" * 50_000_000)])
    with pytest.raises(DataUnavailableError):
        unpack(archive, [member("p/a.bin")], folder)
    assert len(everything(tmp_path)["a.bin"]) <= 7


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_are_refused(tmp_path, folder, kind):
    archive = tmp_path / "package.tar.gz"
    entry = special("p/a.bin", kind, target="/etc/hostname")
    write(archive, [("", entry)])
    with pytest.raises(DataUnavailableError, match=r"p/a\.bin to be a file"):
        unpack(archive, [member("p/a.bin")], folder)
    assert everything(tmp_path) == {}


@pytest.mark.parametrize("content", [b"", b"not an archive", b"\x1f\x8b\x08\x00" + b"\0" * 20])
def test_damaged_archives_are_named(archive, folder, content):
    archive.write_bytes(content)
    with pytest.raises(DataUnavailableError, match=archive.name):
        unpack(archive, [member("p/a.bin")], folder)


def test_truncated_archives_are_named(archive, folder):
    write(archive, [("p/a.bin", bytes(range(256)) * 4000)])
    archive.write_bytes(archive.read_bytes()[:-400])
    with pytest.raises(DataUnavailableError, match=archive.name):
        unpack(archive, [member("p/a.bin", bytes(range(256)) * 4000)], folder)
