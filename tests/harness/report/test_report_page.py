from __future__ import annotations

import io
import os
import re
import subprocess
import sys
from html.parser import HTMLParser

import pytest
from PIL import Image

from harness.report.content import gather
from harness.report.page import render
from harness.results import load

MATRIX = """
seeds: [0, 1, 2]
matrix:
  defense: [none, {name: gaussian, noise_budget: [0.001, 0.1]}]
  attack: [{name: idlg, iterations: 2}, random_guess]
"""
VOID = {"meta", "img", "br", "link", "input", "hr", "col"}


def png(value):
    buffer = io.BytesIO()
    Image.new("L", (4, 4), value).save(buffer, "PNG")
    return buffer.getvalue()


def outcome(spec, **changed):
    leaked = spec.attack.name == "idlg" and spec.noise_budget < 0.1
    ssim = (0.8 if leaked else 0.2) + spec.seed / 100
    picture = {"bytes": png(10 * spec.seed), "path": None}
    images = [
        {
            "target_id": f"t{n}",
            "reconstruction_index": 0,
            "psnr_db": 30.0 + n,
            "ssim": ssim,
            "png": picture,
            "original": picture,
        }
        for n in range(2)
    ]
    return {
        "ssim": ssim,
        "floor_ssim": 0.2,
        "psnr_db": 40 * ssim,
        "floor_psnr_db": 8.0,
        "psnr_db_max": 50.0,
        "success_rate": float(leaked),
        "floor_success_rate": 0.0,
        "accuracy": 0.9 - spec.noise_budget,
        "cpu_s": 1.5,
        "gradient_evaluations": 1200,
        "reconstructions": images,
        "traces": [
            {"target_id": "t0", "iteration": n, "restart": 0, "png": picture if n < 30 else None}
            for n in range(0, 33, 3)
        ],
        "rounds": [{"round": n, "accuracy": n / 10} for n in range(4)],
        **changed,
    }


@pytest.fixture
def page(store_experiment):
    """From what becomes of each trial to the report's page."""

    def make(outcome=outcome, matrix=MATRIX, form="html", **options):
        return render(gather(load(store_experiment(matrix, outcome), images=True), **options), form)

    return make


