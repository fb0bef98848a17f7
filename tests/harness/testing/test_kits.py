"""The conformance kits catch what they are there to catch."""

from dataclasses import dataclass, replace

import pytest
import torch

from attacks.base import Attack, Reconstruction
from attacks.catalog import RANDOM_GUESS
from defenses.base import ClientDefense, Defense
from defenses.catalog import CLIPPING
from fl.specs import NoConfig
from harness.testing import AttackConformance, DefenseConformance, SmallProblem


def answer(task, images):
    return Reconstruction(task.task_id, images, None, {}, 0, 0)


class Unseeded(Attack):
    def solve(self, tasks, env):
        for task in tasks:
            yield answer(task, torch.rand(task.observation.update.n_images, *task.observation.image.shape))


class OutOfRange(Attack):
    def solve(self, tasks, env):
        for task in tasks:
            yield answer(task, torch.full((1, *task.observation.image.shape), 1.5))


class Silent(Attack):
    def solve(self, tasks, env):
        yield from ()


class Spoiler(Attack):
    """Writes to the observation."""

    def solve(self, tasks, env):
        for task in tasks:
            next(iter(task.observation.update.tensors.values())).zero_()
            yield answer(task, torch.zeros(1, *task.observation.image.shape))


class Sociable(Attack):
    """Its result depends on how many tasks came before."""

    def solve(self, tasks, env):
        for index, task in enumerate(tasks):
            yield answer(task, torch.full((1, *task.observation.image.shape), index / 10))


class Spendthrift(Attack):
    def solve(self, tasks, env):
        for task in tasks:
            images = torch.zeros(1, *task.observation.image.shape)
            yield Reconstruction(task.task_id, images, None, {}, 100, 100)


@pytest.mark.parametrize(
    ("attack", "check", "message"),
    [
        (Unseeded, "test_same_streams_same_bits", "same images"),
        (Unseeded, "test_observation_is_left_alone", "streams only"),
        (OutOfRange, "test_reconstructions_are_images", r"\[0, 1\]"),
        (Silent, "test_companions_change_nothing", "one answer each"),
        (Spoiler, "test_observation_is_left_alone", "unchanged observation"),
        (Sociable, "test_companions_change_nothing", "another order"),
        (Sociable, "test_seed_matters", "deterministic is False"),
        (Spendthrift, "test_keeps_to_its_allowance", "at most 1"),
    ],
)
def test_the_attack_kit_catches(attack, check, message):
    class Kit(AttackConformance):
        card = replace(RANDOM_GUESS, implementation=f"{__name__}:{attack.__name__}", config=NoConfig)

        def _attack(self):
            return attack()

    with pytest.raises(AssertionError, match=message):
        getattr(Kit(), check)()


def test_the_attack_kit_catches_trials_that_mix():
    class Kit(AttackConformance):
        card = replace(RANDOM_GUESS, observes=frozenset({"global_model"}))

        def _attack(self):
            return Sociable()

    with pytest.raises(AssertionError, match="no other trial"):
        Kit().test_trials_do_not_mix()


class InPlaceClient(ClientDefense):
    def protect(self, update, step):
        for tensor in update.tensors.values():
            tensor.mul_(0.5)
        return update


class UnseededClient(ClientDefense):
    def protect(self, update, step):
        return replace(update, tensors={k: v + torch.randn_like(v) for k, v in update.tensors.items()})


class ForgetfulClient(ClientDefense):
    def __init__(self):
        self.calls = 0

    def state_dict(self):
        return {"calls": torch.tensor(self.calls)}

    def protect(self, update, step):
        self.calls += 1
        return update


class DroppingClient(ClientDefense):
    def protect(self, update, step):
        return replace(update, tensors=dict(list(update.tensors.items())[1:]))


@dataclass(frozen=True)
class Faulty(Defense[NoConfig]):
    client: type[ClientDefense] = ClientDefense

    def for_client(self, context):
        return self.client()

    def estimate(self, observation):
        return {}

    def mirror(self, params, gradients):
        return {name: 3 * tensor for name, tensor in gradients.items()}


