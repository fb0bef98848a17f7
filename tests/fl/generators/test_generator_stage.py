import json
from dataclasses import replace

import pytest
import torch

import fl.data
from fl.data import DATASETS, assets
from fl.errors import BenchError, DataUnavailableError
from fl.generators import GeneratorConfig, files, generator_stage, generator_unfit, stage
from fl.generators.architecture import Generator, initialise
from fl.generators.layout import FACES, FACES_LAYOUT, Layout, checkpoint_layout
from fl.generators.quality import sliced_wasserstein
from fl.generators.training import Training
from fl.seeds import Streams
from fl.specs import FederationSpec, NoConfig, ObserveSpec, Plugin, ThreatModel, TrialSpec
from fl.stage_context import StageContext


def digits(**config):
    card = DATASETS.get("digits")
    return Plugin(card.name, card.version, card.config(**config))


def spec(**changes):
    base = TrialSpec(
        data=digits(),
        model=Plugin("lenet", 1, NoConfig()),
        federation=FederationSpec(),
        defense=Plugin("none", 1, NoConfig()),
        noise_budget=0.0,
        threat_model=ThreatModel(),
        attacker="static",
        attack=Plugin("random_guess", 1, NoConfig()),
        observe=ObserveSpec(),
        targets=2,
        seed=0,
    )
    return replace(base, **changes)


SMALL = GeneratorConfig(width=4, latent=16, steps=12, batch_size=8)


class StoppedError(Exception):
    pass


def context(*, public=None, seed=0, **changes):
    settings = {
        "streams": Streams(seed),
        "device": torch.device("cpu"),
        "public": public or fl.data.public_data(fl.data.load(digits())),
        "build": None,
        "progress": lambda share, words: None,
    }
    return StageContext(**settings | changes)


def request(config=SMALL, **changes):
    (made,) = generator_stage(config, spec(**changes), name="generator")
    return made


def run(config=SMALL, **changes):
    made = request(config)
    return stage.train(made.config, {}, context(files=made.files, **changes))


def test_the_key_holds_what_the_generator_depends_on():
    keys = {
        request().key,
        request(seed=1).key,
        request(data=digits(size=20)).key,
        request(public=digits(public_labels=(1, 2))).key,
        *(
            request(GeneratorConfig(**SMALL.model_dump() | {name: value})).key
            for name, value in {"kind": "wgan_gp", "steps": 13, "latent": 8, "average": 0.5}.items()
        ),
    }
    assert len(keys) == 8


@pytest.mark.parametrize(
    "change",
    [
        {"model": Plugin("resnet20", 1, NoConfig())},
        {"federation": FederationSpec(clients=7)},
        {"defense": Plugin("gaussian", 1, NoConfig()), "noise_budget": 0.1},
        {"attack": Plugin("dlg", 1, NoConfig())},
        {"attacker": "adaptive", "targets": 5},
        {"observe": ObserveSpec(round=3)},
        {"public": digits()},
    ],
)
def test_the_key_holds_nothing_else(change):
    assert request(**change).key == request().key


def test_the_key_of_one_that_draws_by_class_holds_the_number_of_classes():
    by_class = request(SMALL.model_copy(update={"conditional": True}))
    assert by_class.config["classes"] == 10
    assert "classes" not in request().config
    assert by_class.key != request().key


def test_a_trial_without_any_data_set_has_no_stage():
    assert generator_stage(SMALL, spec(data=None), name="generator") == []


def test_training_is_a_function_of_the_seed_and_reports_its_progress():
    shares = []
    first = run(progress=lambda share, words: shares.append(share))
    again, other = run(), run(seed=1)
    assert shares == [step / 12 for step in range(1, 13)]
    assert first.tensors.keys() == again.tensors.keys()
    assert all(torch.equal(tensor, again.tensors[name]) for name, tensor in first.tensors.items())
    assert first.data == again.data
    assert not torch.equal(first.tensors["samples"], other.tensors["samples"])


@pytest.mark.parametrize("kind", ["dcgan", "wgan_gp"])
def test_an_interrupted_training_goes_on_to_the_same_bits(kind, monkeypatch):
    monkeypatch.setattr("fl.generators.resumable.KEEP_EVERY", 3)
    config = GeneratorConfig(**SMALL.model_dump() | {"kind": kind, "steps": 7})
    whole, kept = run(config), []

    def stopping(share, words):
        if share > 4 / 7:
            raise StoppedError

    with pytest.raises(StoppedError):
        run(config, keep=kept.append, progress=stopping)
    shares = []
    rest = run(config, kept=lambda: kept[-1], progress=lambda share, words: shares.append(share))
    assert shares == [4 / 7, 5 / 7, 6 / 7, 1]
    assert all(torch.equal(tensor, rest.tensors[name]) for name, tensor in whole.tensors.items())


