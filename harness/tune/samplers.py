"""Optuna's samplers by name, each draw a function of the study so far and of nothing else."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from optuna.samplers import BaseSampler, GPSampler, NSGAIISampler, RandomSampler, TPESampler

from fl.seeds import Streams
from harness.tune.settings import AnySampler, Gp, NsgaII, Tpe
from harness.tune.space import DEFENSE, Choice, Parameter, Range, Scalar, Space

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.study import Study
    from optuna.trial import FrozenTrial, Trial, TrialState

LARGEST_SEED = 2**31 - 1


class Reseeded(BaseSampler):
    """A sampler that starts anew for every draw, with a seed of that draw's own.

    An Optuna trial's parameters are then the same whether or not the driver was stopped in between.
    """

    def __init__(self, make: Callable[[int], BaseSampler], seed: int) -> None:
        self._make = make
        self._streams = Streams(seed)

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Return what is drawn jointly."""
        return self._for(trial, "joint").infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Draw some parameters jointly."""
        return self._for(trial, "joint").sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Draw one parameter."""
        sampler = self._for(trial, param_name)
        return sampler.sample_independent(study, trial, param_name, param_distribution)

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """Do what the sampler does before an Optuna trial."""
        self._for(trial, "before").before_trial(study, trial)

    def after_trial(
        self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None
    ) -> None:
        """Do what the sampler does after an Optuna trial."""
        self._for(trial, "after").after_trial(study, trial, state, values)

    def _for(self, trial: FrozenTrial, purpose: str) -> BaseSampler:
        stream = self._streams.numpy(f"sampler/{trial.number}/{purpose}")
        return self._make(int(stream.integers(LARGEST_SEED)))


def sampler_of(settings: AnySampler) -> BaseSampler:
    """Return the sampler that a tune file names."""

    def make(seed: int) -> BaseSampler:
        match settings:
            case Tpe():
                return TPESampler(
                    n_startup_trials=settings.startup, n_ei_candidates=settings.candidates, seed=seed
                )
            case NsgaII():
                return NSGAIISampler(
                    population_size=settings.population, crossover_prob=settings.crossover, seed=seed
                )
            case Gp():
                return GPSampler(
                    n_startup_trials=settings.startup, seed=seed, warn_independent_sampling=False
                )
            case _:
                return RandomSampler(seed=seed)

    return Reseeded(make, settings.seed)


def suggest(trial: Trial, space: Space) -> tuple[str, dict[str, Scalar]]:
    """Return a branch of the space and a value for each of its parameters.

    What the Optuna trial has already is kept: the same call finishes one that a driver left half-way.
    """
    labels = list(space.branches)
    label = trial.suggest_categorical(DEFENSE, labels) if len(labels) > 1 else labels[0]
    chosen: dict[str, Scalar] = {}
    for parameter in space.branches[label].parameters:
        chosen[parameter.name] = _suggested(trial, parameter)
    return label, chosen


def _suggested(trial: Trial, parameter: Parameter) -> Scalar:
    name = parameter.name
    match parameter.distribution:
        case Choice(options=options):
            picked: Scalar = trial.suggest_categorical(name, list(options))
            return picked
        case Range(whole=True) as whole:
            step = 1 if whole.step is None else int(whole.step)
            return trial.suggest_int(name, int(whole.low), int(whole.high), step=step, log=whole.log)
        case Range() as real:
            return trial.suggest_float(name, real.low, real.high, step=real.step, log=real.log)
