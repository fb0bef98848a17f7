from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fl.errors import UsageError
from fl.generators import files
from fl.generators.architecture import Generator
from fl.generators.layout import Layout
from fl.specs import Recorded
from harness.config.matrix import Matrix, load_matrix
from harness.plan.stored_specs import plugins_with_files, read_spec

Load = Callable[[str], Matrix]
TEXT = """\
seeds: [5]
matrix:
  attack: [dlg, {name: inverting_gradients, iterations: 100}]
  defense: [none, {chain: [clipping, {name: gaussian, sigma: 0.5}]}]
  federation:
    - {algorithm: fedadam, partition: shards, schedule: cosine}
    - {clients: 2, batch_sizes: [1, 2], partition: {name: sizes, sizes: [3, 4]}}
  public: [null, mnist5k]
  observe: [{round: 1}, {form: parameter_difference}]
"""


def test_a_stored_spec_is_read_back(short: Load) -> None:
    specs = list(short(TEXT).expand())
    assert len(specs) == 32
    for spec in specs:
        assert read_spec(spec.canonical) == spec


def test_what_cannot_be_computed_again_is_said(short: Load) -> None:
    spec = next(short(TEXT).expand())
    recorded = replace(spec, recorded=Recorded(file="x", sha256="0"), data=None, model=None, federation=None)
    assert spec.model is not None
    newer = replace(spec, model=replace(spec.model, version=99))

    with pytest.raises(UsageError, match="recorded observation"):
        read_spec(recorded.canonical)
    with pytest.raises(UsageError, match="expected 'lenet' in version 99, which ran, got version 1"):
        read_spec(newer.canonical)
    with pytest.raises(UsageError, match="another version"):
        read_spec(spec.canonical.replace('"algorithm"', '"algo"'))


def test_paths_that_a_spec_leaves_out_come_from_the_experiment_s_matrix(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (2, 20, 8, 8), dtype=np.uint8)
    for name, images in zip("ab", pixels, strict=True):
        (tmp_path / "images" / name).mkdir(parents=True)
        for number, image in enumerate(images):
            Image.fromarray(image).save(tmp_path / "images" / name / f"{number}.png")
    (tmp_path / "m.yaml").write_text(
        "version: 1\ndefaults: {model: lenet}\nmatrix:\n  attack: [random_guess]\n"
        f"  data: [digits, {{name: folder, size: 8, root: {tmp_path / 'images'}}}]\n"
    )
    matrix = load_matrix(tmp_path / "m.yaml")
    known = plugins_with_files(matrix.document)
    spec = list(matrix.expand())[1]
    assert str(tmp_path) not in spec.canonical
    assert read_spec(spec.canonical, known=known) == spec

    (tmp_path / "images").rename(tmp_path / "moved")
    assert plugins_with_files(matrix.document) == []
    with pytest.raises(UsageError, match="the files of its data set are not"):
        read_spec(spec.canonical)


def test_a_defense_s_checkpoint_comes_from_the_experiment_s_matrix(tmp_path: Path) -> None:
    layout = Layout("upsampling", channels=1, size=16, latent=8, width=4, mapping_layers=1)
    files.write(tmp_path / "prior.safetensors", Generator(layout))
    (tmp_path / "m.yaml").write_text(
        "version: 1\ndefaults: {data: digits, model: lenet}\nmatrix:\n  attack: [random_guess]\n"
        f"  defense: [{{name: shadowdef, generator: {{checkpoint: {tmp_path / 'prior.safetensors'}}}}}]\n"
        "  noise_budget: {shadowdef: [0.1, 0.2]}\n"
    )
    matrix = load_matrix(tmp_path / "m.yaml")
    known = plugins_with_files(matrix.document)
    specs = list(matrix.expand())
    assert len(specs) == 2
    for spec in specs:
        assert str(tmp_path) not in spec.canonical
        assert read_spec(spec.canonical, known=known) == spec
