"""A study from its first Optuna trial to its end: what Optuna is told is what the tables say."""

from __future__ import annotations

import json
import signal

import optuna
import pandas as pd
import pytest
from optuna.trial import TrialState

from fl.errors import LockHeldError, StoreError, UsageError
from harness.config.matrix import load_matrix
from harness.execute.lane import Lane
from harness.execute.session import RunRequest, inline, run_matrix

ONE = """
attacks: [{name: idlg, iterations: 1}]
space: {gaussian: {noise_budget: {choice: [1e-3, 1e-2]}}}
objectives: {leakage: minimize}
trials: 4
parallel: 2
"""


def proposals(study):
    return [(trial.number, trial.params, trial.values, trial.state) for trial in study.get_trials()]


def leakage(rows):
    """The quantity as DESIGN 9 defines it, worked out with pandas."""
    excess = (rows["ssim"] - rows["floor_ssim"]).groupby([rows["attack"], rows["attacker"]]).mean()
    return max(0.0, excess.max())


def test_optunas_own_reading_of_the_journal_agrees_with_the_tables(finished, rows, journal):
    study, table = journal(finished), rows().set_index("trial_id")

    assert [trial.state for trial in study.trials] == [TrialState.COMPLETE] * 5
    assert study.metric_names == ["accuracy", "leakage"]
    none = table[table["defense"] == "none"].groupby("seed")["accuracy"].first()
    for trial in study.trials:
        mine = table.loc[trial.user_attrs["trials"]]
        defense = trial.params["defense"]
        assert set(mine["defense"]) == {defense}
        assert set(mine["optuna_trial"]) == {trial.number}
        assert set(mine["study"]) == {"small"}
        assert sorted(mine["seed"]) == [0, 0, 1, 1]
        budget = trial.params.get("gaussian.noise_budget", trial.params.get("pruning.ratio"))
        assert set(mine["noise_budget"]) == {budget}
        accuracy = mine.groupby("seed")["accuracy"].first()
        assert trial.values == pytest.approx([accuracy.mean(), leakage(mine)], abs=1e-12)
        assert trial.constraints == pytest.approx({"accuracy_drop": (none - accuracy).mean() - 0.2})
    assert table.index.is_unique
    asked = {name for trial in study.trials for name in trial.user_attrs["trials"]}
    assert asked == set(table.index[table["defense"] != "none"])


@pytest.mark.usefixtures("finished")
def test_the_reference_is_computed_once_for_all(rows):
    none = rows()[rows()["defense"] == "none"]
    assert sorted(none["seed"]) == [0, 1]
    assert none["optuna_trial"].isna().all()
    assert set(none["attacker"]) == {"static"}
    assert none["name"].str.startswith("reference__").all()


def test_only_the_chosen_defenses_parameters_are_searched(whole, journal):
    study = journal(whole)
    kinds = {
        "gaussian": {"defense", "gaussian.noise_budget"},
        "pruning": {"defense", "pruning.ratio", "pruning.variant"},
    }
    assert {trial.params["defense"] for trial in study.trials} == set(kinds)
    for trial in study.trials:
        assert set(trial.params) == kinds[trial.params["defense"]]


def test_a_trial_of_two_optuna_trials_is_computed_once(run, rows, journal, folder):
    result, _ = run(ONE)
    study, table = journal(folder), rows()

    distinct = {trial.params["gaussian.noise_budget"] for trial in study.trials}
    assert len(study.trials) == 4 > len(distinct)
    assert len(table[table["defense"] == "gaussian"]) == 2 * len(distinct)
    assert result.run.complete == 2 + 2 * len(distinct)
    first = {}
    for trial in study.trials:
        for name in trial.user_attrs["trials"]:
            first.setdefault(name, trial.number)
    stored = table[table["defense"] == "gaussian"].set_index("trial_id")["optuna_trial"]
    assert stored.to_dict() == first


