from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from harness.config.matrix import Matrix, load_matrix
from harness.config.settings import ResourceOverride

Load = Callable[[str], Matrix]


def described(matrix: Matrix) -> list[tuple[str, str, float]]:
    return [(spec.attack.name, spec.defense.name, spec.noise_budget) for spec in matrix.expand()]


def test_axes_multiply_and_seeds_are_the_slowest(short: Load) -> None:
    matrix = short("seeds: [7, 3]\nmatrix: {attack: [dlg, idlg], attacker: [static, adaptive]}\n")
    found = [(spec.seed, spec.attack.name, spec.attacker) for spec in matrix.expand()]
    assert found == [
        (seed, attack, attacker)
        for seed in (7, 3)
        for attack in ("dlg", "idlg")
        for attacker in ("static", "adaptive")
    ]


def test_what_a_cell_leaves_unsaid_has_its_default(short: Load) -> None:
    (spec,) = short("matrix: {attack: [dlg]}\n").expand()
    assert (spec.seed, spec.targets, spec.attacker, spec.noise_budget) == (0, 4, "static", 0.0)
    assert spec.federation is not None
    assert (spec.federation.algorithm, spec.federation.clients) == ("fedsgd", 4)
    assert (spec.defense.name, spec.observe.round, spec.threat_model.position) == ("none", 0, "server")
    assert spec.public is None


def test_the_name_is_the_files_unless_given(short: Load) -> None:
    assert short("matrix: {attack: [dlg]}\n").name == "m"
    assert short("name: my-study.2\nmatrix: {attack: [dlg]}\n").name == "my-study.2"


def test_defaults_merge_below_the_same_plug_in_only(load: Load) -> None:
    matrix = load(
        "version: 1\n"
        "defaults: {data: digits, model: {name: convnet, width: 16, batch_norm: false}}\n"
        "matrix:\n  attack: [dlg]\n  model: [convnet, {name: convnet, width: 8}, lenet]\n"
    )
    configs = [spec.model.config.resolved() for spec in matrix.expand() if spec.model]
    assert configs[0] == {"width": 16, "batch_norm": False}
    assert configs[1] == {"width": 8, "batch_norm": False}
    assert "width" not in configs[2]


def test_dotted_axes_reach_inside_sections_and_merge(short: Load) -> None:
    matrix = short(
        "matrix:\n"
        "  attack: [dlg]\n"
        "  federation.partition: [iid, {name: dirichlet, alpha: 0.1}]\n"
        "  federation.batch_size: [1, 8]\n"
        "  threat_model.knowledge.labels: [known]\n"
    )
    specs = list(matrix.expand())
    found = [(s.federation.partition.name, s.federation.batch_size) for s in specs if s.federation]
    assert found == [("iid", 1), ("iid", 8), ("dirichlet", 1), ("dirichlet", 8)]
    assert {spec.threat_model.knowledge.labels for spec in specs} == {"known"}


def test_a_dotted_axis_over_a_whole_one_applies_to_each_of_its_values(short: Load) -> None:
    matrix = short("matrix: {attack.iterations: [5, 6], attack: [dlg, {name: idlg, restarts: 3}]}\n")
    found = [(s.attack.name, s.attack.config.model_dump()) for s in matrix.expand()]
    assert [(n, c["iterations"], c["restarts"]) for n, c in found] == [
        ("dlg", 5, 1), ("idlg", 5, 3), ("dlg", 6, 1), ("idlg", 6, 3),
    ]  # fmt: skip


def test_zip_moves_axes_together(short: Load) -> None:
    matrix = short(
        "matrix:\n"
        "  attack: [dlg]\n"
        "  zip:\n"
        "    - {data: [digits, {name: retina, size: 32}], model: [lenet, {name: convnet, width: 16}]}\n"
        "    - {federation.rounds: [1, 2], observe.round: [0, 2]}\n"
    )
    found = [
        (spec.data.name, spec.model.name, spec.federation.rounds, spec.observe.round)
        for spec in matrix.expand()
        if spec.data and spec.model and spec.federation
    ]
    assert found == [
        ("digits", "lenet", 1, 0), ("digits", "lenet", 2, 2),
        ("retina", "convnet", 1, 0), ("retina", "convnet", 2, 2),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("sweep", "values"),
    [
        ("{grid: [200, 400]}", [200, 400]),
        ("{range: [2, 5]}", [2, 3, 4]),
        ("{range: [10, 0, -5]}", [10, 5]),
        ("{linspace: {start: 100, stop: 400, num: 4}}", [100, 200, 300, 400]),
        ("{geomspace: {start: 1, stop: 1000, num: 4}}", [1, 10, 100, 1000]),
    ],
)
def test_sweeps_of_whole_numbers(short: Load, sweep: str, values: list[int]) -> None:
    inside = short(f"matrix: {{attack: [{{name: dlg, iterations: {sweep}}}]}}\n")
    as_axis = short(f"matrix: {{attack: [dlg], attack.iterations: {sweep}}}\n")
    below = short(
        f"matrix: {{attack: [{{name: dlg}}]}}\ninclude: [{{attack: {{name: idlg, iterations: {sweep}}}}}]\n"
    )
    for matrix in (inside, as_axis):
        assert [spec.attack.config.model_dump()["iterations"] for spec in matrix.expand()] == values
    assert [s.attack.config.model_dump()["iterations"] for s in below.expand()][1:] == values


