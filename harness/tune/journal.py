"""The study on disk: Optuna's journal in the results folder, opened under the experiment's lock."""

from __future__ import annotations

import json
import logging
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from fl.errors import StoreError, UsageError
from fl.specs import canonical_json
from harness.tune.samplers import sampler_of

if TYPE_CHECKING:
    from harness.tune.document import Tuning

JOURNAL = "journal.log"
LOCK = f"{JOURNAL}.lock"
DEFINITION = "leakbench:definition"
"""User attribute of the study: what all its Optuna trials must agree on."""

log = logging.getLogger(__name__)


def open_study(folder: Path, tuning: Tuning) -> optuna.Study:
    """Return the study in an experiment's folder, made if there is none.

    Only the holder of the experiment's lock may call it: what a driver that died was writing is cut off, and
    the lock that it may have left on the journal is removed.

    Raises:
        StoreError: If the journal is damaged; it is left as it is.
        UsageError: If the study was begun with another definition.
    """
    path = folder / JOURNAL
    mend(path)
    (folder / LOCK).unlink(missing_ok=True)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    directions = list(tuning.study.objectives.values())
    try:
        study = optuna.create_study(
            storage=JournalStorage(JournalFileBackend(str(path))),
            study_name=tuning.name,
            directions=directions,
            sampler=sampler_of(tuning.study.sampler),
            load_if_exists=True,
        )
        attributes = study.user_attrs
    except (KeyError, ValueError, TypeError, AttributeError, AssertionError) as error:
        raise damaged(path, f"Optuna cannot replay it ({type(error).__name__}: {error})") from error
    definition = tuning.definition()
    if DEFINITION not in attributes:
        study.set_user_attr(DEFINITION, canonical_json(definition))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            study.set_metric_names(list(tuning.study.objectives))
    else:
        _check_same(json.loads(attributes[DEFINITION]), definition, path)
    return study


def mend(path: Path) -> None:
    """Cut off the record that a driver was writing when it died, which nobody has relied on.

    Raises:
        StoreError: If a record before it is damaged.
    """
    if not path.exists():
        return
    content = path.read_bytes()
    whole, _, torn = content.rpartition(b"\n")
    for number, line in enumerate(whole.split(b"\n") if whole else [], start=1):
        try:
            json.loads(line)
        except ValueError as error:
            raise damaged(path, f"line {number} is no record: {error}") from error
    if torn:
        log.warning("%s: cut off %d bytes of an unfinished record", path, len(torn))
        with path.open("rb+") as file:
            file.truncate(len(content) - len(torn))


def damaged(path: Path, what: str) -> StoreError:
    """Return the error for a journal that cannot be read."""
    return StoreError(
        f"damaged journal {path}: {what}. Restore it, or move it away to begin the study again: "
        "trials that are stored are not computed twice"
    )


def _check_same(before: dict[str, Any], now: dict[str, Any], path: Path) -> None:
    changed = [key for key in now if canonical_json(before.get(key)) != canonical_json(now[key])]
    if changed:
        raise UsageError(
            f"expected the study of {path}, got other {', '.join(changed)}: its Optuna trials would not be "
            "comparable. Use another name, or undo the change (trials, parallel and judge may change)"
        )