def test_the_same_file_gives_the_same_optuna_trials_however_often_it_is_stopped(
    run, body, whole, journal, folder
):
    codes = [run(body, limit=7)[0].exit_code]
    while codes[-1] == 3:
        codes.append(run(body, limit=7)[0].exit_code)

    assert codes == [3, 3, 3, 0]
    assert proposals(journal(folder)) == proposals(journal(whole))


@pytest.mark.parametrize("sampler", ["random", "{name: nsga2, population: 2}", "{name: gp, startup: 2}"])
def test_every_sampler_is_deterministic(run, journal, tmp_path, sampler):
    text = f"{ONE}sampler: {sampler}\n".replace("{choice: [1e-3, 1e-2]}", "{float: [1e-4, 1], log: true}")
    run(text, results="one")
    run(text, results="other", limit=5)
    run(text, results="other")
    one, other = (proposals(journal(tmp_path / name / "small")) for name in ("one", "other"))

    assert one == other
    assert len({params["gaussian.noise_budget"] for _, params, _, _ in one}) == 4


def test_another_seed_of_the_sampler_gives_other_parameters(run, body, whole, journal, folder):
    run(body.replace("startup: 2", "startup: 2, seed: 1"), trials=2, limit=3)
    one, zero = (journal(place).trials[0].params for place in (folder, whole))
    assert one != zero


def test_a_finished_study_runs_nothing_and_more_optuna_trials_extend_it(
    run, body, rows, journal, *, finished
):
    before, told = rows(), proposals(journal(finished))
    again, _ = run(body)
    assert (again.run.complete, again.exit_code) == (0, 0)
    pd.testing.assert_frame_equal(rows(), before)

    more, _ = run(body, trials=6)
    assert more.told == {"complete": 6}
    assert proposals(journal(finished))[:5] == told


def test_ctrl_c_ends_a_study_that_goes_on_later(run, body, whole, rows, journal, *, folder, watch):
    """At the moment Optuna is told of a trial, its rows are stored."""
    missing = []

    class Impatient(type(watch)):
        def optuna_trial(self, done, standing):
            missing.append(4 - int((rows()["optuna_trial"] == done.number).sum()))
            if done.number == 1:
                signal.raise_signal(signal.SIGINT)

    stopped, _ = run(body, watch=Impatient())
    states = [trial.state for trial in journal(folder).trials]
    assert stopped.exit_code == 3
    assert stopped.run.interrupted
    assert 2 <= states.count(TrialState.COMPLETE) < 5
    again = Impatient()
    run(body, watch=again)
    assert proposals(journal(folder)) == proposals(journal(whole))
    assert missing == [0] * 5
    (standing,) = again.events["resumed"]
    assert (standing.told, standing.left) == (states.count(TrialState.COMPLETE), 5 - standing.told)


