"""`bench weights` knows what torchvision downloads as well as what comes in packages."""

from __future__ import annotations

import dataclasses
import hashlib

import pytest

from fl.models import imagenet


@pytest.fixture(autouse=True)
def checkpoints(tmp_path, monkeypatch):
    """Torchvision's folder, empty."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    return tmp_path / "hub" / "checkpoints"


def test_imagenet_weights_are_listed_with_where_they_are_or_how_to_get_them(bench, checkpoints):
    weights = imagenet.WEIGHTS["resnet18-imagenet"]
    listed = {entry["name"]: entry for entry in bench("weights", "list", "--json").json}
    assert listed[weights.name]["path"] is None
    assert listed[weights.name]["sha256"] == "f37072fd"
    checkpoints.mkdir(parents=True)
    weights.path.touch()
    listed = {entry["name"]: entry for entry in bench("weights", "list", "--json").json}
    assert listed[weights.name]["path"] == str(checkpoints / "resnet18-f37072fd.pth")
    assert listed["resnet50-imagenet"]["path"] is None
    assert "densenet121-imagenet" in bench("weights", "list").out


def test_weights_that_are_there_are_checked_and_not_fetched_again(bench, checkpoints, monkeypatch):
    digits = hashlib.sha256(b"weights").hexdigest()[:8]
    weights = dataclasses.replace(imagenet.WEIGHTS["resnet18-imagenet"], file=f"resnet18-{digits}.pth")
    monkeypatch.setattr(imagenet, "WEIGHTS", {**imagenet.WEIGHTS, weights.name: weights})
    checkpoints.mkdir(parents=True)
    weights.path.write_bytes(b"weights")
    outcome = bench("weights", "fetch", weights.name)
    assert (outcome.code, outcome.out) == (0, f"{weights.name} is already at {weights.path}\n")
    weights.path.write_bytes(b"others")
    outcome = bench("weights", "fetch", weights.name)
    assert outcome.code == 2
    assert f"sha256 begins with {digits}" in outcome.err


def test_weights_that_cannot_be_had_are_a_usage_error_that_says_what_to_do(bench, checkpoints, monkeypatch):
    address = dataclasses.make_dataclass("Address", ["url"])("file:///no/such/file")
    monkeypatch.setattr("torchvision.models.get_weight", lambda name: address)
    outcome = bench("weights", "fetch", "vgg16_bn-imagenet")
    assert outcome.code == 2
    assert f"put it into {checkpoints}" in outcome.err


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("resnet18-imagnet", "Did you mean 'resnet18-imagenet'?"),
        ("lpips-alex", "Did you mean 'lpips-alexnet'?"),
        ("mnist5k", "'mnist5k' is data: `bench data fetch mnist5k`"),
    ],
)
def test_a_name_that_is_no_weights_is_answered(bench, name, answer):
    outcome = bench("weights", "fetch", name)
    assert outcome.code == 2
    assert answer in outcome.err
