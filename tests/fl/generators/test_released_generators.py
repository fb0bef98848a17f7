import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F

from fl.cards import DataInfo, Setting
from fl.errors import DataUnavailableError
from fl.generators import GeneratorConfig, files, generator_unfit, stage
from fl.generators.architecture import Critic, Generator
from fl.generators.biggan import ATTENTION, STEPS
from fl.generators.layout import RELEASED, Layout
from fl.seeds import Streams
from fl.specs import Task, ThreatModel
from fl.stage_context import StageContext

LATENT, CLASSES, WIDTH = 6, 4, 8


def parameters(module):
    return sum(parameter.numel() for parameter in module.parameters())


def filled(tensors, seed=0):
    """Fill tensors, in order, with numbers of a size that keeps images varied."""
    stream = Streams(seed).torch("weights")
    for name, tensor in tensors.items():
        if not tensor.is_floating_point():
            continue
        if "var" in name:
            tensor.uniform_(0.5, 1.5, generator=stream)
        else:
            size = tensor[0].numel() ** -0.5 if tensor.ndim > 1 and "running" not in name else 0.2
            tensor.normal_(0.0, size, generator=stream)
    return tensors


def ggl_reference(latent=128, width=128, channels=3):
    """The network of figure 11, as modules under the names that the authors' code gives them."""
    maps = (4 * width, 2 * width, width)
    network = nn.Module()
    network.preprocess = nn.Sequential(
        nn.Linear(latent, 16 * maps[0]), nn.BatchNorm1d(16 * maps[0]), nn.ReLU()
    )
    network.block1 = nn.Sequential(
        nn.ConvTranspose2d(maps[0], maps[1], 2, stride=2), nn.BatchNorm2d(maps[1]), nn.ReLU()
    )
    network.block2 = nn.Sequential(
        nn.ConvTranspose2d(maps[1], maps[2], 2, stride=2), nn.BatchNorm2d(maps[2]), nn.ReLU()
    )
    network.deconv_out = nn.ConvTranspose2d(maps[2], channels, 2, stride=2)
    return network.eval().requires_grad_(False)


def test_ggls_network_has_the_published_size():
    layout = RELEASED["ggl"]
    expected = 128 * 8192 + 8192 * 3 + 512 * 256 * 4 + 256 * 3 + 256 * 128 * 4 + 128 * 3 + 128 * 3 * 4 + 3
    with torch.device("meta"):
        assert parameters(Generator(layout)) == parameters(ggl_reference()) == expected
        critic = Critic(layout)
    shapes = [tuple(p.shape) for p in critic.parameters() if p.ndim > 1]
    assert shapes == [(128, 3, 3, 3), (256, 128, 3, 3), (512, 256, 3, 3), (1, 8192)]


@pytest.mark.parametrize("form", ["pt", "safetensors"])
def test_ggls_weights_draw_what_the_authors_network_draws(tmp_path, form):
    network = ggl_reference(latent=5, width=4)
    filled(network.state_dict())
    path = tmp_path / f"generator.{form}"
    state = network.state_dict()
    if form == "pt":
        torch.save(state, path)
    else:
        save_file(state, path)
    generator = files.read(str(path), "ggl")
    assert generator.layout == Layout("ggl", 3, 32, latent=5, width=4)
    z = torch.randn(3, 5, generator=Streams(0).torch("z"))
    maps = network.block2(network.block1(network.preprocess(z).view(3, 16, 4, 4)))
    expected = (network.deconv_out(maps).tanh() + 1) / 2
    assert generator(z).shape == (3, 3, 32, 32)
    assert torch.allclose(generator(z), expected, atol=1e-6)


