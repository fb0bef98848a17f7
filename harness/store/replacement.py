"""Replacing files of tables so that a reader may miss rows for a moment but never sees one twice.

New files are written under names that no reader takes. Then an intent file says which files go and which
come: from there on the replacement is certain. Old files are removed, the new ones renamed, and the intent
is deleted. A driver that dies in between leaves either files that are swept, or an intent that the next
driver finishes. Every step may be repeated, so a rename that is a copy and a delete (object stores) is safe.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field

from fl.errors import StoreError
from harness.store.storage import Storage

INTENT = ".intent.json"
PENDING = ".pending"


def pending(path: str) -> str:
    """Return where the new file for `path` waits: a dot-name without the ending that readers look for."""
    folder, _, name = path.rpartition("/")
    return f"{folder}/.{name}{PENDING}"


@dataclass
class Replacement:
    """Files to remove and files that take their place, in any of an experiment's tables.

    Attributes:
        storage: The experiment's folder.
    """

    storage: Storage
    _removed: list[str] = field(default_factory=list)
    _added: list[str] = field(default_factory=list)

    def remove(self, path: str) -> None:
        """Note a file that goes."""
        self._removed.append(path)

    def add(self, path: str, content: bytes) -> None:
        """Write a file that comes; it waits under its pending name."""
        self.storage.write(pending(path), content)
        self._added.append(path)

    def apply(self) -> None:
        """Make the replacement: certain once the intent is written."""
        if not self._removed and not self._added:
            return
        # Trials go first and come last, so that whoever sees a trial finds its rows in the other tables.
        removed = sorted(self._removed, key=lambda path: not path.startswith("trials/"))
        added = sorted(self._added, key=lambda path: path.startswith("trials/"))
        intent = {"remove": removed, "add": added}
        self.storage.write(INTENT, json.dumps(intent).encode())
        finish(self.storage)


def finish(storage: Storage) -> bool:
    """Carry out the intent that is there; return whether there was one.

    Raises:
        StoreError: If the intent cannot be read.
    """
    if not storage.exists(INTENT):
        return False
    removed, added = _read(storage)
    waiting = {path for path in added if storage.exists(pending(path))}
    for path in removed:
        # A new file may have the name of an old one: it is the new one if it does not wait any more.
        if path in waiting or path not in added:
            storage.delete(path)
    for path in added:
        if path in waiting:
            storage.move(pending(path), path)
    storage.delete(INTENT)
    return True


def _read(storage: Storage) -> tuple[list[str], list[str]]:
    try:
        intent = json.loads(storage.read(INTENT))
        return list(intent["remove"]), list(intent["add"])
    except (ValueError, KeyError, TypeError) as error:
        place = storage.locate(INTENT)
        raise StoreError(f"damaged file {place}: {error}. Restore it from a copy, or delete it") from error
