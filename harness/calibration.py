"""Measuring which formulation and lane width solve a model's tasks fastest on a device."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, NamedTuple, get_args

import torch

from attacks import ATTACKS
from attacks.base import TaskFailure
from attacks.catalog import DlgConfig, InvertingGradientsConfig
from attacks.engine.formulations import FORMULATIONS
from attacks.engine.graphs import UnsupportedModelError
from attacks.engine.native.lane import Lane
from attacks.engine.objective import LaneObjective, ObjectiveSpec, Target
from attacks.engine.table import (
    IN_TURN,
    NATIVE,
    REFERENCE,
    Choice,
    EngineTable,
    FormulationName,
    spelled,
    using,
)
from attacks.objectives import cosine
from fl.losses import task_loss
from fl.memory import is_out_of_memory
from fl.models import MODELS, materialise
from fl.seeds import Streams
from harness.alike import AlikeTasks
from harness.execute.environment import Environment

if TYPE_CHECKING:
    from torch import Tensor, nn

    from fl.specs import Config, Task

log = logging.getLogger(__name__)

LANES = (1, 16, 32, 64)
GENERAL: tuple[FormulationName, ...] = ("layers", "reference")
"""Formulations for every objective and mode of a model, which can stand in for others."""
GAIN = 0.97
"""Wider is worth its memory only if it takes at most this share of the time."""
EXACT = 1e-4
"""Largest relative error of an image gradient under L-BFGS, which amplifies it."""
SIGNED = 3e-2
"""The same where only its signs count."""


class Speed(NamedTuple):
    """What a choice takes.

    Attributes:
        choice: Formulation and lanes.
        seconds: Per gradient evaluation of one task: CPU seconds, on a GPU wall-clock ones.
    """

    choice: Choice
    seconds: float


@dataclass(frozen=True)
class Calibration:
    """How choices are compared.

    Attributes:
        lanes: Widths tried, ascending.
        formulations: Formulations tried.
        iterations: Optimizer steps of a measurement.
        repeats: Measurements of each choice, all choices in turn.
    """

    lanes: Sequence[int] = LANES
    formulations: Sequence[FormulationName] = get_args(FormulationName)
    iterations: int = 4
    repeats: int = 3

    def measure(self, alike: AlikeTasks) -> list[Speed]:
        """Return the speed of every choice that the model and the memory allow, the fastest first."""
        choices = [choice for choice in self._choices(alike) if self._seconds(alike, choice) is not None]
        taken: dict[Choice, list[float]] = {choice: [] for choice in choices}
        for _ in range(self.repeats):
            for choice in choices:
                seconds = self._seconds(alike, choice)
                taken[choice] += [] if seconds is None else [seconds]
        speeds = [Speed(choice, median(seconds)) for choice, seconds in taken.items() if seconds]
        for speed in speeds:
            log.info("%s: %s: %.3g s per evaluation", alike.model.name, speed.choice, speed.seconds)
        return sorted(speeds, key=lambda speed: speed.seconds)

    def _choices(self, alike: AlikeTasks) -> Iterator[Choice]:
        for formulation in self.formulations:
            if formulation == REFERENCE.formulation:
                yield REFERENCE
            elif formulation == NATIVE.formulation:
                if is_sound(alike, formulation):
                    yield NATIVE
            elif is_sound(alike, formulation):
                lanes = (1,) if formulation in IN_TURN else self.lanes
                yield from (Choice(formulation, width) for width in lanes)

    def _seconds(self, alike: AlikeTasks, choice: Choice) -> float | None:
        """Return what one evaluation of one task takes, or None where it fails or does not fit in memory.

        A short run is taken off a long one, so that what is done once for a task does not count.
        """
        short = self._run(alike, choice, 1)
        long = self._run(alike, choice, 1 + self.iterations)
        if short is None or long is None:
            return None
        return max(long[0] - short[0], 1e-9) / (long[1] - short[1])

    def _run(self, alike: AlikeTasks, choice: Choice, iterations: int) -> tuple[float, int] | None:
        """Solve as many tasks as there are lanes; return seconds and evaluations of all tasks together."""
        name, config = _attack(alike, iterations)
        tasks = alike.tasks(range(choice.lanes), config)
        table = EngineTable({}, {alike.device.type: choice})
        clock = _clock(alike.device)
        try:
            with using(table):
                began = clock()
                answers = list(
                    ATTACKS.implementation(name)().solve(tasks, Environment(alike.device, timeout_s=None))
                )
                seconds = clock() - began
        except Exception as error:
            if is_out_of_memory(error):
                return None
            raise
        evaluations = 0
        for answer in answers:
            if isinstance(answer, TaskFailure):
                log.info("%s: %s: %s", alike.model.name, choice, answer.error)
                return None
            evaluations += answer.gradient_evaluations
        return seconds, evaluations


def best(speeds: Sequence[Speed]) -> Choice:
    """Return the fastest choice, and of those about as fast the narrowest."""
    fastest = min(speed.seconds for speed in speeds)
    near = [speed for speed in speeds if speed.seconds * GAIN <= fastest]
    return min(near, key=lambda speed: (speed.choice.lanes, speed.seconds)).choice


def calibrated(table: EngineTable, alike: AlikeTasks, speeds: Sequence[Speed]) -> EngineTable:
    """Return the table with the best choice for the model and what stands in where that cannot serve."""
    choice = best(speeds)
    general = [speed for speed in speeds if speed.choice.formulation in GENERAL]
    stand_in = best(general) if general and choice.formulation not in GENERAL else None
    stand_in = None if stand_in == REFERENCE else stand_in
    config = alike.model.config
    given = {name: value for name, value in config.resolved().items() if name in config.model_fields_set}
    return table.with_choice(spelled(alike.model.name, given), alike.device.type, choice, portable=stand_in)


def is_sound(alike: AlikeTasks, formulation: FormulationName) -> bool:
    """Whether a formulation can compute the model and its image gradient is near enough the plain loop's."""
    task = alike.task(0, InvertingGradientsConfig())
    observation = task.observation
    model = materialise(observation.sent, device=alike.device)
    names = list(observation.update.tensors)
    observed = {name: tensor.to(alike.device) for name, tensor in observation.update.tensors.items()}
    generator = Streams(0).torch("first_guess", restart=0)
    guess = torch.randn(1, *observation.image.shape, generator=generator).to(alike.device)
    outputs = observation.task.outputs
    labels = torch.full((1, outputs), 1 / outputs, device=alike.device)

    def plain(inputs: Tensor) -> dict[str, Tensor]:
        loss = task_loss(observation.task, model(inputs), labels)
        parameters = [model.get_parameter(name) for name in names]
        return dict(zip(names, torch.autograd.grad(loss, parameters, create_graph=True), strict=True))

    tensors = {name: tensor.to(alike.device) for name, tensor in observation.sent.tensors.items()}
    target = Target(tensors, observed, labels, 0.0, 1.0, None)
    try:
        if formulation == NATIVE.formulation:
            if not _is_smooth(alike):
                raise UnsupportedModelError("the native kernel is for L-BFGS")
            computed = [_native_gradient(model, target, guess, observation.task)]
        else:
            lanes = FORMULATIONS[formulation](model, 1)
            lanes.load(0, tensors)

            def laned(inputs: Tensor) -> dict[str, Tensor]:
                rows = lanes.gradients(inputs.unsqueeze(0), labels.unsqueeze(0), observation.task, names)
                return {name: row[0] for name, row in rows.items()}

            objective = LaneObjective(_cosine(observation.task, target, guess), lanes, 1, guess)
            computed = [
                _image_gradient(laned, guess, observed),
                _objective_gradient(objective, target, guess),
            ]
    except (UnsupportedModelError, MemoryError, RuntimeError) as error:
        log.info("%s: %s: left out: %s", alike.model.name, formulation, error)
        return False
    expected = _image_gradient(plain, guess, observed)
    relative = max(float((found - expected).norm() / expected.norm()) for found in computed)
    log.info("%s: %s: relative error of the image gradient %.1e", alike.model.name, formulation, relative)
    return relative <= (EXACT if _is_smooth(alike) else SIGNED)


