"""`breaching` 0.1.2 as it comes, on our model, gradient and first guess."""

from __future__ import annotations

import contextlib
import io
import warnings
from functools import cache
from typing import Any

import torch
from torch import Tensor

from attacks.base import AttackTask
from attacks.catalog import InvertingGradientsConfig
from attacks.problem import Problem
from benchmarks.solvers import Answer
from harness.execute.environment import Environment

NAMES = {"dlg": "deepleakage", "inverting_gradients": "invertinggradients"}


def breaching(attack: str, task: AttackTask[Any]) -> Answer:
    """Solve one task.

    Only what it cannot be told is replaced: the draw of its first guesses, which are ours. Its objectives are
    scaled to ours (a squared distance, not half of it). Its total variation counts the step from the
    outermost pixels to zero, which ours leaves out, and it answers its best iterate, not its last.
    """
    cpu = torch.device("cpu")
    problem = Problem.of(task, Environment(cpu, timeout_s=None), unroll=False)
    parameters = dict(problem.model.named_parameters())
    attacker = _attacker(attack, task, problem)
    guesses = [problem.first_guess("randn", 0), problem.first_logits(0)]
    by_shape = {tuple(guess.shape): guess for guess in guesses}
    attacker._initialize_data = lambda shape: by_shape[tuple(shape)].clone().requires_grad_()
    labels = None if attack == "dlg" else problem.known_labels()
    shared = {
        "gradients": [problem.observed[name] for name in parameters],
        "buffers": None,
        "metadata": {
            "num_data_points": 1,
            "labels": labels,
            "local_hyperparams": None,
            "data_key": "inputs",
        },
    }
    payload = {
        "parameters": [parameter.detach() for parameter in parameters.values()],
        "buffers": [buffer.detach() for buffer in problem.model.buffers()],
        "metadata": _metadata(task),
    }
    found, _ = attacker.reconstruct([payload], [shared], {}, dryrun=False)
    images: Tensor = task.observation.image.denormalise(found["data"].detach()).clamp(0, 1)
    return Answer(images, engine="breaching")


def _attacker(attack: str, task: AttackTask[Any], problem: Problem) -> Any:
    from breaching.attacks import prepare_attack

    config = _config(NAMES[attack]).copy()
    config.optim.max_iterations = task.config.iterations
    config.optim.callback = 10**9
    if isinstance(task.config, InvertingGradientsConfig):
        config.regularization.total_variation.scale = task.config.total_variation
    else:
        config.objective.scale = 2.0
    setup = {"device": problem.device, "dtype": torch.float32}
    return prepare_attack(problem.model, torch.nn.CrossEntropyLoss(), config, setup)


@cache
def _config(name: str) -> Any:
    """Return breaching's configuration of an attack; loading it prints, and warns of what hydra gives up."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        import breaching as package

        return package.get_attack_config(name)


def _metadata(task: AttackTask[Any]) -> Any:
    from omegaconf import OmegaConf

    image = task.observation.image
    return OmegaConf.create(
        {
            "shape": list(image.shape),
            "classes": task.observation.task.outputs,
            "mean": _per_channel(image.mean, image.channels),
            "std": _per_channel(image.std, image.channels),
            "modality": "vision",
            "task": "classification",
            "size": 1,
            "name": "photographs",
        }
    )


def _per_channel(values: tuple[float, ...], channels: int) -> list[float]:
    return list(values) if len(values) == channels else list(values) * channels
