"""The most recently used of values that can be made again, as many as fit into some memory."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

KeyT = TypeVar("KeyT", bound=Hashable)
ValueT = TypeVar("ValueT")


class Recent(Generic[KeyT, ValueT]):
    """Values by key; what was used longest ago goes first, but the newest always stays."""

    def __init__(self, max_bytes: int) -> None:
        """Take how many bytes the values may have together."""
        self._max_bytes = max_bytes
        self._values: OrderedDict[KeyT, tuple[ValueT, int]] = OrderedDict()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._values)

    def get(self, key: KeyT) -> ValueT | None:
        """Return the value and count that as a use, or None."""
        if key not in self._values:
            return None
        self._values.move_to_end(key)
        return self._values[key][0]

    def put(self, key: KeyT, value: ValueT, *, n_bytes: int) -> None:
        """Keep a value under a new key."""
        assert key not in self._values
        self._values[key] = value, n_bytes
        self._bytes += n_bytes
        while self._bytes > self._max_bytes and len(self._values) > 1:
            _, (_, freed) = self._values.popitem(last=False)
            self._bytes -= freed
