"""Numbers in words."""

from __future__ import annotations

import pytest

from harness.cli.output import duration, size


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.25, "0.2 s"), (42, "42 s"), (61, "1 min 01 s"), (3599.6, "1 h 00 min"), (200_000, "2.3 days")],
)
def test_durations(seconds, words):
    assert duration(seconds) == words


@pytest.mark.parametrize(
    ("n_bytes", "words"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1536, "1.5 KiB"),
        (63_794_605, "61 MiB"),
        (2**40 - 2**30, "1023 GiB"),
        (3 * 2**40, "3.0 TiB"),
    ],
)
def test_sizes(n_bytes, words):
    assert size(n_bytes) == words
