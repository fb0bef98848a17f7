"""Commands that compute nothing import nothing that costs seconds."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

HEAVY = (
    "torch",
    "torchvision",
    "ray",
    "pandas",
    "numpy",
    "pyarrow",
    "scipy",
    "sklearn",
    "skimage",
    "optuna",
    "lpips",
)
SCRIPT = """
import json, sys
from harness.cli.main import run
code = run(sys.argv[2:])
loaded = [name for name in json.loads(sys.argv[1]) if name in sys.modules]
print("\\nLOADED " + json.dumps([code, loaded]))
"""


def _loaded(*arguments):
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps(HEAVY), *map(str, arguments)],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    return json.loads(done.stdout.rpartition("LOADED ")[2])


@pytest.mark.parametrize(
    "arguments",
    [
        ("--help",),
        ("run", "--help"),
        ("ls",),
        ("show", "attack", "dlg"),
        ("data", "list"),
        ("weights", "list"),
        ("record", "pair", "--help"),
        ("validate", "configs/quickstart.yaml"),
        ("plan", "configs/quickstart.yaml", "--results", "no-such-folder"),
        ("tune", "configs/tune/shadowdef_small.yaml", "--check"),
    ],
    ids=" ".join,
)
def test_nothing_heavy_is_imported(arguments):
    assert _loaded(*arguments) == [0, []]


def test_help_names_every_command_and_exit_code(bench):
    text = bench("--help").out
    assert all(name in text for name in ("run", "plan", "validate", "ls", "show", "data", "weights"))
    assert all(f" {code} " in text for code in (0, 1, 2, 3, 130))
