"""A memory that is bounded in bytes."""

from hypothesis import given
from hypothesis import strategies as st

from harness.metrics.recent import Recent


def test_what_was_used_longest_ago_goes_first():
    recent = Recent(10)
    for name in "abc":
        recent.put(name, name.upper(), n_bytes=3)
    assert recent.get("a") == "A"
    recent.put("d", "D", n_bytes=4)
    assert [recent.get(name) for name in "abcd"] == ["A", None, "C", "D"]


def test_the_newest_stays_however_large_it_is():
    recent = Recent(10)
    recent.put("small", 1, n_bytes=1)
    recent.put("large", 2, n_bytes=99)
    assert (recent.get("small"), recent.get("large"), len(recent)) == (None, 2, 1)


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 12))))
def test_it_never_holds_more_than_it_may(uses):
    recent, sizes = Recent(20), {}
    for key, size in uses:
        if recent.get(key) is None:
            recent.put(key, key, n_bytes=size)
            sizes[key] = size
        held = [sizes[known] for known in sizes if recent.get(known) is not None]
        assert sum(held) <= 20
        assert len(held) == len(recent)
