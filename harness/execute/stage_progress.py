"""How far a stage is, told by the lane that computes it to whoever watches the run."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from fl.types import Artifact
from harness.store.storage import MissingFileError

if TYPE_CHECKING:
    from collections.abc import Callable

    from fl.cards import StageRequest
    from harness.store.artifacts import ArtifactStore

_log = logging.getLogger(__name__)


def percent_done(store: ArtifactStore, request: StageRequest) -> int:
    """Return how far a stage under way is, in percent."""
    try:
        percent: Any = store.get(_key(request)).data["percent"]
    except MissingFileError:  # not begun, or ended just now
        return 0
    return int(percent)


class StageProgress:
    """Keeps how far a stage is, and logs it, every tenth of the way.

    Args:
        store: Where the watcher looks.
        request: The stage.
        kept: Called whenever that was done.
    """

    def __init__(self, store: ArtifactStore, request: StageRequest, kept: Callable[[], None]) -> None:
        self._store = store
        self._request = request
        self._kept = kept
        self._tenths = 0

    def __call__(self, share: float, words: str) -> None:
        """Hear that a share of the stage, in [0, 1], is done."""
        tenths = int(share * 10)
        if tenths <= self._tenths:
            return
        self._tenths = tenths
        self._store.put(_key(self._request), Artifact({}, {"percent": 10 * tenths}))
        self._kept()
        _log.info("%s %s: %d %%, %s", self._request.kind, self._request.key[:8], 10 * tenths, words)

    def ended(self) -> None:
        """Leave nothing behind."""
        self._store.discard(_key(self._request))


def _key(request: StageRequest) -> str:
    return f"{request.key}-progress"
