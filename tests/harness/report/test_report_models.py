"""The page of experiments that invert models: leakage by round, its words, unselected pictures."""

from __future__ import annotations

import base64
import io
import itertools
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from harness.analysis.uncertainty import Estimate
from harness.report.content import gather
from harness.report.figures import Curve, Panel, panels
from harness.report.page import render
from harness.results import load

VOID = {"meta", "img", "br", "link", "input", "hr", "col"}


def png(*numbers):
    """Return a PNG file that no other numbers have."""
    buffer = io.BytesIO()
    pixels = np.random.default_rng(numbers).integers(0, 256, (4, 4), dtype=np.uint8)
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def picture(spec, label, place):
    floor, defended = spec.attack.name == "random_prior", spec.defense.name == "gaussian"
    return png(spec.seed, spec.observe.round, int(floor), int(defended), label, place)


def outcome(spec, **changed):
    floor, defended = spec.attack.name == "random_prior", spec.defense.name == "gaussian"
    top1 = 0.1 if floor else 0.25 + 0.08 * spec.observe.round - 0.25 * defended + spec.seed / 50
    images = [
        {
            "target_id": f"label-{label}",
            "reconstruction_index": place,
            "true_label": str(label),
            "evaluator_label": 3 if place else 4,
            "evaluator_confidence": 0.75,
            "hit": label == 3,
            "png": {"bytes": picture(spec, label, place), "path": None},
        }
        for label in (3, 7)
        for place in (1, 0)
    ]
    return {
        "attack_top1": top1,
        "attack_top5": 0.9,
        "knn_distance": 60 - 40 * top1,
        "evaluator_fid": 80 - 50 * top1,
        "pairwise_distance": 0.21,
        "ceiling_attack_top1": 0.99,
        "ceiling_knn_distance": 3.0,
        "ceiling_evaluator_fid": 2.0,
        "accuracy": 0.9 - 0.1 * defended,
        "cpu_s": 1.5,
        "gradient_evaluations": 1500,
        "reconstructions": images,
        "rounds": [{"round": n, "accuracy": n / 10} for n in range(7)],
        **changed,
    }


@pytest.fixture(scope="module")
def known():
    """Pages of the usual experiment, by format: made once for all tests."""
    return {}


@pytest.fixture(scope="module")
def six_seeds(inversions):
    """The text of the usual matrix."""
    return inversions.replace("[0, 1, 2]", "[0, 1, 2, 3, 4, 5]")


@pytest.fixture
def page(store_experiment, known, six_seeds):
    """From what becomes of each trial to the report's page."""
    numbers = itertools.count()

    def make(made=outcome, matrix=six_seeds, form="html"):
        usual = made is outcome and matrix is six_seeds
        if usual and form in known:
            return known[form]
        folder = store_experiment(matrix, made, name=f"made{next(numbers)}")
        text = render(gather(load(folder, images=True)), form)
        return known.setdefault(form, text) if usual else text

    return make


class Tables(HTMLParser):
    """Reads tables by the label of their region; fails where tags do not close in order."""

    def __init__(self, text):
        super().__init__()
        self.open, self.found, self.texts, self._region = [], {}, [], None
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self._region = dict(attributes).get("aria-label", self._region)
        if tag == "tr":
            self.found.setdefault(self._region, []).append([])
        if tag in ("td", "th"):
            self.found[self._region][-1].append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if {"td", "th"} & set(self.open):
            self.found[self._region][-1][-1] += data
        if not {"style", "svg"} & set(self.open):
            self.texts.append(data)

    @property
    def text(self):
        return re.sub(r"\s+", " ", " ".join(self.texts))


def test_leakage_by_round_is_a_table_of_its_own(page):
    tables = Tables(page())
    heading, *rows = tables.found["Leakage by round in digits, lenet"]
    assert heading[2:7] == ["round", "attack top-1", "floor", "ceiling", "against the floor"]
    assert heading[7:] == ["KNN distance", "evaluator FID", "utility"]
    first, last, *_ = rows
    assert first[:2] == ["none", "gmi"]
    assert [first[2], last[0]] == ["1", "6"]
    # means over seeds 0 to 5: 0.25 + 0.08 + 0.05, and 0.25 + 0.48 + 0.05
    assert (first[3][:4], first[4], first[5], first[6][:15]) == ("0.38", "0.10", "0.99", "above the floor")
    assert (last[1][:4], last[2], last[3], last[4][:15]) == ("0.78", "0.10", "0.99", "above the floor")
    assert (first[7][:4], first[8][:4], first[9][:5]) == ("44.8", "61.0", "0.100")
    assert last[7][:5] == "0.600"
    assert len(rows) == 4
    assert rows[2][6].startswith("not told from the floor")  # 0.08 to 0.18 against 0.1


