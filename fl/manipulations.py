"""Ways for a malicious server to change the model it sends: the registry, and how a threat model uses it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fl.cards import ManipulationCard
from fl.registry import Registry
from fl.seeds import Streams
from fl.specs import ThreatModel
from fl.types import ModelState

MANIPULATIONS: Registry[ManipulationCard[Any]] = Registry(
    "manipulation", group="leakbench.manipulations", card_type=ManipulationCard, builtin=tuple
)
"""All manipulations by name; none is built in."""


def manipulation(threat_model: ThreatModel, streams: Streams) -> Callable[[ModelState], ModelState] | None:
    """Return what a threat model's server does to the model before sending it; None for an honest server.

    Raises:
        UnknownPluginError: If no manipulation has the name.
        pydantic.ValidationError: If its configuration is wrong.
    """
    named = threat_model.manipulation
    if named is None:
        return None
    config = MANIPULATIONS.get(named.name).config.model_validate(named.config)
    change = MANIPULATIONS.implementation(named.name)

    def manipulate(state: ModelState) -> ModelState:
        changed: ModelState = change(config, state, streams)
        return changed

    return manipulate
