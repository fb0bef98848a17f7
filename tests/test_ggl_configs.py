"""GGL's matrices ask for the published settings, and every trial applies: on files in the real layout."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from harness.config.matrix import load_matrix
from harness.plan.planner import make_plan

SEEDS = Path(__file__).parents[1] / "configs" / "seeds"
CLASSES = 1000
DEFENSES = {
    "none": {},
    "gaussian": {"sigma": 0.1},
    "clipping": {"bound": 4.0},
    "pruning": {"ratio": 0.9, "mirror": "threshold", "scope": "per_tensor"},
    "soteria": {"percent": 80.0, "variant": "ggl"},
}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("LEAKBENCH_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def celeba(tmp_path):
    """80 persons with 4 images each: 64 train, 8 validate, 8 test."""
    rng = np.random.default_rng(0)
    root = tmp_path / "celeba"
    names = [f"{number:06}.jpg" for number in range(1, 321)]
    (root / "img_align_celeba").mkdir(parents=True)
    for size, name in enumerate(names):
        noise = rng.integers(0, 256, (22, 18, 3), dtype=np.uint8)
        Image.fromarray(noise).save(root / "img_align_celeba" / name, comment=b"." * size)
    people = {name: 1 + index // 4 for index, name in enumerate(names)}
    parts = {name: 0 if person <= 64 else 1 if person <= 72 else 2 for name, person in people.items()}
    flags = [f"{name} {' '.join(rng.choice(['1', '-1'], 2))}\n" for name in names]
    (root / "list_attr_celeba.txt").write_text(f"{len(names)}\nMale Smiling\n{''.join(flags)}")
    for table, values in (("identity_CelebA", people), ("list_eval_partition", parts)):
        (root / f"{table}.txt").write_text("".join(f"{name} {value}\n" for name, value in values.items()))
    return root


@pytest.fixture
def imagenet(tmp_path):
    """1,000 classes of four images, and one more for `val`; planning opens none of them."""
    root = tmp_path / "imagenet"
    for number in range(CLASSES):
        for part, images in (("train", 4), ("val", 1)):
            folder = root / part / f"n{number:08}"
            folder.mkdir(parents=True)
            for index in range(images):
                (folder / f"{number}_{index}.JPEG").write_bytes(b"." * (5 * number + index))
    return root


def planned(tmp_path, name, **replacements):
    text = (SEEDS / f"{name}.yaml").read_text()
    for old, new in replacements.values():
        assert old in text
        text = text.replace(old, new)
    path = tmp_path / f"{name}.yaml"
    path.write_text(text)
    plan = make_plan(load_matrix(path), {})
    assert plan.reasons() == {}
    return [trial.spec for trial in plan.trials]


def check(specs, iterations, **ggl):
    """Check what both studies have in common; budgets of L-BFGS and of Adam are in iterations."""
    cells = {(s.attack.name, s.defense.name, s.attacker) for s in specs}
    assert len(cells) == len(specs) == 5 * (2 * len(DEFENSES) - 1)
    for spec in specs:
        assert (spec.federation.batch_size, spec.federation.rounds) == (1, 0)
        assert (spec.federation.batch_norm, spec.model.config.weights) == ("eval", "none")
        config = spec.defense.config
        assert {key: getattr(config, key) for key in DEFENSES[spec.defense.name]} == DEFENSES[
            spec.defense.name
        ]
        attack = spec.attack.config
        assert attack.restarts == 4
        if spec.attack.name == "ggl":
            assert (attack.optimizer, attack.evaluations, attack.population) == ("cma", 800 * 50, 50)
            assert (attack.cost, attack.kl_scale, attack.layer_weights) == ("l2", "released", "none")
            assert {key: getattr(attack, key) for key in ggl} == ggl
        else:
            assert attack.iterations == iterations[spec.attack.name in ("dlg", "idlg")]
        if spec.attack.name == "gradinversion":
            assert attack.batch_norm == 0
        if spec.attack.name in ("inverting_gradients", "gradinversion"):
            assert attack.lr == 0.1


def test_the_faces_are_the_published_protocol(celeba, tmp_path):
    specs = planned(tmp_path, "ggl_celeba", root=("name: celeba,", f"name: celeba, root: {celeba},"))
    check(specs, (8000, 300), kl=0.1, tanh=False)
    for spec in specs:
        assert (spec.data.config.size, spec.data.config.attributes) == (32, ("Male",))
        assert (spec.model.name, spec.model.config.stem) == ("resnet18", "cifar")
    prior = next(spec.attack.config.prior for spec in specs if spec.attack.name == "ggl")
    assert (prior.latent, prior.width, prior.batch_size, prior.step_size) == (128, 128, 64, 1e-4)


def test_imagenet_is_the_published_protocol(imagenet, tmp_path):
    weights = tmp_path / "biggan.bin"
    weights.write_bytes(b"weights that nobody reads before they are needed")
    specs = planned(
        tmp_path,
        "ggl_imagenet",
        root=("name: imagenet,", f"name: imagenet, root: {imagenet},"),
        weights=("biggan-deep-256.bin", str(weights)),
    )
    check(specs, (24000, 1200), kl=0.0, tanh=True)
    for spec in specs:
        assert (spec.data.config.size, spec.model.name, spec.model.config.stem) == (
            224,
            "resnet18",
            "imagenet",
        )