class Tree(HTMLParser):
    """Fails where tags do not close in order; collects what is on a page."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.words = [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open, tag
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not {"style", "svg"} & set(self.open):
            self.words.append(data)

    @property
    def text(self):
        return re.sub(r"\s+", " ", " ".join(self.words))

    def attributes(self, name):
        return [attributes[name] for _, attributes in self.tags if name in attributes]


def test_the_page_is_well_formed_and_needs_nothing_else(page):
    tree = Tree(page())
    ids = tree.attributes("id")
    assert len(ids) == len(set(ids)) > 20
    assert {tag for tag, _ in tree.tags}.isdisjoint({"script", "link", "iframe", "object"})
    assert all(source.startswith("data:image/png;base64,") for source in tree.attributes("src"))
    references = [*tree.attributes("href"), *tree.attributes("xlink:href")]
    assert all(reference.startswith("#") for reference in references)
    assert {reference[1:] for reference in references} <= set(ids)
    assert "url(http" not in page()
    assert "@import" not in page()


def test_every_picture_says_what_it_shows(page):
    tree = Tree(page())
    images = [attributes for tag, attributes in tree.tags if tag == "img"]
    assert len(images) == 3 * 3 * 2 + 3 * 8
    assert all(attributes["alt"] for attributes in images)
    drawn = [attributes for tag, attributes in tree.tags if attributes.get("role") == "img" and tag != "svg"]
    assert all(attributes["aria-label"] for attributes in drawn)
    assert len(drawn) == sum(tag == "svg" for tag, _ in tree.tags) == 3


def test_tables_have_headings_for_rows_and_columns(page):
    tree = Tree(page())
    scopes = [attributes.get("scope") for tag, attributes in tree.tags if tag == "th"]
    assert None not in scopes
    assert {"row", "col"} <= set(scopes)


def test_what_was_measured_under_other_conditions_is_not_ranked(store_experiment):
    apart = "{defense: laplace, attack: {name: idlg, iterations: 2}, observe.round: 0}"
    matrix = MATRIX.replace("  attack:", "  observe.round: [0, 1]\n  attack:") + f"include: [{apart}]\n"
    report = gather(load(store_experiment(matrix, outcome), images=True))
    (setting,) = report.settings
    lines = {line.leak.defense: line for line in setting.lines}

    assert lines["laplace"].only == ("round 0",)
    assert not lines["laplace"].on_front
    assert not lines["none"].only
    assert {name for name, _ in setting.trade_off.volumes} == {"none", "gaussian"}
    assert all(render(report, form).count("only round 0") == 1 for form in ("html", "md"))


def test_equal_results_give_equal_pages_in_any_process(store_experiment):
    folder = store_experiment(MATRIX, outcome)
    script = (
        "import sys; from harness.report.content import gather; from harness.report.page import render; "
        "from harness.results import load; "
        "results = load(sys.argv[1], images=True); "
        "sys.stdout.write(render(gather(results), 'html') + render(gather(results), 'md'))"
    )
    pages = [
        subprocess.run(
            [sys.executable, "-c", script, folder],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    ]
    assert len(pages[0]) > 10_000
    assert pages[0] == pages[1]


def test_the_order_of_files_and_rows_does_not_matter(store_experiment):
    results = load(store_experiment(MATRIX, outcome), images=True)
    from dataclasses import replace

    turned = replace(
        results,
        **{
            name: getattr(results, name).iloc[::-1].reset_index(drop=True)
            for name in ("trials", "reconstructions", "rounds", "traces")
        },
    )
    assert render(gather(turned), "html") == render(gather(results), "html")


def test_findings_and_verdicts_are_on_the_page_and_in_its_legend(page):
    text = Tree(page()).text
    assert "leakage shown" in text
    assert "no leakage shown" in text
    assert "leaks less" in text
    assert "A floor is an attacker who never saw the update" in text
    assert "leaks more" not in text
    assert "18 complete trials" in text


def test_the_front_is_named(page):
    report = page(form="md")
    assert "Not beaten in both leakage and utility: none, gaussian at 0.1." in report


def private(spec):
    name = f"{spec.attack.name}-{spec.noise_budget:g}-{spec.seed}"
    picture = {"bytes": None, "path": f"private/images/{name}.png"}
    found = outcome(spec)
    images = [{**row, "png": picture, "original": None} for row in found["reconstructions"]]
    return {**found, "reconstructions": images, "traces": [{**r, "png": picture} for r in found["traces"]]}


def planted(folder):
    """Put a picture behind every path; return the beginning of each file as it would stand on a page."""
    import base64

    trials = load(folder).reconstructions["png"]
    (folder / "private" / "images").mkdir(parents=True)
    marks = set()
    for number, path in enumerate(sorted({cell["path"] for cell in trials})):
        content = png(100 + number)
        (folder / path).write_bytes(content)
        marks.add(base64.b64encode(content).decode())
    return marks


@pytest.mark.parametrize("form", ["html", "md"])
def test_private_pictures_are_left_out(store_experiment, form):
    folder = store_experiment(MATRIX, private)
    marks = planted(folder)
    report = gather(load(folder, images=True))
    page = render(report, form)
    assert report.private_shown == 0
    assert report.hidden > 0
    assert not any(mark in page for mark in marks)
    assert "data:image" not in page


def test_private_pictures_are_shown_when_asked_for_and_the_page_says_so(store_experiment):
    folder = store_experiment(MATRIX, private)
    marks = planted(folder)
    report = gather(load(folder, images=True), include_private=True)
    page = render(report, "html")
    assert report.hidden == 0
    assert report.private_shown == page.count("data:image/png")
    assert any(mark in page for mark in marks)
    assert f"This page holds {report.private_shown} pictures of private data" in page


def test_private_pictures_that_are_gone_are_not_counted(store_experiment):
    folder = store_experiment(MATRIX, private)
    report = gather(load(folder, images=True), include_private=True)
    assert report.private_shown == 0
    assert "data:image" not in render(report, "html")


def test_text_of_users_is_text(page):
    found = page(
        lambda spec: {"status": "failed", "error": "<b>bad</b> & | worse"} if spec.seed else outcome(spec)
    )
    assert "<b>bad" not in found
    assert "12 × &lt;b&gt;bad&lt;/b&gt; &amp; | worse" in found
    Tree(found)


def test_failed_and_not_applicable_trials_are_listed_with_reasons(page):
    def mixed(spec):
        if spec.seed == 2:
            return {"status": "failed", "error": "out of memory"}
        return {"status": "not_applicable", "error": "needs labels"} if spec.seed == 1 else outcome(spec)

    text = Tree(page(mixed)).text
    assert "6 × out of memory" in text
    assert "6 × needs labels" in text
    assert "6 complete, 6 failed and 6 not applicable trials" in text.replace("\n", " ")
    assert "too few federations" in text


def test_only_floors_are_said_to_be_no_attack(page):
    found = page(matrix=MATRIX.replace("{name: idlg, iterations: 2}, ", ""))
    assert "only floors: there is no leakage to report" in Tree(found).text


def test_a_single_seed_has_no_interval(page):
    text = Tree(page(matrix=MATRIX.replace("[0, 1, 2]", "[4]"))).text
    assert "too few federations" in text
    assert "seed 4." in text
    assert "0.64 to" not in text


@pytest.mark.parametrize("form", ["html", "md"])
def test_missing_metrics_and_utility_are_dashes(page, form):
    found = page(lambda spec: outcome(spec, accuracy=None, psnr_db=None, rounds=()), form=form)
    assert "–" in found
    assert "nan" not in found.lower().replace("finance", "")
    assert "trade-off</h3>" not in found


def test_recorded_observations_have_no_truth_and_say_so(page):
    unknown = {"ssim": None, "psnr_db": None, "success_rate": None, "accuracy": None, "psnr_db_max": None}
    found = page(lambda spec: outcome(spec, **unknown, reconstructions=(), rounds=(), traces=()))
    text = Tree(found).text
    assert "not measured" in text
    assert "no leakage shown" not in text


def test_data_that_say_nothing_of_utility_are_not_ranked(page):
    matrix = MATRIX.replace("matrix:", "matrix:\n  data: [{name: photographs, size: 16}]")
    text = Tree(page(matrix=matrix)).text
    assert "Defenses are not ranked by utility on this data set" in text
    assert "The trade-off" not in text


def test_settings_have_sections_of_their_own(page):
    matrix = MATRIX.replace("matrix:", "matrix:\n  data: [{name: digits, size: 8}, {name: digits, size: 16}]")
    tree = Tree(page(matrix=matrix))
    assert {"s1", "s2"} <= set(tree.attributes("id"))
    assert "digits (size 16), lenet" in tree.text
    assert len(tree.attributes("id")) == len(set(tree.attributes("id")))


def test_conditions_are_shown_apart_where_there_are_several(page):
    matrix = MATRIX.replace("matrix:", "matrix:\n  observe.round: [0, 5]")
    text = Tree(page(matrix=matrix)).text
    assert "By condition" in text
    assert "round 5" in text


@pytest.mark.parametrize("metric", ["ssim", "psnr_db", "lpips"])
def test_leakage_is_measured_by_the_metric_asked_for(page, metric):
    found = page(lambda spec: outcome(spec, lpips=0.3 + spec.seed / 10, floor_lpips=0.6), metric=metric)
    assert {"ssim": "SSIM above", "psnr_db": "PSNR above", "lpips": "LPIPS below"}[metric] in found


def test_markdown_tables_are_tables(page):
    matrix = MATRIX.replace("matrix:", "matrix:\n  observe.round: [0, 5]")
    found = page(
        lambda spec: outcome(spec) if spec.seed else {"status": "failed", "error": "a|b"}, matrix, "md"
    )
    widths, tables = None, 0
    for line in found.splitlines():
        if not line.startswith("|"):
            widths = None
            continue
        cells = re.split(r"(?<!\\)\|", line.strip())[1:-1]
        if widths is None:
            widths, tables = len(cells), tables + 1
        assert len(cells) == widths, line
    assert tables == 5
    assert re.search(r"^## How it was made$", found, re.MULTILINE)
    assert "\n\n\n\n" not in found


def test_many_defenses_and_rounds_fit(page):
    budgets = ", ".join(f"{n / 1000:g}" for n in range(1, 31))
    matrix = MATRIX.replace("[0.001, 0.1]", f"[{budgets}]")
    found = page(matrix=matrix)
    assert len(found) < 3_000_000
    Tree(found)
