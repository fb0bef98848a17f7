import json

import pytest

from harness.analysis.labels import with_labels
from harness.results import load

MATRIX = """
defaults:
  data: {name: digits, size: 8}
  model: {name: lenet, convs: 2}
  federation: {clients: 4, rounds: 2, batch_size: 1}
  defense: none
  attack: {name: idlg, iterations: 2}
  targets: 2
matrix:
"""


@pytest.fixture
def labelled(store_experiment):
    """From the axes of a matrix to its labelled trials."""

    def label(axes):
        folder = store_experiment(f"{MATRIX}{axes}", lambda spec: {"psnr_db": 9.0})
        return with_labels(load(folder, tables=()).trials)

    return label


def test_a_name_alone_is_enough_where_nothing_differs(labelled):
    found = labelled("  defense: [none, {name: gaussian, noise_budget: [1.0e-3, 1.0e-2]}]")
    assert set(found.defense_label) == {"none", "gaussian"}
    assert set(found.attack_label) == {"idlg"}
    assert set(found.setting) == {"digits, lenet"}
    assert set(found.condition) == {""}


def test_options_that_differ_are_told_and_the_budget_is_not(labelled):
    found = labelled(
        "  defense: [clipping, {name: clipping, bound: 4, scope: per_tensor}]\n"
        "  attack: [{name: dlg, iterations: 2}, {name: dlg, iterations: 3}, random_guess]"
    )
    assert set(found.defense_label) == {"clipping", "clipping (scope per_tensor)"}
    assert set(found.attack_label) == {"dlg (iterations 2)", "dlg (iterations 3)", "random_guess"}


def test_switches_are_told_by_name_and_defaults_not_at_all(labelled):
    found = labelled(
        "  data: [{name: digits, size: 16}]\n"
        "  defense: [shadowdef, {name: shadowdef, flat_cam: true}, {name: shadowdef, placement: permuted}]\n"
        "  attack: [inverting_gradients, {name: inverting_gradients, signed: false}]"
    )
    assert set(found.defense_label) == {"shadowdef", "shadowdef (flat cam)", "shadowdef (placement permuted)"}
    assert set(found.attack_label) == {"inverting_gradients", "inverting_gradients (no signed)"}


def test_chains_are_told_apart_by_all_but_the_last_links_budget(labelled):
    found = labelled(
        "  defense:\n"
        "  - {chain: [{name: clipping, bound: 1.0}, {name: gaussian, sigma: 1.0e-3}]}\n"
        "  - {chain: [{name: clipping, bound: 1.0}, {name: gaussian, sigma: 1.0e-2}]}\n"
        "  - {chain: [{name: clipping, bound: 2.0}, {name: gaussian, sigma: 1.0e-3}]}\n"
        "  - {chain: [{name: gaussian, sigma: 1.0e-3}, {name: clipping, bound: 1.0}]}\n"
    )
    by_label = found.groupby("defense_label").noise_budget.apply(sorted).to_dict()
    assert by_label == {
        "clipping + gaussian (bound 1)": [1e-3, 1e-2],
        "clipping + gaussian (bound 2)": [1e-3],
        "gaussian + clipping": [1.0],
    }


def test_conditions_name_what_differs_within_a_setting(labelled):
    found = labelled("  observe.round: [0, 1]\n  federation.batch_size: [1, 2]")
    assert set(found.condition) == {
        f"batch size {size}, round {number}" for size in (1, 2) for number in (0, 1)
    }


@pytest.mark.parametrize("axis", ["round: [0, 1]", "rounds: [[0], [0, 1]]"])
def test_what_differs_by_the_observed_round_alone_has_one_circumstance(labelled, axis):
    seen = "  observe: [{kind: global_model}]\n  threat_model: [{position: participant}]\n"
    found = labelled(f"{seen}  observe.{axis}")
    assert set(found["round"]) == {0, 1}
    assert found.circumstances.nunique() == 1


def test_options_of_one_name_are_told_with_their_sections(labelled):
    found = labelled("  federation.rounds: [2, 3]\n  targets: [1, 2]")
    assert set(found.condition) == {f"rounds {n}, targets {t}" for n in (2, 3) for t in (1, 2)}


def test_settings_are_told_apart(labelled):
    found = labelled("  data: [{name: digits, size: 8}, {name: digits, size: 16}]")
    assert set(found.setting) == {"digits (size 8), lenet", "digits (size 16), lenet"}


def test_numbers_that_print_alike_stay_apart(labelled):
    found = labelled("  federation.lr: [0.12345678, 0.12345679]")
    assert set(found.condition) == {"lr 0.12345678", "lr 0.12345679"}


def test_labels_do_not_depend_on_the_order_of_trials(labelled):
    found = labelled(
        "  attack: [{name: dlg, iterations: 2}, {name: dlg, iterations: 3}]\n  observe.round: [0, 1]"
    )
    again = with_labels(found.sort_values("trial_id", ascending=False))
    labels = ["setting", "condition", "defense_label", "attack_label"]
    assert found.set_index("trial_id")[labels].equals(again.set_index("trial_id")[labels].loc[found.trial_id])


def test_trials_of_recorded_observations_have_labels(labelled):
    found = labelled("  defense: [none]")
    spec = found["spec"].iloc[0]
    recorded = json.loads(spec) | {
        "data": None,
        "model": None,
        "federation": None,
        "recorded": {"sha256": "ab" * 32},
        "public": {"name": "digits", "version": 1, "config": {"size": 8}},
    }
    relabelled = with_labels(found.assign(spec=[json.dumps(recorded)] * len(found)))
    assert set(relabelled.setting) == {"recorded abababababab"}


def test_a_plugin_that_changed_since_keeps_all_its_options(labelled):
    found = labelled("  defense: [{name: gaussian, sigma: 1.0e-3}]")
    changed = [spec.replace('"sigma":', '"strength":') for spec in found["spec"]]
    assert "strength" in changed[0]
    assert set(with_labels(found.assign(spec=changed)).defense_label) == {"gaussian"}


def test_long_lists_are_told_by_their_ends_and_stay_apart(labelled):
    found = labelled("  defense: [none]")
    spec = json.loads(found["spec"].iloc[0])
    every = [[200] * 12, [200] * 5 + [100] + [200] * 6, [7, 8]]
    specs = [
        json.dumps(
            spec | {"federation": spec["federation"] | {"partition": {"name": "sizes", "sizes": sizes}}}
        )
        for sizes in every
    ]
    first, second, short = with_labels(found.loc[[0, 0, 0]].assign(spec=specs)).condition
    assert first.startswith("sizes [200, ..., 200] (12 values, ")
    assert second.startswith("sizes [200, ..., 200] (12 values, ")
    assert first != second
    assert short == "sizes [7, 8]"
