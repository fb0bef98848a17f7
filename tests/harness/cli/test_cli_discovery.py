"""`ls`, `show`, `data` and `weights` tell everything that is registered."""

from __future__ import annotations

import pytest

from fl.data import DATASETS
from fl.data.assets import ASSETS
from fl.models.imagenet import WEIGHTS
from harness.cli.kinds import KINDS

CARDS = [(kind, card) for kind in KINDS for card in kind.load()]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.plural)
def test_ls_lists_every_plugin_of_a_kind(bench, kind):
    names = kind.load().names()
    listed = bench("ls", kind.plural, "--json").json
    assert sorted(entry["name"] for entry in listed) == names
    assert all(entry["summary"] for entry in listed)
    text = bench("ls", kind.plural).out
    assert all(name in text for name in names)


def test_ls_alone_lists_all_kinds(bench):
    listed = bench("ls", "--json").json
    assert {kind: len(entries) for kind, entries in listed.items()} == {
        k.plural: len(k.load().names()) for k in KINDS
    }
    assert all(kind.plural in bench("ls").out for kind in KINDS)


@pytest.mark.parametrize("word", ["data", "dataset", "datasets"])
def test_a_kind_may_be_called_by_any_of_its_words(bench, word):
    assert bench("ls", word, "--json").json == bench("ls", "data", "--json").json


@pytest.mark.parametrize(("kind", "card"), CARDS, ids=lambda value: getattr(value, "name", None))
def test_show_tells_every_option_of_a_card(bench, kind, card):
    facts = bench("show", kind.singular, card.name, "--json").json
    assert facts["summary"] == card.summary
    options = {option["name"]: option for option in facts["options"]}
    assert set(options) == set(card.config.model_fields)
    for name, field in card.config.model_fields.items():
        assert options[name]["required"] == field.is_required()
        assert options[name]["description"] == (field.description or "")
    text = bench("show", kind.plural, card.name).out
    assert all(name in text for name in options)
    assert card.summary.split()[0] in text


def test_options_have_their_type_range_and_default_in_words(bench):
    options = {o["name"]: o for o in bench("show", "attack", "inverting_gradients", "--json").json["options"]}
    assert options["cost"]["type"] == "cosine | l2 | l1 | cosine_per_tensor"
    assert options["iterations"]["type"] == "integer >= 1"
    assert (options["lr"]["type"], options["lr"]["default"]) == ("number > 0", 0.1)
    ratio = bench("show", "defense", "pruning", "--json").json["options"][0]
    assert ratio["type"] == "number >= 0 and <= 1"


def test_a_name_alone_finds_its_kind(bench):
    assert bench("show", "gaussian", "--json").json == bench("show", "defense", "gaussian", "--json").json


def test_show_tells_a_noise_budget_and_what_data_holds(bench):
    budget = bench("show", "defense", "gaussian", "--json").json["noise_budget"]
    assert (budget["field"], budget["domain"], budget["stronger"], budget["off"]) == (
        "sigma",
        "gradient",
        "higher",
        0,
    )
    digits = bench("data", "show", "digits", "--json").json
    assert sum(digits["images_by_part"].values()) == 1797
    assert digits == bench("show", "data", "digits", "--json").json


def test_assets_are_listed_under_their_kind_with_where_they_are(bench, monkeypatch, tmp_path):
    monkeypatch.setenv("LEAKBENCH_CACHE", str(tmp_path))
    weights = {entry["name"]: entry for entry in bench("weights", "list", "--json").json}
    assert set(weights) == {*WEIGHTS, *(name for name, asset in ASSETS.items() if asset.kind == "weights")}
    assert weights["lpips-alexnet"]["path"] is None
    assert "bench data fetch mnist5k" in bench("data", "list").out
    listed = bench("data", "list", "--json").json
    of_datasets = {name for card in DATASETS for name in card.assets}
    spare = {name for name, asset in ASSETS.items() if asset.kind == "data"} - of_datasets
    assert {entry["name"] for entry in listed["assets"]} == spare


def test_data_that_comes_along_needs_no_fetching(bench):
    outcome = bench("data", "fetch", "digits")
    assert outcome.code == 0
    assert "nothing to fetch" in outcome.out
