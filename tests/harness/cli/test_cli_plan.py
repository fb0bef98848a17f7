"""`plan` and `validate`: counts, reasons and resolved trials, for people and as JSON."""

from __future__ import annotations

import json
import re

from harness.plan.keys import trial_id_of

MATRIX = """
version: 1
name: counted
seeds: [0, 1, 2]
defaults:
  data: {name: digits, size: 8}
  model: {name: lenet, convs: 2, activation: relu}
  federation: {clients: 4, rounds: 2, batch_size: 1}
  threat_model: {knowledge: {public_data: false}}
  targets: 2
matrix:
  defense: [none, gaussian]
  noise_budget: {gaussian: [1e-3, 1e-2]}
  attack: [{name: dlg, iterations: 2}, random_guess, mean_image]
"""


def test_counts_reasons_and_shared_stages(bench, write_matrix, tmp_path):
    path = write_matrix(MATRIX)
    facts = bench("plan", path, "--results", tmp_path, "--json").json
    # 3 defenses and budgets x 3 attacks x 3 seeds; mean_image needs public images
    assert facts["trials"] == {
        "total": 27,
        "todo": 18,
        "complete": 0,
        "failed": 0,
        "not_applicable": 9,
        "held_back": 0,
    }
    assert [entry["trials"] for entry in facts["not_applicable"]] == [9]
    assert "public_data" in facts["not_applicable"][0]["reason"]
    assert facts["stages"] == [{"kind": "federation", "distinct": 9, "trials": 18}]
    text = bench("plan", path, "--results", tmp_path).out
    assert "27 trials" in text
    assert facts["not_applicable"][0]["reason"] in " ".join(text.split())


def test_the_time_of_generators_and_evaluators_is_in_the_estimate(bench, write_matrix, tmp_path):
    text = """
    version: 1
    name: inverted
    defaults:
      data: {name: digits, size: 16}
      model: mcnn
      federation: {algorithm: fedavg, lr: 0.1}
      observe: {kind: global_model}
      targets: 2
    matrix: {attack: [gmi, kedmi]}
    """
    path = write_matrix(text)
    estimate = bench("plan", path, "--results", tmp_path, "--json").json["estimate"]
    assert estimate["unknown_stages"] == {}
    assert estimate["stage_seconds"] > 60
    told = " ".join(bench("plan", path, "--results", tmp_path).out.split())
    assert re.search(r"About .* on one lane \(attacks .*, training .*, other stages .*min", told)


def test_a_selection_is_what_is_planned(bench, write_matrix, tmp_path):
    options = ("--results", tmp_path, "--json", "--only", "defense=gauss*", "--skip", "attack=mean_image")
    counts = bench("plan", write_matrix(MATRIX), *options, "--seeds", "0,2", "--limit", "3").json["trials"]
    assert (counts["total"], counts["todo"], counts["held_back"]) == (8, 3, 5)


def test_expanded_trials_are_resolved_and_their_ids_follow_from_them(bench, write_matrix, tmp_path):
    outcome = bench("plan", write_matrix(MATRIX), "--results", tmp_path, "--expand", "--json")
    trials = [json.loads(line) for line in outcome.out.splitlines()]
    assert len({trial["trial_id"] for trial in trials}) == 27
    for trial in trials:
        canonical = json.dumps(trial["spec"], sort_keys=True, separators=(",", ":"))
        assert trial["trial_id"] == trial_id_of(canonical)
    assert {trial["spec"]["model"]["config"]["init"] for trial in trials} == {"uniform"}
    names = bench("plan", write_matrix(MATRIX), "--results", tmp_path, "--expand").out.splitlines()
    assert [line.split()[0] for line in names] == [trial["trial_id"] for trial in trials]


def test_smoke_plans_the_small_version(bench, write_matrix, tmp_path):
    facts = bench("plan", write_matrix(MATRIX), "--results", tmp_path, "--smoke", "--json").json
    assert (facts["name"], facts["trials"]["total"]) == ("counted-smoke", 9)


def test_validate_counts_trials_and_lists_mistakes_as_json(bench, write_matrix):
    good, bad = write_matrix(MATRIX), write_matrix(MATRIX.replace("convs: 2", "convs: 7"), "bad")
    outcome = bench("validate", good)
    assert outcome.code == 0
    assert "27 trials" in outcome.out
    outcome = bench("validate", good, bad, "--json")
    assert outcome.code == 2
    assert outcome.json["valid"] is False
    (problem,) = outcome.json["problems"]
    assert (problem["path"], problem["line"], problem["key"]) == (str(bad), 7, "defaults.model.convs")
