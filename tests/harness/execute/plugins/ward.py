"""Digits that may not be shown; every image's name begins with `patient-`."""

from __future__ import annotations

from dataclasses import replace

from fl.data import DATASETS, Dataset

DIGITS = DATASETS.get("digits")


def describe(config):
    return replace(DIGITS.describe(config), public=False)


def load(config):
    parts = {
        name: replace(part, ids=tuple(f"patient-{image_id}" for image_id in part.ids))
        for name, part in DATASETS.implementation("digits")(config).parts.items()
    }
    return Dataset(describe(config), parts)


CARD = replace(DIGITS, name="ward", describe=describe, implementation="ward:load")
