"""Stages that an adversary makes with a round's global model, and stages that only the judge sees."""

from __future__ import annotations

import json

import pandas as pd
import pytest
import torch

from fl.cards import StageRequest
from fl.errors import BenchError
from fl.types import Artifact
from harness.execute.environment import make_task
from harness.execute.federate import run_federation
from harness.execute.rescore import rescore
from harness.execute.schedule import Schedule
from harness.execute.work import BundleItem, FederationItem, StageItem, Trial
from harness.plan.keys import federation_key
from harness.plan.stage_requests import attack_stages, judge_stages
from harness.store.artifacts import ArtifactStore

TEXT = """
seeds: [0, 1]
defaults:
  data: {name: digits, size: 8}
  model: {name: lenet, convs: 2, init: default}
  federation: {clients: 4, rounds: 2, batch_size: 16, algorithm: fedavg, lr: 0.1}
  observe: {kind: global_model}
  threat_model: {position: participant}
  targets: 3
matrix:
  attack: [portraits, random_guess]
  observe.round: [0, 2]
"""


@pytest.fixture
def portraits(plugin):
    """The attack that draws portraits with the observed model."""
    return plugin("fake_portraits")


@pytest.fixture
def spec_of(trials_of, portraits):
    """From a round to one of the attack's trials at it."""

    def find(round_=2):
        specs = [trial.spec for trial in trials_of(TEXT) if trial.spec.attack.name == "portraits"]
        return next(spec for spec in specs if spec.observe.round == round_)

    return find


@pytest.fixture
def trained(workshop):
    """A workshop in which a trial's federation is trained."""

    def train(spec):
        shop = workshop()
        run_federation(shop.materials, shop.store, FederationItem(federation_key(spec), spec))
        return shop

    return train


def in_order(trials, limits, *, trained=False):
    """Return what a schedule gives out when every item is finished at once."""
    schedule = Schedule(trials, lanes=1, limits=limits, attacked=lambda t: False, trained=lambda t: trained)
    items = []
    while item := schedule.ready(lambda item: True):
        items.append(item)
        schedule.finish(item)
    return items


def place(items, kind, **wanted):
    """Return the places of the stages of a kind made for a round and seed."""
    return [
        number
        for number, item in enumerate(items)
        if isinstance(item, StageItem)
        and item.request.kind == kind
        and all(wanted[name] == getattr(item.spec.observe, name) for name in wanted)
    ]


@pytest.mark.usefixtures("portraits")
def test_stages_of_a_trained_model_wait_for_it_and_those_of_an_untrained_one_do_not(
    trials_of, declared_limits
):
    trials = [t for t in trials_of(TEXT) if t.spec.seed == 0]
    schedule = Schedule(
        trials, lanes=1, limits=declared_limits, attacked=lambda t: False, trained=lambda t: False
    )
    taken = []
    while item := schedule.ready(lambda item: not isinstance(item, FederationItem)):
        taken.append(item)
        schedule.finish(item)

    kinds = [item.request.kind for item in taken if isinstance(item, StageItem)]
    assert sorted(kinds) == ["contrast", "evaluator", "portraits"]
    assert {t.spec.observe.round for i in taken if isinstance(i, BundleItem) for t in i.trials} == {0}
    items = in_order(trials, declared_limits)
    (federation,) = (number for number, item in enumerate(items) if isinstance(item, FederationItem))
    (drawn,), (sharpened,) = place(items, "portraits", round=2), place(items, "contrast", round=2)
    assert federation < drawn < sharpened < len(items) - 1


@pytest.mark.usefixtures("portraits")
def test_trials_on_models_of_different_rounds_and_seeds_are_different_bundles(trials_of, declared_limits):
    items = in_order(trials_of(TEXT), declared_limits, trained=True)
    bundles = [
        {(t.spec.attack.name, t.spec.observe.round, t.spec.seed) for t in item.trials}
        for item in items
        if isinstance(item, BundleItem)
    ]
    drawn = [sorted(bundle) for bundle in bundles if any(name == "portraits" for name, *_ in bundle)]
    assert sorted(drawn) == [[("portraits", round_, seed)] for round_ in (0, 2) for seed in (0, 1)]
    assert len(place(items, "portraits")) == len(place(items, "contrast")) == 4
    assert len(place(items, "evaluator")) == 1


def run_stages(shop, spec):
    for request in attack_stages(spec):
        shop.materials.run_stage(request, spec, lambda share, words: None)


