"""The conformance kit for defenses."""

from __future__ import annotations

import importlib
import itertools
import pickle
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch

from defenses.base import Batch, ClientDefense, Defense, ServerDefense
from defenses.catalog import CLIENT_HOOKS, MODEL_HOOKS, SERVER_HOOKS
from fl.cards import DefenseCard
from fl.seeds import Streams
from fl.specs import Config
from fl.types import Artifact, Tensors, Update
from harness.testing.adapting import check_adaptation, check_mirror
from harness.testing.cards import check_card, check_config, check_planning_is_light
from harness.testing.problems import SmallProblem
from harness.testing.unperturbing import check_unperturb

PICKLE_BYTES = 64 * 1024
UPDATES: tuple[Literal["gradient", "delta"], ...] = ("gradient", "delta")


class DefenseConformance:
    """What every defense must do; subclass it, give it a card, and let pytest collect it.

    Attributes:
        card: The defense's card.
        config: A configuration at which it acts; the card's default where None.
        random: Whether it draws random numbers.
        mirror_is_exact: Whether the mirror, at parameters estimated from one protected update, does to clean
            gradients what `protect` did.
        monotone: Whether a stronger noise budget moves the update further from the clean one, where the
            defense acts through `protect` alone.
    """

    card: ClassVar[DefenseCard[Any]]
    config: ClassVar[Config | None] = None
    random: ClassVar[bool] = False
    mirror_is_exact: ClassVar[bool] = True
    monotone: ClassVar[bool] = True

    def test_card_is_complete(self) -> None:
        """The card describes a defense."""
        check_card(self.card, Defense)

    def test_config_survives_json_and_pickle(self) -> None:
        """The configuration is plain data, and the defense pickles small."""
        check_config(self.card, self._config)
        pickled = pickle.dumps(self._defense())
        assert len(pickled) <= PICKLE_BYTES, f"expected a small pickle, got {len(pickled)} bytes"
        assert pickle.loads(pickled) == self._defense(), "expected the same defense back from its pickle"

    def test_planning_is_light(self) -> None:
        """Cards are read without torch."""
        check_planning_is_light(self.card)

    def test_noise_budget_is_usable(self) -> None:
        """Its field exists, takes every value of the grid, and the grid runs from weak to strong."""
        budget = self.card.noise_budget(self._config)
        assert budget.grid, "expected a default grid, got none"
        rising = all(a < b for a, b in itertools.pairwise(budget.grid))
        falling = all(a > b for a, b in itertools.pairwise(budget.grid))
        ordered = rising if budget.stronger == "higher" else falling
        assert ordered, f"expected a grid from weak to strong, got {budget.grid}"
        for value in budget.grid if budget.field else ():
            self._at(value)

    def test_off_is_none(self) -> None:
        """At `off` the update is that of no defense, bit for bit."""
        off = self.card.noise_budget(self._config).off
        if off is None:
            return
        for kind in UPDATES:
            config = self._at(off)
            protected = self._problem(config, kind=kind).update
            _check_equal(protected.tensors, SmallProblem(kind=kind).update.tensors, "off")

    def test_stronger_budgets_change_more(self) -> None:
        """From weak to strong, the same draws, updates get no nearer to the clean one."""
        budget = self.card.noise_budget(self._config)
        if not (self.monotone and budget.field and self.card.hooks == {"protect"}):
            return
        clean = _clean()
        distances = [
            _distance(self._protect(clean, self._at(value)).tensors, clean.tensors) for value in budget.grid
        ]
        assert distances == sorted(distances), f"expected rising distances over the grid, got {distances}"

    def test_update_keeps_its_form(self) -> None:
        """Names, shapes, types, kind and count are those of an update, and its entries are finite."""
        for kind, n in itertools.product(UPDATES, (1, 2)):
            problem = self._problem(kind=kind, n=n)
            update = problem.update
            expected = {name: problem.sent.tensors[name] for name in problem.sent.trainable}
            assert list(update.tensors) == list(expected), f"expected tensors {list(expected)}, got others"
            assert update.kind == kind, f"expected a {kind}, got a {update.kind}"
            for name, tensor in update.tensors.items():
                assert tensor.shape == expected[name].shape, f"expected another shape of {name!r}"
                assert tensor.dtype == expected[name].dtype, f"expected another type of {name!r}"
                assert bool(tensor.isfinite().all()), f"expected finite entries in {name!r}"

    def test_protect_is_pure(self) -> None:
        """It changes neither its input nor torch's global generator."""
        clean = _clean()
        before = {name: tensor.clone() for name, tensor in clean.tensors.items()}
        generator = torch.get_rng_state()
        self._protect(clean)
        _check_equal(clean.tensors, before, "protect's input")
        assert torch.equal(generator, torch.get_rng_state()), "expected draws from the step's stream only"

    def test_stream_decides(self) -> None:
        """The same stream gives the same bits; another stream others, where it is random."""
        clean = _clean()
        _check_equal(self._protect(clean).tensors, self._protect(clean).tensors, "the same stream")
        first, second = self._problem(), self._problem()
        _check_equal(first.update.tensors, second.update.tensors, "the same client")
        updates = [self._update(seed) for seed in (1, 2)]
        first_update, other = (update.tensors for update in updates)
        same = all(torch.equal(tensor, other[name]) for name, tensor in first_update.items())
        assert same != self.random, f"random is {self.random}, but two streams say {not same}"

    def test_hooks_are_those_declared(self) -> None:
        """The card names exactly the hooks that are overridden; sharing of clean updates relies on it."""
        defense, problem = self._defense(), self._problem()
        client, server = defense.for_client(problem.client_context), defense.for_server()
        overridden = {hook for hook in CLIENT_HOOKS if _overrides(client, ClientDefense, hook)}
        overridden |= {hook for hook in SERVER_HOOKS if _overrides(server, ServerDefense, hook)}
        overridden |= {hook for hook in MODEL_HOOKS if _overrides(defense, Defense, hook)}
        declared = set(self.card.hooks)
        assert declared == overridden, f"expected hooks {sorted(overridden)}, got {sorted(declared)}"

    def test_state_survives(self) -> None:
        """A client's state is tensors, and comes back from them."""
        problem = self._problem()
        clients = [self._defense().for_client(problem.client_context) for _ in range(2)]
        problem.simulator(clients[0])(
            problem.images, problem.labels, problem.sent, Streams(0).torch("step", step=0)
        )
        clients[1].load_state_dict(clients[0].state_dict())
        _check_equal(clients[1].state_dict(), clients[0].state_dict(), "the state")

    def test_mirror_is_there_as_declared(self) -> None:
        """With a mirror, `estimate` works on an observation; without one, it says so."""
        problem = self._problem()
        if self._mirrored:
            self._defense().estimate(problem.observation)
            return
        try:
            self._defense().estimate(problem.observation)
        except NotImplementedError:
            return
        raise AssertionError("expected NotImplementedError without a mirror (card.mirrored is False)")

    def test_mirror_does_what_protect_does(self) -> None:
        """Where declared exact, the mirror at estimated parameters reproduces the protected update."""
        if not (self._mirrored and self.mirror_is_exact):
            return
        for kind in UPDATES:
            problem = self._problem(kind=kind)
            clean = SmallProblem(kind=kind).update.tensors
            mirrored = self._defense().mirror(self._defense().estimate(problem.observation), clean)
            for name, tensor in problem.update.tensors.items():
                torch.testing.assert_close(mirrored[name], tensor, msg=f"the mirror differs in {name!r}")

    def test_mirror_is_differentiable_and_vectorizes(self) -> None:
        """The mirror has finite derivatives, leaves its input alone, and works with lanes stacked."""
        if not self._mirrored:
            return
        defense = self._defense()
        params = [defense.estimate(self._problem(seed=seed).observation) for seed in (0, 1)]
        check_mirror(defense, params, dict(_clean().tensors))

    def test_simulated_client_is_differentiable(self) -> None:
        """Who must simulate the client gets finite derivatives in the images, not all of them 0."""
        if self._unperturbs:
            return
        for kind in UPDATES:
            problem = self._problem(kind=kind, n=2)
            client = self._defense().simulated(problem.client_context, problem.observation)
            simulate = problem.simulator(client)
            images = problem.images.clone().requires_grad_()
            stream = Streams(0).torch("simulation")
            update = simulate(images, problem.labels, problem.sent, stream)
            energy = torch.stack([tensor.square().sum() for tensor in update.tensors.values()]).sum()
            (derivative,) = torch.autograd.grad(energy, images)
            assert bool(derivative.isfinite().all()), f"expected finite derivatives of a simulated {kind}"
            assert bool(derivative.any()), f"expected a simulated {kind} to depend on the images"

    def test_an_adaptive_attacker_is_accounted_for(self) -> None:
        """There is a mirror, `unperturb`, or a reason on the card (`unmirrored`)."""
        check_adaptation(self.card, self._config)

    def test_unperturb_is_there_as_declared(self) -> None:
        """A defense that can be taken out of a batch acts on it alone; any other says that it cannot be."""
        problem = self._problem()
        if self.card.unperturbs:
            alone = self.card.hooks == {"perturb_batch"} and not self.card.mirrored
            chained = hasattr(self._config, "links")
            assert alone or chained, "expected no hook but perturb_batch, and no mirror"
            return
        try:
            self._defense().unperturb(problem.images, problem.labels, problem.adversary())
        except NotImplementedError:
            return
        raise AssertionError("expected NotImplementedError (card.unperturbs is False)")

    def test_unperturb_comes_nearer_to_the_private_batch(self) -> None:
        """From the batch that was trained on, with or without public images, purely and repeatably.

        A recovered batch is not clamped: any finite one gives a finite one.
        """
        if not self._unperturbs:
            return
        problem = self._problem(n=2)
        check_unperturb(self._defense(), problem, self._trained_on(problem))

    def artifacts(self) -> Mapping[str, Artifact]:
        """Return what the defense's stages made, by the request's name; a kit for one with stages says."""
        return {}

    @property
    def _mirrored(self) -> bool:
        links = getattr(self._config, "links", ())
        return all(link.card.mirrored for link in links) if links else self.card.mirrored

    @property
    def _unperturbs(self) -> bool:
        links = getattr(self._config, "links", ())
        return any(link.card.unperturbs for link in links) if links else self.card.unperturbs

    def _trained_on(self, problem: SmallProblem) -> torch.Tensor:
        client = self._defense().for_client(problem.client_context)
        ids = problem.client_context.image_ids
        batch = Batch(problem.images, problem.labels, ids)
        return client.perturb_batch(problem.step(Streams(0).torch("step", step=0)), batch).images

    def _problem(self, config: Config | None = None, **parameters: Any) -> SmallProblem:
        return SmallProblem(defense=self._defense(config), artifacts=self.artifacts(), **parameters)

    @property
    def _config(self) -> Config:
        config: Config = self.card.config() if self.config is None else self.config
        return config

    def _defense(self, config: Config | None = None) -> Defense[Any]:
        module, _, attribute = self.card.implementation.partition(":")
        defense: Defense[Any] = getattr(importlib.import_module(module), attribute)(config or self._config)
        return defense

    def _at(self, value: float) -> Config:
        """Return the configuration at a noise budget."""
        field = self.card.noise_budget(self._config).field
        if not field:
            return self._config
        resolved = self._config.resolved()
        *path, last = field.split(".")
        section: Any = resolved
        for key in path:
            section = section[int(key) if key.lstrip("-").isdigit() else key]
        assert last in section, f"expected the noise budget's field {field!r} in the configuration"
        section[last] = value
        config: Config = self.card.config.model_validate(resolved)
        return config

    def _protect(self, clean: Update, config: Config | None = None) -> Update:
        problem = self._problem(config)
        client = self._defense(config).for_client(problem.client_context)
        return client.protect(clean, problem.step(Streams(0).torch("protect")))

    def _update(self, stream: int) -> Update:
        problem = self._problem()
        client = self._defense().for_client(problem.client_context)
        generator = Streams(stream).torch("step")
        return problem.simulator(client)(problem.images, problem.labels, problem.sent, generator)


def _clean() -> Update:
    return SmallProblem().update


def _distance(tensors: Tensors, others: Tensors) -> float:
    return float(
        torch.stack([(tensors[name] - other).square().sum() for name, other in others.items()]).sum()
    )


def _overrides(instance: object, base: type[Any], hook: str) -> bool:
    return hook in vars(instance) or getattr(type(instance), hook) is not getattr(base, hook)


def _check_equal(got: Tensors, expected: Tensors, what: str) -> None:
    assert set(got) == set(expected), f"expected tensors {sorted(expected)} for {what}, got {sorted(got)}"
    for name, tensor in expected.items():
        assert torch.equal(got[name], tensor), f"expected equal bits in {name!r} for {what}, got others"
