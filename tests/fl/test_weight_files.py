"""Files of weights from other platforms: what is read, what is refused, and pairs of them as observations."""

import os
import stat

import pytest
import torch
from safetensors.torch import load_file, save_file

from fl.errors import RecordedObservationError
from fl.models import materialise
from fl.recorded import header, read, write
from fl.recorded_pair import PairSetting, observation_of_pair
from fl.specs import Task
from fl.types import LocalTraining
from fl.weight_files import fitted, read_weights, write_weights

LOCAL = LocalTraining(0.01, 1, 6, 1)


@pytest.fixture
def federation(make_data, make_federation, model_plugin):
    """One-step clients of a small network with batch norm."""
    return make_federation(
        data=make_data(size=9, mean=(0.3,), std=(0.2,)),
        model=model_plugin("convnet", width=1),
        algorithm="fedavg",
        local_steps=1,
        batch_size=6,
        lr=0.01,
        batch_norm="train",
    )


@pytest.fixture
def states(federation):
    """What a platform would have saved: the model sent, and the model after client 0's step."""
    start = federation.initial()
    sent = materialise(start.model).state_dict()
    update = federation.client_update(start, 0).update
    returned = {n: t + update.tensors[n] if n in update.tensors else t for n, t in sent.items()}
    return sent, {**returned, **update.buffers}


@pytest.fixture
def setting(federation, model_plugin):
    return PairSetting(
        model=model_plugin("convnet", width=1),
        task=Task("multiclass", 3),
        image=federation.architecture.image,
        n_images=6,
        local=LOCAL,
        batch_norm="train",
    )


def save(path, tensors, *, wrap=None, prefix=""):
    named = {prefix + name: tensor.clone() for name, tensor in tensors.items()}
    if path.suffix == ".safetensors":
        save_file(named, path)
    else:
        torch.save(named if wrap is None else {wrap: named, "epoch": 3, "optimizer": {"lr": [0.1]}}, path)
    return path


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.safetensors", {}),
        ("a.pt", {}),
        ("a.pth", {"wrap": "state_dict"}),
        ("a.pth.tar", {"wrap": "state_dict", "prefix": "module."}),
    ],
)
def test_files_of_other_platforms_are_read(name, options, states, tmp_path):
    found = read_weights(save(tmp_path / name, states[0], **options))

    assert set(found) == set(states[0])
    assert all(torch.equal(found[n], states[0][n]) for n in found)


def test_code_in_a_file_is_never_run(tmp_path):
    class Trap:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path / 'ran'}",)

    torch.save({"weight": Trap()}, tmp_path / "trap.pt")
    with pytest.raises(RecordedObservationError, match="no code to run"):
        read_weights(tmp_path / "trap.pt")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.pt", b"", "saved by torch.save"),
        ("a.pt", b"no tensors at all", "saved by torch.save"),
        ("a.pt", b"hello world", "saved by torch.save"),
        ("a.pt", b"a,b\n1,2\n", "saved by torch.save"),
        ("a.safetensors", b"no tensors at all", "expected a safetensors file"),
    ],
)
def test_files_that_hold_something_else_are_refused(name, content, message, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(RecordedObservationError, match=message):
        read_weights(tmp_path / name)


@pytest.mark.parametrize("content", [{"epoch": 3}, {1: torch.ones(2)}])
def test_a_mapping_without_weights_is_refused(content, tmp_path):
    torch.save(content, tmp_path / "a.pt")
    with pytest.raises(RecordedObservationError, match="expected a state dict"):
        read_weights(tmp_path / "a.pt")
    with pytest.raises(RecordedObservationError, match="cannot be read"):
        read_weights(tmp_path / "none.pt")


def test_names_may_differ_where_order_and_shapes_agree(states, tmp_path):
    expected = states[0]
    foreign = {f"net.{i}": tensor for i, tensor in enumerate(expected.values()) if tensor.dim() or i < 0}
    path = tmp_path / "a.pt"

    with pytest.raises(
        RecordedObservationError, match=r"missing: .* and \d+ more; unknown: net\.0.*--by-order"
    ):
        fitted(path, foreign, expected)
    found = fitted(path, foreign, expected, by_order=True)
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    with pytest.raises(RecordedObservationError, match=r"expected \d+ tensors"):
        fitted(path, dict(list(foreign.items())[1:]), expected, by_order=True)
    swapped = dict(reversed(foreign.items()))
    with pytest.raises(RecordedObservationError, match="same architecture"):
        fitted(path, swapped, expected, by_order=True)


def test_weights_are_written_for_their_owner_only(states, tmp_path):
    path = tmp_path / "w.safetensors"
    write_weights(path, states[0])

    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert all(torch.equal(t, states[0][n]) for n, t in load_file(path).items())
    assert [each.name for each in tmp_path.iterdir()] == ["w.safetensors"]


def test_a_pair_of_files_is_the_gradient_between_them(federation, states, setting, tmp_path):
    sent, returned = (save(tmp_path / f"{i}.pth", s, wrap="state_dict") for i, s in enumerate(states))
    observation = observation_of_pair(sent, returned, setting)
    path = tmp_path / "obs.safetensors"
    write(path, observation)
    found, secret = read(path)
    sgd = federation.client_update(federation.initial(), 0).update

    assert secret is None
    assert (found.update.kind, found.update.n_images) == ("gradient", 6)
    assert found.knowledge.local_training == LOCAL
    assert header(path).has_batch_norm
    for name, tensor in sgd.tensors.items():
        torch.testing.assert_close(found.update.tensors[name], -tensor / 0.01, rtol=1e-3, atol=1e-4)
    for name, tensor in sgd.buffers.items():
        torch.testing.assert_close(found.update.buffers[name], tensor)


def test_frozen_parameters_and_kept_statistics_are_absent(states, setting, tmp_path):
    sent, returned = (save(tmp_path / f"{i}.pt", s) for i, s in enumerate(states))
    frozen = PairSetting(**{**vars(setting), "freeze": "all_but_last", "batch_norm": "eval", "local": None})
    observation = observation_of_pair(sent, returned, frozen)

    assert set(observation.update.tensors) == {"head.weight", "head.bias"}
    assert observation.update.buffers == {}
    expected = states[0]["head.bias"] - states[1]["head.bias"]
    torch.testing.assert_close(observation.update.tensors["head.bias"], expected, rtol=1e-4, atol=1e-8)


def test_labels_have_the_shape_of_the_task(states, setting, tmp_path):
    sent, returned = (save(tmp_path / f"{i}.pt", s) for i, s in enumerate(states))
    known = PairSetting(**{**vars(setting), "labels": (0, 1, 2, 0, 1, 2)})

    assert observation_of_pair(sent, returned, known).knowledge.labels.tolist() == [0, 1, 2, 0, 1, 2]


def test_twice_the_same_file_is_a_mistake(states, setting, tmp_path):
    sent = save(tmp_path / "a.pt", states[0])
    with pytest.raises(RecordedObservationError, match="got the same"):
        observation_of_pair(sent, sent, setting)


def test_weights_that_are_not_finite_are_refused(states, setting, tmp_path):
    broken = {**states[1], "head.bias": states[1]["head.bias"] * float("nan")}
    sent, returned = (save(tmp_path / f"{i}.pt", s) for i, s in enumerate((states[0], broken)))
    with pytest.raises(RecordedObservationError, match=r"1\.pt: head\.bias: expected finite numbers"):
        observation_of_pair(sent, returned, setting)
