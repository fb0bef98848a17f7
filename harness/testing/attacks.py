"""The conformance kit for attacks."""

from __future__ import annotations

import importlib
import math
import pickle
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from attacks.base import Attack, AttackTask, Reconstruction, TaskFailure
from fl.cards import AttackCard
from fl.specs import Config, ObservationKind
from fl.types import Artifact, Observation
from harness.testing.cards import check_card, check_config, check_planning_is_light
from harness.testing.problems import SmallProblem
from harness.testing.small_env import SmallEnv

KINDS: tuple[ObservationKind, ...] = ("update", "aggregate", "global_model")


class AttackConformance:
    """What every attack must do; subclass it, give it a card, and let pytest collect it.

    Attributes:
        card: The attack's card.
        config: A configuration that makes it quick; the card's default where None.
        deterministic: Whether the reconstruction does not depend on the seed.
    """

    card: ClassVar[AttackCard[Any]]
    config: ClassVar[Config | None] = None
    deterministic: ClassVar[bool] = False

    def problem(self, *, channels: int = 1, n: int = 1) -> SmallProblem:
        """Return the problem to solve; override it for an attack that needs another."""
        observes = next(kind for kind in KINDS if kind in self.card.observes)
        return SmallProblem(channels=channels, n=n, observes=observes)

    def artifacts(self, problem: SmallProblem) -> Mapping[str, Artifact]:
        """Return what the attack's stages would have made; override it for an attack that has any."""
        return {}

    def test_card_is_complete(self) -> None:
        """The card describes an attack."""
        check_card(self.card, Attack)
        assert self.card.observes, "expected at least one kind of observation, got none"
        assert self.card.evaluations(self._config) >= 0, "expected an estimate of gradient evaluations"

    def test_config_survives_json_and_pickle(self) -> None:
        """The configuration is plain data, and the attack itself pickles."""
        check_config(self.card, self._config)
        pickle.loads(pickle.dumps(self._attack()))

    def test_planning_is_light(self) -> None:
        """Cards are read without torch."""
        check_planning_is_light(self.card)

    def test_reconstructions_are_images(self) -> None:
        """For 1 and 2 images of 1 and 3 channels: shapes, ranges, types, counts."""
        for channels, n in ((1, 1), (3, 1), (1, 2), (3, 2)):
            problem = self.problem(channels=channels, n=n)
            answer = self._solve_one(problem)
            assert isinstance(answer, Reconstruction), f"expected a reconstruction, got {answer}"
            _check_reconstruction(answer, problem)

    def test_same_streams_same_bits(self) -> None:
        """A reconstruction is a function of the task."""
        problem = self.problem()
        _check_same(self._solve_one(problem), self._solve_one(problem), "the same task again")

    def test_seed_matters(self) -> None:
        """Another seed gives another reconstruction, unless the attack is declared deterministic."""
        problem = self.problem()
        first, second = self._solve_one(problem, seed=1), self._solve_one(problem, seed=2)
        assert isinstance(first, Reconstruction), f"expected a reconstruction, got {first}"
        assert isinstance(second, Reconstruction), f"expected a reconstruction, got {second}"
        same = torch.equal(first.images, second.images)
        assert same == self.deterministic, f"deterministic is {self.deterministic}, but two seeds say {same}"

    def test_companions_change_nothing(self) -> None:
        """Neither order nor company changes a result, and every task is answered once."""
        problem = self.problem()
        tasks = [self._task(problem, task_id=f"task-{seed}", seed=seed) for seed in range(3)]
        together, backwards = self._solve(tasks), self._solve(tasks[::-1])
        for task in tasks:
            _check_same(together[task.task_id], backwards[task.task_id], "another order")
        alone = self._solve(tasks[1:2])["task-1"]
        _check_same(together["task-1"], alone, "no company")

    def test_trials_do_not_mix(self) -> None:
        """Labels of one model are recovered together, and without regard to other trials in the same call."""
        problem = self.problem()
        if problem.observes != "global_model":
            return
        tasks = [
            self._task(problem, task_id=f"{trial}/{target}", seed=trial, target=target, group=str(trial))
            for target in range(2)
            for trial in range(2)
        ]
        together = self._solve(tasks)
        for trial in range(2):
            alone = self._solve([task for task in tasks if task.group == str(trial)])
            for task_id, answer in alone.items():
                _check_same(together[task_id], answer, "no other trial")

    def test_observation_is_left_alone(self) -> None:
        """Nothing the task holds is written to, nor is torch's global generator."""
        problem = self.problem()
        before = [tensor.clone() for tensor in _tensors(problem.observation)]
        generator = torch.get_rng_state()
        self._solve_one(problem)
        for tensor, copy in zip(_tensors(problem.observation), before, strict=True):
            assert torch.equal(tensor, copy), "expected an unchanged observation, got a changed tensor"
            assert tensor.grad is None, "expected no gradients in the observation, got some"
        assert torch.equal(generator, torch.get_rng_state()), "expected draws from the task's streams only"

    def test_stops_when_told(self) -> None:
        """Told to stop, it still answers every task."""
        problem = self.problem()
        tasks = [self._task(problem, task_id=f"task-{i}") for i in range(2)]
        self._solve(tasks, problem.env(stop_after=0))

    def test_keeps_to_its_allowance(self) -> None:
        """It spends no more gradient evaluations than it may."""
        problem = self.problem()
        for allowed in (1, 5, 50):
            answer = self._solve([self._task(problem, max_evaluations=allowed)])["small"]
            if isinstance(answer, Reconstruction):
                spent = answer.gradient_evaluations
                assert spent <= allowed, f"expected at most {allowed} gradient evaluations, got {spent}"

    @property
    def _config(self) -> Config:
        config: Config = self.card.config() if self.config is None else self.config
        return config

    def _attack(self) -> Attack[Any]:
        module, _, attribute = self.card.implementation.partition(":")
        attack: Attack[Any] = getattr(importlib.import_module(module), attribute)()
        return attack

    def _task(
        self,
        problem: SmallProblem,
        *,
        task_id: str = "small",
        seed: int | None = None,
        max_evaluations: int | None = None,
        target: int = 0,
        group: str = "",
    ) -> AttackTask[Any]:
        return problem.attack_task(
            self._config,
            task_id=task_id,
            seed=seed,
            artifacts=self.artifacts(problem),
            max_evaluations=max_evaluations,
            target=target,
            group=group,
        )

    def _solve(
        self, tasks: Sequence[AttackTask[Any]], env: SmallEnv | None = None
    ) -> dict[str, Reconstruction | TaskFailure]:
        answers = list(self._attack().solve(iter(tasks), env or SmallEnv()))
        answered = sorted(answer.task_id for answer in answers)
        assert answered == sorted(task.task_id for task in tasks), f"expected one answer each, got {answered}"
        return {answer.task_id: answer for answer in answers}

    def _solve_one(self, problem: SmallProblem, *, seed: int | None = None) -> Reconstruction | TaskFailure:
        return self._solve([self._task(problem, seed=seed)])["small"]


