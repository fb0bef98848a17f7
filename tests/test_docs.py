"""What the documentation shows works: matrices are valid, links lead somewhere, commands exist."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import click
import pytest

from harness.cli.kinds import KINDS
from harness.cli.main import COMMANDS, bench
from harness.config.matrix import load_matrix

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), ROOT / "results" / "README.md"])
MATRICES = [
    pytest.param(block, id=f"{page.name}-{index}")
    for page in PAGES
    for index, block in enumerate(re.findall(r"```yaml\n(version:.*?)```", page.read_text(), re.DOTALL))
]


@pytest.mark.parametrize("text", [m for m in MATRICES if "observation:" not in m.values[0]])
def test_matrices_in_the_documentation_are_valid(text, tmp_path):
    path = tmp_path / "shown.yaml"
    path.write_text(text)
    assert sum(1 for _ in load_matrix(path).trials()) > 1


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files_and_headings(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if target.startswith(("http://", "https://")):
            continue
        file, _, heading = target.partition("#")
        linked = (page.parent / file).resolve() if file else page
        assert linked.exists(), target
        if heading:
            headings = re.findall(r"^#+ (.+)$", linked.read_text(), re.MULTILINE)
            assert heading in [_anchor(text) for text in headings], target


def _anchor(heading):
    """Return the anchor that a heading gets on common code hosts."""
    return re.sub(r"[^a-z0-9_\- ]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_and_their_options_exist(page):
    for line in re.findall(r"\bbench ((?:[a-z]+)(?: [^`\n]*)?)", page.read_text()):
        name, _, rest = line.partition(" ")
        if name not in COMMANDS:
            continue
        command = bench.get_command(None, name)
        word = next(iter(rest.split()), "")
        if isinstance(command, click.Group) and word in command.commands:
            command = command.commands[word]
        options = {option for param in command.params for option in param.opts}
        used = re.findall(r"(?<![\w-])--[a-z-]+", rest.split("#")[0].split(";")[0])
        assert set(used) <= options, line


def test_every_attack_and_defense_is_documented():
    attacks = next(kind for kind in KINDS if kind.plural == "attacks").load()
    pages = {path.stem for path in (ROOT / "docs" / "attacks").glob("*.md")}
    assert {card.name for card in attacks if card.family != "floor" and card.origin == "attacks"} <= pages
    defenses = next(kind for kind in KINDS if kind.plural == "defenses").load()
    headings = re.findall(r"^## (\w+)$", (ROOT / "docs" / "defenses.md").read_text(), re.MULTILINE)
    assert {card.name for card in defenses if card.origin == "defenses"} <= set(headings)


def test_the_plugin_of_the_guide_passes_its_kit(tmp_path, monkeypatch):
    text = (ROOT / "docs" / "plugins.md").read_text()
    files = dict(re.findall(r"```python\n# (\S+\.py)\n(.*?)```", text, re.DOTALL))
    for name, code in files.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path))
    kit = runpy.run_path(str(tmp_path / "tests" / "test_brightest.py"))["TestBrightest"]
    checks = [name for name in dir(kit) if name.startswith("test_")]
    for name in checks:
        getattr(kit(), name)()
    assert len(checks) > 5
