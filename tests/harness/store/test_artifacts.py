from __future__ import annotations

import math
import os
import stat
import subprocess
import sys

import pytest
import torch
from safetensors import safe_open

from fl.errors import StoreError
from fl.types import Artifact
from harness.store.artifacts import ArtifactStore

KEY = "ab12cd"


@pytest.fixture
def store(tmp_path):
    return ArtifactStore(tmp_path / "artifacts")


@pytest.fixture
def artifact():
    generator = torch.Generator().manual_seed(3)
    return Artifact(
        {
            "weights": torch.randn(3, 4, generator=generator),
            "half": torch.randn(5, generator=generator).to(torch.bfloat16),
            "labels": torch.tensor([1, 2, 3]),
            "flag": torch.tensor(True),
            "none": torch.zeros(0, 3),
        },
        {"round": 2, "names": ["b", "a"], "nested": {"x": None}, "psnr": math.inf},
    )


def path_of(store, key=KEY):
    return os.path.join(store.uri, key[:2], f"{key}.safetensors")


def test_round_trip(store, artifact):
    assert not store.has(KEY)
    store.put(KEY, artifact)
    assert store.has(KEY)
    back = store.get(KEY)
    assert back.data == artifact.data
    assert back.tensors.keys() == artifact.tensors.keys()
    for name, tensor in artifact.tensors.items():
        assert back.tensors[name].dtype == tensor.dtype
        assert torch.equal(back.tensors[name], tensor)


def test_it_is_a_safetensors_file(store, artifact):
    store.put(KEY, artifact)
    with safe_open(path_of(store), framework="pt") as file:
        assert set(file.keys()) == set(artifact.tensors)
        assert torch.equal(file.get_tensor("weights"), artifact.tensors["weights"])
        assert '"round":2' in file.metadata()["data"]


def test_equal_artifacts_have_equal_bytes(store, artifact):
    store.put(KEY, artifact)
    reordered = Artifact(dict(reversed(artifact.tensors.items())), dict(reversed(artifact.data.items())))
    store.put("other", reordered)
    with open(path_of(store), "rb") as one, open(path_of(store, "other"), "rb") as two:
        assert one.read() == two.read()


def test_views_and_tied_tensors(store):
    stack = torch.arange(12.0).reshape(3, 4)
    tensors = {
        "row": stack[1],
        "column": stack[:, 1],
        "same": stack[1],
        "grad": stack.clone().requires_grad_(),
    }
    store.put(KEY, Artifact(tensors))
    back = store.get(KEY).tensors
    assert back["row"].tolist() == back["same"].tolist() == [4, 5, 6, 7]
    assert back["column"].tolist() == [1, 5, 9]
    assert back["grad"].shape == (3, 4)


def test_raw_bytes(store, artifact):
    png = bytes(range(200))
    store.put(KEY, Artifact({"b": torch.tensor(list(png), dtype=torch.uint8), "a": torch.tensor([1, 2])}))
    assert store.read_bytes(KEY) == {"b": png, "a": b"\x01" + bytes(7) + b"\x02" + bytes(7)}


def test_data_alone(store):
    store.put(KEY, Artifact({}, {"rounds": [1, 2]}))
    assert store.get(KEY) == Artifact({}, {"rounds": [1, 2]})
    assert store.read_json(KEY) == {"rounds": [1, 2]}
    assert store.read_bytes(KEY) == {}


def test_reading_json_and_bytes_imports_no_torch(store, artifact):
    store.put(KEY, artifact)
    script = f"""
import sys
from fl.types import Artifact
from harness.store.artifacts import ArtifactStore
store = ArtifactStore({store.uri!r})
assert store.read_json({KEY!r})["round"] == 2
assert len(store.read_bytes({KEY!r})["labels"]) == 24
store.put("probe", Artifact({{}}, {{"a": 1}}))
assert store.get("probe").data == {{"a": 1}}
assert not {{"torch", "numpy", "pyarrow"}} & set(sys.modules), sorted(sys.modules)
"""
    subprocess.run([sys.executable, "-c", script], check=True)


@pytest.mark.parametrize("where", ["first", "header", "tensors", "last"])
def test_a_changed_byte_is_found(store, artifact, where):
    store.put(KEY, artifact)
    with open(path_of(store), "rb") as file:
        content = bytearray(file.read())
    start = 8 + int.from_bytes(content[:8], "little")
    position = {
        "first": 0,
        "header": content.index(b"weights"),
        "tensors": start + 3,
        "last": len(content) - 1,
    }
    content[position[where]] ^= 1
    with open(path_of(store), "wb") as file:
        file.write(content)
    with pytest.raises(StoreError, match=rf"{KEY}.safetensors.*Delete the file"):
        store.get(KEY)


@pytest.mark.parametrize("length", [0, 5, 8, 60, -1])
def test_a_short_file_is_found_without_reading_tensors(store, artifact, length):
    store.put(KEY, artifact)
    with open(path_of(store), "rb") as file:
        content = file.read()
    with open(path_of(store), "wb") as file:
        file.write(content[:length])
    for read in (store.get, store.read_json, store.read_bytes):
        with pytest.raises(StoreError, match="damaged artifact"):
            read(KEY)
    store.discard(KEY)
    assert not store.has(KEY)
    store.put(KEY, artifact)
    assert store.read_json(KEY)["round"] == 2


def test_a_foreign_file_is_found(store):
    os.makedirs(os.path.dirname(path_of(store)))
    header = b'{"x":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}'
    with open(path_of(store), "wb") as file:
        file.write(len(header).to_bytes(8, "little") + header + b"\x00")
    with pytest.raises(StoreError, match="damaged artifact"):
        store.get(KEY)


def test_a_missing_artifact(store):
    with pytest.raises(StoreError, match=f"expected the file .*{KEY}"):
        store.get(KEY)
    store.discard(KEY)


def test_only_the_user_can_look(store, artifact):
    store.put(KEY, artifact)
    for folder in (store.uri, os.path.dirname(path_of(store))):
        assert stat.S_IMODE(os.stat(folder).st_mode) == 0o700


def test_a_sweep_leaves_artifacts_and_young_files(store, artifact):
    store.put(KEY, artifact)
    folder = os.path.dirname(path_of(store))
    for name, age in ((".tmp-7-dead", 1000.0), (".tmp-8-live", None)):
        with open(os.path.join(folder, name), "wb") as file:
            file.write(b"half")
        if age:
            os.utime(file.name, (age, age))
    assert store.sweep() == 1
    assert sorted(os.listdir(folder)) == [".tmp-8-live", f"{KEY}.safetensors"]


@pytest.mark.parametrize("key", ["", "a", "../etc", "a/b", ".tmp-x", "a" * 129])
def test_keys_are_names(store, key):
    with pytest.raises(ValueError, match="expected a key"):
        store.has(key)
