"""What has to be made before a trial can run: the one place where stages are listed, for plan and run.

A plug-in's card knows no keys of federations. Where it asks for a stage that is made with a round's global
model (`StageRequest.round`), the federation's key joins the request's inputs here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from attacks import ATTACKS
from defenses import DEFENSES
from fl.cards import AttackCard, Card, DefenseCard, StageRequest
from fl.errors import BenchError
from fl.specs import TrialSpec
from harness.metrics.evaluator_stage import evaluator_stages
from harness.plan.keys import federation_key


def stage_requests(spec: TrialSpec) -> list[StageRequest]:
    """Return all that has to be made for a trial besides its federation."""
    return [*defense_stages(spec), *attack_stages(spec), *judge_stages(spec)]


def defense_stages(spec: TrialSpec, card: DefenseCard[Any] | None = None) -> list[StageRequest]:
    """Return what a trial's defense needs prepared; an adaptive attacker gets what is public of it.

    Args:
        spec: The trial.
        card: The defense's card, where it is at hand.

    Raises:
        BenchError: If the defense asks for what only others may have.
    """
    card = card or DEFENSES.get(spec.defense.name)
    requests = card.stages(spec.defense.config, spec)
    _check_judged(card, "defense", requests)
    for request in requests:
        if request.round is not None:
            raise BenchError(
                f"defense {card.name!r}: expected stages that are made before training, got "
                f"{request.name!r}, made with the global model of round {request.round}"
            )
    return requests


def attack_stages(spec: TrialSpec, card: AttackCard[Any] | None = None) -> list[StageRequest]:
    """Return what a trial's attack needs prepared, stages made with a round's global model resolved.

    Args:
        spec: The trial.
        card: The attack's card, where it is at hand.

    Raises:
        BenchError: If the attack asks for what only the judge may have, or for a model it never sees.
    """
    card = card or ATTACKS.get(spec.attack.name)
    return resolved_stages(card.stages(spec.attack.config, spec), spec, card)


def resolved_stages(
    requests: list[StageRequest], spec: TrialSpec, card: AttackCard[Any]
) -> list[StageRequest]:
    """Return what an attack's card has asked for, stages made with a round's global model resolved.

    Args:
        requests: What it asked for.
        spec: The trial.
        card: The attack's card.

    Raises:
        BenchError: As `attack_stages` does.
    """
    _check_judged(card, "attack", requests)
    if all(request.round is None for request in requests):
        return requests
    _check_seen(card, spec, requests)
    return _resolved(requests, spec)


def judge_stages(spec: TrialSpec) -> list[StageRequest]:
    """Return what the judge of a trial needs: the same for every attack and defense on its data."""
    return evaluator_stages(spec)


def _resolved(requests: Sequence[StageRequest], spec: TrialSpec) -> list[StageRequest]:
    """Return requests of which those with a round have the federation's key among their inputs.

    That gives them another key, which stages made from them, listed later, have to name.
    """
    federation, keys = federation_key(spec), dict[str, str]()
    found = []
    for request in requests:
        inputs = tuple(keys.get(key, key) for key in request.inputs)
        if request.round is not None:
            inputs = (*inputs, federation)
        found.append(request if inputs == request.inputs else replace(request, inputs=inputs))
        keys[request.key] = found[-1].key
    return found


def _check_judged(card: Card[Any], kind: str, requests: Sequence[StageRequest]) -> None:
    judged = next((request for request in requests if request.judge), None)
    if judged is not None:
        raise BenchError(
            f"{kind} {card.name!r}: expected no stage made for the judge, got {judged.name!r}; it alone sees "
            "evaluation and test images"
        )


def _check_seen(card: AttackCard[Any], spec: TrialSpec, requests: Sequence[StageRequest]) -> None:
    """Refuse a stage made with a model that the adversary does not observe."""
    if spec.federation is None:
        raise BenchError(
            f"attack {card.name!r}: expected a federation for stages made with a round's global model, got "
            "a recorded observation"
        )
    seen = spec.observe.rounds_seen
    for request in requests:
        if request.round is not None and request.round not in seen:
            raise BenchError(
                f"attack {card.name!r}: expected stage {request.name!r} to be made with the model of an "
                f"observed round, got round {request.round} (observe.round, observe.rounds)"
            )
