"""Clients that attack, as data: who they are and which classes either side holds; read without torch."""

from __future__ import annotations

from pydantic import Field, field_validator

from fl.config import Config


class Participant(Config):
    """Clients that train honestly on images of their own and keep every model they receive.

    They come first among the clients and take part in every round. The two label spaces may be disjoint or
    overlap; images of a class in neither belong to nobody.
    """

    clients: int = Field(1, ge=1, description="how many clients attack; they come first")
    labels: tuple[int, ...] = Field(min_length=1, description="classes that they hold")
    others: tuple[int, ...] | None = Field(
        None, min_length=1, description="classes that the other clients hold; null: all"
    )

    @field_validator("labels", "others")
    @classmethod
    def _classes(cls, labels: tuple[int, ...] | None) -> tuple[int, ...] | None:
        if labels is None:
            return None
        if min(labels) < 0:
            raise ValueError(f"expected classes of 0 or more, got {min(labels)}")
        return tuple(sorted(set(labels)))

    def targets(self, classes: int) -> int:
        """Return how many of a task's classes the other clients hold, where there are images of all."""
        return classes if self.others is None else len(self.others)

    def unfit(self, kind: str, classes: int) -> str | None:
        """Return why these label spaces are not of a task's classes, and what to do, or None.

        Args:
            kind: Of the task.
            classes: Their number.
        """
        if kind != "multiclass":
            return f"expected a multiclass data set for federation.attacker, got a {kind} one; leave it out"
        for side in ("labels", "others"):
            largest = max(getattr(self, side) or (0,))
            if largest >= classes:
                return f"expected classes of 0 to {classes - 1} in federation.attacker.{side}, got {largest}"
        return None
