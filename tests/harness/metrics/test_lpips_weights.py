import pickle

import numpy as np
import pytest
import torch

from fl.data import assets
from fl.errors import DataUnavailableError, UsageError
from harness.metrics import weights
from harness.metrics.networks import ALEXNET, VGG16
from harness.metrics.pairs import Unavailable
from harness.metrics.perceptual import find_perceptual

NETWORKS = (ALEXNET, VGG16)


@pytest.fixture
def bare(tmp_path, monkeypatch):
    """A machine without any weights."""
    monkeypatch.setenv("LEAKBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    for network in NETWORKS:
        monkeypatch.delenv(network.variable, raising=False)
    return tmp_path


def packaged(path, *, network=ALEXNET, kernel_shapes=None):
    """Write weights in the packaged form: kernels `h x w x inputs x outputs`."""
    generator = np.random.default_rng(0)
    layers = {}
    for index, (outputs, inputs, h, w) in enumerate(kernel_shapes or network.shapes):
        kernel = generator.normal(size=(h, w, inputs, outputs)).astype(np.float32)
        layers[f"Conv_{index}"] = {"kernel": kernel, "bias": generator.normal(size=outputs)}
    text = pickle.dumps({network.group: layers}, protocol=3)
    path.write_bytes(text.replace(b"numpy._core.multiarray", b"numpy.core.multiarray"))
    return layers


@pytest.mark.parametrize("network", NETWORKS, ids=lambda network: network.name)
def test_without_weights_lpips_is_unavailable_and_says_what_gets_it(network, bare):
    command = f"bench weights fetch {network.asset}"
    with pytest.raises(DataUnavailableError, match=command):
        weights.backbone_file(network, fetch=False)
    found = find_perceptual(network, fetch=False)
    assert isinstance(found, Unavailable)
    assert command in found.reason
    assert network.name in found.reason


@pytest.mark.parametrize(
    ("network", "variable"),
    [(ALEXNET, "LEAKBENCH_LPIPS_WEIGHTS"), (VGG16, "LEAKBENCH_LPIPS_VGG_WEIGHTS")],
    ids=["AlexNet", "VGG-16"],
)
def test_the_named_file_comes_first_and_must_exist(network, variable, bare, monkeypatch):
    named = bare / "mine.ckpt"
    monkeypatch.setenv(variable, str(named))
    with pytest.raises(UsageError, match=rf"{variable}: expected a file .* got '.*mine\.ckpt'"):
        find_perceptual(network, fetch=False)
    named.touch()
    assert weights.backbone_file(network, fetch=False) == named


@pytest.mark.parametrize(
    ("network", "positions"),
    [(ALEXNET, [0, 3, 6, 8, 10]), (VGG16, [0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28])],
    ids=["AlexNet", "VGG-16"],
)
def test_torchvisions_download_is_used(network, positions, bare):
    path = bare / "torch" / "hub" / "checkpoints" / network.torchvision_file
    path.parent.mkdir(parents=True)
    state = {}
    for position, shape in zip(positions, network.shapes, strict=True):
        state[f"features.{position}.weight"] = torch.full(shape, float(position))
        state[f"features.{position}.bias"] = torch.full(shape[:1], -float(position))
    torch.save(state | {"classifier.1.weight": torch.zeros(2)}, path)
    assert weights.backbone_file(network, fetch=False) == path
    layers = weights.read_backbone(path, network)
    assert [layer.weight[0, 0, 0, 0].item() for layer in layers] == positions
    assert [layer.bias[0].item() for layer in layers] == [-position for position in positions]


@pytest.mark.parametrize("network", NETWORKS, ids=lambda network: network.name)
def test_packaged_weights_are_read_and_transposed(network, tmp_path):
    path = tmp_path / "a.ckpt"
    arrays = packaged(path, network=network)
    for index, layer in enumerate(weights.read_backbone(path, network)):
        assert tuple(layer.weight.shape) == network.shapes[index]
        kernel = arrays[f"Conv_{index}"]["kernel"]
        assert layer.weight[5, 2, 1, 0].item() == kernel[1, 0, 2, 5]


def test_a_pickle_that_runs_code_is_refused(tmp_path):
    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "sprung"), "w"))

    path = tmp_path / "trap.ckpt"
    path.write_bytes(pickle.dumps({"AlexNet_0": Trap()}))
    with pytest.raises(UsageError, match=r"trap\.ckpt: expected AlexNet's weights, got: a reference to"):
        weights.read_backbone(path)
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize(
    "content",
    [b"", b"not a pickle", *(pickle.dumps(x, protocol=2) for x in ([1, 2], {"x": 1}, {"AlexNet_0": [3]}))],
    ids=["empty", "text", "list", "other keys", "no arrays"],
)
@pytest.mark.parametrize("name", ["broken.ckpt", "broken.pth"])
def test_a_broken_file_is_named(name, content, tmp_path):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(UsageError, match=r"broken\.\w+: expected AlexNet's weights"):
        weights.read_backbone(path)


def test_another_network_is_refused(tmp_path):
    path = tmp_path / "b.ckpt"
    packaged(path, kernel_shapes=((64, 1, 11, 11), *ALEXNET.shapes[1:]))
    with pytest.raises(UsageError, match="expected convolutions of shapes"):
        weights.read_backbone(path)
    with pytest.raises(UsageError, match="expected VGG-16's weights"):
        weights.read_backbone(path, VGG16)


def test_random_weights_never_pass_for_lpips(bare, monkeypatch):
    path = bare / "random.ckpt"
    packaged(path)
    monkeypatch.setenv(ALEXNET.variable, str(path))
    with pytest.raises(UsageError, match="expected LPIPS weights of AlexNet"):
        find_perceptual(fetch=False)


@pytest.mark.parametrize("network", NETWORKS, ids=lambda network: network.name)
def test_heads_weight_channels_and_are_never_negative(network):
    heads = weights.read_heads(network)
    assert tuple(map(len, heads)) == network.compared_channels
    assert len(heads) == 5
    assert all(head.min() >= 0 for head in heads)


@pytest.mark.parametrize("network", NETWORKS, ids=lambda network: network.name)
def test_the_asset_is_registered(network):
    assert assets.ASSETS[network.asset].kind == "weights"
