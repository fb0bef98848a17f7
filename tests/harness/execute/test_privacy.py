"""Truth never reaches an attack: no secret, no private image, name or place can be reached from its task."""

from __future__ import annotations

import pickle
import pickletools
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import NamedTuple

import pytest
import torch

from attacks import ATTACKS
from attacks.base import Attack, Reconstruction
from attacks.catalog import MEAN_IMAGE
from fl.cards import always_compatible
from fl.types import Artifact, Secret
from harness.execute.bundle import solve_bundle
from harness.execute.federate import run_federation
from harness.execute.work import BundleItem, FederationItem
from harness.plan.keys import federation_key
from harness.plan.stage_requests import stage_requests


class Notebook(Attack):
    """Keeps every task it is given, and answers grey."""

    tasks: list = []  # noqa: RUF012  one list for all instances, read by the tests

    def solve(self, tasks, env):
        for task in tasks:
            self.tasks.append((task, env))
            images = torch.full((1, *task.observation.image.shape), 0.5)
            yield Reconstruction(task.task_id, images, None, {}, 0, 1)


@pytest.fixture(autouse=True)
def _ward_and_notebook(register, plugin):
    plugin("ward")
    plugin("offset")
    card = replace(MEAN_IMAGE, name="notebook", implementation=f"{__name__}:Notebook")
    register(ATTACKS, replace(card, compatible=always_compatible))
    Notebook.tasks.clear()


def texts_in(pickled):
    """Every text in a pickle: names of globals, strings, and bytes, which may be pickles of their own."""
    for _, argument, _ in pickletools.genops(pickled):
        if isinstance(argument, str):
            yield argument
        elif isinstance(argument, bytes):
            yield argument.decode("latin-1")


def reachable(root):
    """Every object that can be reached through attributes, containers, closures and bound arguments."""
    seen, found, todo = set(), [], [root]
    while todo:
        thing = todo.pop()
        if id(thing) in seen or isinstance(thing, type | ModuleType | BuiltinFunctionType):
            continue
        seen.add(id(thing))
        found.append(thing)
        if isinstance(thing, dict):
            todo += [*thing.keys(), *thing.values()]
        elif isinstance(thing, list | tuple | set | frozenset):
            todo += thing
        elif isinstance(thing, MethodType):
            todo += [thing.__self__, thing.__func__]
        elif isinstance(thing, FunctionType):
            todo += [cell.cell_contents for cell in thing.__closure__ or ()]
            todo += [*(thing.__defaults__ or ()), *(thing.__kwdefaults__ or {}).values()]
        elif isinstance(thing, partial):
            todo += [thing.func, thing.args, thing.keywords]
        else:
            slots = [name for kind in type(thing).__mro__ for name in getattr(kind, "__slots__", ())]
            todo += [getattr(thing, name) for name in slots if hasattr(thing, name)]
            todo += [vars(thing)] if hasattr(thing, "__dict__") else []
    return found


class Private(NamedTuple):
    """What no attack may reach: image ids, places, and images `n x C x H x W`."""

    names: tuple[str, ...]
    places: tuple[str, ...]
    images: torch.Tensor


def storage_of(tensor):
    """All bytes behind a tensor, which may be a small view of them."""
    return torch.empty(0, dtype=torch.uint8).set_(tensor.detach().untyped_storage()).numpy().tobytes()


def leaks(thing, private, *, pickled=b""):
    """What is private and can be reached from an attack's task or environment, in words."""
    objects = reachable(thing)
    texts = {str(one) for one in objects if isinstance(one, str | Path)}
    contents = pickled + b"".join(storage_of(one) for one in objects if isinstance(one, torch.Tensor))
    if pickled:
        texts |= set(texts_in(pickled))
    found = ["secret" for one in objects if isinstance(one, Secret)]
    found += ["secret in the pickle" for text in texts if text.split()[-1:] == ["Secret"]]
    found += ["name" for text in texts if any(name in text for name in private.names)]
    found += ["place" for text in texts if any(place in text for place in private.places)]
    found += ["image" for image in private.images if image.numpy().tobytes() in contents]
    return found


