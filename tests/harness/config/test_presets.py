"""Presets fill in a federation below what a matrix says; their names are no part of anything."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from fl.data.partition_bounds import shortage
from fl.presets import PRESETS
from fl.specs import FederationSpec, TrialSpec
from harness.config.matrix import Matrix
from harness.plan.keys import trial_id

Load = Callable[[str], Matrix]
Mistakes = Callable[[str], list[str]]
HEAD = "version: 1\ndefaults: {data: mnist5k, model: lenet}\n"


@pytest.fixture
def specs(load: Load) -> Callable[[str], list[TrialSpec]]:
    """From what a matrix says about the federation to its trials."""
    return lambda federation: list(
        load(f"{HEAD}matrix: {{attack: [dlg], federation: {federation}}}\n").expand()
    )


def federation(spec: TrialSpec) -> FederationSpec:
    assert spec.federation is not None
    return spec.federation


def test_the_layout_of_shadowdef(specs: Callable[[str], list[TrialSpec]]) -> None:
    (spec,) = specs("[{preset: shadowdef-9}]")
    found = federation(spec)
    steps = [-(-n // found.batch_size_of(c)) for c, n in enumerate((8, 32, 128, 512, 8, 32, 128, 512, 1))]

    assert (found.algorithm, found.clients, found.rounds, found.local_epochs) == ("fedavg", 9, 100, 1)
    assert found.partition.model_dump()["sizes"] == (8, 32, 128, 512, 8, 32, 128, 512, 1)
    assert steps == [2, 8, 32, 128, 1, 4, 16, 64, 1]  # as the authors' code makes them
    assert [found.lr_at(r) for r in (0, 39)] == [0.01, 0.01]
    assert [found.lr_at(r) for r in (40, 80)] == pytest.approx([1e-3, 1e-4])


def test_the_layout_of_the_chest_x_ray_study(specs: Callable[[str], list[TrialSpec]]) -> None:
    (spec,) = specs("[{preset: xray-36}]")
    found = federation(spec)

    assert (found.clients, found.batch_size, found.lr, found.local_epochs) == (36, 10, 0.01, 1)
    assert found.partition.name == "patient"


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_every_preset_is_a_federation(name: str, specs: Callable[[str], list[TrialSpec]]) -> None:
    (spec,) = specs(f"[{{preset: {name}}}]")
    for field, value in PRESETS[name].fields.items():
        dumped = federation(spec).model_dump(mode="json")[field]
        assert dumped == ({**dumped, **value} if isinstance(value, dict) else value)


def test_the_resolved_fields_are_the_identity(specs: Callable[[str], list[TrialSpec]]) -> None:
    (preset,) = specs("[{preset: xray-36}]")
    (written,) = specs(
        "[{algorithm: fedavg, clients: 36, rounds: 10, batch_size: 10, lr: 0.01, "
        "partition: patient, batch_norm: train}]"
    )

    assert trial_id(preset) == trial_id(written)
    assert "preset" not in preset.canonical


def test_what_a_matrix_says_wins(specs: Callable[[str], list[TrialSpec]]) -> None:
    (own,) = specs("[{preset: shadowdef-9, rounds: 5, batch_size: 2, schedule: constant, partition: iid}]")
    found = federation(own)
    (sized,) = specs("[{preset: shadowdef-9, partition: {sizes: [1, 1, 1, 1, 1, 1, 1, 1, 1]}}]")
    (other,) = specs("[{preset: xray-36, batch_sizes: " + str([3] * 36) + "}]")

    assert (found.rounds, found.batch_size, found.batch_sizes) == (5, 2, None)
    assert (found.schedule.name, found.partition.name) == ("constant", "iid")
    assert federation(sized).partition.model_dump() == {"name": "sizes", "sizes": (1,) * 9, "balanced": True}
    assert (federation(other).batch_size, federation(other).batch_sizes) == (1, (3,) * 36)


def test_presets_are_an_axis_and_merge_with_defaults(load: Load) -> None:
    text = HEAD.replace("lenet}", "lenet, federation: {rounds: 2, clients: 9}}")
    found = [
        federation(spec)
        for spec in load(
            text + "matrix:\n  attack: [dlg]\n  federation: [{preset: shadowdef-9}, {clients: 4}]\n"
        ).expand()
    ]
    assert [(f.clients, f.rounds) for f in found] == [(9, 2), (4, 2)]
    dotted = load(text + "matrix: {attack: [dlg], federation.preset: [shadowdef-9]}\n").expand()
    assert [federation(spec) for spec in dotted] == found[:1]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            "{preset: shadowdef9}",
            "expected shadowdef-9 or xray-36, got 'shadowdef9'. Did you mean 'shadowdef-9'?",
        ),
        ("{preset: 9}", "expected shadowdef-9 or xray-36, got 9"),
        ("{preset: shadowdef-9, clients: 4}", "for each of 4 clients, got 9"),
        ("{preset: xray-36, lr: -1}", "expected a value > 0, got -1"),
    ],
)
def test_mistakes_are_named_at_their_line(fields: str, message: str, mistakes: Mistakes) -> None:
    (found,) = mistakes(f"{HEAD}matrix:\n  attack: [dlg]\n  federation: [{fields}]\n")
    assert found.startswith("m.yaml:5: matrix.federation")
    assert message in found


def test_too_small_a_data_set_is_told_with_the_numbers_and_the_way_out(
    specs: Callable[[str], list[TrialSpec]],
) -> None:
    (spec,) = specs("[{preset: shadowdef-9}]")
    reason = shortage(federation(spec).partition, 600, 9)

    assert reason is not None
    assert "at least 1361 private images for 9 clients, got 600" in reason
    assert "partition: {name: sizes, sizes: [...]}" in reason
