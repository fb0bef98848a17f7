"""What goes wrong is said in words on stderr, with the exit code that belongs to it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from fl.cards import DataCard
from fl.data import DATASETS
from fl.specs import NoConfig


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("launch",), "No such command 'launch'"),
        (("run",), "Missing argument 'FILE'"),
        (("run", "nowhere.yaml"), "nowhere.yaml: expected a file"),
        (
            ("plan", "configs/quickstart.yaml", "--seeds", "0,one"),
            "expected seeds such as 0,1,2, got '0,one'",
        ),
        (("plan", "configs/quickstart.yaml", "--seeds", "7"), "expected --seeds among those of the matrix"),
        (("plan", "configs/quickstart.yaml", "--only", "atack=dlg"), "Did you mean 'attack' or"),
        (
            ("plan", "configs/quickstart.yaml", "--skip", "attack=nope"),
            "'--skip attack=nope' to match a trial",
        ),
        (("plan", "configs/quickstart.yaml", "--limit", "0"), "0 is not in the range x>=1"),
        (("run", "configs/smoke.yaml", "--executor", "inline", "--workers", "2"), "need --executor ray"),
        (("ls", "atack"), "'atack' is not one of"),
        (("show", "attack"), "expected a name after 'attack'; `bench ls attacks`"),
        (("show", "attack", "gradinversoin"), "Did you mean 'gradinversion'?"),
        (("show", "gausian"), "Did you mean 'gaussian'?"),
        (("show", "results/none-such"), "expected an experiment's results in results/none-such"),
        (("show", "thing", "dlg"), "or the folder of an experiment, got 'thing'"),
        (("data", "show", "digts"), "Did you mean 'digits'?"),
        (("data", "fetch", "lpips-alexnet"), "`bench weights fetch lpips-alexnet`"),
        (("weights", "fetch", "mnist5k"), "`bench data fetch mnist5k`"),
        (("weights", "fetch", "lpips-alexnt"), "Did you mean 'lpips-alexnet'?"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_requests_that_cannot_be_served_exit_2(bench, arguments, said):
    outcome = bench(*arguments)
    assert outcome.code == 2
    assert said in re.sub(r"\s+", " ", outcome.err)
    assert outcome.out == ""
    assert "Traceback" not in outcome.err


def test_every_mistake_of_a_matrix_is_named_with_its_line(bench, write_matrix):
    path = write_matrix(
        """\
        version: 1
        name: broken
        defaults: {data: digits, model: {name: lenet, conv: 3}}
        matrix:
          attack: [dgl]
          defense: [{name: gaussian, sigma: -1}]
        """
    )
    for command in ("run", "plan", "validate"):
        outcome = bench(command, path)
        assert outcome.code == 2
        lines = [int(line) for line in re.findall(rf"{re.escape(str(path))}:(\d+): ", outcome.err)]
        assert lines == [3, 5, 6]
        assert not Path("results/broken").exists()


def _broken_card(error):
    def describe(config):
        raise error

    return DataCard(
        name="broken",
        version=1,
        summary="Fails where it is looked at.",
        config=NoConfig,
        implementation="nowhere:nothing",
        licence="none",
        parts="none",
        describe=describe,
    )


def test_a_bug_exits_1_and_says_where_the_traceback_is(bench, register):
    register(DATASETS, _broken_card(ZeroDivisionError("by zero")))
    outcome = bench("data", "show", "broken")
    assert outcome.code == 1
    assert "unexpected ZeroDivisionError: by zero" in outcome.err
    assert "Traceback (most recent call last)" not in outcome.err
    kept = Path(re.search(r"traceback is in (\S+)", outcome.err)[1])
    assert "ZeroDivisionError: by zero" in kept.read_text()
    kept.unlink()


def test_ctrl_c_exits_130(bench, register):
    register(DATASETS, _broken_card(KeyboardInterrupt()))
    assert bench("data", "show", "broken").code == 130