def test_a_driver_that_died_while_asking_left_nothing_to_lose(
    run, body, whole, journal, folder, *, monkeypatch
):
    """It had proposed one parameter of two; the next driver completes it as the first would have."""
    told = proposals(journal(whole))
    target = next(number for number, params, _, _ in told if params["defense"] == "pruning")

    class Died(BaseException):
        pass

    original = optuna.trial.Trial.suggest_float

    def suggest(self, name, *arguments, **options):
        if self.number == target:
            raise Died
        return original(self, name, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(optuna.trial.Trial, "suggest_float", suggest)
        with pytest.raises(Died):
            run(body)
    half = journal(folder).trials[target]
    assert (half.state, set(half.params)) == (TrialState.RUNNING, {"defense"})
    run(body)
    assert proposals(journal(folder)) == told


def test_a_driver_that_died_before_telling_tells_once(run, body, whole, journal, folder, *, monkeypatch):
    class Died(BaseException):
        pass

    with monkeypatch.context() as patch:
        patch.setattr(optuna.Study, "tell", lambda *_, **__: (_ for _ in ()).throw(Died()))
        with pytest.raises(Died):
            run(body)
    assert all(trial.state == TrialState.RUNNING for trial in journal(folder).trials)
    result, _ = run(body)
    assert result.told == {"complete": 5}
    assert proposals(journal(folder)) == proposals(journal(whole))


def test_results_without_rows_are_committed_and_told(run, body, rows, journal, finished, *, monkeypatch):
    """A driver that died after lanes had stored their results computes none of them again."""
    folder = finished
    told = proposals(journal(folder))
    for name in ("trials", "reconstructions", "traces", "rounds"):
        for file in (folder / name).iterdir():
            file.unlink()
    (folder / "journal.log").unlink()
    monkeypatch.setattr(Lane, "run", lambda *_: pytest.fail("nothing is to be computed"))
    run(body)
    assert proposals(journal(folder)) == told
    assert len(rows()) == 2 + 4 * 5


def test_rows_that_were_taken_away_are_made_again(run, body, rows, finished):
    before = set(rows()["trial_id"])
    for file in (finished / "trials").iterdir():
        file.unlink()
    result, _ = run(body)
    assert result.told == {"complete": 5}
    assert set(rows()["trial_id"]) == before


def test_a_failed_trial_fails_its_optuna_trial_and_the_next_driver_replaces_it(
    run, rows, journal, folder, *, plugin, monkeypatch
):
    plugin("erratic")
    text = ONE.replace("{name: idlg, iterations: 1}", "erratic").replace("trials: 4", "trials: 2")
    text = text.replace("{choice: [1e-3, 1e-2]}", "{float: [1e-4, 1], log: true}")
    text = text.replace("{leakage: minimize}", "{accuracy: maximize}")
    with monkeypatch.context() as patch:
        patch.setenv("ERRATIC_FAILS", "1")
        failed, _ = run(text)
    assert (failed.exit_code, failed.told) == (1, {"failed": 2})
    assert "not today" in journal(folder).trials[0].user_attrs["reason"]
    kept, _ = run(text, keep_failed=True)
    assert (kept.exit_code, kept.told, kept.left) == (0, {"failed": 2}, 0)

    result, _ = run(text)
    assert (result.exit_code, result.told) == (0, {"failed": 2, "complete": 2})
    assert set(rows().loc[rows()["optuna_trial"] >= 2, "status"]) == {"complete"}


def test_optuna_trials_that_are_dominated_end_early(run, body, rows, journal, folder):
    text = f"{body.replace('trials: 5', 'trials: 8')}prune: {{margin: 0, startup: 2}}\n"
    result, _ = run(text)
    study, table = journal(folder), rows().set_index("trial_id")
    pruned = [trial for trial in study.trials if trial.state == TrialState.PRUNED]

    assert result.told["pruned"] == len(pruned) > 0
    done = [trial for trial in study.trials if trial.state == TrialState.COMPLETE]

    def on_seed_0(trial):
        mine = table.loc[trial.user_attrs["trials"]]
        mine = mine[mine["seed"] == 0]
        return -mine["accuracy"].iloc[0], leakage(mine)

    for trial in pruned:
        assert trial.user_attrs["seeds"] == [0]
        earlier = [
            other
            for other in done
            if other.number <= trial.number - 2 and all(v <= 0 for v in other.constraints.values())
        ]
        own = on_seed_0(trial)
        assert len(earlier) >= 2
        assert any(all(a <= b for a, b in zip(on_seed_0(o), own, strict=True)) for o in earlier)


def test_a_defense_that_no_attack_applies_to_fails_with_its_reason(run, body, journal, folder, plugin):
    plugin("shrink")
    text = body.replace("[static, adaptive]", "[adaptive]").replace("trials: 5", "trials: 1")
    text = text[: text.index("  pruning")] + text[text.index("objectives") :]
    text = text.replace("  gaussian: {noise", "  fixed: {name: shrink, noise").replace(
        "[1e-4, 1]", "[0.1, 1]"
    )
    result, _ = run(text)
    assert result.told == {"failed": 1}
    assert "no mirror" in journal(folder).trials[0].user_attrs["reason"]


def test_a_second_driver_is_refused_and_harms_nothing(run, body, journal, folder, watch):
    refused = []

    class Intruder(type(watch)):
        def optuna_trial(self, done, standing):
            with pytest.raises(LockHeldError, match="in use by process") as error:
                run(body)
            refused.append(error.value.exit_code)

    result, _ = run(body, watch=Intruder(), trials=2)
    assert refused == [2] * 2
    assert result.told == {"complete": 2}
    assert len(journal(folder).trials) == 2


def test_a_damaged_journal_is_refused_and_left_alone(run, body, finished):
    path = finished / "journal.log"
    lines = path.read_bytes().splitlines(keepends=True)
    broken = b"".join([*lines[:3], b"{not json}\n", *lines[4:]])
    path.write_bytes(broken)
    with pytest.raises(StoreError, match=r"damaged journal .*journal\.log: line 4") as error:
        run(body)
    assert error.value.exit_code == 2
    assert path.read_bytes() == broken

    path.write_text('{"op_code": 99}\n')
    with pytest.raises(StoreError, match="Optuna cannot replay it"):
        run(body)
    assert path.read_text() == '{"op_code": 99}\n'


def test_a_record_that_was_being_written_is_cut_off(run, body, whole, journal, folder):
    run(body, limit=9)
    with (folder / "journal.log").open("ab") as file:
        file.write(b'{"op_code":6,"trial_id":1,"sta')
    (folder / "journal.log.lock").symlink_to(folder / "journal.log")  # its writer's lock, left behind
    run(body)
    assert proposals(journal(folder)) == proposals(journal(whole))


@pytest.mark.parametrize(
    ("old", "new", "changed"),
    [
        ("[1e-4, 1]", "[1e-4, 2]", "space"),
        ("{max: 0.2}", "{max: 0.1}", "constraints"),
        ("iterations: 1", "iterations: 2", "attacks"),
        ("leakage: minimize", "loss: minimize", "objectives"),
    ],
)
def test_a_study_whose_meaning_changed_is_another_study(run, body, journal, finished, *, old, new, changed):
    with pytest.raises(UsageError, match=rf"expected the study of .*journal\.log, got other {changed}"):
        run(body.replace(old, new))
    assert len(journal(finished).trials) == 5


def test_federations_have_their_cost_and_it_can_be_an_objective(run, body, rows, journal, folder):
    text = body.replace("leakage: minimize", "cpu_seconds_per_round: minimize")
    run(text, trials=2)
    table = rows()
    assert (table["federation_cpu_s"] >= 0).all()
    for trial in journal(folder).trials:
        mine = table[table["optuna_trial"] == trial.number].groupby("seed")["federation_cpu_s"].first()
        assert trial.values[1] == pytest.approx(mine.mean())


@pytest.mark.usefixtures("finished")
def test_a_matrix_can_be_run_in_the_folder_of_a_study(rows, tmp_path, watch):
    """Its rows have no study; those of the study stay as they are."""
    study = set(rows()["trial_id"])
    path = tmp_path / "matrix.yaml"
    head = "version: 1\nname: small\ndefaults:\n  data: {name: digits, size: 8}\n"
    path.write_text(
        f"{head}  model: {{name: lenet, convs: 2}}\n  federation: {{clients: 4, rounds: 1}}\n"
        "  targets: 2\nmatrix: {attack: [mean_image]}\n"
    )
    run_matrix(RunRequest(load_matrix(path), tmp_path / "results", inline), watch)
    table = rows().set_index("trial_id")
    assert table.loc[list(study), "study"].eq("small").all()
    assert table.drop(list(study))["study"].isna().all()


def test_the_manifest_keeps_the_tune_file(whole):
    manifest = json.loads((whole / "manifest.json").read_text())
    assert manifest["tune"]["space"]["gaussian"] == {"noise_budget": {"float": [1e-4, 1], "log": True}}
    assert manifest["matrix"]["matrix"]["attack"] == [{"name": "idlg", "iterations": 1}]