@pytest.mark.parametrize("kind", ["dcgan", "wgan_gp"])
def test_a_training_that_diverges_ends_there_and_says_so(kind, monkeypatch):
    monkeypatch.setattr("fl.generators.resumable.KEEP_EVERY", 3)
    config = GeneratorConfig(**SMALL.model_dump() | {"kind": kind, "steps": 60, "lr": 1e20})
    shares, kept = [], []
    with pytest.raises(BenchError, match=r"of (dcgan|wgan_gp) training, .*generator.*smaller lr than 1e\+20"):
        run(config, progress=lambda share, words: shares.append(share), keep=kept.append)
    assert len(shares) < 6
    assert all(tensor.isfinite().all() for artifact in kept for tensor in artifact.tensors.values())


def test_one_that_went_on_from_lost_weights_ends_too(monkeypatch):
    """As kept by an earlier version, which did not look."""
    monkeypatch.setattr("fl.generators.resumable.KEEP_EVERY", 3)
    kept = []
    run(keep=kept.append)
    lost = kept[-1].tensors | {"average.synthesis.to_images.bias": torch.full((1,), torch.nan)}
    with pytest.raises(BenchError, match="after 12 steps of dcgan training, got others in average:"):
        run(kept=lambda: replace(kept[-1], tensors=lost))


def test_weights_too_large_to_compute_with_make_no_artifact(tmp_path):
    generator = Generator(Layout("upsampling", 1, 16, 8, 4))
    initialise(generator, Streams(0).torch("generator_weights"))
    for weight in generator.parameters():
        weight.data *= 1e38
    files.write(tmp_path / "large.safetensors", generator)
    with pytest.raises(BenchError, match=r"expected finite images .* name another checkpoint"):
        run(GeneratorConfig(checkpoint=str(tmp_path / "large.safetensors")))


@pytest.mark.parametrize(("kind", "steps"), [("dcgan", 100), ("wgan_gp", 50)])
def test_training_brings_samples_close_to_images_it_never_saw(kind, steps):
    settings = SMALL.model_dump() | {"kind": kind, "batch_size": 32, "lr": 1e-3}
    before = run(GeneratorConfig(**settings | {"steps": 1})).data["quality"]
    after = run(GeneratorConfig(**settings | {"steps": steps})).data["quality"]
    assert after["real"] == before["real"]
    assert after["generated"] < before["generated"] * 0.7
    assert after["real"] < after["generated"] < after["mean_image"]


def test_the_artifact_gives_the_generator_back():
    artifact = run()
    generator = stage.load(artifact)
    drawn = torch.randn(64, 16, generator=Streams(0).torch("generator_samples"))
    assert not generator.training
    assert not any(parameter.requires_grad for parameter in generator.parameters())
    assert torch.equal((generator(drawn) * 255).round().to(torch.uint8), artifact.tensors["samples"])
    json.dumps(artifact.data)


def test_the_average_follows_the_weights():
    images = torch.rand(8, 1, 16, 16, generator=Streams(0).torch("images"))
    config = GeneratorConfig(width=2, latent=4, batch_size=4, average=0.9)
    training = Training(config, Layout("upsampling", 1, 16, 4, 2), images, Streams(0))
    mean = training.average.synthesis.to_images.weight.clone()
    for step in range(1, 4):
        training.step()
        decay = min(0.9, step / (step + 10))
        mean = decay * mean + (1 - decay) * training.generator.synthesis.to_images.weight
        assert torch.allclose(training.average.synthesis.to_images.weight, mean, atol=1e-6)


def test_held_out_images_are_never_trained_on():
    images = torch.rand(30, 1, 16, 16, generator=Streams(0).torch("images"))
    seen, held_out = stage.split(images, Streams(0))
    assert (len(seen), len(held_out)) == (27, 3)
    assert sorted(torch.cat([seen, held_out]).sum((1, 2, 3)).tolist()) == sorted(
        images.sum((1, 2, 3)).tolist()
    )


