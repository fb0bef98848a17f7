"""The two matrices of the chest X-ray study plan as they say."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from harness.config.matrix import load_matrix
from harness.plan.planner import make_plan

SEEDS = Path(__file__).parents[2] / "configs" / "seeds"
OBSERVATIONS = (
    "No Finding,Enlarged Cardiomediastinum,Cardiomegaly,Lung Opacity,Lung Lesion,Edema,Consolidation,"
    "Pneumonia,Atelectasis,Pneumothorax,Pleural Effusion,Pleural Other,Fracture,Support Devices"
)


@pytest.fixture
def chexpert(tmp_path):
    """A folder with the names and tables of CheXpert and no pictures in its files."""
    root = tmp_path / "chexpert"
    for split, patients in (("train", 800), ("valid", 20)):
        lines = [f"Path,Sex,Age,Frontal/Lateral,AP/PA,{OBSERVATIONS}"]
        for number in range(patients):
            image = root / split / f"patient{number:05}" / "study1" / "view1_frontal.jpg"
            image.parent.mkdir(parents=True)
            image.write_bytes(b"x")
            path = image.relative_to(root).as_posix()
            lines.append(f"CheXpert-v1.0-small/{path},Male,50,Frontal,AP,{'1.0,' * 13}1.0")
        (root / f"{split}.csv").write_text("\n".join(lines) + "\n")
    return root


def shapes(plan):
    """Count trials by freezing, images per client and observed round."""
    specs = [trial.spec for trial in plan.trials]
    return Counter((s.federation.freeze, s.federation.partition.sizes[0], s.observe.round) for s in specs)


def expected(rounds, *, models=1):
    freezes = ["none", "batch_norm", "middle", "all_but_last"]
    cells = [(freeze, 1, r) for freeze in freezes for r in rounds]
    return Counter(dict.fromkeys([*cells, *(("batch_norm", n, r) for n in (2, 4) for r in rounds)], models))


def test_the_small_study_needs_nothing_but_what_installs():
    plan = make_plan(load_matrix(SEEDS / "xray_small.yaml"), {})
    assert plan.reasons() == {}
    assert shapes(plan) == expected([0, 5, 20])
    for trial in plan.trials:
        spec = trial.spec
        assert spec.observe.form == "parameter_difference"
        assert set(spec.federation.partition.sizes) == {spec.federation.batch_size}  # one step a round
        assert spec.targets == spec.federation.clients  # the same images in every round


def test_the_full_study_is_the_published_protocol(chexpert, tmp_path):
    """With drawn weights, since the published ones are not on every machine."""
    text = (SEEDS / "xray.yaml").read_text()
    text = text.replace("name: chexpert,", f"name: chexpert, root: {chexpert},")
    path = tmp_path / "xray.yaml"
    path.write_text(text.replace("weights: imagenet", "weights: none"))
    plan = make_plan(load_matrix(path), {})
    assert plan.reasons() == {}
    specs = [trial.spec for trial in plan.trials]
    models = Counter(spec.model.name for spec in specs)
    assert models == {"densenet121": 18, "resnet50": 18}
    sizes = {spec.federation.partition.sizes[0] for spec in specs}
    assert sizes == {1, 4, 10}
    for spec in specs:
        assert (spec.federation.clients, spec.federation.lr, spec.federation.batch_size) == (36, 0.01, 10)
        assert (spec.data.config.size, spec.federation.rounds) == (224, 10)
        config = spec.attack.config
        assert (config.iterations, config.restarts, config.total_variation) == (20000, 3, 1e-2)
        assert (config.signed, config.boxed, config.lr, config.cost) == (True, True, 0.1, "cosine")
