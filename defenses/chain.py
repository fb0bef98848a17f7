"""Several defenses in turn."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from defenses import DEFENSES
from defenses.base import (
    AdversaryContext,
    Batch,
    ClientContext,
    ClientDefense,
    Defense,
    GuaranteeContext,
    PrivacySpent,
    ServerContext,
    ServerDefense,
    Step,
)
from defenses.cards_chain import ChainConfig, Link
from fl.types import Observation, Refusal, Tensors, Update, Wrapper

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

Params = tuple[Any, ...]


@dataclass(frozen=True)
class Chain(Defense[ChainConfig]):
    """Each link acts on what the one before it left.

    What composes is composed in order: wrappers of the model, changed batches, protected updates, the steps
    of the server. What does not compose (how batches are drawn, how the gradient is taken) belongs to the one
    link that changes it. An adaptive attacker estimates every link from the same observation, so a link
    before a noisy one is estimated from noisy values.
    """

    @cached_property
    def links(self) -> tuple[Defense[Any], ...]:
        """The configured links."""
        return tuple(DEFENSES.implementation(link.name)(link.config) for link in self.config.links)

    @property
    def _pairs(self) -> list[tuple[Link, Defense[Any]]]:
        return list(zip(self.config.links, self.links, strict=True))

    def wrapper(self) -> Wrapper | None:
        """Name the links' changes to the architecture as one."""
        if all(link.wrapper() is None for link in self.links):
            return None
        return Wrapper("chain", self.config.resolved())

    def wrap_model(self, model: nn.Module) -> nn.Module:
        """Apply every link's wrapper, the first innermost."""
        for link in self.links:
            model = link.wrap_model(model)
        return model

    def for_client(self, context: ClientContext) -> ClientDefense:
        """Return what the links do at one client."""
        return _ChainClient(
            tuple(
                defense.for_client(replace(context, artifacts=link.own(context.artifacts)))
                for link, defense in self._pairs
            )
        )

    def simulated(self, context: ClientContext, observation: Observation) -> ClientDefense:
        """Return what the links do at the client that an adaptive attacker simulates."""
        return _ChainClient(
            tuple(
                defense.simulated(replace(context, artifacts=link.own(context.artifacts)), observation)
                for link, defense in self._pairs
            )
        )

    def for_server(self) -> ServerDefense:
        """Return what the links do at the server."""
        return _ChainServer(tuple(link.for_server() for link in self.links))

    def guarantee(self, context: GuaranteeContext) -> PrivacySpent | None:
        """Return the guarantee of the link that gives one, unless another link mixes the images before it."""
        for index, link in enumerate(self.links):
            spent = link.guarantee(context)
            others = self.config.links[:index] + self.config.links[index + 1 :]
            if spent is not None and not any("perturb_batch" in other.card.hooks for other in others):
                return spent
        return None

    def estimate(self, observation: Observation) -> Params:
        """Return every link's parameters, in order."""
        return tuple(link.estimate(observation) for link in self.links)

    def mirror(self, params: Params, gradients: Tensors) -> Tensors:
        """Apply every link's mirror, in order."""
        for link, its in zip(self.links, params, strict=True):
            gradients = link.mirror(its, gradients)
        return gradients

    def unperturb(self, images: Tensor, labels: Tensor, context: AdversaryContext) -> Tensor:
        """Take every link that can be taken out of the batch out of it, the last first."""
        for link, defense in reversed(self._pairs):
            if link.card.unperturbs:
                told = replace(context, artifacts=link.own(context.artifacts))
                images = defense.unperturb(images, labels, told)
        return images


class _ChainClient(ClientDefense):
    def __init__(self, links: tuple[ClientDefense, ...]) -> None:
        self._links = links

    def state_dict(self) -> Tensors:
        return {
            f"{index}.{name}": tensor
            for index, link in enumerate(self._links)
            for name, tensor in link.state_dict().items()
        }

    def load_state_dict(self, state: Tensors) -> None:
        for index, link in enumerate(self._links):
            prefix = f"{index}."
            link.load_state_dict(
                {name.removeprefix(prefix): t for name, t in state.items() if name.startswith(prefix)}
            )

    def sampler(self, n: int, batch_size: int, epochs: int, stream: torch.Generator) -> Iterator[Tensor]:
        return self._owner("sampler").sampler(n, batch_size, epochs, stream)

    def inspect(self, model: nn.Module, step: Step) -> Refusal | None:
        refusals = (link.inspect(model, step) for link in self._links)
        return next((refusal for refusal in refusals if refusal is not None), None)

    def perturb_batch(self, step: Step, batch: Batch) -> Batch:
        for link in self._links:
            batch = link.perturb_batch(step, batch)
        return batch

    def loss(self, step: Step, batch: Batch) -> Tensor:
        return self._owner("loss", "gradients").loss(step, batch)

    def gradients(self, step: Step, batch: Batch) -> Tensors:
        return self._owner("loss", "gradients").gradients(step, batch)

    def protect(self, update: Update, step: Step) -> Update:
        for link in self._links:
            update = link.protect(update, step)
        return update

    def _owner(self, *hooks: str) -> ClientDefense:
        """Return the link that overrides one of the hooks, or any link: the rest have plain training's."""
        for link in self._links:
            if any(getattr(type(link), hook) is not getattr(ClientDefense, hook) for hook in hooks):
                return link
        return self._links[0]


class _ChainServer(ServerDefense):
    def __init__(self, links: tuple[ServerDefense, ...]) -> None:
        self._links = links
        self.visible = "sum" if any(link.visible == "sum" for link in links) else "each"

    def per_update(self, update: Update) -> Update:
        for link in self._links:
            update = link.per_update(update)
        return update

    def release(self, mean: Update, context: ServerContext) -> Update:
        for link in self._links:
            mean = link.release(mean, context)
        return mean
