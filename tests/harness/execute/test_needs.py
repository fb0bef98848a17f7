"""What trials need from the disk, and what is said where it is missing or another."""

import pickle
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from attacks import ATTACKS
from defenses import DEFENSES
from fl.data import DATASETS
from fl.errors import DataUnavailableError
from fl.models import MODELS
from fl.models.imagenet import WEIGHTS
from fl.registry import Registry
from fl.specs import FederationSpec, NoConfig, ObserveSpec, Plugin, Recorded, ThreatModel, TrialSpec
from harness.execute.needs import needs_of, unmet


def plugin(registry: Registry, name: str, **options):
    card = registry.get(name)
    return Plugin(name, card.version, card.config(**options))


def picture(path, seed):
    pixels = np.random.default_rng(seed).integers(0, 256, (12, 12, 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("LEAKBENCH_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def images(tmp_path):
    for number in range(40):
        picture(tmp_path / "images" / f"class{number % 2}" / f"{number}.png", number)
    return tmp_path / "images"


@pytest.fixture
def spec(images):
    return TrialSpec(
        data=plugin(DATASETS, "folder", root=str(images), size=12),
        model=plugin(MODELS, "lenet"),
        federation=FederationSpec(),
        defense=plugin(DEFENSES, "none"),
        noise_budget=0.0,
        threat_model=ThreatModel(),
        attacker="static",
        attack=plugin(ATTACKS, "dlg"),
        observe=ObserveSpec(),
        targets=1,
        seed=0,
    )


def test_data_and_models_are_needed_once_and_what_reads_no_files_is_not(spec):
    needs = needs_of([spec, replace(spec, seed=1), replace(spec, public=spec.data)])
    assert [(need.kind, need.subject.name) for need in needs] == [("data set", "folder"), ("model", "lenet")]
    assert unmet(pickle.loads(pickle.dumps(needs))) == []


def test_a_missing_data_set_is_named_with_its_remedy(spec, images):
    needs = needs_of([spec])
    images.rename(images.with_name("elsewhere"))
    (lacking,) = unmet(needs)
    assert lacking.startswith(f"data set folder: {images}: expected a folder of images, got none; set root:")


def test_other_images_at_the_same_place_are_told_from_the_drivers(spec, images):
    needs = needs_of([spec])
    picture(images / "class0" / "0.png", 999)
    (lacking,) = unmet(needs)
    assert lacking.startswith("data set folder: expected the files that the driver has, got other ones")


def test_files_of_attacks_and_of_a_chains_defenses_are_needed(spec, tmp_path):
    from fl.generators.architecture import Generator
    from fl.generators.files import write
    from fl.generators.layout import Layout

    start, weights = tmp_path / "start.png", tmp_path / "weights.safetensors"
    picture(start, 0)
    write(weights, Generator(Layout("upsampling", 3, 16, 8, 2)))
    attack = plugin(ATTACKS, "inverting_gradients", init="image", init_image=str(start))
    shadow = {"name": "shadowdef", "config": {"generator": {"checkpoint": str(weights)}}}
    chain = plugin(DEFENSES, "chain", links=({"name": "clipping"}, shadow))
    needs = needs_of([replace(spec, attack=attack, defense=chain), replace(spec, attack=attack)])
    kinds = {need.kind: need.subject.name for need in needs}
    assert kinds == {
        "data set": "folder",
        "model": "lenet",
        "attack": "inverting_gradients",
        "defense": "chain",
    }
    assert unmet(needs) == []
    start.unlink()
    write(weights, Generator(Layout("upsampling", 3, 16, 8, 4)))
    attacking, defending = sorted(unmet(needs))
    assert attacking.startswith("attack inverting_gradients: ")
    assert str(start) in attacking
    assert defending.startswith("defense chain: expected the files that the driver has")


def test_a_recorded_observation_is_a_file_like_any_other(spec, tmp_path):
    file = tmp_path / "seen.safetensors"
    file.write_bytes(b"something")
    recorded = Recorded(file=str(file), sha256="0" * 64)
    needs = needs_of([replace(spec, data=None, model=None, federation=None, recorded=recorded)])
    assert unmet(needs) == []
    file.write_bytes(b"something else")
    assert unmet(needs) == [
        f"observation {file}: expected the files that the driver has, got other ones at the same place; copy "
        "them from there, or use a shared folder"
    ]
    file.unlink()
    assert "No such file" in unmet(needs)[0]


def test_packaged_images_and_weights_that_cannot_be_had_are_named(spec, monkeypatch, tmp_path):
    faces = plugin(ATTACKS, "gias", prior={"checkpoint": "gan-faces"})
    needs = needs_of([replace(spec, data=plugin(DATASETS, "mnist5k"), attack=faces)])
    (tmp_path / "cache").mkdir(exist_ok=True)
    (tmp_path / "cache" / "assets").write_text("in the way")
    data, attack = sorted(unmet(needs))[::-1]
    assert data.startswith("data set mnist5k: mnist5k could not be written")
    assert "bench data fetch mnist5k" in data
    assert attack.startswith("attack gias: gan-faces could not be written")
    assert "bench weights fetch gan-faces" in attack


def test_pretrained_weights_are_looked_for(spec, monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    trial = replace(spec, model=plugin(MODELS, "resnet18", weights="imagenet"))
    with pytest.raises(DataUnavailableError, match="resnet18"):
        needs_of([trial])
    weights = next(each for each in WEIGHTS.values() if each.file.startswith("resnet18"))
    weights.path.parent.mkdir(parents=True)
    weights.path.touch()
    needs = needs_of([trial])
    assert unmet(needs) == []
    weights.path.unlink()
    (lacking,) = unmet(needs)
    assert lacking.startswith("model resnet18: expected torchvision's ")
    assert f"run `{weights.command}`" in lacking


def test_neither_torch_nor_numpy_is_imported():
    code = "import sys; sys.modules['torch'] = sys.modules['numpy'] = None; import harness.execute.needs"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_nothing_is_needed_of_nothing(spec):
    assert needs_of([]) == ()
    bare = Plugin("none", 1, NoConfig())
    needs = needs_of([replace(spec, data=None, model=None, attack=bare, defense=bare, federation=None)])
    assert needs == ()
