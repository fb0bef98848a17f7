"""Settings of small trials, for asking cards whether they can work there."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from fl.cards import DataInfo, Setting
from fl.models import MODELS
from fl.specs import FederationSpec, KnowledgeSpec, Task, ThreatModel
from harness.testing.problems import MULTICLASS, SIZE


def small_data(
    task: Task = MULTICLASS, *, channels: int = 1, size: int = SIZE, public: int = 100
) -> DataInfo:
    """Describe a data set with so many public images."""
    return DataInfo(task, channels, size, {"public": public}, public=True, fingerprint="small")


def small_setting(data: DataInfo | None = None, **changes: Any) -> Setting:
    """Return a setting of defaults in which a LeNet's updates are observed.

    Args:
        data: What it is trained on, by default `small_data()`.
        changes: To the setting's fields.
    """
    data = data or small_data()
    lenet = MODELS.get("lenet")
    traits = lenet.traits(lenet.config(), data)
    return replace(Setting(data, traits, FederationSpec(), ThreatModel(), "update"), **changes)


def inversion_setting(data: DataInfo | None = None, *, public_data: bool = True) -> Setting:
    """Return a setting in which one of the clients attacks the global model.

    Args:
        data: What it is trained on, by default `small_data()`.
        public_data: Whether the attacker has the public images.
    """
    threat = ThreatModel(position="participant", knowledge=KnowledgeSpec(public_data=public_data))
    return small_setting(data, threat_model=threat, observes="global_model")
