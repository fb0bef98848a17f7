"""Every error a user can meet; each knows the exit code of `bench` it leads to."""

from __future__ import annotations

from dataclasses import dataclass


class BenchError(Exception):
    """An error with a message for the user, shown without a traceback; exit code 1."""

    exit_code = 1


class UsageError(BenchError):
    """The request itself cannot be served as written; exit code 2, before any work."""

    exit_code = 2


class UnknownPluginError(UsageError):
    """A name that no registered plug-in has; the message suggests the nearest ones."""


class DataUnavailableError(UsageError):
    """Data or weights that are not on this machine; the message says what gets them."""


class StoreError(UsageError):
    """A results folder or artifact store that cannot be read or written."""


class LockHeldError(StoreError):
    """Another driver works on the same experiment."""


class NotApplicableError(BenchError):
    """A combination that has no meaning, such as an attack on labels where none are shared."""


class RecordedObservationError(UsageError):
    """A recorded observation file that breaks the on-disk form of `fl.recorded`."""


@dataclass(frozen=True)
class Problem:
    """One mistake in a user's file.

    Attributes:
        path: The file.
        line: 1-based line, or None where the file as a whole is meant.
        key: Dotted path of the offending entry, or "".
        message: What is wrong and what would be right.
    """

    path: str
    line: int | None
    key: str
    message: str

    def __str__(self) -> str:
        place = self.path if self.line is None else f"{self.path}:{self.line}"
        return f"{place}: {self.key}: {self.message}" if self.key else f"{place}: {self.message}"


class ConfigError(UsageError):
    """All mistakes of a file, one line each."""

    def __init__(self, problems: list[Problem]) -> None:
        self.problems = problems
        super().__init__("\n".join(str(problem) for problem in problems))
