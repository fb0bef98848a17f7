"""What the cards of attacks and defenses have in common, checked."""

from __future__ import annotations

import importlib
import json
import os
import pickle
import subprocess
import sys
from typing import Any

from fl.cards import Card
from fl.specs import Config


def check_card(card: Card[Any], base: type[Any]) -> None:
    """Check that a card is complete and that its implementation is a `base`."""
    assert card.name.isidentifier(), f"expected a name of letters, digits and underscores, got {card.name!r}"
    assert card.version >= 1, f"expected a version from 1 on, got {card.version}"
    assert card.summary.strip(), "expected a summary of one sentence, got nothing"
    module, _, attribute = card.implementation.partition(":")
    found = getattr(importlib.import_module(module), attribute)
    assert isinstance(found, type), f"expected {card.implementation} to be a class, got {found!r}"
    assert issubclass(found, base), f"expected {card.implementation} to be a {base.__name__}"


def check_config(card: Card[Any], config: Config) -> None:
    """Check that a configuration is the card's own and survives JSON and pickle."""
    assert isinstance(config, card.config), f"expected a {card.config.__name__}, got {type(config).__name__}"
    again = card.config.model_validate(json.loads(config.canonical))
    assert again == config, f"expected {config!r} back from its canonical JSON, got {again!r}"
    assert pickle.loads(pickle.dumps(config)) == config, f"expected {config!r} back from its pickle"


def check_planning_is_light(card: Card[Any]) -> None:
    """Check, in a fresh interpreter, that the configuration's module needs neither torch nor numpy."""
    module = card.config.__module__
    program = f"import sys; sys.modules['torch'] = sys.modules['numpy'] = None; import {module}"
    path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
    run = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, f"expected {module} to be imported without torch and numpy:\n{run.stderr}"
