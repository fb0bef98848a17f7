"""Work items: what waits for what, what is solved together, and what is lost with a failure."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attacks import ATTACKS
from attacks.catalog import MEAN_IMAGE
from attacks.engine.table import REFERENCE, Choice, EngineTable, using
from defenses import DEFENSES
from defenses.catalog import NONE
from fl.cards import Resources, StageRequest
from fl.specs import Config
from harness.execute.ledger import Ledger
from harness.execute.schedule import MAX_BUNDLE, REFILLS, Limits, Schedule, bundle_size, trials_filling
from harness.execute.work import BundleItem, Failure, FederationItem, StageItem


class SizedConfig(Config):
    size: int = 1


def prior(name, kind, config, *inputs):
    return StageRequest(name, kind, "nowhere:nothing", 1, config, tuple(inputs))


def attack_stages(config, spec):
    generator = prior("generator", "prior", {"size": config.size, "seed": spec.seed})
    return [generator, prior("inverter", "inverter", {"size": config.size}, generator.key)]


def defense_stages(config, spec):
    return [prior("shadow", "shadow", {"seed": spec.seed})]


@pytest.fixture
def staged(register):
    """An attack that needs two stages, one from the other, and a defense that needs one."""
    register(ATTACKS, replace(MEAN_IMAGE, name="staged", config=SizedConfig, stages=attack_stages))
    register(DEFENSES, replace(NONE, name="shadowed", stages=defense_stages))


@pytest.fixture
def schedule(declared_limits):
    def make(trials, *, lanes=1, attacked=(), trained=(), limits=declared_limits):
        return Schedule(
            trials,
            lanes=lanes,
            limits=limits,
            attacked=lambda trial: trial in attacked,
            trained=lambda trial: trial in trained,
        )

    return make


def drain(schedule):
    """Finish every item as soon as it is ready, and return all in that order."""
    items = []
    while item := schedule.ready(lambda item: True):
        items.append(item)
        schedule.finish(item)
    return items


def kinds(items):
    return [type(item).__name__.removesuffix("Item").lower() for item in items]


def solved(items):
    return sorted(t.trial_id for item in items if isinstance(item, BundleItem) for t in item.trials)


def ids(trials):
    return sorted(trial.trial_id for trial in trials)


ROUND_0 = "matrix: {attack: [random_guess]}"
ROUND_1 = "matrix: {attack: [random_guess], observe.round: [1]}"


def test_an_untrained_model_is_attacked_while_its_federation_trains(trials_of, schedule):
    ready = schedule(trials_of(ROUND_0))
    first, second = ready.ready(lambda item: True), ready.ready(lambda item: True)

    assert sorted(kinds([first, second])) == ["bundle", "federation"]


def test_a_trained_model_waits_for_its_federation(trials_of, schedule):
    ready = schedule(trials_of(ROUND_1))
    federation = ready.ready(lambda item: True)

    assert isinstance(federation, FederationItem)
    assert ready.ready(lambda item: True) is None
    ready.finish(federation)
    assert isinstance(ready.ready(lambda item: True), BundleItem)
    assert ready.remaining() == 0


@pytest.mark.usefixtures("staged")
def test_stages_come_before_what_needs_them(trials_of, schedule):
    trials = trials_of("matrix: {attack: [staged], defense: [shadowed], observe.round: [1]}")
    items = drain(schedule(trials))
    names = [item.request.name if isinstance(item, StageItem) else type(item).__name__ for item in items]

    assert sorted(names) == ["BundleItem", "FederationItem", "generator", "inverter", "shadow"]
    assert names.index("generator") < names.index("inverter") < names.index("BundleItem")
    assert names.index("shadow") < names.index("FederationItem") < names.index("BundleItem")


@pytest.mark.usefixtures("staged")
def test_a_stage_is_made_once_for_all_its_trials(trials_of, schedule):
    trials = trials_of("matrix: {attack: [staged], observe.round: [0, 1], targets: [1, 2]}")
    items = drain(schedule(trials))

    assert kinds(items).count("stage") == 2
    assert kinds(items).count("federation") == 1
    assert solved(items) == ids(trials)


def test_a_solved_trial_needs_its_federation_only(trials_of, schedule):
    trials = trials_of(ROUND_0)
    items = drain(schedule(trials, attacked=trials))

    assert kinds(items) == ["federation"]


@pytest.mark.usefixtures("staged")
def test_the_federation_of_a_solved_trial_still_gets_its_stages(trials_of, schedule):
    trials = trials_of("matrix: {attack: [random_guess], defense: [shadowed]}")

    assert kinds(drain(schedule(trials, attacked=trials))) == ["stage", "federation"]


def test_a_trained_federation_is_not_trained_again(trials_of, schedule):
    trials = trials_of(ROUND_1)

    assert kinds(drain(schedule(trials, trained=trials))) == ["bundle"]


@pytest.mark.parametrize("lanes", [1, 2, 8])
def test_bundles_leave_work_for_every_lane_and_lose_no_trial(trials_of, schedule, lanes):
    trials = trials_of("seeds: {range: [0, 100]}\nmatrix: {attack: [random_guess, mean_image]}")
    bundles = [item for item in drain(schedule(trials, lanes=lanes)) if isinstance(item, BundleItem)]

    assert solved(bundles) == ids(trials)
    assert max(len(bundle.trials) for bundle in bundles) <= MAX_BUNDLE
    for attack in ("random_guess", "mean_image"):
        own = [b for b in bundles if b.trials[0].spec.attack.name == attack]
        assert all(trial.spec.attack.name == attack for b in own for trial in b.trials)
        assert len(own) >= 4 * lanes


@pytest.mark.usefixtures("staged")
def test_trials_of_other_federations_and_stages_are_not_bundled(trials_of, schedule):
    """A bundle waits for all that any of its trials needs, and is lost with it."""
    trials = trials_of(
        """
        seeds: {range: [0, 40]}
        matrix:
          attack: [{name: staged, size: 1}, {name: staged, size: 2}]
          observe.round: [0, 1]
        """
    )
    for item in drain(schedule(trials)):
        if isinstance(item, BundleItem):
            assert len({(t.spec.attack.config.size, t.spec.seed) for t in item.trials}) == 1


def test_what_does_not_fit_is_passed_over(trials_of, schedule):
    ready = schedule(trials_of(ROUND_0))
    bundle = ready.ready(lambda item: isinstance(item, BundleItem))

    assert isinstance(bundle, BundleItem)
    assert isinstance(ready.ready(lambda item: True), FederationItem)


def test_the_matrix_overrides_what_cards_declare(trials_of, schedule):
    def limits(kind, name, declared):
        return Limits(Resources(cpus={"attack": 2, "federation": 3}[kind]), timeout_s=7)

    items = drain(schedule(trials_of(ROUND_1), limits=limits))

    assert [(type(item), item.resources.cpus, item.timeout_s) for item in items] == [
        (FederationItem, 3, 7),
        (BundleItem, 2, 7),
    ]


def test_everything_behind_a_failed_federation_is_lost(trials_of, schedule):
    trials = trials_of("seeds: [0, 1]\nmatrix: {attack: [random_guess, mean_image], observe.round: [1]}")
    ready = schedule(trials)
    failed = ready.ready(lambda item: True)
    lost = ready.drop_users(failed)

    assert ids(lost) == ids(t for t in trials if t.spec.seed == failed.spec.seed)
    assert solved(drain(ready)) == ids(t for t in trials if t.spec.seed != failed.spec.seed)


@pytest.mark.usefixtures("staged")
def test_everything_behind_a_failed_stage_is_lost(trials_of, schedule):
    trials = trials_of("seeds: [0, 1]\nmatrix: {attack: [staged, random_guess]}")
    ready = schedule(trials)
    failed = ready.ready(lambda item: isinstance(item, StageItem) and item.request.name == "generator")
    lost = ready.drop_users(failed)

    assert [(t.spec.attack.name, t.spec.seed) for t in lost] == [("staged", failed.spec.seed)]
    assert solved(drain(ready)) == ids(t for t in trials if t not in lost)


@pytest.mark.parametrize("kind", ["exception", "killed"])
def test_a_trial_that_fails_to_the_end_is_lost_and_not_forgotten(trials_of, schedule, kind):
    """After halving and retries, what is dropped is the trial at fault, no more and no less."""
    trials = trials_of("seeds: {range: [0, 12]}\nmatrix: {attack: [random_guess]}")
    bad, ready, ledger = trials[5], schedule(trials), Ledger()
    done, lost = [], []
    while item := ready.ready(lambda item: True):
        ledger.started(item)
        if isinstance(item, BundleItem) and bad in item.trials:
            if instead := ledger.after(item, Failure(kind, "no")):
                ready.again(instead, like=item)
            else:
                lost += ready.drop_users(item)
            continue
        ready.finish(item)
        done.append(item)

    assert lost == [bad]
    assert solved(done) == ids(t for t in trials if t != bad)


WIDE = EngineTable({"cpu": {"lenet": Choice("layers", 16)}}, {"cuda": Choice("layers", 32)})


def sizes(items):
    return [len(item.trials) for item in items if isinstance(item, BundleItem)]


@given(trials=st.integers(1, 3000), lanes=st.integers(1, 64), filling=st.integers(1, 64))
def test_a_bundle_fills_the_batch_as_far_as_there_is_work(trials, lanes, filling):
    size = bundle_size(trials, lanes=lanes, filling=filling)

    assert min(filling, trials) <= size <= max(MAX_BUNDLE, REFILLS * filling)
    assert size % filling == 0 or size == trials < filling
    if size > filling:  # more than fills it only where every lane gets four such bundles
        assert trials >= 4 * lanes * size
    if filling == 1:
        assert size == max(1, min(MAX_BUNDLE, trials // (4 * lanes)))


@pytest.mark.parametrize(
    ("seeds", "lanes", "expected"),
    [
        (3, 2, [3]),  # one batch takes as long half empty
        (20, 2, [8, 8, 4]),
        (16, 1, [8, 8]),
        (64, 1, [16, 16, 16, 16]),
        (300, 1, [32] * 9 + [12]),
    ],
)
def test_bundles_fill_the_solvers_lanes(trials_of, schedule, seeds, lanes, expected):
    """Two targets each and sixteen lanes: eight trials fill them."""
    trials = trials_of(f"seeds: {{range: [0, {seeds}]}}\nmatrix: {{attack: [dlg]}}")
    with using(WIDE):
        bundles = drain(schedule(trials, lanes=lanes))

    assert sizes(bundles) == expected
    assert solved(bundles) == ids(trials)


def test_where_tasks_are_solved_in_turn_bundles_are_spread(trials_of, schedule):
    trials = trials_of("seeds: {range: [0, 8]}\nmatrix: {attack: [dlg]}")
    with using(EngineTable({}, {"cpu": REFERENCE})):
        assert sizes(drain(schedule(trials, lanes=8))) == [1] * 8


@pytest.mark.parametrize(
    ("matrix", "filling"),
    [
        ("attack: [dlg]", 8),
        ("attack: [dlg], targets: [1]", 16),
        ("attack: [dlg], targets: [3]", 6),
        ("attack: [random_guess]", 1),
        ("attack: [inverting_gradients]", 8),
        ("attack: [dlg], defense: [clipping], attacker: [adaptive]", 8),
        ("attack: [idlg], defense: [label_smoothing], attacker: [adaptive]", 1),
    ],
)
def test_what_fills_the_solvers_lanes_depends_on_who_solves_it(trials_of, matrix, filling):
    trial, *_ = trials_of(f"matrix: {{{matrix}}}")
    with using(WIDE):
        assert trials_filling(trial.spec, "cpu") == filling


def test_on_a_gpu_its_own_lanes_are_filled(trials_of):
    (trial,) = trials_of("matrix: {attack: [dlg]}")
    with using(WIDE):
        assert trials_filling(trial.spec, "cuda") == 16


def test_trials_that_can_share_a_batch_come_together(trials_of, schedule):
    trials = trials_of(
        """
        seeds: {range: [0, 8]}
        matrix:
          attack: [{name: dlg, iterations: 2}, {name: dlg, iterations: 3}]
        """
    )
    mixed = [trial for pair in zip(trials[:8], trials[8:], strict=True) for trial in pair]
    with using(WIDE):
        bundles = drain(schedule(mixed))

    shared = [b for b in bundles if isinstance(b, BundleItem)]
    assert [len({t.spec.attack.canonical for t in bundle.trials}) for bundle in shared] == [1, 1]
