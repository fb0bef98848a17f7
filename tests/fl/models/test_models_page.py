"""The numbers in docs/models.md are those of the models."""

import re
from pathlib import Path

import pytest
import torch

from fl.models import MODELS, architecture, build
from fl.models.imagenet import WEIGHTS
from fl.specs import Task

PAGE = (Path(__file__).parents[3] / "docs" / "models.md").read_text()
ROWS = re.findall(r"^\| `(\w+)` \|(.*?)\| (\d+) \| ([\d,]+) \| ([\d,.]+) \|(.*?)\|$", PAGE, re.MULTILINE)


def test_every_builtin_model_has_a_row_and_a_heading():
    headings = {name for line in re.findall(r"^## (.+)$", PAGE, re.MULTILINE) for name in line.split(", ")}
    builtin = {card.name for card in MODELS if card.origin == "fl"}

    assert {name for name, *_ in ROWS} == builtin
    assert builtin <= headings
    assert {row[-1].strip(" `") for row in ROWS} - {""} == set(WEIGHTS)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0] + row[1].strip())
def test_row_holds(row, model_plugin, make_info):
    name, options, smallest, parameters, mflop, _ = row
    config = dict(option.split(": ") for option in re.findall(r"`(.+?)`", options))
    plugin = model_plugin(name, **config)
    info = make_info(size=32, channels=3, classes=10)
    traits = MODELS.get(name).traits(plugin.config, info)
    with torch.device("meta"):
        model = build(architecture(plugin, info))

    assert info.task == Task("multiclass", 10)
    assert traits.min_size == int(smallest)
    assert sum(p.numel() for p in model.parameters()) == int(parameters.replace(",", ""))
    assert f"{traits.mflop_per_image:,.1f}" == mflop
