from __future__ import annotations

import json
from collections.abc import Callable

from harness.config.matrix import Matrix
from harness.config.smoke import smoke
from harness.plan.keys import trial_id
from harness.plan.planner import make_plan

Load = Callable[[str], Matrix]
TEXT = """\
seeds: [3, 4]
matrix:
  attack: [{name: dlg, iterations: {grid: [200, 400]}, restarts: 5}, random_guess]
  federation: [{rounds: 20, algorithm: fedavg, local_epochs: 5}, {rounds: 0}]
  observe.round: [0, 12]
  targets: [1, 3]
exclude: [{federation.rounds: 0, observe.round: 12}, {attack.iterations: 400, targets: 1}]
"""


def test_everything_that_takes_time_is_cut_and_equal_cells_become_one(short: Load) -> None:
    matrix = smoke(short(TEXT))
    specs = list(matrix.expand())
    assert (matrix.name, matrix.seeds) == ("m-smoke", (3,))
    assert len({trial_id(spec) for spec in specs}) == len(specs)
    assert {spec.targets for spec in specs} == {1, 2}
    federations = {(s.federation.rounds, s.federation.local_epochs) for s in specs if s.federation}
    assert federations == {(1, 1), (0, 1)}
    assert {spec.observe.round for spec in specs} == {0, 1}
    (dlg,) = {
        spec.attack.canonical: spec.attack.config.model_dump() for spec in specs if spec.attack.name == "dlg"
    }.values()
    assert (dlg["iterations"], dlg["restarts"]) == (10, 1)
    for spec in specs:
        stored = json.loads(spec.canonical)
        assert stored["observe"] == spec.observe.resolved()
        assert stored["attack"]["config"] == spec.attack.config.model_dump(mode="json")


def test_what_was_excluded_stays_out(short: Load) -> None:
    found = {
        (spec.attack.name, spec.federation.rounds, spec.observe.round, spec.targets)
        for spec in smoke(short(TEXT)).expand()
        if spec.federation
    }
    rounds = [(1, 0), (1, 1), (0, 0)]
    expected = {
        (attack, *where, targets)
        for attack in ("dlg", "random_guess")
        for where in rounds
        for targets in (1, 2)
    }
    assert found == expected


def test_it_plans_like_any_matrix_under_ids_of_its_own(short: Load) -> None:
    matrix = short(TEXT)
    reduced = make_plan(smoke(matrix), {})
    assert [trial.trial_id for trial in reduced.trials] == [trial_id(t.spec) for t in reduced.trials]
    full = {trial.trial_id for trial in make_plan(matrix, {}).trials}
    assert len(full & {trial.trial_id for trial in reduced.trials}) < len(reduced.trials)
