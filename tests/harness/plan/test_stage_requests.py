"""Which stages a trial needs, and what their keys depend on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from attacks import ATTACKS
from defenses import DEFENSES
from fl.cards import StageRequest, no_stages
from fl.errors import BenchError
from fl.specs import Config, TrialSpec
from harness.config.matrix import Matrix
from harness.plan.keys import federation_key
from harness.plan.planner import make_plan
from harness.plan.stage_requests import attack_stages, defense_stages, judge_stages, stage_requests
from harness.plan.stages import StageCount

Load = Callable[[str], Matrix]
Stages = Callable[[Config, TrialSpec], list[StageRequest]]
MODELS = """\
seeds: [0, 1]
matrix:
  attack: [%s]
  observe: [{kind: global_model, round: 0}, {kind: global_model, round: 1}]
  defense: [none, gaussian]
  noise_budget: {gaussian: [1e-3]}
"""


def ask(name: str, **options: Any) -> StageRequest:
    return StageRequest(name, "prior", "m:f", 1, {"name": name}, **options)


@pytest.fixture
def attack_with(register: Callable[[Any], None]) -> Callable[[Stages], None]:
    """Add the attack `staged`."""

    def add(stages: Stages) -> None:
        floor = ATTACKS.get("random_guess")
        register(replace(floor, name="staged", family="model_inversion", stages=stages))

    return add


def of_the_round(config: Config, spec: TrialSpec) -> list[StageRequest]:
    """One stage of public data alone, one made with the observed model, and one made from that."""
    prior, gan = ask("prior"), ask("gan", round=spec.observe.last_round)
    return [prior, gan, ask("inverter", inputs=(prior.key, gan.key), round=spec.observe.last_round)]


def specs(matrix: Matrix) -> list[TrialSpec]:
    return [trial.spec for trial in make_plan(matrix, {}).todo]


def test_a_stage_made_with_a_model_is_one_of_its_federation_and_round(
    short: Load, attack_with: Callable[[Stages], None]
) -> None:
    attack_with(of_the_round)
    found = specs(short(MODELS % "staged"))
    gans: dict[str, set[tuple[str, int]]] = {}
    for spec in found:
        prior, gan, inverter = attack_stages(spec)
        assert prior.key == ask("prior").key
        assert gan.inputs == (federation_key(spec),)
        assert inverter.inputs == (prior.key, gan.key, federation_key(spec))
        gans.setdefault(gan.key, set()).add((federation_key(spec), spec.observe.round))

    assert len(found) == len(gans) == 8
    assert all(len(made_with) == 1 for made_with in gans.values())


def test_stages_without_a_round_are_what_the_card_says(short: Load) -> None:
    (spec,) = specs(short("matrix: {attack: [gias], data: [{name: digits, size: 16}]}"))
    (request,) = attack_stages(spec)

    assert request is ATTACKS.get("gias").stages(spec.attack.config, spec)[0]


def test_the_plan_counts_stages_of_rounds_and_the_judge_s_once(
    short: Load, attack_with: Callable[[Stages], None]
) -> None:
    attack_with(of_the_round)
    plan = make_plan(short(MODELS % "staged, random_guess"), {})
    counted = {stage.kind: stage for stage in plan.stages}

    assert counted["federation"] == StageCount("federation", 4, 16)
    assert counted["prior"] == StageCount("prior", 1 + 8 + 8, 8)
    assert counted["evaluator"] == StageCount("evaluator", 1, 16)


def test_a_judge_is_the_same_whoever_attacks_and_defends(short: Load) -> None:
    spec, *others = specs(short(MODELS % "random_guess, mean_image"))

    assert [request.judge for request in stage_requests(spec)] == [True]
    assert {r.key for other in others for r in judge_stages(other)} == {judge_stages(spec)[0].key}
    assert judge_stages(spec)[0].kept_private


def test_updates_need_no_judge(short: Load) -> None:
    text = "matrix: {attack: [random_guess], observe: [{kind: update}, {kind: aggregate, clients: 2}]%s}\n"
    found = specs(short(text % ", targets: [1]"))

    assert [stage_requests(spec) for spec in found] == [[], []]


def test_no_plug_in_gets_what_is_the_judge_s(
    short: Load, attack_with: Callable[[Stages], None], register: Callable[[Any], None]
) -> None:
    attack_with(lambda config, spec: [ask("prior"), ask("peek", judge=True)])
    none = DEFENSES.get("none")
    register(replace(none, name="curious", stages=lambda config, spec: [ask("peek", judge=True)]))
    attacked, defended = specs(short("matrix: {attack: [staged, dlg], defense: [none, curious]}\n"))[:2]

    with pytest.raises(
        BenchError, match=r"attack 'staged': expected no stage made for the judge, got 'peek'"
    ):
        attack_stages(attacked)
    with pytest.raises(BenchError, match=r"defense 'curious': expected no stage made for the judge"):
        defense_stages(defended)
    with pytest.raises(BenchError, match="made for the judge"):
        _ = make_plan(short("matrix: {attack: [staged]}\n"), {}).stages


def test_a_model_that_is_not_seen_makes_no_stage(
    short: Load, attack_with: Callable[[Stages], None], register: Callable[[Any], None]
) -> None:
    attack_with(lambda config, spec: [ask("gan", round=1)])
    register(replace(DEFENSES.get("none"), name="late", stages=lambda config, spec: [ask("gan", round=0)]))
    text = "matrix: {attack: [staged], defense: [none, late], observe: [{kind: global_model%s}]}\n"
    kept, late = specs(short(text % ", rounds: [1]"))
    (early, _) = specs(short(text % ""))
    (skipped, _) = specs(short(text % ", rounds: [0]"))

    assert len(attack_stages(kept)) == 1
    for spec in (early, skipped):
        with pytest.raises(BenchError, match="model of an observed round, got round 1"):
            attack_stages(spec)
    with pytest.raises(BenchError, match="defense 'late': expected stages that are made before training"):
        defense_stages(late)
    with pytest.raises(BenchError, match="got a recorded observation"):
        attack_stages(replace(kept, federation=None))


def test_a_card_at_hand_is_asked_instead_of_the_registered_one(short: Load) -> None:
    (spec,) = specs(short("matrix: {attack: [dlg]}\n"))
    card = replace(ATTACKS.get("dlg"), stages=lambda config, spec: [ask("prior")])

    assert ATTACKS.get("dlg").stages is no_stages
    assert [request.name for request in attack_stages(spec, card)] == ["prior"]
