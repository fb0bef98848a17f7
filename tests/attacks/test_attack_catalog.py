from dataclasses import replace

import pytest
from pydantic import ValidationError

from attacks import ATTACKS
from attacks.catalog import (
    DLG,
    IDLG,
    INVERTING_GRADIENTS,
    MEAN_IMAGE,
    DlgConfig,
    IdlgConfig,
    InvertingGradientsConfig,
)
from fl.cards import DataInfo, ModelTraits, Setting
from fl.specs import FederationSpec, KnowledgeSpec, NoConfig, Task, ThreatModel

SETTING = Setting(
    data=DataInfo(Task("multiclass", 10), channels=1, size=16, images={}, public=True, fingerprint="x"),
    model=ModelTraits(
        batch_norm=False,
        head_bias=True,
        non_negative_features=True,
        convolution=True,
        twice_differentiable=True,
        min_size=8,
        channels=None,
        mflop_per_image=1.0,
    ),
    federation=FederationSpec(),
    threat_model=ThreatModel(),
    observes="update",
)
FEDAVG = replace(SETTING, federation=FederationSpec(algorithm="fedavg"))


def knowing(setting, **knowledge):
    return replace(setting, threat_model=ThreatModel(knowledge=KnowledgeSpec(**knowledge)))


def test_every_attack_is_registered_under_its_name():
    assert ATTACKS.names() == ["dlg", "idlg", "inverting_gradients", "mean_image", "random_guess"]


def test_everything_applies_to_a_fedsgd_update():
    for card in ATTACKS:
        assert card.compatible(card.config(), SETTING) is None


@pytest.mark.parametrize(
    ("card", "config", "setting", "reason"),
    [
        (DLG, DlgConfig(), knowing(FEDAVG, local_hyperparameters=False), "lengths"),
        (IDLG, IdlgConfig(), knowing(FEDAVG, local_hyperparameters=False), "lengths"),
        (
            INVERTING_GRADIENTS,
            InvertingGradientsConfig(),
            knowing(FEDAVG, local_hyperparameters=False),
            "counted",
        ),
        (INVERTING_GRADIENTS, InvertingGradientsConfig(unroll=True), SETTING, "fedavg"),
        (
            INVERTING_GRADIENTS,
            InvertingGradientsConfig(unroll=True),
            replace(FEDAVG, observes="aggregate"),
            "one client",
        ),
        (
            INVERTING_GRADIENTS,
            InvertingGradientsConfig(unroll=True),
            knowing(FEDAVG, local_hyperparameters=False, labels="known"),
            "local_hyperparameters",
        ),
        (
            INVERTING_GRADIENTS,
            InvertingGradientsConfig(init="mean"),
            knowing(SETTING, public_data=False),
            "public_data",
        ),
        (MEAN_IMAGE, NoConfig(), knowing(SETTING, public_data=False), "public_data"),
    ],
)
def test_what_cannot_work_says_why(card, config, setting, reason):
    assert reason in card.compatible(config, setting)


def test_labels_need_a_bias_or_non_negative_features_unless_granted():
    model = replace(SETTING.model, head_bias=False, non_negative_features=False)
    setting = replace(SETTING, model=model)
    for card in (IDLG, INVERTING_GRADIENTS):
        assert "bias" in card.compatible(card.config(), setting)
        assert card.compatible(card.config(), knowing(setting, labels="known")) is None
    assert DLG.compatible(DlgConfig(), setting) is None


def test_a_direction_alone_is_enough_with_granted_labels():
    setting = knowing(FEDAVG, local_hyperparameters=False, labels="known")
    assert INVERTING_GRADIENTS.compatible(InvertingGradientsConfig(), setting) is None
    assert "lengths" in INVERTING_GRADIENTS.compatible(InvertingGradientsConfig(cost="l2"), setting)


@pytest.mark.parametrize("init", ["zeros", "mean"])
def test_restarts_from_the_same_guess_are_refused(init):
    with pytest.raises(ValidationError, match="restarts: 1"):
        InvertingGradientsConfig(restarts=2, init=init)


def test_estimates_bound_the_evaluations_of_the_default_schedule():
    assert DLG.evaluations(DlgConfig(iterations=10, restarts=3)) == 3 * 201
    assert INVERTING_GRADIENTS.evaluations(InvertingGradientsConfig(iterations=10, restarts=3)) == 33
