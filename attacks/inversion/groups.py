"""The labels that one trial asks for, attacked together: what they share, and how they are answered."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Generic, TypeVar

import torch

from attacks.base import Attack, AttackEnv, AttackTask, Reconstruction, Snapshot, TaskFailure
from attacks.failures import failure
from attacks.inversion.config import PRIOR
from fl.errors import BenchError, NotApplicableError
from fl.generators.config import NO_LABELS
from fl.specs import Config

if TYPE_CHECKING:
    from torch import Tensor, nn

    from fl.generators.architecture import Generator
    from fl.types import Artifact, ImageSpec

ConfigT = TypeVar("ConfigT", bound=Config)


@dataclass(frozen=True)
class Group(Generic[ConfigT]):
    """The tasks of one trial, one for each of n labels, in the order of its targets.

    Attributes:
        tasks: The tasks; all observe the same model and have the same configuration.
        env: Where they run.
    """

    tasks: tuple[AttackTask[ConfigT], ...]
    env: AttackEnv

    @property
    def config(self) -> ConfigT:
        """The attack's configuration."""
        return self.tasks[0].config

    @property
    def device(self) -> torch.device:
        """Where to compute."""
        return self.env.device

    @property
    def image(self) -> ImageSpec:
        """Shape and normalisation of the images."""
        return self.tasks[0].observation.image

    @cached_property
    def labels(self) -> Tensor:
        """The labels to recover, `n` int64, on the device.

        Raises:
            NotApplicableError: If a task names none.
        """
        labels = [task.target_label for task in self.tasks if task.target_label is not None]
        if len(labels) < len(self.tasks):
            raise NotApplicableError("expected a label to recover images of, got a task without one")
        return torch.tensor(labels, device=self.device)

    @cached_property
    def model(self) -> nn.Module:
        """The attacked model, on the device, in eval mode, without gradients in its parameters."""
        model = self.env.build(self.tasks[0].observation.sent)
        return model.eval().requires_grad_(False)

    def logits(self, images: Tensor) -> Tensor:
        """From images in [0, 1], `m x C x H x W`, to the attacked model's logits, `m x outputs`."""
        found: Tensor = self.model(self.image.normalise(images))
        return found

    def artifact(self, name: str) -> Artifact:
        """Return what the plan's stage of that name made.

        Raises:
            NotApplicableError: If it is missing.
        """
        artifacts = self.tasks[0].artifacts
        if name not in artifacts:
            raise NotApplicableError(f"expected {name!r} from its stage, got none; plan the trial with it")
        return artifacts[name]

    @cached_property
    def generator(self) -> Generator:
        """The prior's generator, on the device, in eval mode, without gradients in its weights.

        Raises:
            NotApplicableError: If it is missing, or cannot draw such images without labels.
        """
        from fl.generators.stage import load

        generator = load(self.artifact(PRIOR), self.device)
        reason = generator.layout.unfit(self.image.channels, self.image.size)
        if reason is None and generator.classes:
            reason = NO_LABELS
        if reason is not None:
            raise NotApplicableError(reason)
        return generator

    def draw(self, entries: int, samples: int, purpose: str = "first_latents") -> Tensor:
        """Draw from N(0, 1), `n x samples x entries`, on the device.

        What is drawn for a label and a number of sample names nothing else: neither the other labels, nor how
        many samples there are, nor the attack.
        """
        drawn = [
            torch.randn(entries, generator=task.streams.torch(purpose, restart=sample))
            for task in self.tasks
            for sample in range(samples)
        ]
        return torch.stack(drawn).reshape(len(self.tasks), samples, entries).to(self.device)

    def allowed(self, evaluations: int) -> int:
        """Return how many of these gradient evaluations every task may spend."""
        limits = [task.max_evaluations for task in self.tasks if task.max_evaluations is not None]
        return min([evaluations, *limits])

    def stopping(self) -> bool:
        """Whether to give up now."""
        return any(self.env.stopping(task.task_id) for task in self.tasks)

    def stopped(self) -> list[TaskFailure]:
        """Answer all tasks as given up."""
        return [TaskFailure(task.task_id, "stopped") for task in self.tasks]

    def record(
        self, iteration: int, terms: Mapping[str, Tensor], best: Tensor, images: Tensor | None = None
    ) -> None:
        """Keep a snapshot of every task.

        Args:
            iteration: Iterations done.
            terms: Of the objective by name, unweighted, each `n`, or a scalar that all labels share; `total`
                is what is minimised.
            best: Lowest totals so far, `n`.
            images: `n x samples x C x H x W` in [0, 1], or None.
        """
        each, lowest = self._by_task(terms), best.tolist()
        for index, task in enumerate(self.tasks):
            shown = None if images is None else _stored(images[index])
            self.env.record(task.task_id, Snapshot(iteration, each[index], lowest[index], shown))

    def reconstructions(
        self, images: Tensor, terms: Mapping[str, Tensor], *, evaluations: int, iterations: int
    ) -> list[Reconstruction]:
        """Answer all tasks; the labels were known and are not recovered.

        Args:
            images: `n x samples x C x H x W` in [0, 1].
            terms: As `record` takes them.
            evaluations: Gradient evaluations of the model, each on all images of a label at once.
            iterations: Optimizer iterations.

        Raises:
            BenchError: If an image is not finite.
        """
        if not bool(images.isfinite().all()):
            raise BenchError(
                f"expected finite images after {iterations} iterations, got others: the search, its "
                "generator or the attacked model diverged; a smaller lr there may help"
            )
        each = self._by_task(terms)
        return [
            Reconstruction(
                task_id=task.task_id,
                images=_stored(images[index]),
                labels=None,
                objective=each[index],
                gradient_evaluations=evaluations,
                lane_iterations=iterations,
                lane_width=len(self.tasks),
            )
            for index, task in enumerate(self.tasks)
        ]

    def _by_task(self, terms: Mapping[str, Tensor]) -> list[dict[str, float]]:
        n = len(self.tasks)
        columns = {name: term.detach().expand(n).tolist() for name, term in terms.items()}
        return [{name: column[index] for name, column in columns.items()} for index in range(n)]


class GroupAttack(Attack[ConfigT]):
    """An attack that works on all labels of a trial together."""

    def solve(
        self, tasks: Iterable[AttackTask[ConfigT]], env: AttackEnv
    ) -> Iterator[Reconstruction | TaskFailure]:
        """Solve the trials in turn; an error is the answer to all tasks of its trial.

        Running out of memory is everyone's error, and raised.
        """
        for group in groups(tasks, env):
            yield from self._answers(group)

    @abstractmethod
    def invert(self, group: Group[ConfigT]) -> Iterable[Reconstruction | TaskFailure]:
        """Answer every task of one trial."""

    def _answers(self, group: Group[ConfigT]) -> list[Reconstruction | TaskFailure]:
        try:
            return list(self.invert(group))
        except Exception as error:
            return [failure(task.task_id, error) for task in group.tasks]


def groups(tasks: Iterable[AttackTask[ConfigT]], env: AttackEnv) -> Iterator[Group[ConfigT]]:
    """Yield the trials that tasks are of, in the order in which they first appear."""
    found: dict[tuple[str, str], list[AttackTask[ConfigT]]] = {}
    for task in tasks:
        alone = "" if task.group else task.task_id
        found.setdefault((task.group, alone), []).append(task)
    for members in found.values():
        yield Group(tuple(members), env)


def _stored(images: Tensor) -> Tensor:
    return images.detach().clamp(0, 1).cpu()