def _check_reconstruction(answer: Reconstruction, problem: SmallProblem) -> None:
    images = answer.images
    assert images.shape[1:] == problem.image.shape, (
        f"expected images of shape {problem.image.shape}, got {tuple(images.shape[1:])}"
    )
    assert len(images) >= 1, "expected at least one image, got none"
    assert images.dtype == torch.float32, f"expected float32 images, got {images.dtype}"
    assert bool(images.isfinite().all()), "expected finite images, got others"
    assert 0 <= float(images.min()) <= float(images.max()) <= 1, "expected images in [0, 1], got others"
    assert not images.requires_grad, "expected images without a graph, got some that require gradients"
    if answer.labels is not None:
        assert answer.labels.dtype == torch.int64, f"expected int64 labels, got {answer.labels.dtype}"
        assert len(answer.labels) == len(images), (
            f"expected a label per image, got {len(answer.labels)} for {len(images)}"
        )
    for name, value in answer.objective.items():
        assert not math.isnan(value), f"expected a number for {name!r}, got nan"
    assert answer.gradient_evaluations >= 0, "expected a count of gradient evaluations"
    assert answer.lane_iterations >= 0, "expected a count of iterations"


def _check_same(first: Reconstruction | TaskFailure, second: Reconstruction | TaskFailure, when: str) -> None:
    assert isinstance(first, Reconstruction), f"expected a reconstruction, got {first}"
    assert isinstance(second, Reconstruction), f"expected a reconstruction with {when}, got {second}"
    assert torch.equal(first.images, second.images), f"expected the same images with {when}, got others"
    if first.labels is None or second.labels is None:
        assert first.labels is second.labels, f"expected labels with {when} as without"
    else:
        assert torch.equal(first.labels, second.labels), f"expected the same labels with {when}, got others"
    assert first.objective == second.objective, f"expected the same objective with {when}, got another"
    assert first.gradient_evaluations == second.gradient_evaluations, f"expected the same count with {when}"


def _tensors(observation: Observation) -> list[Tensor]:
    found = [] if observation.knowledge.labels is None else [observation.knowledge.labels]
    for view in observation.history:
        found += view.sent.tensors.values()
        if view.update is not None:
            found += [*view.update.tensors.values(), *view.update.buffers.values()]
    return found
