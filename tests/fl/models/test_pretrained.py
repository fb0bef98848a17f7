"""ImageNet weights: files as torchvision keeps them, in our classifiers and in torchvision's."""

import dataclasses
import hashlib
import pickle
import re
import subprocess
import sys

import numpy as np
import pytest
import torch
import torchvision
from pydantic import ValidationError
from torch import nn
from torch.nn import functional as F

from fl.data import assets
from fl.errors import DataUnavailableError, UsageError
from fl.models import MODELS, architecture, imagenet, initial_state, materialise, pretrained
from fl.seeds import Streams

KINDS = {
    "resnet18-imagenet": ("resnet18", {}),
    "resnet50-imagenet": ("resnet50", {}),
    "densenet121-imagenet": ("densenet121", {}),
    "vgg16-imagenet": ("vgg16", {}),
    "vgg16_bn-imagenet": ("vgg16", {"batch_norm": True}),
}


@pytest.fixture(autouse=True)
def bare(tmp_path, monkeypatch):
    """A machine without any weights."""
    monkeypatch.setenv("LEAKBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return tmp_path


@pytest.fixture
def offer(monkeypatch):
    """Put a state dict where torchvision keeps that file, and make its digest the expected one."""

    def write(name, state, **how):
        weights = imagenet.WEIGHTS[name]
        weights.path.parent.mkdir(parents=True, exist_ok=True)
        written = weights.path.with_name("new.pth")
        torch.save(state, written, **how)
        digits = hashlib.sha256(written.read_bytes()).hexdigest()[:8]
        stem = weights.file.rpartition("-")[0]
        weights = dataclasses.replace(weights, file=f"{stem}-{digits}.pth")
        written.rename(weights.path)
        monkeypatch.setattr(imagenet, "WEIGHTS", {**imagenet.WEIGHTS, name: weights})
        return weights

    return write


def original_of(name):
    """Torchvision's network with random weights and statistics, without its head."""
    generator = torch.Generator().manual_seed(7)
    if name.startswith("vgg"):  # without the 120 million weights of its hidden layers
        layout = torchvision.models.vgg.cfgs["D"]
        body = torchvision.models.vgg.make_layers(layout, batch_norm="bn" in name)
        model = nn.Sequential()
        model.features = body
        model.forward = lambda x: F.adaptive_avg_pool2d(body(x), 1).flatten(1)
    else:
        model = getattr(torchvision.models, name.partition("-")[0])()
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.normal_(module.weight, 0, (2 / module.weight[0].numel()) ** 0.5, generator=generator)
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight, module.bias, module.running_mean, module.running_var):
                nn.init.uniform_(tensor, 0.5, 1.0, generator=generator)
    return model.eval()


def without_head(model):
    for name in ("fc", "classifier"):
        if hasattr(model, name):
            setattr(model, name, nn.Identity())
    return model


def as_published(name, state):
    """The state dict in the form of the old files: `norm.1` in DenseNets, no counters of batches."""
    state = {key: t for key, t in state.items() if not key.endswith("num_batches_tracked")}
    if name.startswith("densenet"):
        state = {re.sub(r"(denselayer\d+\.(?:norm|conv))([12])", r"\1.\2", k): t for k, t in state.items()}
        assert "features.denseblock1.denselayer1.norm.1.weight" in state
    if name.startswith("vgg"):
        state |= {"classifier.0.weight": torch.zeros(4096, 2), "classifier.6.bias": torch.zeros(1000)}
    return state


def state_of(plugin, info, *, seed=0):
    return initial_state(architecture(plugin, info), streams=Streams(seed), freeze="none", batch_norm="eval")


