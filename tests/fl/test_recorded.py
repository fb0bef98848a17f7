"""Recorded observations: round trips, headers without torch, and every way a file can be wrong."""

import json
import os
import re
import struct
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from fl.errors import RecordedObservationError
from fl.observe import candidates, draw_targets, observe
from fl.recorded import header, read, write
from fl.recorded_document import ENTRY
from fl.specs import KnowledgeSpec, ObserveSpec, Task, ThreatModel
from fl.types import Wrapper

KNOWS_ALL = ThreatModel(knowledge=KnowledgeSpec(labels="known", batch_norm="exact"))
KNOWS_NOTHING = ThreatModel(knowledge=KnowledgeSpec(local_hyperparameters=False, batch_norm="none"))


@pytest.fixture
def federation(make_data, make_federation, model_plugin):
    return make_federation(
        data=make_data(size=9, mean=(0.1,), std=(1 / 3,)),
        model=model_plugin("convnet", width=1),
        batch_norm="train",
        freeze="middle",
        rounds=1,
        batch_size=6,
    )


@pytest.fixture
def seen(federation):
    [target] = draw_targets(federation, ObserveSpec(), 1)
    return observe(federation, {0: federation.initial()}, target, KNOWS_ALL)


@pytest.fixture
def recorded(seen, tmp_path):
    path = tmp_path / "seen.safetensors"
    write(path, seen.observation, seen.secret)
    return path


def same(a, b):
    return set(a) == set(b) and all(torch.equal(a[n], b[n]) for n in a)


def test_an_update_comes_back_bit_for_bit(recorded, seen):
    observation, secret = read(recorded)
    original = seen.observation

    assert secret == seen.secret
    assert (observation.kind, observation.clients) == (original.kind, original.clients)
    assert (observation.task, observation.image) == (original.task, original.image)
    assert observation.sent.architecture == original.sent.architecture
    assert observation.sent.trainable == original.sent.trainable
    assert observation.sent.batch_norm == original.sent.batch_norm
    assert same(observation.sent.tensors, original.sent.tensors)
    assert (observation.update.kind, observation.update.n_images) == ("gradient", original.update.n_images)
    assert same(observation.update.tensors, original.update.tensors)
    assert same(observation.update.buffers, original.update.buffers)
    assert torch.equal(observation.knowledge.labels, original.knowledge.labels)
    assert observation.knowledge.local_training == original.knowledge.local_training
    assert same(observation.knowledge.batch_norm, original.knowledge.batch_norm)


def test_a_history_without_updates_or_knowledge_comes_back(federation, tmp_path):
    checkpoints = {0: federation.initial(), 1: next(federation.run())[0]}
    spec = ObserveSpec(kind="global_model", round=1)
    seen = observe(federation, checkpoints, candidates(federation, spec)[0], KNOWS_NOTHING)
    write(tmp_path / "models", seen.observation)
    observation, secret = read(tmp_path / "models")

    assert secret is None
    assert [view.round for view in observation.history] == [0, 1]
    assert [view.update for view in observation.history] == [None, None]
    assert observation.knowledge == seen.observation.knowledge
    assert same(observation.history[0].sent.tensors, checkpoints[0].model.tensors)
    assert same(observation.sent.tensors, checkpoints[1].model.tensors)


def test_multilabel_secrets_come_back(make_data, make_federation, tmp_path):
    federation = make_federation(data=make_data(kind="multilabel"))
    [target] = draw_targets(federation, ObserveSpec(), 1)
    seen = observe(federation, {0: federation.initial()}, target, KNOWS_ALL)
    write(tmp_path / "seen", seen.observation, seen.secret)
    observation, secret = read(tmp_path / "seen")

    assert secret == seen.secret
    assert torch.equal(observation.knowledge.labels, seen.observation.knowledge.labels)


