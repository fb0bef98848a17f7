"""`bench record`: two files of weights, or a stored trial, to files that `observation:` attacks."""

import stat

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from fl.recorded import read
from harness.cli import main

MATRIX = """
version: 1
name: tiny
defaults:
  data: {name: digits, size: 8}
  model: {name: lenet, convs: 2}
  federation: {clients: 248, participation: 0.02, rounds: 1, batch_size: 4, lr: 0.01, algorithm: fedavg}
  targets: 2
  observe: {round: 1}
  threat_model: {knowledge: {labels: known}}
matrix:
  attack: [random_guess]
  observe.form: [shared, parameter_difference]
"""
PAIR = ("--model", "lenet", "--option", "convs=2", "--classes", 10, "--size", 8, "--channels", 1)


INLINE = ("--executor", "inline", "--progress", "none")


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    folder = tmp_path_factory.mktemp("record")
    (folder / "tiny.yaml").write_text(MATRIX)
    assert main.run(["run", str(folder / "tiny.yaml"), "--results", str(folder), *INLINE]) == 0
    return folder / "tiny"


@pytest.fixture
def recorded(bench, experiment, tmp_path):
    """The folders of a trial's targets, by form."""

    def record(form, *options):
        rows = pd.read_parquet(experiment / "trials")
        (trial,) = rows.loc[rows["observe_form"] == form, "trial_id"]
        output = tmp_path / form
        outcome = bench("record", "trial", experiment, trial[:12], "--output", output, *options)
        assert outcome.code == 0, outcome.err
        assert "warning" in outcome.err
        return sorted(output.iterdir())

    return record


def test_a_trial_s_targets_are_written_for_their_owner_only(recorded):
    folders = recorded("parameter_difference")

    assert len(folders) == 2
    for folder in folders:
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        files = {file.name: stat.S_IMODE(file.stat().st_mode) for file in folder.iterdir()}
        assert files == dict.fromkeys(
            ("sent.safetensors", "returned.safetensors", "observation.safetensors"), 0o600
        )
        observation, secret = read(folder / "observation.safetensors")
        assert secret is None
        assert observation.history[-1].round == 1
        sent, returned = (load_file(folder / f"{name}.safetensors") for name in ("sent", "returned"))
        for name, tensor in observation.update.tensors.items():
            inferred = (sent[name].double() - returned[name].double()) / 0.01
            torch.testing.assert_close(tensor, inferred.float() + 0.0, rtol=0, atol=0)


def test_both_forms_have_the_same_checkpoints(recorded):
    for shared, difference in zip(recorded("shared"), recorded("parameter_difference"), strict=True):
        for name in ("sent", "returned"):
            one, other = (load_file(folder / f"{name}.safetensors") for folder in (shared, difference))
            assert all(torch.equal(one[n], other[n]) for n in other)
        delta = read(shared / "observation.safetensors")[0].update
        assert delta.kind == "delta"


def test_the_pair_of_a_trial_gives_its_observation_again_and_can_be_attacked(
    bench, recorded, write_matrix, tmp_path
):
    folder = recorded("parameter_difference", "--secret")[0]
    output = tmp_path / "again.safetensors"
    files = ("--sent", folder / "sent.safetensors", "--returned", folder / "returned.safetensors")
    outcome = bench("record", "pair", *files, *PAIR, "--images", 4, "--lr", 0.01, "-o", output)
    assert outcome.code == 0, outcome.err
    again, (original, secret) = read(output)[0], read(folder / "observation.safetensors")
    text = f"""
        version: 1
        name: outside
        defaults: {{public: {{name: digits, size: 8}}}}
        matrix:
          observation: [{{file: {output}}}, {{file: {folder / "observation.safetensors"}}}]
          attack: [{{name: inverting_gradients, iterations: 3}}]
    """
    ran = bench("run", write_matrix(text, "outside"), "--results", tmp_path, *INLINE)

    assert secret is not None
    for name, tensor in original.update.tensors.items():
        assert torch.equal(again.update.tensors[name], tensor)
    assert ran.code == 0, ran.err
    rows = pd.read_parquet(tmp_path / "outside" / "trials")
    assert set(rows["status"]) == {"complete"}
    assert sorted(rows["psnr_db"].notna()) == [False, True]  # one of the two names its secret


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--model", "lenett"), "Did you mean 'lenet'"),
        (("--option", "convs"), "expected --option KEY=VALUE"),
        (("--option", "convs=many"), "options of model 'lenet'"),
        (("--mean", "0.1,0.2"), "expected --mean to be one number, or 1"),
        (("--std", "0"), "expected --std above 0"),
        (("--lr", "0"), "expected --lr above 0"),
        (("--label", "3"), "once for each of 4 images, got 1"),
        (("--label", "10"), "numbers from 0 to 9"),
        (("--classes", "7"), "expected shape"),
        (("--output", "no/such/folder/x.safetensors"), "cannot be written"),
    ],
)
def test_mistakes_are_told_with_exit_code_2(options, message, bench, recorded, tmp_path):
    folder = recorded("shared")[0]
    files = ("--sent", folder / "sent.safetensors", "--returned", folder / "returned.safetensors")
    given = (*PAIR, "--images", 4, "--lr", 0.01, "--output", tmp_path / "x.safetensors", *options)
    outcome = bench("record", "pair", *files, *given)

    assert outcome.code == 2
    assert message in outcome.err
    assert not (tmp_path / "x.safetensors").exists()


def test_an_unknown_trial_is_told(bench, experiment, tmp_path):
    outcome = bench("record", "trial", experiment, "zzz", "--output", tmp_path / "out")

    assert outcome.code == 2
    assert "got 'zzz': none match" in outcome.err
