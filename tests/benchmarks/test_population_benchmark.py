"""The benchmark of populations, in small."""

from __future__ import annotations

import pytest

from benchmarks import population
from benchmarks.population import CASES, Measured
from fl.errors import UsageError

SECONDS = {"reference": [4.0, 1.0, 9.0], "vmap": [2.0, 2.0, 3.0], "shared": [0.5, 0.25, 0.5]}


def test_a_row_holds_medians_and_what_they_gain():
    row = Measured(CASES[0], 10, SECONDS).row()
    assert (row["reference_s"], row["vmap_gain"], row["shared_gain"]) == (4.0, 2.0, 8.0)


def test_the_table_takes_its_place():
    document = "<!-- begin population -->\nold\n<!-- end population -->\n"
    text = population.render(document, [Measured(CASES[0], 12345, SECONDS)])
    assert f"| {CASES[0].what} | 12,345 | 4000 | 2000 | 500 | 2.0 | **8.0** |" in text
    assert "old" not in text
    with pytest.raises(UsageError, match="begin population"):
        population.render("", [])


def test_all_three_ways_are_measured():
    measured = population.measure(CASES[0], 1)
    assert {name: len(seconds) for name, seconds in measured.seconds.items()} == {
        "reference": 1,
        "vmap": 1,
        "shared": 1,
    }
    assert measured.parameters > 0
