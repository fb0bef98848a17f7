"""The solver's table: what it answers, how it travels, and who may replace it."""

import os
import subprocess
import sys

import pytest

from attacks.engine.table import (
    REFERENCE,
    SHIPPED,
    VARIABLE,
    Choice,
    EngineTable,
    at_most,
    choices,
    choose,
    chosen_by_user,
    current,
    shipped,
    spelled,
    table_digest,
    using,
)
from fl.errors import UsageError

TABLE = EngineTable(
    {"cpu": {"lenet": Choice("layers", 16)}, "cuda": {"lenet": Choice("vmap", 64)}},
    {"cuda": Choice("layers", 32)},
)


@pytest.mark.parametrize(
    ("model", "device", "choice"),
    [
        ("lenet", "cpu", Choice("layers", 16)),
        ("lenet", "cuda", Choice("vmap", 64)),
        ("vgg16", "cuda", Choice("layers", 32)),
        ("vgg16", "cpu", REFERENCE),
        ("lenet", "mps", REFERENCE),
    ],
)
def test_a_choice_is_the_models_or_the_devices_or_the_plain_loop(model, device, choice):
    with using(TABLE):
        assert choose(model, device) == choice


def test_a_table_survives_its_text():
    again = EngineTable.parse(TABLE.text)

    assert again == TABLE
    assert again.digest == TABLE.digest


def test_a_digest_changes_with_any_entry_and_not_with_their_order():
    other = TABLE.with_choice("vgg16", "cpu", Choice("layers", 16))
    reordered = EngineTable(dict(reversed(TABLE.models.items())), TABLE.otherwise)

    assert other.choices("vgg16", "cpu") == (Choice("layers", 16),)
    assert other.choices("lenet", "cpu") == (Choice("layers", 16),)
    assert len({TABLE.digest, other.digest, shipped().digest}) == 3
    assert reordered.digest == TABLE.digest


def test_a_table_holds_for_a_block_and_what_was_before_comes_back():
    with using(TABLE):
        with using(EngineTable()):
            assert choose("lenet", "cpu") == REFERENCE
        assert table_digest() == TABLE.digest
    assert current() is shipped()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "JSONDecodeError"),
        ("[]", "TypeError"),
        ("{}", "KeyError"),
        ('{"models": {"cpu": {"lenet": {"formulation": "magic", "lanes": 1}}}, "otherwise": {}}', "magic"),
        ('{"models": {}, "otherwise": {"cpu": {"formulation": "layers", "lanes": 24}}}', "24"),
        ('{"models": {}, "otherwise": {"cpu": {"formulation": "layers", "lanes": 0}}}', "multiple of 16"),
        ('{"models": {}, "otherwise": {"cpu": {"formulation": "layers", "lanes": true}}}', "True"),
        ('{"models": {}, "otherwise": {"cpu": {"formulation": "native", "lanes": 16}}}', "1 lane for native"),
    ],
)
def test_what_is_no_table_is_refused(text, words):
    with pytest.raises(UsageError, match=words):
        EngineTable.parse(text, name="mine.json")


def test_what_stands_in_comes_second_and_only_where_it_has_room():
    tangent, layers = Choice("tangent", 1), Choice("layers", 16)
    table = EngineTable({"cpu": {"convnet": tangent, "vgg16": REFERENCE}}).with_choice(
        "convnet", "cpu", tangent, portable=layers
    )
    assert EngineTable.parse(table.text) == table
    with using(table):
        assert choices("convnet", "cpu") == [tangent, layers]
        assert choices("convnet", "cpu", width=3) == [Choice("tangent", 3), layers]
        assert choices("convnet", "cpu", width=17) == [Choice("tangent", 17)]
        assert choices("vgg16", "cpu") == []
        with at_most(1):
            assert choices("convnet", "cpu") == [tangent, Choice("layers", 1)]
            assert choices("convnet", "cpu", width=3) == []


def test_the_shipped_file_is_written_as_a_calibration_would():
    assert SHIPPED.read_text() == shipped().text


def test_the_environment_may_name_a_table(monkeypatch, tmp_path):
    monkeypatch.delenv(VARIABLE, raising=False)
    assert chosen_by_user() is None
    path = tmp_path / "mine.json"
    monkeypatch.setenv(VARIABLE, str(path))
    with pytest.raises(UsageError, match="cannot read"):
        chosen_by_user()
    path.write_text(TABLE.text)
    assert chosen_by_user() == TABLE


def test_reading_the_table_imports_no_torch():
    code = (
        "import sys; sys.modules['torch'] = None; from attacks.engine.table import choose; choose('a', 'cpu')"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ, timeout=60)


def test_an_entry_with_options_counts_for_models_that_have_them():
    small, large = Choice("layers", 16), Choice("tangent", 1)
    table = EngineTable({"cpu": {"convnet": large, "convnet,width=4": small, "resnet18": small}})
    assert table.choices(spelled("convnet", {"width": 4, "batch_norm": True}), "cpu") == (small,)
    assert table.choices(spelled("convnet", {"width": 40, "batch_norm": True}), "cpu") == (large,)
    assert table.choices("convnet", "cpu") == (large,)
    assert spelled("resnet18", {"stem": "cifar", "deep": False}) == "resnet18,deep=false,stem=cifar"
