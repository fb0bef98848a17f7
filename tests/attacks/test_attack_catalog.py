import hashlib
from dataclasses import replace

import pytest
from PIL import Image
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
from fl.errors import DataUnavailableError
from fl.specs import FederationSpec, KnowledgeSpec, NoConfig, ThreatModel
from harness.testing.small_setting import small_data, small_setting

SETTING = small_setting()
FEDAVG = replace(SETTING, federation=FederationSpec(algorithm="fedavg"))


def knowing(setting, **knowledge):
    return replace(setting, threat_model=ThreatModel(knowledge=KnowledgeSpec(**knowledge)))


def test_every_attack_is_registered_under_its_name():
    assert ATTACKS.names() == [
        "dlg",
        "ggl",
        "gias",
        "gifd",
        "gmi",
        "gradinversion",
        "idlg",
        "inverting_gradients",
        "kedmi",
        "mean_image",
        "plgmi",
        "random_guess",
        "random_prior",
        "vmi",
    ]


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
        (MEAN_IMAGE, NoConfig(), replace(SETTING, data=replace(small_data(), images={})), "public images"),
        (
            INVERTING_GRADIENTS,
            InvertingGradientsConfig(init="mean"),
            replace(SETTING, public=small_data(public=0)),
            "public images",
        ),
        (
            INVERTING_GRADIENTS,
            InvertingGradientsConfig(unroll=True),
            replace(FEDAVG, form="parameter_difference"),
            "shared",
        ),
    ],
)
def test_what_cannot_work_says_why(card, config, setting, reason):
    assert reason in card.compatible(config, setting)


def test_another_data_set_lends_its_public_images():
    setting = replace(SETTING, data=small_data(public=0), public=small_data())
    assert MEAN_IMAGE.compatible(NoConfig(), setting) is None


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
    assert INVERTING_GRADIENTS.compatible(InvertingGradientsConfig(cost="cosine_per_tensor"), setting) is None
    for cost in ("l2", "l1"):
        assert "lengths" in INVERTING_GRADIENTS.compatible(InvertingGradientsConfig(cost=cost), setting)


@pytest.mark.parametrize("init", ["zeros", "mean"])
def test_restarts_from_the_same_guess_need_jitter(init):
    with pytest.raises(ValidationError, match="restarts: 1"):
        InvertingGradientsConfig(restarts=2, init=init)
    InvertingGradientsConfig(restarts=2, init=init, init_jitter=0.05)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"init_jitter": 0.1}, "init_jitter needs"),
        ({"init": "image"}, "go together"),
        ({"init_image": "x.png"}, "go together"),
        ({"tensors": "first"}, "tensor_count"),
        ({"tensor_count": 3}, "tensor_count"),
        ({"optimizer": "lbfgs"}, "signed: false"),
        ({"optimizer": "lbfgs", "signed": False, "boxed": False}, "decay: false"),
    ],
)
def test_options_that_do_not_go_together_are_refused(options, message):
    with pytest.raises(ValidationError, match=message):
        InvertingGradientsConfig(**options)


def test_later_options_at_their_defaults_leave_no_trace_in_the_identity():
    identity = set(InvertingGradientsConfig().resolved())
    first = {"boxed", "cost", "decay", "init", "iterations", "lr", "restarts", "signed", "total_variation"}
    assert identity == first | {"unroll"}


def picture(path, *, level):
    Image.new("L", (20, 20), level).save(path)
    return InvertingGradientsConfig(init="image", init_image=str(path))


def test_a_picture_is_known_by_its_content(tmp_path):
    here, there, other = (tmp_path / name for name in ("here.png", "there.png", "other.png"))
    configs = [picture(here, level=10), picture(there, level=10), picture(other, level=11)]
    identities = [config.canonical for config in configs]
    assert identities[0] == identities[1] != identities[2]
    digest = hashlib.sha256(here.read_bytes()).hexdigest()
    assert configs[0].resolved()["init_image"] == f"sha256:{digest}"


def test_a_picture_that_cannot_be_read_is_a_clear_error(tmp_path):
    text = tmp_path / "text.png"
    text.write_text("no picture")
    for file in (tmp_path / "missing.png", text):
        config = InvertingGradientsConfig(init="image", init_image=str(file))
        with pytest.raises(DataUnavailableError, match=file.name):
            config.resolved()


def test_estimates_bound_the_evaluations_of_the_default_schedule():
    assert DLG.evaluations(DlgConfig(iterations=10, restarts=3)) == 3 * 201
    assert INVERTING_GRADIENTS.evaluations(InvertingGradientsConfig(iterations=10, restarts=3)) == 33
    plain = {"optimizer": "lbfgs", "signed": False, "boxed": False, "decay": False}
    assert INVERTING_GRADIENTS.evaluations(InvertingGradientsConfig(iterations=10, **plain)) == 201