def _cosine(task: Task, target: Target, guess: Tensor) -> ObjectiveSpec:
    channels, height, width = guess.shape[1:]
    names = tuple(target.observed)
    return ObjectiveSpec(
        task, 1, (channels, height, width), names, names, "cosine", None, False, False, False
    )


def _objective_gradient(objective: LaneObjective, target: Target, guess: Tensor) -> Tensor:
    """Return what attacks descend, which may be computed without the gradients themselves."""
    objective.load(0, target)
    gradients = objective.evaluate(guess.flatten().unsqueeze(0)).gradients
    return gradients[:, : guess.numel()].view_as(guess)


def _native_gradient(model: nn.Module, target: Target, guess: Tensor, task: Task) -> Tensor:
    lane = Lane(_cosine(task, target, guess), model)
    lane.load(target)
    lane.start(guess.flatten())
    lane.evaluate()
    return lane.gradient.view_as(guess)


def _image_gradient(
    gradients: Callable[[Tensor], dict[str, Tensor]], guess: Tensor, observed: dict[str, Tensor]
) -> Tensor:
    inputs = guess.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(cosine(gradients(inputs), observed), inputs)
    return gradient


def _attack(alike: AlikeTasks, iterations: int) -> tuple[str, Config]:
    """Return the attack that the model is usually under: L-BFGS where it is smooth, else signed Adam."""
    if _is_smooth(alike):
        return "dlg", DlgConfig(iterations=iterations, tolerance=0, patience=iterations)
    return "inverting_gradients", InvertingGradientsConfig(iterations=iterations)


def _is_smooth(alike: AlikeTasks) -> bool:
    traits = MODELS.get(alike.model.name).traits(alike.model.config, alike.dataset.info)
    return traits.twice_differentiable


def _clock(device: torch.device) -> Callable[[], float]:
    if device.type != "cuda":
        return time.process_time

    def synchronised() -> float:
        torch.cuda.synchronize(device)
        return time.perf_counter()

    return synchronised
