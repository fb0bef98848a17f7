"""`bench report` and the summary of `bench show`, on results whose outcomes are chosen."""

from __future__ import annotations

import pytest

MATRIX = """
seeds: [0, 1, 2]
matrix:
  defense: [none, {name: gaussian, noise_budget: 0.1}]
  attack: [{name: idlg, iterations: 2}, random_guess]
"""


def outcome(spec):
    leaked = spec.attack.name == "idlg" and spec.noise_budget == 0
    ssim = (0.8 if leaked else 0.2) + spec.seed / 100
    private = {"bytes": None, "path": "private/images/one.png"}
    return {
        "ssim": ssim,
        "floor_ssim": 0.1,
        "psnr_db": 40 * ssim,
        "success_rate": float(leaked),
        "floor_success_rate": 0.0,
        "accuracy": 0.9,
        "reconstructions": [
            {"target_id": "t", "reconstruction_index": 0, "psnr_db": 9.0, "ssim": ssim, "png": private}
        ],
    }


@pytest.fixture
def folder(store_experiment):
    return store_experiment(MATRIX, outcome)


def test_the_ending_of_the_file_says_its_format(bench, folder, tmp_path):
    for name, begin in (
        ("page.html", "<!doctype html>"),
        ("page.md", "# made"),
        ("other", "<!doctype html>"),
    ):
        done = bench("report", folder, "--output", tmp_path / name)
        assert done.code == 0
        assert f"wrote {tmp_path / name}" in done.err
        assert (tmp_path / name).read_text().lstrip().startswith(begin)
    bench("report", folder, "-o", tmp_path / "page.txt", "--format", "md")
    assert (tmp_path / "page.txt").read_text().startswith("# made")


def test_what_is_private_is_left_out_and_said(bench, folder, tmp_path):
    page = tmp_path / "page.html"
    assert "left out 6 pictures of private data" in bench("report", folder, "-o", page).err
    (folder / "private" / "images").mkdir(parents=True)
    (folder / "private" / "images" / "one.png").write_bytes(b"x")
    done = bench("report", folder, "-o", page, "--include-private")
    assert "it holds 6 pictures of private data" in done.err
    assert "6 pictures of private data" in page.read_text()


def test_errors_are_for_users(bench, folder, store_experiment, tmp_path):
    page = tmp_path / "page.html"
    failed = store_experiment(MATRIX, lambda spec: {"status": "failed", "error": "no"}, name="failed")
    none = bench("report", failed, "-o", page)
    assert (none.code, "expected complete trials" in none.err) == (2, True)
    assert bench("report", tmp_path / "nothing", "-o", page).code == 2
    assert "cannot write" in bench("report", folder, "-o", tmp_path / "no" / "page.html").err
    lpips = bench("report", folder, "-o", page, "--metric", "lpips")
    assert (lpips.code, "expected lpips in a complete trial" in lpips.err) == (2, True)
    assert not page.exists()


def test_show_says_what_leaks_and_how_sure_that_is(bench, folder):
    text = bench("show", folder).out
    assert "leakage shown" in text
    assert "leaks less" in text
    found = {
        (leak["defense"], leak["attack"]): leak for leak in bench("show", folder, "--json").json["leakage"]
    }
    assert set(found) == {("none", "idlg"), ("gaussian", "idlg")}
    none = found["none", "idlg"]
    assert none["excess"]["mean"] == pytest.approx(0.71)
    assert none["excess"]["low"] < 0.71 < none["excess"]["high"]
    assert none["versus_none"] is None
    assert found["gaussian", "idlg"]["difference"]["mean"] == pytest.approx(-0.6)


def test_show_of_one_seed_has_no_interval_and_is_valid_json(bench, store_experiment):
    folder = store_experiment(MATRIX.replace("[0, 1, 2]", "[0]"), outcome)
    found = bench("show", folder, "--json")
    assert "NaN" not in found.out
    assert {leak["excess"]["low"] for leak in found.json["leakage"]} == {None}
    assert "too few federations" in bench("show", folder).out
