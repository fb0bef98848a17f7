"""A binary task: is a digit odd?"""

from __future__ import annotations

from dataclasses import replace

from fl.data import DATASETS, Dataset
from fl.specs import Task

DIGITS = DATASETS.get("digits")


def describe(config):
    info = DIGITS.describe(config)
    return replace(info, task=Task("binary", 2), fingerprint=f"odd-{info.fingerprint}")


def load(config):
    digits: Dataset = DATASETS.implementation("digits")(config)
    parts = {
        name: replace(part, labels=(part.labels % 2).float().unsqueeze(1))
        for name, part in digits.parts.items()
    }
    return Dataset(describe(config), parts)


CARD = replace(DIGITS, name="odd_digits", describe=describe, implementation="fake_binary_digits:load")
