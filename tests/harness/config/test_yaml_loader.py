from __future__ import annotations

import math
from pathlib import Path

import pytest

from fl.errors import ConfigError
from harness.config.yaml_loader import load_yaml, parse_scalar


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "doc.yaml"
    path.write_text(text)
    return path


def mistakes(tmp_path: Path, text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load_yaml(written(tmp_path, text))
    return [str(problem).removeprefix(f"{tmp_path}/") for problem in caught.value.problems]


# YAML 1.2.2, section 10.3.2 and its example 10.9; the middle group is what YAML 1.1 reads otherwise
@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("null", None), ("~", None), ("", None), ("true", True), ("False", False),
        ("0", 0), ("-19", -19), ("0o7", 7), ("0x3A", 58), ("007", 7),
        ("0.", 0.0), ("-0.0", -0.0), (".5", 0.5), ("+12e03", 12000.0), ("-2E+05", -200000.0),
        (".inf", float("inf")), ("-.INF", float("-inf")),
        ("1e-5", 1e-5), ("1.0e-3", 1e-3), ("no", "no"), ("off", "off"), ("yes", "yes"), ("24_000", "24_000"),
        ("1:30", "1:30"), ("2024-01-01", "2024-01-01"), ("8/255", "8/255"), ("0b1", "0b1"),
        ("nan", "nan"), ("1e", "1e"), (".", "."), ("-", "-"), ("2h", "2h"), ("dlg", "dlg"),
    ],
)  # fmt: skip
def test_scalars_follow_the_core_schema_of_yaml_1_2(tmp_path: Path, text: str, value: object) -> None:
    assert parse_scalar(text) == value
    assert type(parse_scalar(text)) is type(value)
    if text != "-":
        read = load_yaml(written(tmp_path, f"key: {text}\n")).plain()
        assert read == {"key": value}
        assert type(read["key"]) is type(value)


def test_nan_is_a_float() -> None:
    value = parse_scalar(".nan")
    assert isinstance(value, float)
    assert math.isnan(value)


def test_quoted_scalars_are_strings(tmp_path: Path) -> None:
    assert load_yaml(written(tmp_path, "a: '1'\nb: \"true\"\n")).plain() == {"a": "1", "b": "true"}


def test_every_entry_knows_its_line_and_dotted_path(tmp_path: Path) -> None:
    text = "# comment\na:\n  b:\n    - x\n    - {c: 1}\nd: 2\n"
    root = load_yaml(written(tmp_path, text))
    a = root.entries["a"]
    b = a.entries["b"]
    assert (a.mark.line, a.mark.key) == (2, "a")
    assert (b.mark.line, b.mark.key) == (3, "a.b")
    assert [(item.mark.line, item.mark.key) for item in b.items] == [(4, "a.b.0"), (5, "a.b.1")]
    assert b.items[1].keys["c"].line == 5
    assert (root.entries["d"].mark.line, root.keys["d"].key) == (6, "d")


def test_anchors_share_values_and_point_to_where_they_are_written(tmp_path: Path) -> None:
    root = load_yaml(written(tmp_path, "a: &x {k: 1}\n\nb: *x\n"))
    assert root.plain() == {"a": {"k": 1}, "b": {"k": 1}}
    assert root.entries["b"].mark.line == 3
    assert root.entries["b"].entries["k"].mark.line == 1


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("a: 1\nb: 2\na: 3\n", ["doc.yaml:3: a: expected each key once, got 'a' again (first on line 1)"]),
        ("x:\n  a: 1\n  a: 1\ny: {b: 1, b: 2}\n", [
            "doc.yaml:3: x.a: expected each key once, got 'a' again (first on line 2)",
            "doc.yaml:4: y.b: expected each key once, got 'b' again (first on line 4)",
        ]),
        ("a: 1\n2: x\n", ["doc.yaml:2: expected a name as key, got '2'"]),
        ("a: {k: 1}\nb:\n  <<: {z: 1}\n", ["doc.yaml:3: b: expected a name as key, got the merge key <<"]),
        ("a: &x [1, *x]\n", ["doc.yaml:1: a.1: expected a value, got an alias that contains itself"]),
        ("a: !!int foo\n", ["doc.yaml:1: a: expected int as its tag says, got 'foo'"]),
        ("a: !secret foo\n", ["doc.yaml:1: a: expected a plain value, got the tag '!secret'"]),
    ],
)  # fmt: skip
def test_broken_rules_are_told_all_at_once(tmp_path: Path, text: str, found: list[str]) -> None:
    assert mistakes(tmp_path, text) == found


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("a: [1, 2\nb: 3\n", 2, "expected ',' or ']'"),
        ("a:\n\t- 1\n", 2, "indent with spaces, not tabs"),
        ("a: *missing\n", 1, "undefined alias 'missing'"),
        ("a: 1\n---\nb: 2\n", 2, "expected a single document"),
        ("a: 'open\n", 2, "unexpected end of stream"),
        ("a: 1\nb: \x01\n", 2, "special characters are not allowed"),
        ("a: [\n" + "[" * 2000, None, "nested too deeply"),
    ],
)
def test_syntax_errors_name_the_line(tmp_path: Path, text: str, line: int | None, words: str) -> None:
    (message,) = mistakes(tmp_path, text)
    place = "doc.yaml" if line is None else f"doc.yaml:{line}"
    assert message.startswith(f"{place}: ")
    assert words in message


def test_an_empty_file_is_an_empty_mapping(tmp_path: Path) -> None:
    assert load_yaml(written(tmp_path, "# nothing\n")).plain() == {}


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: None, "expected a file, got nothing at this path"),
        (lambda path: path.mkdir(), "expected a file, got a folder"),
        (lambda path: path.write_bytes(b"a: \xff"), "expected UTF-8 text, got byte 0xff at 3"),
    ],
)
def test_files_that_cannot_be_read(tmp_path: Path, make: object, words: str) -> None:
    path = tmp_path / "doc.yaml"
    make(path)  # type: ignore[operator]
    with pytest.raises(ConfigError) as caught:
        load_yaml(path)
    assert str(caught.value) == f"{path}: {words}"
    assert caught.value.exit_code == 2
