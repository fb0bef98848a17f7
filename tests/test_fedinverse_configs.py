"""FedInverse's matrices ask for the released settings, and every trial applies, on files as they are."""

from __future__ import annotations

import struct
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from harness.config.matrix import load_matrix
from harness.plan.planner import make_plan

SEEDS = Path(__file__).parents[1] / "configs" / "seeds"
ATTACKS = {"random_prior": 1, "gmi": 1, "vmi": 2, "kedmi": 1, "plgmi": 1}
"""How often each is there in a cell of the digits."""
WEIGHTS = {
    ("none", None, 0.0),
    ("bido", "coco", 1.0),
    ("bido", "hsic", 2.0),
    ("mid_dependence", "coco", 1.0),
    ("mid_vib", None, 0.2),
}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("LEAKBENCH_CACHE", str(tmp_path_factory.mktemp("cache")))


def write_idx(path, labels):
    """Write labels, and black images of 28 pixels a side, as the MNIST family's files are."""
    path.parent.mkdir(parents=True, exist_ok=True)
    head = bytes([0, 0, 8, 1]) + struct.pack(">I", len(labels))
    path.with_name(f"{path.name}-labels-idx1-ubyte").write_bytes(head + labels.astype(np.uint8).tobytes())
    with path.with_name(f"{path.name}-images-idx3-ubyte").open("wb") as images:
        images.write(bytes([0, 0, 8, 3]) + struct.pack(">3I", len(labels), 28, 28))
        images.truncate(16 + len(labels) * 28 * 28)


@pytest.fixture
def arrays(tmp_path, monkeypatch):
    """MNIST, Fashion-MNIST and EMNIST's letters in their real sizes."""
    root = tmp_path / "data"
    for folder in ("MNIST", "FashionMNIST"):
        for prefix, each in (("train", 6000), ("t10k", 1000)):
            write_idx(root / folder / "raw" / prefix, np.repeat(np.arange(10), each))
    for part, each in (("train", 4800), ("test", 800)):
        write_idx(root / "EMNIST" / "raw" / f"emnist-letters-{part}", np.repeat(np.arange(1, 27), each))
    monkeypatch.setenv("LEAKBENCH_DATA", str(root))


@pytest.fixture
def celeba(tmp_path):
    """85 persons with 6 images each."""
    root = tmp_path / "celeba"
    (root / "img_align_celeba").mkdir(parents=True)
    names = [f"{number:06}.jpg" for number in range(1, 511)]
    for size, name in enumerate(names):
        Image.new("RGB", (18, 22)).save(root / "img_align_celeba" / name, comment=b"." * size)
    people = {name: 1 + index // 6 for index, name in enumerate(names)}
    (root / "list_attr_celeba.txt").write_text(
        f"{len(names)}\nMale\n{''.join(f'{name} 1{chr(10)}' for name in names)}"
    )
    for table, values in (("identity_CelebA", people), ("list_eval_partition", dict.fromkeys(names, 0))):
        (root / f"{table}.txt").write_text("".join(f"{name} {value}\n" for name, value in values.items()))
    return root


def planned(tmp_path, name, *replacements):
    text = (SEEDS / f"{name}.yaml").read_text()
    for old, new in replacements:
        assert old in text
        text = text.replace(old, new)
    path = tmp_path / f"{name}.yaml"
    path.write_text(text)
    plan = make_plan(load_matrix(path), {})
    assert plan.reasons() == {}
    return plan, [trial.spec for trial in plan.trials]


@pytest.mark.usefixtures("arrays")
def test_the_digits_are_the_released_federation(tmp_path):
    plan, specs = planned(tmp_path, "fedinverse_mnist")
    cells = Counter((s.public.name, s.federation.partition.name, s.defense.name != "none") for s in specs)
    per_cell = sum(ATTACKS.values()) * 10 * 3  # rounds, seeds
    undefended = {(public, partition, False): per_cell
                  for public in ("fashion_mnist", "emnist", "mnist")
                  for partition in ("iid", "shards", "sizes")}  # fmt: skip

    assert cells == {**undefended, ("fashion_mnist", "iid", True): 4 * per_cell}
    assert {spec.observe.round for spec in specs} == set(range(1, 11))
    assert {s.seed for s in specs} == {0, 1, 2}
    assert {(s.defense.name, getattr(s.defense.config, "measure", None), s.noise_budget) for s in specs} == (
        WEIGHTS
    )
    ratios = {
        s.defense.config.lambda_x * s.defense.config.label_ratio for s in specs if s.defense.name == "bido"
    }
    assert ratios == {50.0, 20.0}
    for spec in specs:
        federation, threat = spec.federation, spec.threat_model
        assert (federation.clients, federation.participants, federation.batch_size) == (100, 10, 60)
        assert (federation.local_epochs, federation.lr, federation.batch_norm) == (1, 0.01, "train")
        assert (spec.model.name, spec.data.config.size, spec.targets) == ("mcnn", 32, 5)
        assert (spec.observe.kind, threat.position) == ("global_model", "participant")
        trains = federation.attacker is not None
        assert trains == (federation.partition.name == "sizes")
        assert spec.data.config.private_labels == tuple(range(10 if trains else 5))
        if trains:
            assert (federation.attacker.labels, federation.attacker.others) == (
                (5, 6, 7, 8, 9),
                (0, 1, 2, 3, 4),
            )
    stages = {stage.kind: stage for stage in plan.stages}
    assert stages["evaluator"].distinct == 1
    assert stages["evaluator"].trials == len(specs)
    assert stages["prior"].distinct == 3 * 3  # public data sets and seeds: gmi, vmi and their floor share it
    # kedmi and plgmi, for each round, seed, and federation (3, and 4 defended) or public data set
    assert stages["gan"].distinct == 2 * 10 * 3 * (3 * 3 + 4)


def test_the_faces_are_sixty_of_a_thousand(celeba, tmp_path):
    plan, specs = planned(
        tmp_path,
        "fedinverse_celeba",
        ("identities: 1000", "identities: 75"),
        ("weights: imagenet", "weights: none"),
        ("name: celeba,", f"name: celeba, root: {celeba},"),
    )

    assert Counter(spec.attack.name for spec in specs) == dict.fromkeys(ATTACKS, 6 * 3 * 3)
    assert {spec.observe.round for spec in specs} == {1, 5, 10}
    assert {spec.defense.name for spec in specs} == {"none", "bido", "mid_dependence", "mid_vib"}
    for spec in specs:
        assert (spec.model.config.features, spec.data.config.size, spec.targets) == (2048, 64, 60)
        assert spec.federation.participants == spec.federation.clients == 10
    assert {stage.kind for stage in plan.stages} == {"federation", "evaluator", "prior", "gan"}
