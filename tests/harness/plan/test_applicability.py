from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from fl.cards import DataInfo, DefenseCard, NoiseBudget
from fl.errors import ConfigError
from fl.models import MODELS, architecture, initial_state
from fl.recorded import write
from fl.seeds import Streams
from fl.specs import NoConfig, Plugin, Task
from fl.types import ImageSpec, Knowledge, Observation, RoundView, Update
from harness.config.matrix import Matrix, load_matrix
from harness.plan.planner import make_plan

Load = Callable[[str], Matrix]


def reasons(matrix: Matrix) -> list[str | None]:
    return [trial.reason for trial in make_plan(matrix, {}).trials]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("attack: [dlg], data: [{name: digits, size: 8}], model: [convnet]",
         "the model needs images of at least 9 pixels a side, these have 8"),
        ("attack: [dlg], observe.round: [2]",
         "round 2 is observed, but training ends after 1 (federation.rounds)"),
        ("attack: [dlg], threat_model.position: [participant]",
         "a participant sees global models, not the updates of others (observe.kind: global_model)"),
        ("attack: [dlg], observe.kind: [global_model]",
         "attack 'dlg': it works on aggregate or update, not on global_model"),
        ("attack: [mean_image], threat_model.knowledge.public_data: [false]",
         "attack 'mean_image': the mean public image needs knowledge.public_data"),
        ("attack: [dlg], public: [{name: mnist5k, size: 28}]",
         "public images are 1 x 28 x 28, private ones 1 x 16 x 16"),
    ],
)  # fmt: skip
def test_cells_without_meaning_say_why(short: Load, text: str, reason: str) -> None:
    (trial,) = make_plan(short(f"matrix: {{{text}}}\n"), {}).trials
    assert (trial.status, trial.reason) == ("not_applicable", reason)


def test_labels_are_not_read_from_the_weights_of_a_head_behind_a_bottleneck(short: Load) -> None:
    """What a wrapper hands to the head may be negative, whatever the model's own features are."""
    lenet = MODELS.get("lenet")
    card = replace(lenet, name="unbiased", traits=lambda *told: replace(lenet.traits(*told), head_bias=False))
    MODELS.register(card)
    try:
        defenses = "[none, clipping, precode, {chain: [mid_vib, clipping]}]"
        found = reasons(short(f"matrix: {{attack: [idlg], model: [unbiased], defense: {defenses}}}\n"))
    finally:
        MODELS.unregister("unbiased")

    assert found[:2] == [None, None]
    assert all(reason and "labels are read from the head's bias" in reason for reason in found[2:])


@pytest.mark.parametrize(
    "text",
    [
        "attack: [random_guess], observe.kind: [global_model], threat_model.position: [participant]",
        "attack: [dlg], threat_model.position: [eavesdropper]",
        "attack: [dlg], observe.round: [1]",
        "attack: [dlg], public: [{name: mnist5k, size: 16}]",
        "attack: [dlg], attacker: [adaptive], defense: [none, gaussian, {chain: [clipping, gaussian]}]",
        "attack: [dlg], observe: [{kind: aggregate, clients: 2}], targets: [2]",
    ],
)
def test_cells_with_meaning_are_left_alone(short: Load, text: str) -> None:
    assert set(reasons(short(f"matrix: {{{text}}}\n"))) == {None}


def defense(name: str, hooks: set[str]) -> DefenseCard[Any]:
    budget = NoiseBudget("", "", "none", stronger="higher", off=None, grid=())
    return DefenseCard(
        name=name,
        version=1,
        summary="",
        config=NoConfig,
        implementation="m:d",
        noise_budget=lambda config: budget,
        hooks=frozenset(hooks),
        mirrored=False,
    )


def test_an_adaptive_attacker_needs_a_mirror_or_something_to_simulate(
    short: Load, register: Callable[[Any], None]
) -> None:
    register(defense("opaque", {"protect"}))
    register(defense("before", {"perturb_batch"}))
    text = "matrix: {attack: [dlg], attacker: [static, adaptive], defense: [opaque, before]}\n"
    found = {(t.spec.attacker, t.spec.defense.name): t.reason for t in make_plan(short(text), {}).trials}
    assert found == {
        ("static", "opaque"): None,
        ("static", "before"): None,
        ("adaptive", "opaque"): "defense 'opaque': it has no mirror for an adaptive attacker",
        ("adaptive", "before"): None,
    }


def test_a_defense_that_hides_updates_leaves_their_sum(short: Load, register: Callable[[Any], None]) -> None:
    register(defense("secure_sum", {"visible"}))
    seen = "observe: [{}, {kind: aggregate, clients: 2}], targets: [2]"
    text = f"matrix: {{attack: [dlg], defense: [secure_sum], {seen}}}\n"
    hidden = "defense 'secure_sum': it hides single updates (observe.kind: aggregate)"
    assert reasons(short(text)) == [hidden, None]


@pytest.mark.parametrize(
    ("text", "line", "most"),
    [
        ("attack: [dlg], targets: [990], federation.batch_size: [1]", 3, 989),
        ("attack: [dlg], targets: [5], observe.round: [1]", 3, 4),
        (
            "attack: [dlg], targets: [3], federation.participation: [0.5], federation.algorithm: [fedavg]",
            3,
            2,
        ),
        ("attack: [dlg], targets: [2], observe.kind: [aggregate], federation.clients: [9]", 3, 1),
        ("attack: [random_guess], targets: [11], observe.kind: [global_model]", 3, 10),
    ],
)
def test_more_targets_than_there_can_be_is_a_mistake_at_its_line(
    short: Load, text: str, line: int, most: int
) -> None:
    with pytest.raises(ConfigError) as caught:
        make_plan(short(f"matrix: {{{text}}}\n"), {})
    (problem,) = caught.value.problems
    assert (Path(problem.path).name, problem.line, problem.key) == ("m.yaml", line, "matrix.targets.0")
    assert problem.message.startswith(f"expected at most {most} targets")


