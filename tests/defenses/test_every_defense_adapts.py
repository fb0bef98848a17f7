"""Every defense in the registry has a mirror, can be taken out of a batch, or says why neither is so."""

import functools
from dataclasses import replace

import pytest
import torch

from attacks.base import Reconstruction
from attacks.catalog import InvertingGradientsConfig
from attacks.inverting_gradients import InvertingGradients
from defenses import DEFENSES
from defenses.base import ClientDefense, Defense
from defenses.catalog import NONE, adaptation, is_mirrored, unperturbs
from fl.generators import stage
from fl.generators.config import GeneratorConfig
from fl.seeds import Streams
from fl.specs import NoConfig, Plugin
from fl.stage_context import StageContext
from harness.testing import SmallProblem
from harness.testing.adapting import check_adaptation
from harness.testing.small_setting import small_setting

SMALLER = {
    "chain": {"links": [{"name": "clipping"}, {"name": "gaussian"}]},
    "precode": {"bottleneck": 8},
    "mid_vib": {"bottleneck": 8},
    "shadowdef": {"latent_steps": 3, "shadow_steps": 1},
}
VARIANTS = [
    ("soteria", {"variant": "ggl"}),
    ("bido", {"measure": "coco"}),
    ("bido", {"measure": "coco", "estimator": "spectral", "kernel": "linear"}),
    ("bido", {"estimator": "cka", "bandwidth": 0}),
    ("pruning", {"variant": "as_released"}),
    ("pruning", {"mirror": "threshold"}),
    ("clipping", {"scope": "per_tensor"}),
    ("quantization", {"rounding": "stochastic"}),
    ("chain", {"links": [{"name": "precode", "config": {"bottleneck": 4}}, {"name": "gaussian"}]}),
    ("chain", {"links": [{"name": "soteria", "config": {"variant": "ggl"}}, {"name": "pruning"}]}),
]
BUILTIN = [card for card in DEFENSES if card.origin == "defenses"]
CASES = [*((card.name, SMALLER.get(card.name, {})) for card in BUILTIN), *VARIANTS]
WAYS = {
    **dict.fromkeys(
        ["none", "gaussian", "laplace", "clipping", "pruning", "quantization", "fixed_step", "sign"], "mirror"
    ),
    **dict.fromkeys(["input_noise", "label_smoothing", "mixup", "soteria", "precode"], "simulation"),
    **dict.fromkeys(["bido", "mid_vib", "mid_dependence"], "simulation"),
    "shadowdef": "unperturb",
    "chain": "mirror",
}


@functools.cache
def artifacts(name):
    if name != "shadowdef":
        return {}
    small = SmallProblem()
    config = GeneratorConfig(latent=8, width=4, mapping_layers=2, steps=2, batch_size=8)
    context = StageContext(Streams(0), torch.device("cpu"), small.public, small.env().build, lambda *_: None)
    made = stage.train({"generator": config.resolved(), "image": list(small.image.shape[:2])}, {}, context)
    return {"shadow": made}


def configured(name, options):
    card = DEFENSES.get(name)
    return Plugin(name, card.version, card.config.model_validate(options))


@pytest.mark.parametrize(("name", "options"), CASES)
def test_every_defense_says_how_it_is_accounted_for(name, options):
    check_adaptation(DEFENSES.get(name), configured(name, options).config)


def test_no_defense_is_without_a_way():
    found = {}
    for card in BUILTIN:
        found[card.name] = adaptation(card, configured(card.name, SMALLER.get(card.name, {})).config)
    assert found == WAYS


@pytest.mark.parametrize("kind", ["gradient", "delta"])
@pytest.mark.parametrize(("name", "options"), CASES)
def test_an_adaptive_attack_runs_against_every_defense(name, options, kind):
    plugin = configured(name, options)
    defense = DEFENSES.implementation(name)(plugin.config)
    small = SmallProblem(n=2, kind=kind, defense=defense, know_labels=True, artifacts=artifacts(name))
    task = small.attack_task(
        InvertingGradientsConfig(iterations=3),
        adaptive=True,
        mirrored=is_mirrored(plugin),
        unperturbed=unperturbs(plugin),
    )
    (answer,) = InvertingGradients().solve([task], small.env())
    assert isinstance(answer, Reconstruction), answer
    assert answer.images.shape == small.images.shape
    assert answer.images.isfinite().all()


@pytest.mark.parametrize(("name", "options"), CASES)
def test_a_client_is_simulated_without_an_update_to_learn_from(name, options):
    defense = DEFENSES.implementation(name)(configured(name, options).config)
    small = SmallProblem(n=2, defense=defense, observes="global_model", artifacts=artifacts(name))
    client = defense.simulated(small.client_context, small.observation)
    images = small.images.clone().requires_grad_()  # as an attacker's are
    update = small.simulator(client)(images, small.labels, small.sent, Streams(0).torch("simulation"))
    assert all(tensor.isfinite().all() for tensor in update.tensors.values())


class Opaque(ClientDefense):
    def protect(self, update, step):
        return replace(update, tensors={name: tensor.exp() for name, tensor in update.tensors.items()})


class Planted(Defense[NoConfig]):
    def for_client(self, context):
        return Opaque()


PLANTED = replace(
    NONE,
    name="planted",
    implementation=f"{__name__}:Planted",
    hooks=frozenset({"protect"}),
    mirrored=False,
)
REASON = "it is one way"


@pytest.fixture
def plant(register):
    return lambda **changes: register(DEFENSES, replace(PLANTED, **changes))


def unaccounted():
    """Return the defenses in the registry that the check above finds fault with."""
    found = []
    for card in DEFENSES:
        try:
            check_adaptation(card, configured(card.name, SMALLER.get(card.name, {})).config)
        except AssertionError as error:
            found.append(str(error))
    return found


def test_a_planted_defense_without_mirror_or_reason_is_caught(plant):
    assert unaccounted() == []
    plant()
    (message,) = unaccounted()
    assert "'planted'" in message
    assert "card.unmirrored" in message


@pytest.mark.parametrize("reason", ["", "  "])
def test_an_empty_reason_is_none(plant, reason):
    plant(unmirrored=lambda config: reason)
    assert len(unaccounted()) == 1


@pytest.mark.parametrize(
    "told", [{"unmirrored": lambda config: REASON}, {"mirrored": True}, {"unperturbs": True}]
)
def test_a_planted_defense_that_says_is_not(plant, told):
    plant(**told)
    assert unaccounted() == []


def test_the_stated_reason_is_why_an_adaptive_attacker_does_not_apply(plant):
    plant(unmirrored=lambda config: REASON)
    assert adaptation(DEFENSES.get("planted"), NoConfig()) == "none"
    chained = configured("chain", {"links": [{"name": "planted"}]})
    setting = small_setting(attacker="adaptive")
    assert REASON in DEFENSES.get("chain").compatible(chained.config, setting)
