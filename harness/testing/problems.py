"""Small real problems for the conformance kits: one client's round on a sigmoid LeNet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any, Literal

import torch
from torch import Tensor

from attacks.base import AttackTask, Simulate
from defenses.base import AdversaryContext, ClientContext, ClientDefense, Defense, Step
from fl.cards import DataInfo
from fl.client import simulate
from fl.models import MODELS, architecture, initial_state, materialise
from fl.seeds import Streams
from fl.specs import Config, ObservationKind, Plugin, Task
from fl.stage_context import StageContext
from fl.trainers import UnrolledTrainer
from fl.types import (
    Artifact,
    ImageSpec,
    Knowledge,
    LocalTraining,
    ModelState,
    Observation,
    RoundView,
    Update,
)
from harness.testing.small_env import SmallEnv, wrap_with
from harness.testing.small_images import SmallPublicData, blobs

SIZE = 16
PUBLIC_IMAGES = 32
MULTICLASS = Task("multiclass", 10)


@dataclass(frozen=True)
class SmallProblem:
    """A client with n images of 16 px, a sigmoid LeNet, one round, and what an adversary sees of it.

    Attributes:
        channels: C.
        n: Images of the client.
        task: What the model is trained for.
        kind: Kind of update.
        steps: Local steps, where the update is a delta; each is on all images.
        lr: Local learning rate, likewise.
        seed: Of weights, images and labels.
        defense: What the client applies, or None.
        know_labels: Whether the adversary is granted the labels.
        observes: What the adversary sees; an aggregate is the same update, said to be of two clients.
        model: Configuration of `lenet`.
        artifacts: What the defense's stages made.
    """

    channels: int = 1
    n: int = 1
    task: Task = MULTICLASS
    kind: Literal["gradient", "delta"] = "gradient"
    steps: int = 1
    lr: float = 0.05
    seed: int = 0
    defense: Defense[Any] | None = None
    know_labels: bool = False
    observes: ObservationKind = "update"
    model: Mapping[str, Any] = field(default_factory=lambda: {"convs": 3})
    artifacts: Mapping[str, Artifact] = field(default_factory=dict)

    @property
    def image(self) -> ImageSpec:
        """Shape and normalisation of the images."""
        return ImageSpec(self.channels, SIZE, (0.5,) * self.channels, (0.25,) * self.channels)

    @property
    def local(self) -> LocalTraining:
        """The client's hyper-parameters."""
        if self.kind == "gradient":
            return LocalTraining(lr=1.0, steps=1, batch_size=self.n, epochs=1)
        return LocalTraining(lr=self.lr, steps=self.steps, batch_size=self.n, epochs=self.steps)

    @cached_property
    def images(self) -> Tensor:
        """The private images, `n x C x 16 x 16` in [0, 1]."""
        return blobs(self.n, self.image, Streams(self.seed).torch("private"))

    @cached_property
    def labels(self) -> Tensor:
        """The private labels: `n` int64, or `n x outputs` of 0 and 1."""
        stream = Streams(self.seed).torch("private_labels")
        if self.task.kind == "multiclass":
            return torch.randint(self.task.classes, (self.n,), generator=stream)
        return torch.randint(2, (self.n, self.task.outputs), generator=stream).float()

    @cached_property
    def sent(self) -> ModelState:
        """The model sent: a LeNet with weights from U(-0.5, 0.5)."""
        card = MODELS.get("lenet")
        info = DataInfo(
            task=self.task,
            channels=self.channels,
            size=SIZE,
            images={},
            public=True,
            fingerprint="small",
            mean=self.image.mean,
            std=self.image.std,
        )
        config = card.config.model_validate(dict(self.model))
        wrapper = None if self.defense is None else self.defense.wrapper()
        return initial_state(
            architecture(
                Plugin(card.name, card.version, config), info, () if wrapper is None else (wrapper,)
            ),
            streams=Streams(self.seed),
            freeze="none",
            batch_norm="eval",
            wrap=partial(wrap_with, self.defense),
        )

    @cached_property
    def update(self) -> Update:
        """What the client sends."""
        client = None if self.defense is None else self.defense.for_client(self.client_context)
        stream = Streams(self.seed).torch("step", step=0)
        update = self.simulator(client)(self.images, self.labels, self.sent, stream)
        return replace(update, tensors={name: tensor.detach() for name, tensor in update.tensors.items()})

    @cached_property
    def observation(self) -> Observation:
        """What the adversary sees."""
        clients = {"update": (0,), "aggregate": (0, 1), "global_model": ()}[self.observes]
        seen = None if self.observes == "global_model" else self.update
        return Observation(
            kind=self.observes,
            clients=clients,
            history=(RoundView(0, self.sent, seen),),
            task=self.task,
            image=self.image,
            knowledge=Knowledge(
                labels=self.labels if self.know_labels else None, local_training=self.local, batch_norm=None
            ),
        )

    @property
    def client_context(self) -> ClientContext:
        """What the client's defense is told."""
        ids = tuple(str(i) for i in range(self.n))
        return ClientContext(
            client=0,
            n_images=self.n,
            image_ids=ids,
            rounds=1,
            participation=1.0,
            batch_size=self.n,
            local_steps=self.local.steps,
            lr=self.local.lr,
            kind=self.kind,
            artifacts=self.artifacts,
            streams=Streams(self.seed).at(client=0),
            read_images=self._read_images,
        )

    @cached_property
    def public(self) -> SmallPublicData:
        """The attacker's own images."""
        images = blobs(PUBLIC_IMAGES, self.image, Streams(self.seed).torch("public"))
        return SmallPublicData(images, torch.arange(PUBLIC_IMAGES) % self.task.classes)

    def adversary(self, *, public: bool = True) -> AdversaryContext:
        """Return what an adaptive attacker works with when it takes the defense out of a batch."""
        return AdversaryContext(
            observation=self.observation,
            rounds=1,
            public=self.public if public else None,
            artifacts=self.artifacts,
            build=partial(materialise, wrap=partial(wrap_with, self.defense)),
            stream=Streams(self.seed).at(target=0).torch("unperturb"),
        )

    def simulator(self, client: ClientDefense | None) -> Simulate:
        """Return what computes a client's update under a defense; it holds nothing private."""
        return partial(
            simulate,
            task=self.task,
            image=self.image,
            local=self.local,
            kind=self.kind,
            build=partial(materialise, wrap=partial(wrap_with, self.defense)),
            defense=client,
        )

    def attack_task(
        self,
        config: Config,
        *,
        task_id: str = "small",
        seed: int | None = None,
        adaptive: bool = False,
        artifacts: Mapping[str, Artifact] | None = None,
        mirrored: bool = True,
        unperturbed: bool = False,
        max_evaluations: int | None = None,
        target: int = 0,
        group: str = "",
    ) -> AttackTask[Any]:
        """Return the task of attacking this client.

        Args:
            config: The attack's configuration.
            task_id: Its name.
            seed: Of the attack's own draws; the problem's where None.
            adaptive: Whether the attacker knows the defense.
            artifacts: What the attack's stages made.
            mirrored: Whether an adaptive attacker is handed the defense's mirror.
            unperturbed: Whether it takes the defense out of the recovered batch, instead of all else.
            max_evaluations: Gradient evaluations it may spend.
            target: Which target of its trial; the label to recover from a global model.
            group: The trial whose targets are attacked together.
        """
        known = self.defense if adaptive and not unperturbed else None
        context = replace(self.client_context, read_images=_refuse)
        return AttackTask(
            task_id=task_id,
            observation=self.observation,
            config=config,
            streams=Streams(self.seed if seed is None else seed).at(target=target),
            public=self.public,
            simulate=self.simulator(None if known is None else known.simulated(context, self.observation)),
            adaptive=adaptive,
            defense=known if known is not None and mirrored else None,
            artifacts=artifacts or {},
            target_label=target if self.observes == "global_model" else None,
            max_evaluations=max_evaluations,
            unperturb=(
                partial(_unperturb, self.defense, self.adversary())
                if self.defense is not None and adaptive and unperturbed
                else None
            ),
            group=group,
        )

    def stage_context(self) -> StageContext:
        """Return what a stage of the attacker's may use, the observed model included."""
        return StageContext(
            streams=Streams(self.seed),
            device=torch.device("cpu"),
            public=self.public,
            build=partial(materialise, wrap=partial(wrap_with, self.defense)),
            progress=_unwatched,
            model=self.sent,
        )

    def step(self, stream: torch.Generator) -> Step:
        """Return a client's only step, for calling its hooks one by one."""
        trainer = UnrolledTrainer(
            materialise(self.sent, wrap=partial(wrap_with, self.defense)),
            self.sent,
            task=self.task,
            image=self.image,
            local=self.local,
            device=torch.device("cpu"),
            differentiable=False,
        )
        return Step(0, 0, stream, self.sent, trainer)

    def env(self, *, stop_after: int | None = None) -> SmallEnv:
        """Return where an attack on this client runs."""
        return SmallEnv(self.defense, stop_after)

    def _read_images(self, wanted: tuple[str, ...]) -> tuple[Tensor, Tensor]:
        positions = [int(image_id) for image_id in wanted]
        return self.images[positions], self.labels[positions]


def _unwatched(share: float, words: str) -> None:
    """Show progress to no one."""


def _refuse(image_ids: tuple[str, ...]) -> tuple[Tensor, Tensor]:
    raise PermissionError("an attacker cannot read a client's images")


def _unperturb(defense: Defense[Any], context: AdversaryContext, images: Tensor, labels: Tensor) -> Tensor:
    stream = context.stream.clone_state()
    return defense.unperturb(images, labels, replace(context, stream=stream))