def test_what_is_no_released_generator_is_told(tmp_path):
    path = tmp_path / "other.pt"
    torch.save({"weight": torch.zeros(3)}, path)
    with pytest.raises(DataUnavailableError, match=r"architecture: ggl .* none called synthesis"):
        files.read(str(path), "ggl")
    with pytest.raises(DataUnavailableError, match=r"biggan_deep_256 .* none called embeddings\.weight"):
        files.read(str(path), "biggan_deep_256")
    state = ggl_reference(latent=5, width=4).state_dict()
    state["block1.0.weight"] = state["block1.0.weight"][:, :3].clone()
    torch.save(state, path)
    with pytest.raises(DataUnavailableError, match="expected shape"):
        files.read(str(path), "ggl")
    with pytest.raises(DataUnavailableError, match="cannot be read"):
        files.read(str(tmp_path / "missing.pt"), "ggl")


class Noise:
    images = torch.rand(40, 3, 32, 32, generator=Streams(0).torch("images"))
    labels = torch.arange(40) % 2
    mean_image = images.mean(0)


def train(config, *, size=32, classes=0, **changes):
    settings = {
        "streams": Streams(0),
        "device": torch.device("cpu"),
        "public": Noise(),
        "build": None,
        "progress": lambda share, words: None,
    }
    needs = {"generator": config.resolved(), "image": [3, size], "classes": classes}
    return stage.train(needs, {}, StageContext(**settings | changes))


@pytest.mark.parametrize("kind", ["dcgan", "wgan_gp"])
@pytest.mark.parametrize("classes", [0, 2])
def test_ggls_network_is_trained_too(kind, classes, monkeypatch):
    monkeypatch.setattr("fl.generators.resumable.KEEP_EVERY", 2)
    config = GeneratorConfig(
        kind=kind, architecture="ggl", width=2, latent=4, steps=4, batch_size=8, conditional=classes > 0
    )
    kept = []
    artifact = train(config, classes=classes, keep=kept.append)
    rest = train(config, classes=classes, kept=lambda: kept[0])
    assert all(torch.equal(tensor, rest.tensors[name]) for name, tensor in artifact.tensors.items())
    generator = stage.load(artifact)
    means = generator.state_dict()["synthesis.blocks.1.1.running_mean"]
    assert means.abs().max() > 0, "expected the statistics of its training"
    z = torch.randn(3, 4, generator=Streams(0).torch("z"))
    labels = torch.tensor([0, 1, 1]) if classes else None
    alone = generator(z[1:2], None if labels is None else labels[1:2])
    assert torch.allclose(generator(z, labels)[1], alone[0], atol=1e-6)


