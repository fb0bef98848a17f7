"""Cards of the attacks that search a prior: where they apply, and that they share it."""

import pytest
from pydantic import ValidationError

from attacks.inversion.cards_gmi import GMI, GmiConfig
from attacks.inversion.cards_random_prior import RANDOM_PRIOR, RandomPriorConfig
from attacks.inversion.cards_vmi import VmiConfig
from attacks.inversion.config import PRIOR
from fl.data import DATASETS
from fl.generators import GeneratorConfig
from fl.generators.layout import FACES
from fl.specs import FederationSpec, NoConfig, ObserveSpec, Plugin, Task, ThreatModel, TrialSpec
from harness.testing.small_setting import inversion_setting, small_data


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        (inversion_setting(), None),
        (inversion_setting(small_data(Task("multilabel", 3))), "multilabel"),
        (inversion_setting(small_data(Task("binary", 2))), "binary"),
        (inversion_setting(public_data=False), "knowledge.public_data"),
        (inversion_setting(small_data(public=3)), "at least 16 public images"),
        (inversion_setting(small_data(size=8)), "16 to 128"),
    ],
)
def test_where_it_applies(setting, words):
    reason = GMI.compatible(GmiConfig(), setting)
    assert (reason is None) if words is None else words in reason
    if setting.data.task.kind != "multiclass":
        assert RANDOM_PRIOR.compatible(RandomPriorConfig(), setting) is None


def test_a_critic_is_asked_for():
    with pytest.raises(ValidationError, match=r"prior\.critic: true"):
        GmiConfig(prior=GeneratorConfig(kind="wgan_gp"))
    with pytest.raises(ValidationError, match=r"prior\.critic: true"):
        GmiConfig(prior={"checkpoint": "x.safetensors"})
    assert GmiConfig().prior == RandomPriorConfig().prior


def test_attack_and_floor_share_the_prior():
    card = DATASETS.get("digits")
    spec = TrialSpec(
        data=Plugin(card.name, card.version, card.config(size=16)),
        model=Plugin("lenet", 1, NoConfig()),
        federation=FederationSpec(),
        defense=Plugin("none", 1, NoConfig()),
        noise_budget=0.0,
        threat_model=ThreatModel(position="participant"),
        attacker="static",
        attack=Plugin("gmi", 1, GmiConfig()),
        observe=ObserveSpec(kind="global_model"),
        targets=2,
        seed=0,
    )
    (gmi,) = GMI.stages(GmiConfig(), spec)
    (floor,) = RANDOM_PRIOR.stages(RandomPriorConfig(), spec)
    assert gmi.key == floor.key
    assert gmi.name == PRIOR
    assert gmi.round is None


@pytest.mark.parametrize("config", [GmiConfig, RandomPriorConfig, VmiConfig])
def test_a_partly_given_prior_is_still_the_attacks_own(config):
    """And so the three share one generator, whatever else is said of it."""
    prior = config(prior={"width": 8}).prior
    assert prior == GeneratorConfig(kind="wgan_gp", critic=True, width=8)
    assert config(prior={"kind": "dcgan"}).prior == GeneratorConfig(kind="dcgan", critic=True)
    assert config(prior={}).canonical == config().canonical


def test_a_checkpoint_is_taken_as_it_is():
    assert VmiConfig(prior={"checkpoint": FACES}).prior == GeneratorConfig(checkpoint=FACES)
