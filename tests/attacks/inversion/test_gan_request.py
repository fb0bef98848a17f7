"""The stages of KED-MI and PLG-MI as the planner sees them."""

import pytest

from attacks.inversion.cards_kedmi import KEDMI, KedmiConfig, KedmiGanConfig
from attacks.inversion.cards_plgmi import PLGMI, PlgmiConfig, PlgmiGanConfig, ViewsConfig
from attacks.inversion.gan_request import GAN
from fl.data import DATASETS
from fl.models import MODELS
from fl.specs import (
    FederationSpec,
    NoConfig,
    ObserveSpec,
    Plugin,
    Task,
    ThreatModel,
    TrialSpec,
)
from harness.testing.small_setting import inversion_setting, small_data


def digits(**config):
    card = DATASETS.get("digits")
    return Plugin(card.name, card.version, card.config(**config))


def request(card, config=None, **changes):
    fields = {
        "data": digits(),
        "model": Plugin("lenet", 1, MODELS.get("lenet").config()),
        "federation": FederationSpec(),
        "defense": Plugin("none", 1, NoConfig()),
        "noise_budget": 0.0,
        "threat_model": ThreatModel(),
        "attacker": "static",
        "attack": Plugin(card.name, card.version, NoConfig()),
        "observe": ObserveSpec(kind="global_model", round=3),
        "targets": 2,
        "seed": 0,
    }
    (made,) = card.stages(config or card.config(), TrialSpec(**fields | changes))
    return made


@pytest.mark.parametrize("card", [KEDMI, PLGMI])
def test_the_stage_is_made_with_the_attacked_rounds_model(card):
    made = request(card)
    assert (made.name, made.round, made.inputs, made.kept_private) == (GAN, 3, (), True)
    latest = ObserveSpec(kind="global_model", round=3, rounds=(5, 1))
    assert request(card, observe=latest).round == 5


@pytest.mark.parametrize("card", [KEDMI, PLGMI])
def test_the_key_holds_what_the_gan_is_made_from(card):
    keys = {
        request(card).key,
        request(card, seed=1).key,
        request(card, data=digits(size=20)).key,
        request(card, public=digits(public_labels=(1, 2))).key,
        request(card, observe=ObserveSpec(kind="global_model", round=4)).key,
    }
    assert len(keys) == 5


def test_the_key_holds_how_the_gan_is_trained_and_not_how_it_is_used():
    plain = request(KEDMI).key
    assert request(KEDMI, KedmiConfig(samples=2, iterations=7)).key == plain
    assert request(KEDMI, KedmiConfig(gan=KedmiGanConfig(steps=7))).key != plain
    plain = request(PLGMI).key
    assert request(PLGMI, PlgmiConfig(samples=2, views_each=7)).key == plain
    assert request(PLGMI, PlgmiConfig(gan=PlgmiGanConfig(alpha=0))).key != plain
    assert request(PLGMI, PlgmiConfig(views=ViewsConfig(flip=False))).key != plain


@pytest.mark.parametrize("card", [KEDMI, PLGMI])
@pytest.mark.parametrize(
    ("setting", "words"),
    [
        (inversion_setting(small_data(Task("binary", 2))), "task is binary"),
        (inversion_setting(public_data=False), "knowledge.public_data"),
        (inversion_setting(small_data(public=3)), "at least 16 public images"),
        (inversion_setting(small_data(size=8)), "16 to 128 pixels"),
    ],
)
def test_what_cannot_work_is_said(card, setting, words):
    assert card.compatible(card.config(), inversion_setting()) is None
    assert words in card.compatible(card.config(), setting)


def test_the_released_generator_has_its_own_sizes():
    config = KedmiConfig(gan=KedmiGanConfig(architecture="gmi"))
    assert KEDMI.compatible(config, inversion_setting(small_data(size=32))) is None
    assert "16, 32 or 64" in KEDMI.compatible(config, inversion_setting(small_data(size=28)))
