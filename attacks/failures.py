"""What becomes of an error in solving a task."""

from __future__ import annotations

import traceback

from attacks.base import TaskFailure
from fl.errors import BenchError
from fl.memory import is_out_of_memory


def failure(task_id: str, error: Exception) -> TaskFailure:
    """Return a task's error as its answer; a user's needs no traceback.

    Args:
        task_id: Whose.
        error: What was raised.

    Raises:
        Exception: The error itself if memory ran out, which is everyone's (`fl.memory.is_out_of_memory`).
    """
    if isinstance(error, BenchError):
        return TaskFailure(task_id, str(error))
    if is_out_of_memory(error):
        raise error
    trace = "".join(traceback.format_exception(error))
    return TaskFailure(task_id, f"{type(error).__name__}: {error}", trace)
