"""A benchmark in small, with peers that do what they are told."""

import pytest
import torch

from attacks.engine.table import Choice, EngineTable, using
from benchmarks.cases import CASES, Case
from benchmarks.measure import measure, split
from benchmarks.report import frames, render
from benchmarks.solvers import Answer, loop, peers
from fl.errors import UsageError

SMALL = Case("small", "lenet", {"convs": 2}, size=16, iterations=2, trials=3)
REQUIRED = {
    *("model", "attack", "engine", "peer", "cpu_s_per_trial", "peer_cpu_s_per_trial", "ratio_to_peer"),
    *("ratio_ci_low", "ratio_ci_high", "dpsnr_median", "success_ours", "success_peer", "fraction_of_peak"),
}
DOCUMENT = "".join(
    f"text\n<!-- begin {name} -->\nold\n<!-- end {name} -->\n" for name in ("machine", "attacks", "stopping")
)


@pytest.fixture(autouse=True)
def _two_lanes():
    with using(EngineTable({}, {"cpu": Choice("layers", 2)})):
        yield


@pytest.mark.parametrize(("count", "parts"), [(8, 4), (7, 3), (2, 4), (1, 1)])
def test_parts_are_about_equal_and_lose_nothing(count, parts):
    found = split(range(count), parts)
    sizes = [len(part) for part in found]

    assert [index for part in found for index in part] == list(range(count))
    assert len(found) == min(parts, count)
    assert max(sizes) - min(sizes) <= 1


def test_a_row_compares_the_same_tasks():
    measurement = measure(SMALL, peers={"loop": loop}, blocks=2)
    row = measurement.row()

    assert row.keys() >= REQUIRED
    assert (row["engine"], row["lane_width"], row["peer"]) == ("layers", 2, "loop")
    assert (row["trials"], row["pairs"]) == (4, 2)  # whole batches
    assert sorted(measurement.peers) == sorted(measurement.ours) == [0, 1, 2, 3]
    assert row["dpsnr_median"] < 0.01
    assert row["success_ours"] == row["success_peer"]
    assert row["ratio_ci_low"] <= row["ratio_to_peer"] <= row["ratio_ci_high"]
    assert 0 < row["fraction_of_peak"] < 1


def test_the_faster_peer_is_the_peer():
    def wasteful(attack, task):
        for _ in range(200):
            torch.ones(400, 400) @ torch.ones(400, 400)
        return loop(attack, task)

    def lucky(attack, task):
        return Answer(SMALL.alike.image(int(task.task_id.rpartition("-")[2])))

    measurement = measure(SMALL, peers={"wasteful": wasteful, "lucky": lucky}, blocks=1)

    assert measurement.peer == "lucky"
    assert measurement.row()["success_peer"] == 1.0


def test_early_stopping_is_measured_apart_and_reported():
    case = Case("small", "lenet", {"convs": 2}, size=16, iterations=2, trials=2, attack="dlg")
    tables = frames([measure(case, peers={"loop": loop}, blocks=1)])
    text = render(DOCUMENT, tables)

    assert len(tables["stopping"]) == len(tables["attacks"]) == 1
    assert tables["attacks"]["threads"][0] == torch.get_num_threads()
    assert "old" not in text
    assert text.count("text\n") == 3
    assert "small 16 px, dlg, 2 iterations, 2 trials" in text
    assert render(text, tables) == text


def test_a_document_without_a_place_for_a_table_is_refused():
    tables = frames([measure(SMALL, peers={"loop": loop}, blocks=1)])
    with pytest.raises(UsageError, match="begin machine"):
        render(DOCUMENT.replace("begin machine", "machine"), tables)


def test_cases_are_those_of_the_published_table():
    assert [(case.model, case.iterations, case.trials, case.size) for case in CASES] == [
        ("lenet", 100, 32, 32),
        ("resnet20", 200, 8, 32),
        ("resnet18", 100, 8, 32),
        ("convnet", 60, 8, 32),
        ("densenet121", 30, 4, 64),
    ]
    for case in CASES:
        quick = case.quick()
        assert (quick.trials, quick.iterations) == (4, case.iterations // 10)
        assert case.config.iterations == case.iterations


@pytest.mark.skipif("breaching" not in peers(), reason="needs the optional dependencies bench-peers")
@pytest.mark.parametrize("attack", ["inverting_gradients", "dlg"])
@pytest.mark.filterwarnings("ignore")
def test_breaching_solves_the_same_problem(attack):
    case = Case("small", "lenet", {"convs": 2}, size=32, iterations=3, attack=attack)
    task = case.alike.task(1, case.config)
    theirs, ours = peers()["breaching"](attack, task), loop(attack, task)

    assert float((theirs.images - ours.images).abs().mean()) < 0.03