@pytest.mark.parametrize("name", KINDS)
def test_features_are_torchvision_s(name, offer, model_plugin, make_info):
    plugin, config = KINDS[name]
    original = original_of(name)
    offer(name, as_published(name, original.state_dict()), _use_new_zipfile_serialization="resnet" in name)
    plugin = model_plugin(plugin, weights="imagenet", **config)
    MODELS.get(plugin.name).require(plugin.config)
    x = torch.randn(2, 3, 40, 40, generator=torch.Generator().manual_seed(1))

    state = state_of(plugin, make_info(size=40, channels=3))

    with torch.no_grad():
        found, expected = materialise(state).features(x), without_head(original)(x)
    assert expected.std() > 0.01
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["resnet18-imagenet", "densenet121-imagenet", "vgg16-imagenet"])
def test_a_gray_image_gives_what_three_equal_channels_give(name, offer, model_plugin, make_info):
    offer(name, original_of(name).state_dict())
    plugin = model_plugin(KINDS[name][0], weights="imagenet")
    x = torch.randn(2, 1, 40, 40, generator=torch.Generator().manual_seed(1))
    gray, rgb = (materialise(state_of(plugin, make_info(size=40, channels=channels))) for channels in (1, 3))

    with torch.no_grad():
        found, expected = gray.features(x), rgb.features(x.expand(-1, 3, -1, -1))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_the_head_is_drawn_for_the_task_as_without_weights(offer, model_plugin, make_info):
    offer("resnet18-imagenet", original_of("resnet18-imagenet").state_dict())
    info = make_info(size=32, channels=3, kind="binary", classes=2)
    pretrained_, fresh, other = (
        state_of(model_plugin("resnet18", weights=weights), info, seed=seed).tensors
        for weights, seed in (("imagenet", 0), ("none", 0), ("imagenet", 1))
    )

    assert pretrained_["head.weight"].shape == (1, 512)
    assert torch.equal(pretrained_["head.weight"], fresh["head.weight"])
    assert not torch.equal(pretrained_["head.weight"], other["head.weight"])
    assert torch.equal(pretrained_["body.conv1.weight"], other["body.conv1.weight"])
    assert not torch.equal(pretrained_["body.conv1.weight"], fresh["body.conv1.weight"])


def test_the_exact_name_is_recorded(model_plugin):
    short, exact = (model_plugin("resnet18", weights=name) for name in ("imagenet", "IMAGENET1K_V1"))

    assert short.canonical == exact.canonical
    assert short.config.resolved() == {"stem": "imagenet", "weights": "IMAGENET1K_V1"}


@pytest.mark.parametrize(
    ("name", "config", "message"),
    [
        ("resnet18", {"stem": "cifar"}, "weights: IMAGENET1K_V1 needs stem: imagenet"),
        ("vgg16", {"hidden": 64}, "needs hidden: 0, or hidden: 4096 with pooled: 7"),
        ("vgg16", {"hidden": 4096}, "needs hidden: 0, or hidden: 4096 with pooled: 7"),
    ],
)
def test_weights_do_not_fit_other_layers(name, config, message, model_plugin):
    with pytest.raises(ValidationError, match=message):
        model_plugin(name, weights="imagenet", **config)


def test_weights_fit_one_or_three_channels(model_plugin, make_info):
    with pytest.raises(UsageError, match="expected images of 1 or 3 channels"):
        architecture(model_plugin("resnet18", weights="imagenet"), make_info(size=32, channels=2))


@pytest.mark.parametrize("name", KINDS)
def test_missing_weights_say_what_gets_them(name, bare, model_plugin, make_info):
    plugin, config = KINDS[name]
    plugin = model_plugin(plugin, weights="imagenet", **config)
    command = f"bench weights fetch {'lpips-vgg16' if name == 'vgg16-imagenet' else name}"
    folder = re.escape(str(bare / "torch" / "hub" / "checkpoints"))
    message = rf"run `{command}`, or put {imagenet.WEIGHTS[name].file} into {folder}$"

    with pytest.raises(DataUnavailableError, match=message):
        MODELS.get(plugin.name).require(plugin.config)
    with pytest.raises(DataUnavailableError, match=message):
        state_of(plugin, make_info(size=32))


def test_weights_are_looked_for_without_torch(model_plugin):
    program = """
import sys
sys.modules["torch"] = sys.modules["numpy"] = None
from fl.errors import DataUnavailableError
from fl.models import MODELS
card = MODELS.get("densenet121")
try:
    card.require(card.config(weights="imagenet"))
except DataUnavailableError as error:
    print(error.exit_code)
"""
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert answer.stdout == "2\n"