def test_cells_that_mean_nothing_need_no_targets(short: Load) -> None:
    text = "matrix: {attack: [dlg], targets: [5], observe.round: [2]}\n"
    assert reasons(short(text)) == ["round 2 is observed, but training ends after 1 (federation.rounds)"]


def test_missing_data_is_told_before_any_work(tmp_path: Path) -> None:
    path = tmp_path / "m.yaml"
    path.write_text(
        "version: 1\ndefaults: {model: lenet, attack: dlg}\nmatrix:\n"
        "  data:\n    - digits\n    - {name: folder, root: /no}\n    - {name: folder, root: /none}\n"
    )
    with pytest.raises(ConfigError) as caught:
        make_plan(load_matrix(path), {})
    assert [problem.line for problem in caught.value.problems] == [6, 7]
    assert caught.value.exit_code == 2


@pytest.fixture
def recorded(tmp_path: Path) -> Path:
    """Write a recorded gradient of a LeNet."""
    image = ImageSpec(channels=1, size=16)
    info = DataInfo(Task("multiclass", 10), 1, 16, images={}, public=True, fingerprint="")
    plugin = Plugin("lenet", 1, MODELS.get("lenet").config())
    state = initial_state(architecture(plugin, info), streams=Streams(0), freeze="none", batch_norm="eval")
    gradient = {name: torch.zeros_like(state.tensors[name]) for name in state.trainable}
    update = Update("gradient", gradient, {}, n_images=1)
    view = RoundView(0, state, update)
    observation = Observation("update", (0,), (view,), info.task, image, Knowledge())
    write(tmp_path / "seen.safetensors", observation)
    return tmp_path / "seen.safetensors"


def test_a_recorded_observation_takes_the_place_of_data_model_and_federation(
    tmp_path: Path, recorded: Path
) -> None:
    path = tmp_path / "m.yaml"
    path.write_text(
        f"version: 1\ndefaults: {{data: digits, model: lenet}}\nmatrix:\n  attack: [dlg, random_guess]\n"
        f"  observation: [{{file: '{recorded}', public: {{name: digits, size: 16}}}}]\n"
        f"include:\n  - {{attack: dlg}}\n"
    )
    plan = make_plan(load_matrix(path), {})
    specs = [trial.spec for trial in plan.trials]
    assert [(s.data, s.model, s.federation, s.targets) for s in specs[:2]] == [(None, None, None, 1)] * 2
    assert [spec.public and spec.public.name for spec in specs] == ["digits", "digits", None]
    assert specs[0].recorded is not None
    assert specs[0].recorded.file == str(recorded)
    assert specs[2].recorded is None
    assert [trial.reason for trial in plan.trials] == [None, None, None]
    assert plan.stages[0].distinct == 1


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ("public: {name: digits, size: 8}", "public images are 1 x 8 x 8, private ones 1 x 16 x 16"),
        ("public: digits", None),
    ],
)
def test_public_images_must_fit_a_recorded_observation(
    tmp_path: Path, recorded: Path, more: str, reason: str | None
) -> None:
    path = tmp_path / "m.yaml"
    path.write_text(f"version: 1\nmatrix: {{attack: [dlg], observation: [{{file: '{recorded}', {more}}}]}}\n")
    assert reasons(load_matrix(path)) == [reason]


@pytest.mark.parametrize(
    ("cell", "line", "words"),
    [
        (
            "observation: [{file: FILE}], data: [digits]",
            2,
            "observation takes the place of data, model and federation",
        ),
        (
            "observation: [{file: FILE}], targets: [2]",
            2,
            "expected targets: 1 for a recorded observation, got 2",
        ),
        ("observation: [{file: /none}]", 2, "/none"),
        ("observation: [{fille: FILE}]", 2, "expected {file: PATH, public: DATASET}"),
        ("observation: [m.yaml]", 2, "expected {file: PATH, public: DATASET}"),
        ("observation: [{file: MATRIX}]", 2, "expected a safetensors file"),
    ],
)
def test_mistakes_about_recorded_observations(
    tmp_path: Path, recorded: Path, cell: str, line: int, words: str
) -> None:
    path = tmp_path / "m.yaml"
    cell = cell.replace("FILE", f"'{recorded}'").replace("MATRIX", f"'{path}'")
    path.write_text(f"version: 1\nmatrix: {{attack: [random_guess], {cell}}}\n")
    with pytest.raises(ConfigError) as caught:
        make_plan(load_matrix(path), {})
    (problem,) = caught.value.problems
    assert (problem.path, problem.line) == (str(path), line)
    assert words in problem.message


def test_the_same_recording_elsewhere_is_the_same_trial(tmp_path: Path, recorded: Path) -> None:
    copy = tmp_path / "copy.safetensors"
    copy.write_bytes(recorded.read_bytes())
    ids = []
    for file in (recorded, copy):
        path = tmp_path / "m.yaml"
        path.write_text(
            f"version: 1\nmatrix: {{attack: [random_guess], observation: [{{file: '{file}'}}]}}\n"
        )
        ids += [trial.trial_id for trial in make_plan(load_matrix(path), {}).trials]
    assert ids[0] == ids[1]