def biggan_shapes():
    """Every tensor of a `pytorch-pretrained-biggan` file at a small width, by name."""
    styles = 2 * LATENT
    shapes = {"embeddings.weight": (LATENT, CLASSES)}

    def spectral(name, *shape, bias=True):
        shapes.update({f"{name}.weight_orig": shape, f"{name}.weight_u": shape[:1]})
        inputs = torch.Size(shape[1:]).numel()
        shapes[f"{name}.weight_v"] = (inputs,)
        if bias:
            shapes[f"{name}.bias"] = shape[:1]

    def statistics(name, maps):
        shapes.update({f"{name}.running_means": (51, maps), f"{name}.running_vars": (51, maps)})

    spectral("generator.gen_z", 16 * 16 * WIDTH, styles)
    for number, step in enumerate(STEPS):
        layer = f"generator.layers.{number + (number >= ATTENTION)}"
        inputs, inner, outputs = step.inputs * WIDTH, step.inputs * WIDTH // 4, step.outputs * WIDTH
        if number == ATTENTION:
            attention = f"generator.layers.{ATTENTION}"
            for name, shape in {
                "theta": (inputs // 8, inputs),
                "phi": (inputs // 8, inputs),
                "g": (inputs // 2, inputs),
                "o_conv": (inputs, inputs // 2),
            }.items():
                spectral(f"{attention}.snconv1x1_{name}", *shape, 1, 1, bias=False)
            shapes[f"{attention}.gamma"] = (1,)
        convs = [(inner, inputs, 1), (inner, inner, 3), (inner, inner, 3), (outputs, inner, 1)]
        for part, (rows, columns, side) in enumerate(convs):
            statistics(f"{layer}.bn_{part}", columns)
            for name in ("scale", "offset"):
                spectral(f"{layer}.bn_{part}.{name}", columns, styles, bias=False)
            spectral(f"{layer}.conv_{part}", rows, columns, side, side)
    statistics("generator.bn", WIDTH)
    shapes.update({"generator.bn.weight": (WIDTH,), "generator.bn.bias": (WIDTH,)})
    spectral("generator.conv_to_rgb", WIDTH, WIDTH, 3, 3)
    return shapes


def biggan_file():
    """Such a file's tensors, the vectors of its spectral norms being singular vectors."""
    state = filled({name: torch.zeros(shape) for name, shape in biggan_shapes().items()})
    for name in [name.removesuffix("_orig") for name in state if name.endswith("weight_orig")]:
        left, _, right = torch.linalg.svd(state[f"{name}_orig"].flatten(1), full_matrices=False)
        state[f"{name}_u"], state[f"{name}_v"] = left[:, 0].clone(), right[0].clone()
    return state


def biggan_images(state, z, one_hot):
    """Figure 16 and table 8 in functions, straight from the file's tensors."""
    style = torch.cat([z, one_hot @ state["embeddings.weight"].T], 1)

    def weight(name):
        value = state[f"{name}.weight_orig"]
        return value / torch.linalg.matrix_norm(value.flatten(1), 2)

    def normalise(x, name):
        scale, offset = (style @ weight(f"{name}.{which}").T for which in ("scale", "offset"))
        mean, variance = state[f"{name}.running_means"][-1], state[f"{name}.running_vars"][-1]
        normal = F.batch_norm(x, mean, variance, eps=1e-4)
        return normal * (1 + scale)[:, :, None, None] + offset[:, :, None, None]

    def block(x, name, step):
        kept = x[:, : step.outputs * WIDTH]
        for part in range(4):
            x = normalise(x, f"{name}.bn_{part}").relu()
            if part == 1 and step.doubles:
                x = x.repeat_interleave(2, 2).repeat_interleave(2, 3)
            side = 1 if part in (1, 2) else 0
            x = F.conv2d(x, weight(f"{name}.conv_{part}"), state[f"{name}.conv_{part}.bias"], padding=side)
        return x + (kept.repeat_interleave(2, 2).repeat_interleave(2, 3) if step.doubles else kept)

    def attend(x, name):
        query, key, value = (
            F.conv2d(x, weight(f"{name}.snconv1x1_{which}")) for which in ("theta", "phi", "g")
        )
        key, value = F.max_pool2d(key, 2), F.max_pool2d(value, 2)
        shares = torch.einsum("ncij,nckl->nijkl", query, key).flatten(3).softmax(3)
        mixed = torch.einsum("nijp,ncp->ncij", shares, value.flatten(2))
        return x + state[f"{name}.gamma"] * F.conv2d(mixed, weight(f"{name}.snconv1x1_o_conv"))

    seed = style @ weight("generator.gen_z").T + state["generator.gen_z.bias"]
    x = seed.view(len(z), 4, 4, 16 * WIDTH).permute(0, 3, 1, 2)
    for number, step in enumerate(STEPS):
        if number == ATTENTION:
            x = attend(x, f"generator.layers.{number}")
        x = block(x, f"generator.layers.{number + (number >= ATTENTION)}", step)
    bn = {name: state[f"generator.bn.{name}"] for name in ("running_means", "running_vars", "weight", "bias")}
    statistics = bn["running_means"][-1], bn["running_vars"][-1]
    x = F.batch_norm(x, *statistics, bn["weight"], bn["bias"], eps=1e-4).relu()
    x = F.conv2d(x, weight("generator.conv_to_rgb"), state["generator.conv_to_rgb.bias"], padding=1)
    return (x[:, :3].tanh() + 1) / 2


def write(tmp_path, state):
    path = tmp_path / "biggan.pt"
    torch.save(state, path)
    return str(path)


def test_biggans_weights_draw_what_the_paper_says(tmp_path):
    state = biggan_file()
    generator = files.read(write(tmp_path, state), "biggan_deep_256")
    layout = Layout("biggan_deep_256", 3, 256, latent=LATENT, width=WIDTH, classes=CLASSES)
    assert generator.layout == layout
    z = torch.randn(2, LATENT, generator=Streams(0).torch("z"))
    labels = torch.tensor([3, 1])
    images = generator(z, labels)
    assert images.shape == (2, 3, 256, 256)
    assert images.std() > 0.01
    expected = biggan_images(state, z, F.one_hot(labels, CLASSES).float())
    assert torch.allclose(images, expected, atol=1e-4)
    assert not torch.allclose(images, generator(z, torch.tensor([3, 2])), atol=1e-3)


def test_older_forms_of_spectral_norm_are_read_alike(tmp_path):
    state = biggan_file()
    without_v = {name: tensor for name, tensor in state.items() if not name.endswith("weight_v")}
    folded = {name: tensor for name, tensor in state.items() if not name.startswith("generator.gen_z.weight")}
    value = state["generator.gen_z.weight_orig"]
    folded["generator.gen_z.weight"] = value / torch.linalg.matrix_norm(value, 2)
    read = [
        files.read(write(tmp_path, s), "biggan_deep_256").state_dict() for s in (state, without_v, folded)
    ]
    for name, tensor in read[0].items():
        for other in read[1:]:
            assert torch.allclose(tensor, other[name], rtol=1e-4, atol=1e-6), name


def test_biggans_size_is_the_published_one():
    """55.9 million (README of pytorch-pretrained-biggan), with maps of the last layer that we leave out."""
    layout = RELEASED["biggan_deep_256"]
    with torch.device("meta"):
        generator = Generator(layout)
    unused = (layout.width - 3) * (layout.width * 9 + 1)
    assert round((parameters(generator) + unused) / 1e6, 1) == 55.9
    assert generator.embedding.weight.shape == (128, 1000)
    assert len(generator.blocks) == 13


def test_a_stage_shows_images_at_the_size_asked_for(tmp_path):
    path, size = write(tmp_path, biggan_file()), 224
    config = GeneratorConfig(checkpoint=path, architecture="biggan_deep_256")
    artifact = train(config, size=size, public=None, files={"checkpoint": path})
    assert artifact.tensors["samples"].shape == (8 * CLASSES, 3, size, size)
    assert "quality" not in artifact.data
    generator, whole = stage.load(artifact), files.read(path, "biggan_deep_256")
    z, labels = torch.zeros(1, LATENT), torch.tensor([2])
    area = F.interpolate(whole(z, labels), size, mode="area")
    assert torch.allclose(generator(z, labels), area, atol=1e-6)


def test_the_identity_of_a_released_file_is_its_content_and_architecture(tmp_path):
    path = write(tmp_path, {"x": torch.zeros(1)})
    config = GeneratorConfig(checkpoint=path, architecture="ggl")
    assert config.resolved().keys() == {"checkpoint", "architecture"}
    assert config.canonical != GeneratorConfig(checkpoint=path, architecture="biggan_deep_256").canonical


def test_released_generators_say_which_images_they_cannot_give(tmp_path):
    path = write(tmp_path, {"x": torch.zeros(1)})

    def unfit(config, *, channels=3, size=32, classes=10, labels=True):
        info = DataInfo(Task("multiclass", classes), channels, size, {"public": 100}, True, "x")
        return generator_unfit(config, Setting(info, None, None, ThreatModel(), "update"), labels=labels)

    small = GeneratorConfig(checkpoint=path, architecture="ggl")
    assert unfit(small) is None
    assert unfit(small, labels=False) is None
    assert "1" in unfit(small, channels=1)
    assert "32 pixels" in unfit(small, size=64)
    large = GeneratorConfig(checkpoint=path, architecture="biggan_deep_256")
    assert unfit(large, size=224, classes=1000) is None
    assert "draws by 1000 classes, the task has 10" in unfit(large)
    assert "without labels" in unfit(large, classes=1000, labels=False)
    trained = GeneratorConfig(architecture="ggl")
    assert unfit(trained) is None
    assert "trained for 32 pixels" in unfit(trained, size=28)
    with pytest.raises(ValueError, match="not trained here; name a checkpoint"):
        GeneratorConfig(architecture="biggan_deep_256")