THREATS = {
    "an update": "attacker: [static]",
    "labels known": "threat_model: [{knowledge: {labels: known, batch_norm: exact}}]",
    "adaptive": "attacker: [adaptive], defense: [{chain: [clipping, {name: gaussian, sigma: 0.1}]}]",
    "a batch unperturbed": "attacker: [adaptive], defense: [{chain: [offset, clipping]}]",
    "deltas": "federation.algorithm: [fedavg], federation.local_steps: [2], observe.round: [1]",
    "a sum": "observe: [{kind: aggregate, clients: 2}]",
    "models": "observe: [{kind: global_model, rounds: [0, 1, 2]}], threat_model: [{position: participant}]",
    "nothing public": "threat_model: [{knowledge: {public_data: false}}]",
}
WARD = """
defaults:
  data: {name: ward, size: 9}
  model: {name: convnet, width: 2}
  federation: {clients: 4, rounds: 2, batch_size: 2}
  targets: 2
matrix: {attack: [notebook], %s}
"""


@pytest.fixture
def tasks_of(trials_of, workshop):
    """What the attack of a matrix is given, with its environment, and what is private about it."""

    def make(threat):
        (trial,), shop = trials_of(WARD % threat), workshop()
        for request in stage_requests(trial.spec):
            shop.materials.run_stage(request, trial.spec, lambda share, word: None)
        item = FederationItem(federation_key(trial.spec), trial.spec)
        run_federation(shop.materials, shop.store, item)
        failures = solve_bundle(shop.materials, shop.store, shop.scorer, BundleItem((trial,)), shop.meter)
        assert failures == {}
        assert len(Notebook.tasks) == trial.spec.targets
        part = shop.materials.dataset(trial.spec).part("private")
        behind = [seen.secret.image_ids for seen in shop.materials.seen(trial.spec)]
        own = [position for ids in behind for position in part.positions(ids)]
        assert own
        images = part.images([*own, *range(0, len(part), 50)])
        return list(Notebook.tasks), Private(("patient-",), (str(shop.folder / "private"),), images)

    return make


@pytest.mark.parametrize("threat", THREATS.values(), ids=THREATS.keys())
def test_nothing_private_can_be_reached_from_a_task(tasks_of, threat):
    tasks, private = tasks_of(threat)
    for task, env in tasks:
        assert leaks(task, private, pickled=pickle.dumps(task)) == []
        assert leaks(env, private) == []


def hidden_in(task, secret, private):
    """A task for every way in which something private might get into it."""
    image = private.images[:1].clone()
    public = task.public.images
    neighbours = torch.cat([public, image])[: len(public)]

    def artifact(tensors=(), **data):
        return replace(task, artifacts={"prior": Artifact(dict(tensors), data)})

    return {
        "secret": artifact(behind=secret),
        "secret in a closure": replace(task, simulate=lambda *_: secret),
        "secret in a default": replace(task, simulate=lambda *_, behind=secret: behind),
        "secret in a partial": replace(task, simulate=partial(task.simulate, secret)),
        "secret of a method": replace(task, simulate=MethodType(lambda behind: behind, secret)),
        "secret of a defense": replace(task, simulate=replace(task.simulate, defense=[{1: (secret,)}])),
        "name": replace(task, task_id=f"{task.task_id}-patient-7"),
        "place": artifact(at=f"{private.places[0]}/images/1.png"),
        "path": artifact(at=Path(private.places[0])),
        "image": artifact({"template": image}),
        "image beside public ones": replace(task, public=replace(task.public, images=neighbours)),
    }


def test_the_search_finds_what_is_hidden(tasks_of):
    """Were something private in a task, the test above would say so."""
    tasks, private = tasks_of(THREATS["an update"])
    task, _ = tasks[0]
    secret = Secret("fingerprint", ("7",), (3,))
    assert leaks(task, private) == []
    for where, leaky in hidden_in(task, secret, private).items():
        assert leaks(leaky, private), where


def test_the_pickle_alone_gives_a_secret_away(tasks_of):
    tasks, private = tasks_of(THREATS["an update"])
    task, _ = tasks[0]
    prior = Artifact({"template": private.images[:1].clone()}, {"behind": Secret("fingerprint", (), ())})
    leaky = pickle.dumps(replace(task, artifacts={"prior": prior}))

    assert leaks(None, private, pickled=leaky) == ["secret in the pickle", "image"]