def test_the_distance_of_shifted_points_is_their_shift():
    """In one dimension every direction is +-1, and sorting pairs the points in order."""
    points = torch.tensor([0.3, 0.1, 0.7]).view(3, 1, 1, 1)
    stream = Streams(0).torch("directions")
    assert sliced_wasserstein(points, points.flip(0) + 0.25, stream) == pytest.approx(0.25)
    assert sliced_wasserstein(points, points.flip(0), stream) == 0


def test_a_users_file_is_a_generator_and_its_content_is_the_identity(tmp_path):
    generator = Generator(Layout("upsampling", 1, 16, 8, 4, mapping_layers=1))
    initialise(generator, Streams(0).torch("generator_weights"))
    paths = [tmp_path / name for name in ("a.safetensors", "b.safetensors")]
    for path in paths:
        files.write(path, generator)
    configs = [GeneratorConfig(checkpoint=str(path)) for path in paths]
    first, second = (request(config) for config in configs)
    assert first.key == second.key == request(configs[0], seed=3).key
    assert first.key != request(configs[0], data=digits(size=20)).key
    artifact = run(configs[0])
    vectors = torch.randn(2, 8)
    assert torch.equal(stage.load(artifact)(vectors), generator(vectors))
    assert artifact.data["quality"]["real"] < artifact.data["quality"]["generated"]


def test_what_is_no_checkpoint_is_told(tmp_path):
    missing = GeneratorConfig(checkpoint=str(tmp_path / "missing.safetensors"))
    with pytest.raises(DataUnavailableError, match=r"cannot read .*missing\.safetensors"):
        _ = missing.canonical
    stray = tmp_path / "stray.safetensors"
    stray.write_bytes(b"\x02\x00\x00\x00\x00\x00\x00\x00{}")
    with pytest.raises(DataUnavailableError, match="expected a generator that"):
        checkpoint_layout(str(stray), "upsampling")


def test_weights_that_do_not_fit_their_layout_are_told(tmp_path):
    path = tmp_path / "wrong.safetensors"
    generator = Generator(Layout("upsampling", 1, 16, 8, 4))
    generator.layout = Layout("upsampling", 1, 16, 8, 5)
    files.write(path, generator)
    with pytest.raises(DataUnavailableError, match=r"expected shape .* its layout is .*'width': 5"):
        files.read(str(path))


def test_a_checkpoint_comes_without_other_options():
    with pytest.raises(ValueError, match="leave out kind"):
        GeneratorConfig(checkpoint=FACES, kind="wgan_gp")


def test_generators_say_which_images_they_cannot_give(tmp_path):
    from fl.cards import DataInfo, Setting
    from fl.specs import Task

    def unfit(config, *, channels=1, size=16, public=100):
        info = DataInfo(Task("multiclass", 10), channels, size, {"public": public}, True, "x")
        setting = Setting(info, None, None, ThreatModel(), "update")
        return generator_unfit(config, setting)

    assert unfit(SMALL) is None
    assert "16 to 128 pixels" in unfit(SMALL, size=8)
    assert "16 to 128 pixels" in unfit(SMALL, size=224)
    assert "at least 16 public images" in unfit(SMALL, public=3)
    faces = GeneratorConfig(checkpoint=FACES)
    assert unfit(faces, channels=3, size=64, public=0) is None
    assert unfit(faces, channels=3, size=32, public=0) is None
    assert "3 channels" in unfit(faces, channels=1, size=64)
    assert "64 pixels" in unfit(faces, channels=3, size=128)


@pytest.mark.skipif(assets.cached(FACES) is None, reason="needs `bench weights fetch gan-faces`")
def test_the_packaged_faces_are_faces():
    """Samples vary, have more red than green than blue, as skin has, and mirror left to right."""
    generator = files.read(FACES)
    assert generator.layout == FACES_LAYOUT
    images = generator(torch.randn(32, 100, generator=Streams(0).torch("latents")))
    assert images.shape == (32, 3, 64, 64)
    red, green, blue = images.mean((0, 2, 3)).tolist()
    assert red > green > blue
    assert images.std(0).mean() > 0.1
    mean = images.mean((0, 1))
    mirrored, upside_down = (
        float(torch.corrcoef(torch.stack([mean.flatten(), mean.flip(axis).flatten()]))[0, 1])
        for axis in (1, 0)
    )
    assert mirrored > upside_down + 0.3
