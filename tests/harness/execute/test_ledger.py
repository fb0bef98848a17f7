"""What is tried again after which failure, and how often."""

from __future__ import annotations

import pytest

from attacks.engine.table import Choice, EngineTable, using
from fl.cards import StageRequest
from harness.execute.ledger import ATTEMPTS, Ledger
from harness.execute.schedule import lanes_of
from harness.execute.work import BundleItem, Failure, FederationItem, StageItem

MATRIX = """
seeds: {range: [0, 5]}
matrix:
  attack: [random_guess]
"""


def attempts_until_final(item, kind):
    """Submit an item that always fails, alone, until the ledger gives it up."""
    ledger, submitted = Ledger(), 0
    while item is not None:
        ledger.started(item)
        submitted += 1
        assert submitted < 20
        instead = ledger.after(item, Failure(kind, "no"))
        assert len(instead) <= 1
        item = instead[0] if instead else None
    return submitted


@pytest.mark.parametrize(("kind", "times"), [("exception", 1), ("timeout", 2), ("killed", 3), ("device", 1)])
def test_a_single_trial_is_tried_as_often_as_its_failure_deserves(trials_of, kind, times):
    (trial, *_) = trials_of(MATRIX)

    assert attempts_until_final(BundleItem((trial,)), kind) == times


@pytest.mark.parametrize("kind", ["exception", "killed"])
def test_federations_and_stages_are_tried_like_single_trials(trials_of, kind):
    spec = trials_of(MATRIX)[0].spec
    request = StageRequest("generator", "prior", "nowhere:nothing", 1, {})

    assert attempts_until_final(FederationItem("key", spec), kind) == ATTEMPTS[kind]
    assert attempts_until_final(StageItem(request, spec), kind) == ATTEMPTS[kind]


def test_a_device_that_does_not_work_fails_a_whole_bundle_at_once(trials_of):
    ledger, item = Ledger(), BundleItem(tuple(trials_of(MATRIX)))
    ledger.started(item)
    assert ledger.after(item, Failure("device", "no driver")) == []


def test_a_failed_bundle_is_halved_down_to_the_trial_at_fault(trials_of):
    trials = trials_of(MATRIX)
    bad = trials[3]
    ledger, queue, solved, given_up = Ledger(), [BundleItem(tuple(trials))], [], []
    while queue:
        item = queue.pop(0)
        ledger.started(item)
        if bad not in item.trials:
            solved += item.trials
        elif instead := ledger.after(item, Failure("exception", "bad trial")):
            queue += instead
        else:
            given_up += item.trials

    assert given_up == [bad]
    assert sorted(t.trial_id for t in solved) == sorted(t.trial_id for t in trials if t != bad)


WIDE = EngineTable({"cpu": {"lenet": Choice("layers", 48)}}, {})
DLG = "seeds: {range: [0, 5]}\nmatrix: {attack: [dlg]}"


def widths_tried(item, *, told):
    """Fail an item for want of memory until it is given up; return the limits of what was tried."""
    ledger, limits = Ledger(), []
    while item is not None:
        ledger.started(item)
        limits.append(item.lane_limit)
        lanes = lanes_of(item, "cpu") if told else None
        instead = ledger.after(item, Failure("out_of_memory", "no", lanes=lanes))
        assert all(len(again.trials) == len(item.trials) for again in instead)
        item = instead[0] if instead else None
    return limits


@pytest.mark.parametrize("told", [True, False])
def test_a_trial_without_memory_goes_down_the_widths_to_the_plain_loop(trials_of, told):
    with using(WIDE):
        assert widths_tried(BundleItem((trials_of(DLG)[0],)), told=told) == [None, 32, 16, 1, 0]


def test_a_device_that_is_wider_than_expected_is_believed(trials_of):
    (trial, *_) = trials_of(DLG)
    ledger, item = Ledger("cpu"), BundleItem((trial,))
    ledger.started(item)
    (again,) = ledger.after(item, Failure("out_of_memory", "no", lanes=256))
    assert (again.lane_limit, again.trials) == (64, (trial,))


@pytest.mark.parametrize("text", [DLG, MATRIX])
def test_a_bundle_that_cannot_get_narrower_is_halved(trials_of, text):
    ledger, item = Ledger(), BundleItem(tuple(trials_of(text)), lane_limit=0)
    ledger.started(item)
    with using(WIDE):
        halves = ledger.after(item, Failure("out_of_memory", "no"))
    assert [len(half.trials) for half in halves] == [2, 3]
    assert [half.lane_limit for half in halves] == [0, 0]


def test_company_does_not_use_up_a_trials_own_attempts(trials_of):
    pair = trials_of(MATRIX)[:2]
    ledger, together = Ledger(), BundleItem(tuple(pair))
    ledger.started(together)
    first, second = ledger.after(together, Failure("killed", "node lost"))
    for _ in range(ATTEMPTS["killed"]):
        ledger.started(first)
        instead = ledger.after(first, Failure("killed", "node lost"))
        first = instead[0] if instead else None

    assert first is None
    assert ledger.attempts(pair[0]) == 1 + ATTEMPTS["killed"]
    assert ledger.attempts(pair[1]) == 1
    assert second.trials == (pair[1],)


def test_every_submission_has_an_id_of_its_own(trials_of):
    trial = trials_of(MATRIX)[0]
    ledger, item, seen = Ledger(), BundleItem((trial,)), []
    while item is not None:
        seen.append(item.item_id)
        ledger.started(item)
        instead = ledger.after(item, Failure("killed", "no"))
        item = instead[0] if instead else None

    assert len(set(seen)) == len(seen) == ATTEMPTS["killed"]


@pytest.mark.parametrize(("kind", "alone"), [("timeout", 2), ("out_of_memory", 2), ("exception", 0)])
def test_a_trial_short_of_time_or_memory_in_company_gets_it_alone(trials_of, kind, alone):
    trials = trials_of(MATRIX)
    ledger, item, tried = Ledger(), BundleItem(tuple(trials)), 0
    ledger.started(item)
    again = ledger.alone(item, {trials[2].trial_id: Failure(kind, "no")})
    while again:
        assert [one.trials for one in again] == [(trials[2],)]
        ledger.started(again[0])
        tried += 1
        again = ledger.alone(again[0], {trials[2].trial_id: Failure(kind, "no")})

    assert tried == alone