def test_the_change_from_the_first_to_the_last_round_is_another(page):
    heading, *rows = Tables(page()).found["Change over rounds in digits, lenet"]
    assert heading[2:] == ["rounds", "last minus first", "attack top-1", "KNN distance", "evaluator FID"]
    assert [row[:4] for row in rows] == [
        ["none", "gmi", "1, 6", "leaks more later"],
        ["gaussian 0.1", "gmi", "1, 6", "leaks more later"],
    ]
    assert [row[4][:4] for row in rows] == ["0.40", "0.40"]
    assert rows[0][5][:5] == "−16.0"


def test_every_measure_is_drawn_over_rounds_with_floor_and_ceiling(page):
    found = page()
    drawn = re.findall(
        r'aria-label="([^"]*) over rounds by defense and attack.*?<svg(.*?)</svg>', found, re.DOTALL
    )
    assert [name for name, _ in drawn] == ["attack accuracy", "KNN distance", "evaluator FID"]
    for _, svg in drawn:
        texts = re.findall(r"<text[^>]*>([^<]*)</text>", svg)
        assert {"none", "gaussian at 0.1", "gmi", "floor", "ceiling", "rounds trained"} <= set(texts)
        assert "random_prior" not in texts
        assert {"1", "6"} <= set(texts)


def test_a_defense_without_values_of_a_measure_is_left_out_of_its_picture(page):
    def made(spec):
        missing = {"evaluator_fid": None, "ceiling_evaluator_fid": None}
        return outcome(spec, **missing if spec.defense.name == "gaussian" else {})

    drawn = re.findall(r'aria-label="evaluator FID over rounds by.*?<svg(.*?)</svg>', page(made), re.DOTALL)
    texts = set(re.findall(r"<text[^>]*>([^<]*)</text>", drawn[0]))
    assert "none" in texts
    assert "gaussian at 0.1" not in texts


def test_a_single_round_is_a_table_without_pictures_of_rounds(page, six_seeds):
    found = page(matrix=six_seeds.replace("[1, 6]", "[6]"))
    tables = Tables(found)
    assert len(tables.found["Leakage by round in digits, lenet"]) == 3
    assert "over rounds by defense and attack" not in found
    assert "Change over rounds in digits, lenet" not in tables.found


def test_long_tables_are_folded_and_keep_every_round(page, six_seeds):
    rounds = list(range(1, 41))
    matrix = six_seeds.replace("[1, 6]", str(rounds)).replace("rounds: 6", "rounds: 40")
    matrix = matrix.replace("[0, 1, 2, 3, 4, 5]", "[0, 1]")
    found = page(lambda spec: outcome(spec, reconstructions=(), attack_top1=0.2), matrix)
    assert len(Tables(found).found["Leakage by round in digits, lenet"]) == 1 + 2 * 40
    assert "Every round</summary>" in found


def test_the_summary_and_the_trade_off_are_about_attack_accuracy_at_the_last_round(page):
    found = page()
    heading, none, gaussian = Tables(found).found["Summary of digits, lenet"]
    assert heading[5:] == ["attack top-1", "KNN distance", "evaluator FID", "utility"]
    assert none[2][:4] == "0.68"  # 0.78 - 0.1: the first round has no part in it
    assert (gaussian[2][:4], gaussian[4][:10]) == ("0.43", "leaks less")
    assert "leakage: attack accuracy above the best floor" in found
    assert "PSNR" not in found
    assert "SSIM" not in found


def test_the_words_of_model_inversion_are_explained(page):
    text = Tables(page()).text
    assert "How much of the clients' private images the global models gave away" in text
    assert "random images of the prior" in text
    assert "No attack ever sees it" in text
    assert "not Inception's" in text
    assert "never saw the update" not in text
    assert "the labels" not in text.partition("How to read this page")[0]


def test_who_attacks_holds_classes_of_its_own(page, six_seeds):
    attacker = "batch_size: 4, attacker: {clients: 1, labels: [6, 5], others: [0, 1]}}"
    text = Tables(page(matrix=six_seeds.replace("batch_size: 4}", attacker))).text
    assert (
        "One of the clients attacks and holds the classes 5 and 6; the others hold the classes 0 and 1."
        in text
    )