def test_the_header_says_what_planning_needs(recorded, seen, federation):
    found = header(recorded)

    assert (found.kind, found.update, found.n_images) == ("update", "gradient", 6)
    assert (found.task, found.image, found.rounds) == (Task("multiclass", 3), seen.observation.image, (0,))
    assert (found.has_labels, found.has_local_training, found.has_batch_norm, found.has_secret) == (True,) * 4
    assert found.model.name == "convnet"
    assert found.model.config.width == 1
    assert found.traits.batch_norm
    assert (found.info.channels, found.info.size, found.info.mean) == (1, 9, (0.1,))


def test_the_header_is_read_where_torch_cannot_be_imported(recorded):
    code = f"""
import sys
sys.modules["torch"] = sys.modules["numpy"] = None
from pathlib import Path
from fl.recorded import header
print(header(Path({str(recorded)!r})).traits.mflop_per_image > 0)
"""
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert answer.stdout == "True\n"


def test_a_failed_write_leaves_what_was_there(recorded, seen, monkeypatch):
    before = recorded.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space left"):
        write(recorded, seen.observation)
    assert recorded.read_bytes() == before
    assert os.listdir(recorded.parent) == [recorded.name]


def test_wrapped_models_are_not_written(seen, tmp_path):
    object.__setattr__(seen.observation.sent.architecture, "wrappers", (Wrapper("gate", {}),))

    with pytest.raises(RecordedObservationError, match="without wrappers"):
        write(tmp_path / "wrapped", seen.observation)


def test_truncation_anywhere_is_noticed(recorded):
    whole = recorded.read_bytes()
    for length in (0, 5, 8, 100, len(whole) // 2, len(whole) - 1):
        recorded.write_bytes(whole[:length])
        with pytest.raises(RecordedObservationError, match=re.escape(str(recorded))):
            read(recorded)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"not a safetensors file at all", "expected a safetensors file"),
        (struct.pack("<Q", 2) + b"[]", "expected a safetensors file"),
        (struct.pack("<Q", 2) + b"{}", "without 'leakbench.observation' metadata"),
        (struct.pack("<Q", 21) + b'{"__metadata__": null}'[:21], "expected a safetensors file"),
    ],
)
def test_other_files_are_refused(content, reason, tmp_path):
    path = tmp_path / "file"
    path.write_bytes(content)

    for reader in (header, read):
        with pytest.raises(RecordedObservationError, match=f"{re.escape(str(path))}: .*{reason}"):
            reader(path)


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    with pytest.raises(RecordedObservationError, match="cannot be read: No such file"):
        header(tmp_path / "none")
    with pytest.raises(RecordedObservationError, match="cannot be read: Is a directory"):
        read(tmp_path)


@pytest.fixture
def tamper(recorded):
    """Rewrite the file after changing its document and tensors."""

    def change(edit):
        raw = recorded.read_bytes()
        (length,) = struct.unpack("<Q", raw[:8])
        document = json.loads(json.loads(raw[8 : 8 + length])["__metadata__"][ENTRY])
        tensors = load_file(recorded)
        edit(document, tensors)
        save_file(tensors, recorded, metadata={ENTRY: json.dumps(document)})
        return recorded

    return change


def put(*keys, value):
    def edit(document, tensors):
        *path, last = keys
        for key in path:
            document = document[key]
        document[last] = value

    return edit


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        (put("version", value=2), "expected version 1 of the form, got 2"),
        (put("version", value=None), "expected version 1 of the form, got None"),
        (put("kind", value="gossip"), "kind: Input should be"),
        (put("extra", value=1), "extra: Extra inputs"),
        (put("rounds", value=[]), "rounds: Tuple should have at least 1"),
        (put("image", "std", value=[0.0]), "image: Value error, expected a mean and a positive std"),
        (put("image", "mean", value=[0.0, 0.0]), "image: Value error, expected a mean"),
        (put("task", "classes", value=1), "task.classes: Input should be greater"),
        (
            put("rounds", 0, "update", "n_images", value=0),
            "rounds.0.update.n_images: Input should be greater",
        ),
        (put("model", "name", value="lenett"), "unknown model 'lenett'. Did you mean 'lenet'"),
        (put("model", "config", value={"wide": 1}), "expected a configuration of model 'convnet'"),
    ],
)
def test_documents_that_break_the_form_are_refused_from_the_header_on(edit, reason, tamper):
    path = tamper(edit)

    for reader in (header, read):
        with pytest.raises(RecordedObservationError, match=f"{re.escape(str(path))}: .*{re.escape(reason)}"):
            reader(path)


