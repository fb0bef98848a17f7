from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from fl.errors import ConfigError
from harness.config.matrix import Matrix
from harness.plan.planner import make_plan

Load = Callable[[str], Matrix]


def test_missing_weights_are_told_before_any_work_where_they_are_asked_for(
    short: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    models = "[lenet, {name: resnet18, weights: imagenet}, {name: densenet121, weights: IMAGENET1K_V1}]"
    matrix = short(
        f"matrix:\n  attack: [dlg, random_guess]\n  data: [{{name: digits, size: 32}}]\n  model: {models}\n"
    )

    with pytest.raises(ConfigError) as caught:
        make_plan(matrix, {})

    assert caught.value.exit_code == 2
    assert [problem.key for problem in caught.value.problems] == ["matrix.model.1", "matrix.model.2"]
    assert [problem.line for problem in caught.value.problems] == [6, 6]
    for problem, name in zip(caught.value.problems, ("resnet18", "densenet121"), strict=True):
        assert f"run `bench weights fetch {name}-imagenet`" in problem.message


@pytest.mark.parametrize(
    ("text", "smallest"),
    [
        ("batch_norm: train, batch_size: 1", 1),
        ("batch_norm: train, algorithm: fedavg, batch_sizes: [4, 4, 2, 1]", 1),
        ("batch_norm: train, batch_size: 2", None),
        ("batch_norm: eval, batch_size: 1", None),
        ("batch_norm: train, freeze: batch_norm, batch_size: 1", None),
    ],
)
def test_maps_of_one_pixel_need_two_images_for_batch_statistics(
    short: Load, text: str, smallest: int | None
) -> None:
    matrix = short(
        "matrix:\n  attack: [random_guess]\n  data: [{name: digits, size: 16}]\n  model: [mcnn]\n"
        f"  federation: [{{{text}}}]\n"
    )
    reason = (
        "with federation.batch_norm: train the model needs batches of at least 2 images, the smallest has "
        f"{smallest}"
    )

    (trial,) = make_plan(matrix, {}).trials

    assert trial.reason == (reason if smallest else None)


SIZES = "partition: {name: sizes, sizes: [%s]}"


@pytest.mark.parametrize(
    ("text", "observe", "told"),
    [
        (f"algorithm: fedavg, {SIZES % '8, 9, 8, 8'}", "{}", True),
        (f"algorithm: fedavg, {SIZES % '8, 1, 8, 8'}", "{}", True),
        (f"algorithm: fedavg, local_steps: 2, {SIZES % '8, 9, 8, 8'}", "{}", False),  # ends before the last
        (f"algorithm: fedavg, local_steps: 3, {SIZES % '8, 9, 8, 8'}", "{}", True),
        (
            f"algorithm: fedavg, participation: 0.75, {SIZES % '8, 9, 8, 8'}",
            "{}",
            False,
        ),  # it may be left out
        (f"algorithm: fedavg, participation: 0.75, {SIZES % '8, 9, 5, 8'}", "{}", True),
        (f"algorithm: fedavg, rounds: 0, {SIZES % '8, 9, 8, 8'}", "{}", False),  # it may be no target
        (f"algorithm: fedavg, rounds: 0, {SIZES % '9, 9, 5, 1'}", "{}", True),
        (f"algorithm: fedavg, rounds: 0, {SIZES % '9, 9, 5, 1'}", "{kind: global_model}", False),
        (f"{SIZES % '9, 9, 9, 9'}", "{}", False),  # fedsgd sends the first batch's
        (f"{SIZES % '8, 8, 8, 1'}", "{}", True),
    ],
)
def test_a_last_batch_of_one_image_is_told_where_it_is_sure_to_come(
    short: Load, text: str, observe: str, told: bool
) -> None:
    matrix = short(
        "matrix:\n  attack: [random_guess]\n  data: [{name: digits, size: 16}]\n  model: [mcnn]\n"
        f"  observe: [{observe}]\n  targets: [1]\n"
        f"  federation: [{{batch_norm: train, batch_size: 4, {text}}}]\n"
    )
    reason = (
        "with federation.batch_norm: train the model needs batches of at least 2 images, "
        "the last of a client's epoch has 1"
    )

    (trial,) = make_plan(matrix, {}).trials

    assert trial.reason == (reason if told else None)