def test_sweeps_of_fractions_read_well(short: Load) -> None:
    text = "matrix: {{attack: [{{name: inverting_gradients, lr: {}}}]}}\n"
    linspace = short(text.format("{linspace: {start: 0.1, stop: 0.5, num: 5}}"))
    assert [s.attack.config.model_dump()["lr"] for s in linspace.expand()] == [0.1, 0.2, 0.3, 0.4, 0.5]
    geomspace = short(text.format("{geomspace: {start: 1.0e-4, stop: 1e-1, num: 4}}"))
    assert [s.attack.config.model_dump()["lr"] for s in geomspace.expand()] == [1e-4, 1e-3, 1e-2, 1e-1]


def test_several_sweeps_of_one_value_multiply(short: Load) -> None:
    matrix = short("matrix: {attack: [{name: dlg, iterations: {grid: [1, 2]}, restarts: {grid: [3, 4]}}]}\n")
    configs = [spec.attack.config.model_dump() for spec in matrix.expand()]
    assert [(c["iterations"], c["restarts"]) for c in configs] == [(1, 3), (1, 4), (2, 3), (2, 4)]


def test_a_bare_list_inside_a_value_is_one_value(load: Load) -> None:
    text = "version: 1\ndefaults: {data: {name: digits, private_labels: [1, 7]}, model: lenet}\n"
    (spec,) = load(text + "matrix: {attack: [dlg]}\n").expand()
    assert spec.data is not None
    assert spec.data.config.model_dump()["private_labels"] == (1, 7)


def test_exclude_takes_partial_keys_globs_and_mappings(short: Load) -> None:
    matrix = short(
        "matrix:\n"
        "  attack: [dlg, idlg, random_guess]\n"
        "  defense: [none, {name: gaussian, noise_budget: [1e-3, 1e-2]}]\n"
        "exclude:\n"
        "  - {defense: none, attack.name: '*dlg'}\n"
        "  - {noise_budget: 0.01, attack: idlg}\n"
        "  - {attack: random_guess, defense: {name: gaussian, sigma: 0.001}}\n"
    )
    assert described(matrix) == [
        ("dlg", "gaussian", 0.001), ("dlg", "gaussian", 0.01),
        ("idlg", "gaussian", 0.001),
        ("random_guess", "none", 0.0), ("random_guess", "gaussian", 0.01),
    ]  # fmt: skip


def test_exclude_may_name_seeds(short: Load) -> None:
    matrix = short("seeds: [0, 1]\nmatrix: {attack: [dlg, idlg]}\nexclude: [{seed: 1, attack: idlg}]\n")
    assert [(s.seed, s.attack.name) for s in matrix.expand()] == [(0, "dlg"), (0, "idlg"), (1, "dlg")]


def test_include_adds_whole_cells_over_the_defaults(short: Load) -> None:
    matrix = short(
        "matrix: {attack: [dlg], federation.batch_size: [1], noise_budget: {gaussian: [0.5]}, "
        "defense: [gaussian]}\n"
        "include:\n"
        "  - {attack: idlg, federation.batch_size: 16, defense: gaussian, noise_budget: 1e-3}\n"
        "  - {attack: dlg, model: {convs: 2}, targets: 2}\n"
    )
    first, second, third = matrix.expand()
    assert (first.noise_budget, second.noise_budget, third.defense.name) == (0.5, 0.001, "none")
    assert second.federation is not None
    assert second.federation.batch_size == 16
    assert third.model is not None
    assert (third.model.config.model_dump()["convs"], third.targets) == (2, 2)


def test_include_may_stand_alone(short: Load) -> None:
    assert [s.attack.name for s in short("include: [{attack: dlg}, {attack: idlg}]\n").expand()] == [
        "dlg",
        "idlg",
    ]


