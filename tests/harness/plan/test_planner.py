from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from attacks import ATTACKS
from fl.cards import AttackCard, StageRequest, Work
from fl.errors import UsageError
from fl.specs import JSON, Config, TrialSpec
from harness.config.matrix import Matrix
from harness.plan.estimate import CostKey
from harness.plan.keys import federation_key, trial_id
from harness.plan.planner import Plan, make_plan
from harness.plan.stage_requests import stage_requests
from harness.plan.stages import StageCount

Load = Callable[[str], Matrix]
TEXT = """\
seeds: [0, 1]
matrix:
  attack: [dlg, idlg, random_guess, {name: inverting_gradients, iterations: {grid: [200, 400]}}]
  defense: [none, {name: gaussian, noise_budget: [1e-3, 1e-2]}]
  federation.batch_size: [1, 8]
  observe.round: [0, 2]
"""
"""5 attacks x 3 defenses x 2 batch sizes x 2 rounds x 2 seeds; round 2 is beyond the one that is trained."""


def chosen(plan: Plan) -> set[tuple[str, str, float, int]]:
    specs = [trial.spec for trial in plan.trials]
    return {(s.attack.name, s.defense.name, s.noise_budget, s.seed) for s in specs}


def test_every_trial_has_the_id_of_its_spec(short: Load) -> None:
    matrix = short(TEXT)
    plan = make_plan(matrix, {})
    assert [trial.spec for trial in plan.trials] == list(matrix.expand())
    assert [trial.trial_id for trial in plan.trials] == [trial_id(spec) for spec in matrix.expand()]
    assert len({trial.trial_id for trial in plan.trials}) == len(plan.trials) == 120


def test_statuses_come_from_rows_and_cards(short: Load) -> None:
    matrix = short(TEXT)
    ids = [trial.trial_id for trial in make_plan(matrix, {}).todo]
    stored = {ids[0]: "complete", ids[1]: "failed", ids[2]: "not_applicable", "of another matrix": "complete"}
    plan = make_plan(matrix, stored)
    assert plan.counts() == {"todo": 58, "complete": 1, "failed": 1, "not_applicable": 60}
    assert [trial.trial_id for trial in plan.todo] == ids[1:]
    assert [trial.status for trial in plan.todo[:2]] == ["failed", "todo"]
    assert plan.reasons() == {"round 2 is observed, but training ends after 1 (federation.rounds)": 60}
    assert {trial.spec.observe.round for trial in plan.not_applicable} == {2}


def test_a_complete_row_stays_complete_whatever_the_cards_say_now(short: Load) -> None:
    matrix = short(TEXT)
    trial = make_plan(matrix, {}).not_applicable[0]
    assert make_plan(matrix, {trial.trial_id: "complete"}).counts()["complete"] == 1


@pytest.mark.parametrize(
    ("only", "skip", "keeps"),
    [
        (["attack=*dlg"], [], lambda s: s.attack.name.endswith("dlg")),
        (["attack=dlg", "attack=idlg"], [], lambda s: s.attack.name in ("dlg", "idlg")),
        (["attack=dlg", "defense=none"], [], lambda s: s.attack.name == "dlg" and s.defense.name == "none"),
        (["noise_budget=1e-2"], [], lambda s: s.noise_budget == 0.01),
        (["attack.iterations=200"], [], lambda s: getattr(s.attack.config, "iterations", 0) == 200),
        (["federation.batch_size=8,seed=1"], [], lambda s: s.federation.batch_size == 8 and s.seed == 1),
        ([], ["attack=dlg", "attack=r*"], lambda s: s.attack.name not in ("dlg", "random_guess")),
        ([], ["attack=dlg,defense=none"], lambda s: (s.attack.name, s.defense.name) != ("dlg", "none")),
        (["dataset=dig*"], ["round=2"], lambda s: s.observe.round == 0),
        (["defense=g*"], ["noise_budget=0.001"], lambda s: s.noise_budget == 0.01),
    ],
)
def test_only_and_skip_choose_trials(
    short: Load, only: list[str], skip: list[str], keeps: Callable[[TrialSpec], bool]
) -> None:
    matrix = short(TEXT)
    plan = make_plan(matrix, {}, only=only, skip=skip)
    expected = [spec for spec in matrix.expand() if keeps(spec)]
    assert [trial.spec for trial in plan.trials] == expected
    assert 0 < len(expected) < 120