def test_a_file_of_another_content_is_refused(model_plugin, make_info):
    path = imagenet.WEIGHTS["resnet18-imagenet"].path
    path.parent.mkdir(parents=True)
    torch.save(torchvision.models.resnet18().state_dict(), path)
    plugin = model_plugin("resnet18", weights="imagenet")

    with pytest.raises(DataUnavailableError, match=r"sha256 begins with f37072fd, got .*; remove it and run"):
        state_of(plugin, make_info(size=32))


@pytest.mark.parametrize("home", ["TORCH_HOME", "XDG_CACHE_HOME", None])
def test_the_folder_is_torch_s_own(home, monkeypatch):
    for variable in ("TORCH_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(variable, raising=False)
    if home:
        monkeypatch.setenv(home, "~/some/where")

    assert str(imagenet.hub_checkpoints().parent) == torch.hub.get_dir()


@pytest.mark.parametrize("name", KINDS)
def test_names_and_files_are_torchvision_s(name):
    weights = imagenet.WEIGHTS[name]
    theirs = torchvision.models.get_weight(weights.enum)

    assert theirs.url.endswith(f"/{weights.file}")
    assert theirs.meta["_file_size"] == weights.mib


def test_download_goes_to_torchvision_s_folder_and_checks_the_content(offer, bare, monkeypatch):
    weights = offer("resnet18-imagenet", {"fc.bias": torch.ones(3)})
    source = weights.path.rename(bare / weights.file)
    address = dataclasses.make_dataclass("Address", ["url"])(source.as_uri())
    monkeypatch.setattr("torchvision.models.get_weight", lambda name: address)

    assert pretrained.download(weights) == weights.path
    assert weights.path.read_bytes() == source.read_bytes()
    weights.path.unlink()
    source.write_bytes(b"another")
    with pytest.raises(DataUnavailableError, match="could not be downloaded: invalid hash"):
        pretrained.download(weights)
    source.unlink()
    with pytest.raises(DataUnavailableError, match=rf"put it into {re.escape(str(weights.path.parent))}"):
        pretrained.download(weights)
    assert not list(weights.path.parent.iterdir())


def test_the_packaged_convolutions_are_enough_for_vgg16(bare, monkeypatch, model_plugin, make_info):
    original = original_of("vgg16-imagenet")
    convolutions = [layer for layer in original.features if isinstance(layer, nn.Conv2d)]
    for layer in convolutions:
        nn.init.uniform_(layer.bias)
    layers = {
        f"Conv_{i}": {
            "kernel": np.ascontiguousarray(layer.weight.detach().numpy().transpose(2, 3, 1, 0)),
            "bias": layer.bias.detach().numpy(),
        }
        for i, layer in enumerate(convolutions)
    }
    text = pickle.dumps({"VGG16_0": layers}, protocol=3).replace(
        b"numpy._core.multiarray", b"numpy.core.multiarray"
    )
    asset = assets.ASSETS["lpips-vgg16"]
    member = dataclasses.replace(asset.members[0], size=len(text))
    monkeypatch.setattr(
        assets, "ASSETS", {**assets.ASSETS, asset.name: dataclasses.replace(asset, members=(member,))}
    )
    folder = bare / "cache" / "assets" / f"{asset.name}-{asset.version}-{asset.sha256[:12]}"
    folder.mkdir(parents=True)
    (folder / member.file).write_bytes(text)
    x = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(1))

    state = state_of(model_plugin("vgg16", weights="imagenet"), make_info(size=32, channels=3))

    with torch.no_grad():
        torch.testing.assert_close(materialise(state).features(x), original(x), rtol=1e-5, atol=1e-6)
    whole = model_plugin("vgg16", weights="imagenet", hidden=4096, pooled=7)
    with pytest.raises(DataUnavailableError, match="run `bench weights fetch vgg16-imagenet`"):
        MODELS.get("vgg16").require(whole.config)
