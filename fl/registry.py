"""Names to plug-in cards: built-ins, entry points of other packages, and suggestions for typing mistakes."""

from __future__ import annotations

import difflib
import importlib
import warnings
from collections.abc import Callable, Iterable, Iterator
from importlib.metadata import entry_points
from typing import Any, Generic, TypeVar

from fl.cards import Card
from fl.errors import UnknownPluginError

CardT = TypeVar("CardT", bound=Card[Any])


class Registry(Generic[CardT]):
    """All plug-ins of one kind.

    Cards are read without importing the code behind them, so listing, validating and planning cost neither
    torch nor numpy. Other packages add cards through the entry-point group `leakbench.<kind>s`; an entry
    point names a card object, never a module that imports torch.
    """

    def __init__(
        self, kind: str, *, group: str, card_type: type[CardT], builtin: Callable[[], Iterable[CardT]]
    ) -> None:
        self.kind = kind
        self.group = group
        self._card_type = card_type
        self._builtin = builtin
        self._cards: dict[str, CardT] | None = None

    def __iter__(self) -> Iterator[CardT]:
        return iter(self._load().values())

    def __contains__(self, name: object) -> bool:
        return name in self._load()

    def names(self) -> list[str]:
        """Return all names, sorted."""
        return sorted(self._load())

    def get(self, name: str) -> CardT:
        """Return the card of `name`.

        Raises:
            UnknownPluginError: If no plug-in has that name.
        """
        cards = self._load()
        if name in cards:
            return cards[name]
        raise UnknownPluginError(self.unknown(name))

    def unknown(self, name: str) -> str:
        """Return the message for a name that does not exist, with the nearest names that do."""
        near = difflib.get_close_matches(name, self._load(), n=2)
        hint = f" Did you mean {' or '.join(repr(n) for n in near)}?" if near else ""
        return f"unknown {self.kind} {name!r}.{hint} Available: {', '.join(self.names())}."

    def implementation(self, name: str) -> Any:
        """Import and return the code behind the card of `name` (this may import torch)."""
        module, _, attribute = self.get(name).implementation.partition(":")
        return getattr(importlib.import_module(module), attribute)

    def register(self, card: CardT) -> None:
        """Add a card at run time (tests, notebooks); entry points are the way for packages.

        Raises:
            ValueError: If the name is taken.
        """
        self._add(self._load(), card)

    def unregister(self, name: str) -> None:
        """Remove a card that `register` added."""
        self._load().pop(name, None)

    def _load(self) -> dict[str, CardT]:
        if self._cards is None:
            cards: dict[str, CardT] = {}
            for card in self._builtin():
                self._add(cards, card)
            self._cards = cards
            for entry_point in entry_points(group=self.group):
                try:
                    card = entry_point.load()
                    if not isinstance(card, self._card_type):
                        raise TypeError(f"expected a {self._card_type.__name__}, got {type(card).__name__}")
                    self._add(cards, card)
                except Exception as error:  # a broken plug-in of others must not stop the user's work
                    message = f"{self.kind} entry point {entry_point.name!r} was skipped: {error}"
                    warnings.warn(message, stacklevel=2)
        return self._cards

    def _add(self, cards: dict[str, CardT], card: CardT) -> None:
        if card.name in cards:
            raise ValueError(f"expected a new {self.kind} name, got {card.name!r} twice")
        cards[card.name] = card