def test_the_first_seeds_are_shown_whatever_they_show(page):
    found = page()
    heading, *rows = Tables(found).found["Pictures of digits, lenet"]
    assert heading[3:] == [f"seed {seed}" for seed in range(5)]
    assert [row[:3] for row in rows[:4]] == [
        ["none", "gmi", "1"],
        ["none", "gmi", "6"],
        ["none", "random_prior", "1"],
        ["none", "random_prior", "6"],
    ]
    # of the first seed the first image of its first label, of the next that of its second, and round again
    assert [cell.strip() for cell in rows[0][3:]] == [
        "3: hit, 0.75",
        "7: taken for 4, 0.75",
        "3: hit, 0.75",
        "7: taken for 4, 0.75",
        "3: hit, 0.75",
    ]
    shown = set(re.findall(r'src="data:image/png;base64,([^"]*)"', found))
    wanted = {
        base64.b64encode(png(seed, round_, floor, defended, (3, 7)[seed % 2], 0)).decode()
        for seed, round_, floor, defended in itertools.product(range(5), (1, 6), (0, 1), (0, 1))
    }
    assert shown == wanted


def test_a_seed_that_failed_leaves_its_place_empty(page):
    def failed(spec):
        gone = (spec.seed, spec.observe.round, spec.attack.name) == (1, 6, "gmi")
        return {"status": "failed", "error": "no"} if gone else outcome(spec)

    heading, first, last, *_ = Tables(page(failed)).found["Pictures of digits, lenet"]
    assert heading[3:] == [f"seed {seed}" for seed in range(5)]
    assert [bool(re.match(r"\s*\d: ", cell)) for cell in first[3:]] == [True] * 5
    assert [bool(re.match(r"\s*\d: ", cell)) for cell in last[3:]] == [True, False, True, True, True]


def test_real_images_stand_beside_where_rows_have_them(page):
    real = png(1000)

    def beside(spec):
        found = outcome(spec)
        rows = [{**row, "original": {"bytes": real, "path": None}} for row in found["reconstructions"]]
        return {**found, "reconstructions": rows}

    found = page(beside)
    assert found.count(base64.b64encode(real).decode()) == 5 * 2 * 2 * 2
    assert "the private image of that label" in found
    assert "the private image of that label" not in page()


def test_private_pictures_are_left_out_and_counted(page):
    def private(spec):
        found = outcome(spec)
        hidden = {"bytes": None, "path": "private/images/one.png"}
        return {**found, "reconstructions": [{**row, "png": hidden} for row in found["reconstructions"]]}

    found = page(private)
    assert "data:image" not in found
    assert "40 pictures of private data were left out" in Tables(found).text


def test_images_that_nobody_judged_say_their_label_only(page):
    def unjudged(spec):
        found = outcome(spec)
        nothing = dict.fromkeys(("evaluator_label", "evaluator_confidence", "hit"))
        return {**found, "reconstructions": [{**row, **nothing} for row in found["reconstructions"]]}

    _, first, *_ = Tables(page(unjudged)).found["Pictures of digits, lenet"]
    assert [cell.strip() for cell in first[3:]] == ["3", "7", "3", "7", "3"]


def test_markdown_has_the_same_tables(page):
    found = page(form="md")
    widths, headings = None, []
    for line in found.splitlines():
        if not line.startswith("|"):
            widths = None
            continue
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip())[1:-1]]
        if widths is None:
            widths = len(cells)
            headings.append(cells)
        assert len(cells) == widths, line
    assert [cells[3] for cells in headings] == [
        "leakage",
        "round",
        "last minus first round",
        "seconds in all",
    ]
    assert "### Leakage by round" in found
    assert "\n\n\n\n" not in found


def test_updates_of_several_rounds_are_followed_too(page, six_seeds):
    matrix = six_seeds.replace("observe: {kind: global_model}", "observe: {kind: update}")
    matrix = matrix.replace("position: participant", "position: server")
    matrix = matrix.replace("gmi, random_prior", "{name: idlg, iterations: 2}, random_guess").replace(
        "[1, 6]", "[1, 5]"
    )

    def recovered(spec):
        ssim = 0.9 - spec.observe.round / 10
        return {"ssim": ssim, "floor_ssim": 0.1, "psnr_db": 40 * ssim, "floor_psnr_db": 8.0}

    heading, first, *_ = Tables(page(recovered, matrix)).found["Leakage by round in digits, lenet"]
    assert heading[2:] == ["round", "SSIM", "floor", "against the floor", "PSNR dB", "utility"]
    assert first[2:5] == ["1", "0.800.80 to 0.80", "0.10"]


def test_intervals_are_shaded_only_where_lines_are_few():
    known = Estimate(0.5, 0.4, 0.6, 3, 3, "student", 0.01)

    def drawn(lines):
        curves = [Curve(f"attack {n}", [1, 10], [known, known]) for n in range(lines)]
        return panels([Panel("none", curves, ())], x="rounds", y="accuracy", from_zero=True, name="few")

    assert drawn(6).count("FillBetween") == 6
    assert drawn(7).count("FillBetween") == 0
