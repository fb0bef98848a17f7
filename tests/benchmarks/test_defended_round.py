"""The benchmark of defended rounds, in small."""

from __future__ import annotations

import pytest

from benchmarks import defended_round
from benchmarks.defended_round import Pair
from fl.errors import UsageError


def test_a_row_holds_medians_and_their_ratio():
    row = Pair("work", 4, slow=[1.0, 9.0, 2.0], fast=[0.5, 0.25, 4.0]).row()
    assert (row["slow_s"], row["fast_s"], row["ratio"]) == (2.0, 0.5, 4.0)


def test_tables_take_their_places():
    places = [f"<!-- begin {name} -->\nold\n<!-- end {name} -->\n" for name in ("defended", "batched")]
    pairs = [Pair("a round", slow=[3.0], fast=[1.5])], [Pair("a map", 4, slow=[0.2], fast=[0.05])]
    text = defended_round.render("".join(places), *pairs)
    assert "| a round | 1.50 | 3.00 | **2.0** |" in text
    assert "| a map | 4 | 200 | 50 | **4.0** |" in text
    assert "old" not in text
    with pytest.raises(UsageError, match="begin batched"):
        defended_round.render(places[0], *pairs)


@pytest.mark.slow
def test_every_row_is_measured():
    data = defended_round._photographs()
    artifact = defended_round._generator(data)
    rounds = defended_round.rounds(1, data, artifact)
    batches = defended_round.batches(1, data, artifact)
    assert [len(pair.slow) == len(pair.fast) == 1 for pair in (*rounds, *batches)] == [True] * 9
    assert min(pair.row()["ratio"] for pair in rounds) > 1
