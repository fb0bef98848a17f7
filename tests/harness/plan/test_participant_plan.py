"""A participant who attacks, as planned: columns, ids, bounds on targets, mistakes, and time."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from fl.errors import ConfigError
from harness.config.matrix import Matrix
from harness.plan.columns import columns_of, flatten, flatten_stored
from harness.plan.planner import make_plan
from harness.plan.stored_specs import read_spec

Load = Callable[[str], Matrix]
TEXT = """\
matrix:
  attack: [random_guess]
  observe.round: [0, 1]
  federation:
    - {algorithm: fedavg, attacker: %s}
    - {algorithm: fedavg}
  observe: [{kind: global_model}]
  threat_model: [{position: participant}]
  targets: [%d]
"""
ATTACKER = "{labels: [9, 5, 6], others: [0, 1, 2]}"


def test_label_spaces_are_columns_and_part_of_the_identity(short: Load) -> None:
    matrix = short(TEXT % (ATTACKER, 3))
    trials = make_plan(matrix, {}).todo
    attacked, free = trials[0], trials[-1]
    columns = columns_of(matrix)

    assert columns["federation_attacker_clients"] == "int"
    assert columns["federation_attacker_labels"] == columns["federation_attacker_others"] == "str"
    assert flatten(attacked.spec)["federation_attacker_labels"] == "[5,6,9]"
    assert flatten(attacked.spec)["federation_attacker_others"] == "[0,1,2]"
    assert "federation_attacker_labels" not in flatten(free.spec)
    assert '"attacker"' not in free.spec.federation.canonical  # type: ignore[union-attr]
    assert len({trial.trial_id for trial in trials}) == 4
    for trial in trials:
        assert read_spec(trial.spec.canonical) == trial.spec
        assert flatten_stored(trial.spec.canonical) == flatten(trial.spec)


def test_there_are_no_more_targets_than_classes_of_others(short: Load) -> None:
    with pytest.raises(ConfigError, match="at most 3 targets"):
        make_plan(short(TEXT % (ATTACKER, 4)), {})
    assert len(make_plan(short(TEXT % ("{labels: [9]}", 10)), {}).todo) == 4


@pytest.mark.parametrize(
    ("attacker", "message"),
    [
        ("{labels: [10]}", r"m\.yaml:7: .*classes of 0 to 9 in federation\.attacker\.labels, got 10"),
        ("{labels: [1], others: [2, 11]}", r"federation\.attacker\.others, got 11"),
        ("{labels: [1], clients: 4}", r"fewer than 4 clients in attacker\.clients, got 4"),
        ("{label: [1]}", "labels"),
    ],
)
def test_mistakes_are_told_when_planning(short: Load, attacker: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_plan(short(TEXT % (attacker, 2)), {})


def test_time_grows_with_the_images_that_are_made_and_not_with_those_that_were_trained_on(
    short: Load,
) -> None:
    text = """\
matrix:
  attack: [{name: gmi, iterations: 100, samples: %d}]
  data: [{name: digits, size: 16}]
  federation: [{algorithm: fedavg, clients: 4, local_epochs: %d, rounds: 0}]
  observe: [{kind: global_model}]
  threat_model: [{position: participant}]
"""
    one, more, longer = (
        make_plan(short(text % numbers), {}).estimate for numbers in ((10, 1), (20, 1), (10, 8))
    )

    assert one.trial_seconds < more.trial_seconds < 2 * one.trial_seconds
    assert more.disk_bytes > 1.5 * one.disk_bytes
    assert longer.trial_seconds == one.trial_seconds
