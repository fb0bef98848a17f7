"""The kinds of plug-in that `ls` and `show` know, and where each is registered."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any

from fl.errors import UnknownPluginError
from fl.registry import Registry


@dataclass(frozen=True)
class Kind:
    """A kind of plug-in.

    Attributes:
        plural: Its name on the command line.
        singular: One of them.
        registry: `module:attribute` of its registry; importing it costs no torch.
    """

    plural: str
    singular: str
    registry: str

    def load(self) -> Registry[Any]:
        """Return the registry."""
        module, _, attribute = self.registry.partition(":")
        registry: Registry[Any] = getattr(importlib.import_module(module), attribute)
        return registry


KINDS = (
    Kind("attacks", "attack", "attacks:ATTACKS"),
    Kind("defenses", "defense", "defenses:DEFENSES"),
    Kind("data", "dataset", "fl.data:DATASETS"),
    Kind("models", "model", "fl.models:MODELS"),
    Kind("metrics", "metric", "harness.metrics:METRICS"),
    Kind("manipulations", "manipulation", "fl.manipulations:MANIPULATIONS"),
)


def kind_called(word: str) -> Kind | None:
    """Return the kind that `word` names in singular or plural, or None."""
    return next((kind for kind in KINDS if word in (kind.plural, kind.singular, f"{kind.singular}s")), None)


WORDS = tuple(word for kind in KINDS for word in (kind.plural, kind.singular, f"{kind.singular}s"))
"""Every word that names a kind."""


def kind_of(name: str) -> Kind | None:
    """Return the first kind that has a plug-in of that name, or None."""
    return next((kind for kind in KINDS if name in kind.load()), None)


def unknown_anywhere(name: str) -> UnknownPluginError:
    """Return the error for a name that no kind has."""
    near = [hint for kind in KINDS if "Did you mean" in (hint := kind.load().unknown(name))]
    kinds = ", ".join(f"`bench ls {kind.plural}`" for kind in KINDS)
    return UnknownPluginError(near[0] if near else f"no plug-in is called {name!r}; all names: {kinds}")
