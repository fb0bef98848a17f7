"""`bench show`, `bench compare` and `bench report` of experiments that invert models."""

from __future__ import annotations

import pytest


def outcome(spec):
    floor = spec.attack.name == "random_prior"
    top1 = 0.1 if floor else (0.2 + 0.1 * spec.observe.round) * (1 - 5 * spec.noise_budget) + spec.seed / 50
    row = {"target_id": "label-3", "reconstruction_index": 0, "true_label": "3", "finite": True}
    judged = {"evaluator_label": 5, "evaluator_confidence": 0.625, "hit": False}
    return {
        "attack_top1": top1,
        "ceiling_attack_top1": 0.98,
        "knn_distance": 60 - 40 * top1,
        "pairwise_distance": 0.215,
        "evaluator_accuracy": 0.975,
        "n_reconstructions": 2,
        "accuracy": 0.9 - spec.noise_budget,
        "wall_s": 2.0,
        "reconstructions": [row | judged],
        "rounds": [{"round": n, "accuracy": n / 10} for n in range(7)],
    }


@pytest.fixture
def folder(store_experiment, inversions):
    return store_experiment(inversions, outcome)


def test_show_tells_what_models_leak_and_how_that_changes(bench, folder):
    text = bench("show", folder).out
    for heading in ("attack top-1", "ceiling top-1", "KNN distance", "attack top-1 above floor", "by round"):
        assert heading in text
    assert "PSNR" not in text
    assert "SSIM" not in text
    assert "leaks more later" in text
    assert "above the floor" in text
    found = bench("show", folder, "--json").json
    none, gaussian = found["leakage"]
    assert (none["metric"], none["defense"], none["attack"]) == ("attack_top1", "none", "gmi")
    assert none["excess"]["mean"] == pytest.approx(0.8 + 0.02 - 0.1)
    assert gaussian["excess"]["mean"] == pytest.approx(0.4 + 0.02 - 0.1)
    course = found["by_round"][0]
    assert [at["round"] for at in course["rounds"]] == [1, 6]
    assert [at["utility"]["mean"] for at in course["rounds"]] == pytest.approx([0.1, 0.6])
    assert course["rounds"][0]["levels"]["attack_top1"]["floor"]["mean"] == pytest.approx(0.1)
    assert course["change"]["attack_top1"]["mean"] == pytest.approx(0.5)
    assert "NaN" not in bench("show", folder, "--json").out


def test_the_summary_tells_rounds_and_floors_apart(bench, folder):
    rows = bench("show", folder, "--json").json["summary"]
    assert len(rows) == 2 * 2 * 2
    assert {(row["attack"], row["round"]) for row in rows} == {
        (attack, round_) for attack in ("gmi", "random_prior") for round_ in (1, 6)
    }
    assert all(row["psnr_db_median"] is None for row in rows)
    assert "attack_knows" not in rows[0]
    assert [row["attack_top1"] for row in rows if row["attack"] == "random_prior"] == pytest.approx([0.1] * 4)


def test_show_of_a_trial_has_its_floor_its_ceiling_and_what_was_made(bench, folder):
    rows = bench("show", folder, "--json").json
    assert rows["trials"] == {"complete": 24}
    from harness.results import load

    trials = load(folder).trials
    gmi = trials[(trials["attack"] == "gmi") & (trials["defense"] == "none") & (trials["round"] == 6)]
    text = bench("show", folder, gmi["trial_id"].iloc[0]).out
    (line,) = [line for line in text.splitlines() if line.startswith("attack_top1")]
    assert line.split() == ["attack_top1", f"{gmi['attack_top1'].iloc[0]:.4g}", "0.1", "0.98"]
    assert "evaluator accuracy 0.975, n reconstructions 2" in text
    assert "psnr_db" not in text
    (made,) = [line for line in text.splitlines() if line.startswith("label-3")]
    assert made.split() == ["label-3", "0", "3", "5", "0.625", "False"]


def test_compare_and_report_take_the_measures_of_models(bench, folder, tmp_path):
    (usual,) = bench("compare", folder, "--accuracy-drop", "0.1", "--json").json
    assert usual["leakage"]["mean"] == pytest.approx(0.32)
    (distance,) = bench(
        "compare", folder, "--accuracy-drop", "0.1", "--metric", "knn_distance", "--json"
    ).json
    assert distance["leakage"]["mean"] == pytest.approx(40 * 0.32)
    page = tmp_path / "page.html"
    assert bench("report", folder, "-o", page, "--metric", "knn_distance").code == 0
    assert "KNN distance below the best floor" in page.read_text()
    for command in (["report", folder, "-o", page], ["compare", folder, "--accuracy-drop", "0.1"]):
        unknown = bench(*command, "--metric", "ssim")
        assert (unknown.code, "expected ssim in a complete trial" in unknown.err) == (2, True)


def test_settings_of_which_one_lacks_a_measure_are_shown_together(bench, store_experiment, inversions):
    matrix = f"{inversions}  data.size: [16, 32]\n"

    def without_distances(spec):
        lacks = {"knn_distance": None} if spec.data.config.size == 16 else {}
        return outcome(spec) | lacks

    shown = bench("show", store_experiment(matrix, without_distances))
    assert shown.code == 0
    of_rounds = shown.out.partition("by round")[2].partition("last round minus first")[0]
    assert "KNN distance" in of_rounds
    assert {line.split()[-2] == "-" for line in of_rounds.splitlines() if "size 16" in line} == {True}
    assert {line.split()[-2] == "-" for line in of_rounds.splitlines() if "size 32" in line} == {False}