@pytest.mark.parametrize("round_", [0, 2])
def test_the_model_is_the_one_sent_in_that_round(spec_of, trained, round_):
    spec = spec_of(round_=round_)
    shop = trained(spec)
    run_stages(shop, spec)
    blurred, _ = attack_stages(spec)
    sent = shop.materials.checkpoint(spec, round_).model

    assert torch.equal(shop.private.get(blurred.key).tensors["head"], sent.tensors["head.weight"])
    assert len(shop.materials.seen(spec)) == 3
    (other,) = {0, 2} - {round_}
    elsewhere = shop.materials.checkpoint(spec, other).model
    assert not torch.equal(elsewhere.tensors["head.weight"], sent.tensors["head.weight"])


def test_the_adversary_gets_what_it_made_from_where_private_things_lie(spec_of, trained):
    spec = spec_of()
    shop = trained(spec)
    run_stages(shop, spec)
    task = make_task(Trial("t", spec), shop.materials.seen(spec)[0], shop.materials)

    assert set(task.artifacts) == {"blurred", "sharp"}
    for request in attack_stages(spec):
        assert shop.private.has(request.key)
        assert not shop.store.has(request.key)


def test_what_comes_from_an_adversarys_stage_is_not_stored_in_the_open(spec_of, trained):
    spec = spec_of()
    shop = trained(spec)
    run_stages(shop, spec)
    blurred, _ = attack_stages(spec)
    careless = StageRequest("careless", "x", f"{__name__}:unused", 1, {}, (blurred.key,))

    with pytest.raises(BenchError, match="declare the stage private"):
        shop.materials.run_stage(careless, spec, lambda share, words: None)


def test_an_adversarys_stage_is_made_from_nothing_that_is_the_clients(spec_of, trained):
    spec = spec_of()
    shop = trained(spec)
    shop.private.put("shadow", Artifact({"weight": torch.ones(1)}))
    prying = StageRequest("prying", "x", f"{__name__}:unused", 1, {}, ("shadow",), round=2)

    with pytest.raises(BenchError, match="'prying': expected public inputs"):
        shop.materials.run_stage(prying, spec, lambda share, words: None)


def measure(config, inputs, context):
    part = context.part("evaluation")
    draw = torch.rand(3, generator=context.streams.torch("draw"))
    return Artifact({"mean": part.images().mean(0), "draw": draw}, {"images": len(part)})


def unused(config, inputs, context):
    raise AssertionError("never made")


def test_a_judges_stage_reads_parts_and_is_the_same_for_every_seed(trials_of, workshop, portraits):
    specs = [t.spec for t in trials_of(TEXT) if t.spec.attack.name == "random_guess"]
    request = StageRequest("m", "evaluator", f"{__name__}:measure", 1, {}, private=True, judge=True)
    made = []
    for spec in (specs[0], specs[-1]):
        shop = workshop(f"seed{spec.seed}")
        shop.materials.run_stage(request, spec, lambda share, words: None)
        assert not shop.store.has(request.key)
        made.append(shop.private.get(request.key))

    evaluation = shop.materials.dataset(spec).part("evaluation")
    assert specs[0].seed != specs[-1].seed
    assert made[0].data["images"] == len(evaluation) > 0
    assert torch.equal(made[0].tensors["mean"], evaluation.images().mean(0))
    assert torch.equal(made[0].tensors["draw"], made[1].tensors["draw"])


@pytest.mark.parametrize("options", [{}, {"private": True}, {"round": 0}])
def test_no_other_stage_reads_them(spec_of, workshop, options):
    request = StageRequest("m", "prior", f"{__name__}:measure", 1, {}, **options)
    with pytest.raises(PermissionError, match="only the judge's stages read the evaluation part"):
        workshop().materials.run_stage(request, spec_of(round_=0), lambda share, words: None)


@pytest.mark.usefixtures("portraits", "hasty_judge")
def test_an_attack_with_stages_of_rounds_runs_to_rows(rows_of, folder):
    rows = rows_of(TEXT)
    images = pd.read_parquet(folder / "reconstructions")
    manifest = json.loads((folder / "manifest.json").read_text())
    stages = {stage["kind"]: (stage["distinct"], stage["trials"]) for stage in manifest["stages"]}

    assert len(rows) == 8
    assert stages == {
        "federation": (2, 8), "portraits": (4, 4), "contrast": (4, 4), "evaluator": (1, 8),
    }  # fmt: skip
    own = rows[rows["attack"] == "portraits"]
    assert sorted(own["round"]) == [0, 0, 2, 2]
    assert len(images[images["trial_id"].isin(own["trial_id"])]) == 4 * 3


@pytest.mark.usefixtures("portraits", "hasty_judge")
def test_scoring_again_makes_the_judges_stages_anew(rows_of, folder, trials_of):
    rows_of(TEXT)
    (request,) = judge_stages(trials_of(TEXT)[0].spec)
    store = ArtifactStore(folder / "private")
    store.discard(request.key)
    again = rescore(folder, every=True)

    assert (again.complete, again.changed, again.failed) == (8, 0, {})
    assert store.has(request.key)
