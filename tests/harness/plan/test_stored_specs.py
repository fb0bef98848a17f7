from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from fl.errors import UsageError
from fl.specs import Recorded
from harness.config.matrix import Matrix
from harness.plan.stored_specs import read_spec

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