def test_include_may_bring_back_an_excluded_cell(short: Load) -> None:
    text = "matrix: {attack: [dlg, idlg]}\nexclude: [{attack: dlg}]\ninclude: [{attack: dlg}]\n"
    assert [spec.attack.name for spec in short(text).expand()] == ["idlg", "dlg"]


def test_public_names_another_data_set(short: Load) -> None:
    matrix = short("matrix: {attack: [dlg], public: [null, mnist5k, {name: mnist5k, size: 16}]}\n")
    names = [
        spec.public and (spec.public.name, spec.public.config.model_dump()["size"])
        for spec in matrix.expand()
    ]
    assert names == [None, ("mnist5k", 28), ("mnist5k", 16)]


def test_extends_merges_one_level_below(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text(
        "version: 1\nname: base\nseeds: [0, 1]\n"
        "defaults: {data: digits, model: lenet, federation: {rounds: 3, clients: 2}}\n"
        "matrix: {attack: [dlg, idlg], defense: [none]}\n"
    )
    (tmp_path / "child.yaml").write_text(
        "extends: base.yaml\ndefaults: {model: {convs: 2}, federation.clients: 8}\n"
        "matrix: {attack: [random_guess]}\n"
    )
    matrix = load_matrix(tmp_path / "child.yaml")
    first, second = matrix.expand()
    assert matrix.name == "child"
    assert (first.seed, second.seed) == (0, 1)
    assert first.attack.name == "random_guess"
    assert first.federation is not None
    assert (first.federation.rounds, first.federation.clients) == (3, 8)
    assert first.model is not None
    assert first.model.config.model_dump()["convs"] == 2
    assert matrix.document["defaults"] == {
        "data": {"name": "digits"},
        "model": {"name": "lenet", "convs": 2},
        "federation": {"rounds": 3, "clients": 8},
    }


def test_sections_are_shared_between_cells(short: Load) -> None:
    specs = list(
        short("seeds: [0, 1]\nmatrix: {attack: [dlg, idlg], attacker: [static, adaptive]}\n").expand()
    )
    assert len({id(spec.attack) for spec in specs}) == 2
    assert len({id(section) for spec in specs for section in (spec.federation, spec.threat_model)}) == 2


def test_settings_are_no_part_of_a_trial(short: Load) -> None:
    plain = short("matrix: {attack: [dlg]}\n")
    matrix = short(
        "matrix: {attack: [dlg]}\n"
        "resources: {attack: {timeout: 2h, gpus: 0.5}, dlg: {gpus: 1, memory_mib: 2048}}\n"
        "store: {uri: 's3://bucket/x', private_uri: /secure}\n"
        "max_failures: 0.1\n"
        "metrics: [lpips_vgg]\n"
    )
    settings = matrix.settings
    assert (settings.metrics, plain.settings.metrics) == (("lpips_vgg",), ())
    assert settings.override("attack", "dlg") == ResourceOverride(gpus=1, memory_mib=2048, timeout=7200)
    assert settings.override("attack", "idlg") == ResourceOverride(gpus=0.5, timeout=7200)
    assert settings.override("stage", "prior") == ResourceOverride()
    assert (settings.store.uri, settings.store.private_uri) == ("s3://bucket/x", "/secure")
    assert settings.allowed_failures(40) == 4
    assert [s.canonical for s in plain.expand()] == [s.canonical for s in matrix.expand()]


@pytest.mark.parametrize(
    ("text", "trials", "allowed"), [("3", 100, 3), ("0", 5, 0), ("1.0", 7, 7), ("0.5", 3, 1)]
)
def test_max_failures_is_a_number_or_a_share(short: Load, text: str, trials: int, allowed: int) -> None:
    matrix = short(f"matrix: {{attack: [dlg]}}\nmax_failures: {text}\n")
    assert matrix.settings.allowed_failures(trials) == allowed


@pytest.mark.parametrize(
    ("text", "seconds"), [("30", 30), ("90s", 90), ("1.5m", 90), ("2h", 7200), ("1d", 86400)]
)
def test_time_limits(short: Load, text: str, seconds: float) -> None:
    matrix = short(f"matrix: {{attack: [dlg]}}\nresources: {{dlg: {{timeout: {text}}}}}\n")
    assert matrix.settings.override("attack", "dlg").timeout == seconds


def test_seeds_may_be_a_half_open_range(short: Load) -> None:
    assert short("seeds: {range: [2, 5]}\nmatrix: {attack: [dlg]}\n").seeds == (2, 3, 4)
