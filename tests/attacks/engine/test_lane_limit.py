"""Fewer lanes than the table says, where memory ran out."""

from attacks.engine.table import (
    REFERENCE,
    Choice,
    EngineTable,
    at_most,
    choose,
    is_width,
    narrower,
    table_digest,
    using,
)

TABLE = EngineTable({"cpu": {"wide": Choice("vmap", 48), "one": Choice("layers", 1)}}, {})


def chosen(model, *limits):
    with using(TABLE), at_most(limits[0]), at_most(limits[-1]):
        assert table_digest() == TABLE.digest
        return choose(model, "cpu")


def test_a_limit_narrows_what_is_wider():
    assert chosen("wide", None) == Choice("vmap", 48)
    assert chosen("wide", 64) == Choice("vmap", 48)
    assert chosen("wide", 32) == Choice("vmap", 32)
    assert chosen("wide", 0) == REFERENCE
    assert chosen("one", 16) == Choice("layers", 1)
    assert chosen("unknown", 16) == REFERENCE


def test_the_lowest_of_several_limits_counts_and_none_is_left_behind():
    assert chosen("wide", 16, 32) == Choice("vmap", 16)
    assert chosen("wide", 32, 16) == Choice("vmap", 16)
    assert chosen("wide", 16, None) == Choice("vmap", 16)
    assert chosen("wide", None) == Choice("vmap", 48)


def test_widths_go_down_to_the_plain_loop():
    widths = [256]
    while (width := narrower(widths[-1])) is not None:
        widths.append(width)

    assert widths == [256, 64, 32, 16, 1, 0]
    assert all(is_width(width) for width in widths[:-1])
    assert narrower(48) == 32