@pytest.mark.parametrize(
    ("client", "check", "message"),
    [
        (InPlaceClient, "test_protect_is_pure", "protect's input"),
        (UnseededClient, "test_protect_is_pure", "stream only"),
        (UnseededClient, "test_stream_decides", "the same stream"),
        (ClientDefense, "test_hooks_are_those_declared", "expected hooks"),
        (ForgetfulClient, "test_state_survives", "the state"),
        (DroppingClient, "test_update_keeps_its_form", "expected tensors"),
        (InPlaceClient, "test_off_is_none", "off"),
        (ClientDefense, "test_mirror_does_what_protect_does", "mirror differs"),
    ],
)
def test_the_defense_kit_catches(client, check, message):
    class Kit(DefenseConformance):
        card = replace(
            CLIPPING,
            config=NoConfig,
            implementation=f"{__name__}:Faulty",
            noise_budget=lambda config: replace(CLIPPING.noise_budget(CLIPPING.config()), field="", off=0.0),
        )

        def _defense(self, config=None):
            return Faulty(NoConfig(), client)

    with pytest.raises(AssertionError, match=message):
        getattr(Kit(), check)()


def test_an_undeclared_mirror_is_caught():
    class Kit(DefenseConformance):
        card = replace(CLIPPING, mirrored=False)

    with pytest.raises(AssertionError, match="NotImplementedError"):
        Kit().test_mirror_is_there_as_declared()


@dataclass(frozen=True)
class Shift(Defense):
    """Brightens every image by 0.1, and is taken out by taking away `taken`."""

    taken: float = 0.1

    def for_client(self, context):
        return Shifting()

    def unperturb(self, images, labels, context):
        return images - self.taken


class Shifting(ClientDefense):
    def perturb_batch(self, step, batch):
        return replace(batch, images=batch.images + 0.1)


def shift_kit(taken, **card):
    class Kit(DefenseConformance):
        def _defense(self, config=None):
            return Shift(NoConfig(), taken)

    declared = {"hooks": frozenset({"perturb_batch"}), "mirrored": False, "unperturbs": True}
    Kit.card = replace(CLIPPING, config=NoConfig, **(declared | card))
    return Kit()


@pytest.mark.parametrize("taken", [0.1, 0.05])
def test_a_defense_that_can_be_taken_out_of_a_batch_conforms(taken):
    kit = shift_kit(taken)
    kit.test_unperturb_is_there_as_declared()
    kit.test_unperturb_comes_nearer_to_the_private_batch()


def test_the_defense_kit_catches_a_wrong_unperturb():
    with pytest.raises(AssertionError, match="expected an error below"):
        shift_kit(-0.1).test_unperturb_comes_nearer_to_the_private_batch()
    with pytest.raises(AssertionError, match="unperturbs is False"):
        shift_kit(0.1, unperturbs=False).test_unperturb_is_there_as_declared()
    with pytest.raises(AssertionError, match="no hook but perturb_batch"):
        shift_kit(0.1, hooks=frozenset({"perturb_batch", "protect"})).test_unperturb_is_there_as_declared()


@pytest.mark.parametrize("adaptive", [False, True])
def test_nothing_private_is_reachable_from_a_kit_task(adaptive):
    small = SmallProblem(n=2, defense=Shift(NoConfig()))
    task = small.attack_task(NoConfig(), adaptive=adaptive, unperturbed=adaptive)
    seen, stack = set(), [task]
    while stack:
        item = stack.pop()
        if id(item) in seen:
            continue
        seen.add(id(item))
        assert item is not small.images
        assert item is not small
        if isinstance(item, dict):
            stack += item.values()
        elif isinstance(item, (list, tuple)):
            stack += item
        elif hasattr(item, "func"):  # functools.partial
            stack += [item.func, *item.args, *item.keywords.values()]
        elif hasattr(item, "__dict__") and not isinstance(item, type):
            stack += vars(item).values()
