"""Calls to actors that are under way, and what becomes of their answers."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from harness.execute.ray_cluster import ray
from harness.execute.work import Failure

MAX_ERROR = 300
GET_TIMEOUT_S = 60.0
"""An answer that is there may still have to come from another node, which may be gone by then."""


@dataclass(frozen=True)
class Answer:
    """What came of a call.

    Attributes:
        value: What was returned, if nothing failed.
        failure: Why nothing was returned, or None.
        lost: Whether the actor is gone with it.
    """

    value: Any = None
    failure: Failure | None = None
    lost: bool = False


class Calls:
    """Outstanding calls, each with the function that takes its answer."""

    def __init__(self) -> None:
        self._waiting: dict[Any, Callable[[Answer], None]] = {}

    def expect(self, ref: Any, then: Callable[[Answer], None]) -> None:
        """Have `then` called with the answer once it is there."""
        self._waiting[ref] = then

    def forget(self, ref: Any) -> None:
        """Ignore the answer, if it is still outstanding."""
        self._waiting.pop(ref, None)

    def clear(self) -> None:
        """Forget everything."""
        self._waiting.clear()

    def wait(self, timeout: float) -> None:
        """Hand over all answers that are there; waits up to `timeout` seconds for one."""
        refs = list(self._waiting)
        if not refs:
            time.sleep(timeout)
            return
        ready, _ = ray.wait(refs, num_returns=len(refs), timeout=0)
        if not ready:
            ready, _ = ray.wait(refs, num_returns=1, timeout=timeout)
        for ref in ready:
            then = self._waiting.pop(ref, None)  # an earlier answer may have made this one void
            if then is not None:
                then(_answer(ref))


def _answer(ref: Any) -> Answer:
    try:
        return Answer(value=ray.get(ref, timeout=GET_TIMEOUT_S))
    except ray.exceptions.OutOfMemoryError as error:
        # The rest of the message lists what else runs on the node, which is nobody's business.
        return Answer(failure=Failure("out_of_memory", _detail(error)), lost=True)
    except ray.exceptions.RayTaskError as error:
        cause = error.cause
        text = f"{type(cause).__name__}: {cause}" if cause is not None else str(error)
        return Answer(failure=Failure("exception", text[:MAX_ERROR], str(error)))
    except ray.exceptions.ObjectLostError as error:
        return Answer(failure=Failure("killed", f"its input was lost: {_detail(error)}", str(error)))
    except ray.exceptions.RayError as error:
        return Answer(failure=Failure("killed", _detail(error), str(error)), lost=True)


def _detail(error: Exception) -> str:
    """Return the telling part of one of Ray's long messages."""
    text = str(error)
    _, _, detail = text.partition("Worker exit detail: ")
    line = (detail or text).strip().partition("\n")[0].partition(" Some common causes")[0]
    return f"the process died: {line[:MAX_ERROR]}" if detail else line[:MAX_ERROR]