def tensor(name, change):
    def edit(document, tensors):
        if change is None:
            del tensors[name]
        else:
            tensors[name] = change(tensors.get(name))

    return edit


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        (tensor("rounds.0.sent.head.bias", None), "rounds.0.sent.head.bias: expected a tensor, got none"),
        (
            tensor("rounds.0.sent.head.bias", lambda t: t[:2].clone()),
            "rounds.0.sent.head.bias: expected shape (3,), got (2,)",
        ),
        (tensor("rounds.0.sent.extra", lambda _: torch.ones(1)), "rounds.0.sent.extra: expected names of"),
        (
            tensor("rounds.0.update.head.bias", lambda t: t * float("nan")),
            "rounds.0.update.head.bias: expected finite numbers",
        ),
        (
            tensor("rounds.0.update.body.conv2.bias", lambda _: torch.ones(2)),  # frozen
            "rounds.0.update.body.conv2.bias: expected names of",
        ),
        (
            tensor("knowledge.labels", lambda t: t[:1].clone()),
            "knowledge.labels: expected shape (6,), got (1,)",
        ),
        (
            tensor("knowledge.batch_norm.head.weight2", lambda _: torch.ones(1)),
            "knowledge.batch_norm.head.weight2: expected names of",
        ),
        (
            put("rounds", 0, "trainable", value=["nose"]),
            "rounds.0.trainable: expected parameters of the model",
        ),
        (put("rounds", 0, "update", value=None), "expected an update in the last round of kind update"),
        (put("task", "classes", value=4), "rounds.0.sent.head.weight: expected shape (4, 4), got (3, 4)"),
    ],
)
def test_tensors_that_do_not_fit_are_refused(edit, reason, tamper):
    path = tamper(edit)

    with pytest.raises(RecordedObservationError, match=f"{re.escape(str(path))}: .*{re.escape(reason)}"):
        read(path)


@pytest.mark.parametrize(("labels", "fits"), [(11, True), (43, True), (44, False)])
def test_a_mean_of_deltas_may_have_any_number_of_known_labels_up_to_its_images(
    labels, fits, make_data, make_federation, tmp_path
):
    federation = make_federation(
        data=make_data(images=48),
        algorithm="fedavg",
        local_steps=2,
        clients=2,
        partition={"name": "sizes", "sizes": [3, 40]},
    )
    [target] = draw_targets(federation, ObserveSpec(kind="aggregate", clients=2), 1)
    observation = observe(federation, {0: federation.initial()}, target, KNOWS_ALL).observation
    known = replace(observation.knowledge, labels=torch.zeros(labels, dtype=torch.int64))
    path = tmp_path / "mean.safetensors"
    write(path, replace(observation, knowledge=known))
    if fits:
        assert read(path)[0].n_images == labels
    else:
        with pytest.raises(RecordedObservationError, match=r"expected shape \(43,\), got \(44,\)"):
            read(path)


def test_unlike_batch_sizes_of_an_aggregate_come_back(make_data, make_federation, tmp_path):
    federation = make_federation(
        data=make_data(images=48),
        algorithm="fedavg",
        local_steps=1,
        clients=2,
        batch_size=1,
        batch_sizes=[8, 4],
        partition={"name": "sizes", "sizes": [8, 40]},
    )
    [target] = draw_targets(federation, ObserveSpec(kind="aggregate", clients=2), 1)
    observation = observe(federation, {0: federation.initial()}, target, ThreatModel()).observation
    path = tmp_path / "mean.safetensors"
    write(path, observation)
    found = read(path)[0]
    assert found.knowledge.local_training == observation.knowledge.local_training
    assert found.n_images == observation.n_images == 12
