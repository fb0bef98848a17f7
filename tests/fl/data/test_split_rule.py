"""The rule that fixes parts: complete, proportional, and unmoved by order."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fl.cards import PARTS
from fl.data.split import Shares, assign_parts, quotas


@st.composite
def shares(draw):
    weights = draw(st.lists(st.integers(0, 20), min_size=4, max_size=4).filter(any))
    return Shares(*(weight / sum(weights) for weight in weights))


@settings(deadline=None)
@given(st.integers(0, 10_000), shares())
def test_quotas_are_complete_and_near_their_share(units, shares):
    counts = quotas(units, shares)
    assert sum(counts.values()) == units
    for part, share in zip(PARTS, shares, strict=True):
        assert abs(counts[part] - share * units) <= 1 + 1e-6


def test_quotas_of_a_class_of_500():
    assert quotas(500, Shares()) == {"private": 275, "public": 75, "evaluation": 75, "test": 75}


@pytest.mark.parametrize("units", [1, 2, 3])
def test_the_last_units_go_somewhere(units):
    assert sum(quotas(units, Shares()).values()) == units


@settings(deadline=None)
@given(st.lists(st.tuples(st.text(max_size=4), st.integers(0, 2)), unique_by=lambda u: u[0]), st.randoms())
def test_parts_do_not_depend_on_order(units, random):
    shuffled = random.sample(units, len(units))
    first = assign_parts([key for key, _ in units], [stratum for _, stratum in units], Shares())
    second = assign_parts([key for key, _ in shuffled], [stratum for _, stratum in shuffled], Shares())
    assert dict(zip(units, first, strict=True)) == dict(zip(shuffled, second, strict=True))
    for stratum in range(3):
        found = Counter(part for (_, own), part in zip(units, first, strict=True) if own == stratum)
        assert {part: found[part] for part in PARTS} == quotas(found.total(), Shares())