def test_seeds_and_limit(short: Load) -> None:
    matrix = short(TEXT)
    assert {trial.spec.seed for trial in make_plan(matrix, {}, seeds=[1]).trials} == {1}
    full = make_plan(matrix, {})
    limited = make_plan(matrix, {full.todo[0].trial_id: "complete"}, limit=3)
    assert [t.trial_id for t in limited.todo] == [t.trial_id for t in full.todo[1:4]]
    assert limited.held_back == 56
    assert limited.counts() == {"todo": 3, "complete": 1, "failed": 0, "not_applicable": 60}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"only": ["attack"]}, "expected key=value, such as attack=dlg, got 'attack'"),
        ({"only": ["atack=dlg"]}, "unknown key 'atack'. Did you mean 'attack'"),
        ({"skip": ["attack.iteratons=3"]}, "unknown key 'iteratons'. Did you mean 'iterations'"),
        ({"only": ["attack=gan"]}, "expected '--only attack=gan' to match a trial"),
        ({"skip": ["seed=7"]}, "expected '--skip seed=7' to match a trial"),
        ({"seeds": [3]}, r"expected --seeds among those of the matrix \(0, 1\), got 3"),
        ({"limit": 0}, "expected --limit of at least 1, got 0"),
    ],
)
def test_wrong_filters_are_told(short: Load, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        make_plan(short(TEXT), {}, **arguments)
    assert caught.value.exit_code == 2


class PriorConfig(Config):
    """An attack with a generator."""

    generator: str = "dcgan"


def prior_attack(name: str) -> AttackCard[Any]:
    def stages(config: PriorConfig, spec: TrialSpec) -> list[StageRequest]:
        needs: dict[str, JSON] = {"generator": config.generator, "seed": spec.seed}
        gan = StageRequest("gan", "prior", "m:f", 1, needs, work=Work(1e4, 10))
        return [gan, StageRequest("inverter", "inverter", "m:g", 1, {}, inputs=(gan.key,))]

    return AttackCard(
        name=name,
        version=1,
        summary="",
        config=PriorConfig,
        implementation="m:a",
        family="gradient_inversion",
        observes=frozenset({"update"}),
        evaluations=lambda config: 1,
        stages=stages,
    )


def test_stages_are_counted_once_however_many_trials_use_them(
    short: Load, register: Callable[[Any], None]
) -> None:
    register(prior_attack("gan_one"))
    register(prior_attack("gan_two"))
    matrix = short(
        "seeds: [0, 1]\nmatrix:\n  attack: [dlg, gan_one, gan_two]\n"
        "  defense: [none, gaussian]\n  attacker: [static, adaptive]\n"
    )
    plan = make_plan(matrix, {})
    federations = {federation_key(trial.spec) for trial in plan.todo}
    assert plan.stages == [
        StageCount("federation", len(federations), 24),
        StageCount("inverter", 2, 16),
        StageCount("prior", 2, 16),
    ]


def test_stages_of_what_is_done_are_not_counted(short: Load) -> None:
    matrix = short(TEXT)
    plan = make_plan(matrix, {})
    left = plan.todo[0]
    stored = {trial.trial_id: "complete" for trial in plan.trials if trial.trial_id != left.trial_id}
    assert make_plan(matrix, stored).stages == [StageCount("federation", 1, 1)]


def test_federations_are_those_of_their_keys(short: Load) -> None:
    plan = make_plan(short(TEXT), {})
    (federations,) = plan.stages
    assert federations.distinct == len({federation_key(trial.spec) for trial in plan.todo})


def test_the_estimate_counts_evaluations_and_prefers_past_rows(short: Load) -> None:
    matrix = short("matrix: {attack: [dlg, {name: dlg, iterations: 600}, random_guess]}\n")
    plan = make_plan(matrix, {})
    card = ATTACKS.get("dlg")
    evaluations = [card.evaluations(t.spec.attack.config) for t in plan.todo if t.spec.attack.name == "dlg"]
    alone = make_plan(matrix, {}, only=["attack=dlg"], skip=["attack.iterations=600"]).estimate
    both = make_plan(matrix, {}, only=["attack=dlg"]).estimate
    assert both.trial_seconds / alone.trial_seconds == pytest.approx(sum(evaluations) / evaluations[0])
    assert both.federation_seconds == alone.federation_seconds > 0
    assert (both.measured, both.assumed, both.basis) == (0, 2, "5 GFLOP/s assumed")
    past = make_plan(matrix, {}, past_wall_s={CostKey("dlg", "lenet", "digits", 1): 12.5}).estimate
    assert (past.trial_seconds, past.measured, past.assumed) == (25.0, 2, 1)
    assert "median of past rows for 2 trials" in past.basis


INVERSIONS = """\
seeds: [0, 1]
matrix:
  data: [{name: digits, size: 16}]
  model: [mcnn, {name: lenet, convs: 2}]
  threat_model.position: [server]
  federation: [{algorithm: fedavg, lr: 0.1, rounds: 2}]
  observe: [{kind: global_model, round: 1}, {kind: global_model, round: 2}]
  public: [null, {name: mnist5k, size: 16}]
  defense: [none, {name: shadowdef, generator: {steps: 50}}]
  attack: [random_prior, gmi, {name: gmi, iterations: 3}, kedmi, {name: kedmi, iterations: 3}, plgmi]
"""


def test_stages_are_those_that_trials_ask_for_one_by_one(short: Load) -> None:
    plan = make_plan(short(INVERSIONS), {})
    made: dict[str, set[str]] = {"federation": set()}
    used: Counter[str] = Counter()
    for trial in plan.todo:
        requests = stage_requests(trial.spec)
        for request in requests:
            made.setdefault(request.kind, set()).add(request.key)
        made["federation"].add(federation_key(trial.spec))
        used.update({"federation", *(request.kind for request in requests)})
    assert plan.stages == [StageCount(kind, len(made[kind]), used[kind]) for kind in made_in_order(made)]
    assert {kind: len(keys) for kind, keys in made.items()} == {
        "federation": 12,  # 2 models, 2 seeds: undefended, and with a generator of either public images
        "evaluator": 1,
        "gan": 64,  # 2 attacks with either public images, on 2 rounds of 8 federations each
        "prior": 8,  # that of gmi and random_prior, and the defense's, of either public images
    }


def made_in_order(made: dict[str, set[str]]) -> list[str]:
    return ["federation", *sorted(set(made) - {"federation"})]


def test_the_estimate_counts_each_stage_once(short: Load) -> None:
    matrix = short(INVERSIONS)
    plan = make_plan(matrix, {})
    made = {r.key: r for trial in plan.todo for r in stage_requests(trial.spec)}
    seconds = {key: r.work.mflop / 4e4 + r.work.evaluations * 2e-3 for key, r in made.items() if r.work}
    gans = [seconds[key] for key, request in made.items() if request.kind == "gan"]
    assert plan.estimate.stage_seconds == pytest.approx(sum(seconds.values()))
    assert plan.estimate.trained_stage_seconds == pytest.approx(sum(gans))
    assert plan.estimate.unknown_stages == {}
    assert plan.estimate.basis == "5 GFLOP/s assumed (40 in other stages)"
    assert plan.estimate.seconds > plan.estimate.stage_seconds > 0
    one = make_plan(matrix, {}, only=["attack=random_prior"], seeds=[0]).estimate
    more = make_plan(matrix, {}, only=["attack=random_prior", "attack=gmi"], seeds=[0]).estimate
    assert more.stage_seconds == pytest.approx(one.stage_seconds)  # of the same prior


def test_stages_that_nobody_can_tell_the_time_of_are_named(
    short: Load, register: Callable[[Any], None]
) -> None:
    register(prior_attack("gan_one"))
    estimate = make_plan(short("seeds: [0, 1]\nmatrix: {attack: [gan_one]}\n"), {}).estimate
    assert estimate.unknown_stages == {"inverter": 2}
    assert estimate.stage_seconds == pytest.approx(2 * (1e4 / 4e4 + 10 * 2e-3))


def test_names_tell_trials_apart_and_say_only_what_differs(short: Load) -> None:
    plan = make_plan(short(TEXT), {})
    names = [trial.name for trial in plan.trials]
    assert len(set(names)) == len(names)
    assert names[0] == "none__dlg__batch_size=1__round=0__seed=0"
    assert "gaussian-0.01__inverting_gradients-iterations=400__batch_size=8__round=2__seed=1" in names


def test_a_matrix_of_one_cell_has_a_name_too(short: Load) -> None:
    (trial,) = make_plan(short("matrix: {attack: [dlg]}\n"), {}).trials
    assert trial.name == "dlg__seed=0"


def test_names_of_chains_and_other_sections(short: Load) -> None:
    plan = make_plan(
        short(
            "matrix:\n  attack: [dlg]\n"
            "  defense: [none, {chain: [{name: clipping, noise_budget: [1, 2]}, gaussian]}]\n"
            "  targets: [1, 2]\n  public: [null, {name: mnist5k, size: 16}]\n"
        ),
        {},
    )
    defenses = ("none", "clipping+gaussian-link0.bound=1", "clipping+gaussian-link0.bound=2")
    parts = itertools.product(defenses, ("", "__mnist5k"), ("__targets=1", "__targets=2"))
    assert {trial.name for trial in plan.trials} == {f"{d}{p}{t}__seed=0" for d, p, t in parts}


def test_a_hundred_thousand_trials(short: Load) -> None:
    """The size of the issue's show 6: five axes and more, a tenth not applicable, a tenth stored."""
    matrix = short(
        "seeds: {range: [0, 10]}\n"
        "matrix:\n"
        "  attack: [dlg, idlg, {name: inverting_gradients, iterations: {range: [100, 900, 100]}}]\n"
        "  defense: [none, {name: gaussian, noise_budget: {geomspace: {start: 1e-4, stop: 1e-1, num: 9}}}]\n"
        "  attacker: [static, adaptive]\n"
        "  federation.batch_size: [1, 2, 4, 8, 16]\n"
        "  observe.round: {range: [0, 10]}\n"
        "  federation.rounds: [8]\n"
    )
    first = make_plan(matrix, {})
    assert first.counts()["not_applicable"] == 10_000
    stored = {trial.trial_id: "complete" for trial in first.trials[::10]}
    plan = make_plan(matrix, stored)
    assert len(plan.trials) == 100_000
    assert plan.counts()["complete"] == 10_000
    assert sum(plan.counts().values()) == 100_000
    for trial in plan.trials[::9973]:
        assert trial.trial_id == trial_id(trial.spec)
