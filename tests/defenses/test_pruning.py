from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from defenses.catalog import PruningConfig
from defenses.pruning import Pruning
from fl.parameter_difference import infer_gradient, returned_model
from fl.seeds import Streams
from fl.types import Update
from harness.testing import SmallProblem

SMALL = SmallProblem()


def protect(tensors, config):
    client = Pruning(config).for_client(SMALL.client_context)
    return client.protect(Update("gradient", tensors, {}, 1), SMALL.step(Streams(0).torch("protect"))).tensors


@given(st.lists(st.floats(-10, 10, width=32).filter(bool), min_size=1, max_size=60), st.floats(0, 1))
@settings(max_examples=60)
def test_exactly_the_smallest_entries_are_zeroed_and_signs_kept(values, ratio):
    tensor = torch.tensor(values)
    pruned = protect({"a": tensor}, PruningConfig(ratio=ratio))["a"]

    count = int(np.floor(ratio * len(values) + 0.5))
    zeroed = pruned == 0
    assert int(zeroed.sum()) == count
    assert torch.equal(pruned[~zeroed], tensor[~zeroed])
    if 0 < count < len(values):
        assert float(tensor[zeroed].abs().max()) <= float(tensor[~zeroed].abs().min())


def test_each_tensor_is_pruned_on_its_own():
    tensors = {"small": torch.linspace(1e-6, 1e-5, 10), "large": torch.linspace(1, 10, 20).view(4, 5)}
    pruned = protect(tensors, PruningConfig(ratio=0.3))
    assert int((pruned["small"] == 0).sum()) == 3
    assert int((pruned["large"] == 0).sum()) == 6
    assert pruned["large"].shape == (4, 5)


def test_of_equal_entries_the_first_go():
    pruned = protect({"a": torch.tensor([1.0, -1.0, 1.0, -1.0])}, PruningConfig(ratio=0.5))["a"]
    assert pruned.tolist() == [0.0, 0.0, 1.0, -1.0]


@given(
    st.lists(st.lists(st.integers(-4, 4).map(float), min_size=1, max_size=12), min_size=1, max_size=4),
    st.floats(0, 1),
)
@settings(max_examples=60)
def test_globally_the_smallest_of_all_go_and_of_equals_the_first(values, ratio):
    tensors = {f"t{i}": torch.tensor(entries) for i, entries in enumerate(values)}
    pruned = protect(tensors, PruningConfig(ratio=ratio, scope="global"))

    joined = np.concatenate([np.array(entries) for entries in values])
    by_size = sorted(range(len(joined)), key=lambda i: (abs(joined[i]), i))
    joined[by_size[: int(np.floor(ratio * len(joined) + 0.5))]] = 0
    assert torch.cat(list(pruned.values())).tolist() == joined.tolist()
    assert [tensor.shape for tensor in pruned.values()] == [tensor.shape for tensor in tensors.values()]


def test_globally_small_tensors_go_first():
    tensors = {"small": torch.linspace(1e-6, 1e-5, 10), "large": -torch.linspace(1, 10, 20).view(4, 5)}
    pruned = protect(tensors, PruningConfig(ratio=0.5, scope="global"))
    assert not pruned["small"].any()
    assert pruned["large"].flatten().tolist() == [0.0] * 5 + tensors["large"].flatten().tolist()[5:]


def test_the_scope_came_later_and_leaves_ids_alone():
    assert PruningConfig().resolved() == {"ratio": 0.2, "variant": "standard"}
    assert PruningConfig(scope="global").resolved()["scope"] == "global"


def test_as_released_loses_the_signs_of_the_same_entries():
    tensors = dict(SMALL.update.tensors)
    standard = protect(tensors, PruningConfig(ratio=0.2))
    released = protect(tensors, PruningConfig(ratio=0.2, variant="as_released"))
    assert all(torch.equal(released[name], tensor.abs()) for name, tensor in standard.items())


def test_as_released_is_never_off():
    assert Pruning(PruningConfig()).config.variant == "standard"
    from defenses.catalog import PRUNING

    assert PRUNING.noise_budget(PruningConfig()).off == 0.0
    assert PRUNING.noise_budget(PruningConfig(variant="as_released")).off is None


def test_the_estimated_support_is_that_of_the_observation():
    small = SmallProblem(defense=Pruning(PruningConfig(ratio=0.5)))
    support = small.defense.estimate(small.observation).entries
    for name, tensor in small.update.tensors.items():
        assert torch.equal(support[name].bool(), tensor != 0)
        assert float(support[name].sum()) <= tensor.numel() - int(0.5 * tensor.numel() + 0.5)


@given(
    st.lists(
        st.lists(st.integers(-9, 9).filter(bool).map(float), min_size=3, max_size=12), min_size=2, max_size=4
    ),
    st.floats(0, 0.9),
)
@settings(max_examples=40)
def test_a_threshold_mirror_prunes_the_guess_by_its_own_magnitudes(values, ratio):
    """As GGL's attacker: the observed share of zeros over all tensors, taken of each tensor of the guess."""
    rng = np.random.default_rng(0)
    guess = {f"t{i}": torch.from_numpy(rng.permutation(len(v)) + 1.0) for i, v in enumerate(values)}
    observed = protect({f"t{i}": torch.tensor(v) for i, v in enumerate(values)}, PruningConfig(ratio=ratio))
    small = replace_update(observed)
    defense = Pruning(PruningConfig(ratio=ratio, mirror="threshold"))
    mirrored = defense.mirror(defense.estimate(small), guess)

    zeros = sum(int((t == 0).sum()) for t in observed.values())
    share = zeros / sum(t.numel() for t in observed.values())
    for name, tensor in guess.items():
        count = min(int(np.floor(np.float32(share) * len(tensor) + 0.5)), len(tensor) - 1)
        assert (mirrored[name] == 0).sum() == count
        kept = mirrored[name] != 0
        assert torch.equal(mirrored[name][kept], tensor[kept])
        assert count == 0 or float(tensor[~kept].max()) < float(tensor[kept].min())


def replace_update(tensors):
    view = SMALL.observation.history[-1]
    update = Update("gradient", tensors, {}, 1)
    return replace(SMALL.observation, history=(replace(view, update=update),))


def test_a_threshold_over_all_gives_the_observation_at_the_truth():
    small = SmallProblem(defense=Pruning(PruningConfig(ratio=0.5, scope="global", mirror="threshold")))
    mirrored = small.defense.mirror(small.defense.estimate(small.observation), SMALL.update.tensors)
    for name, tensor in small.update.tensors.items():
        torch.testing.assert_close(mirrored[name], tensor)


@pytest.mark.parametrize("steps", [1, 2])
def test_magnitudes_in_a_difference_of_checkpoints_have_the_deltas_sign(steps):
    """A delta of magnitudes only raises weights, so the gradient inferred from it is negative throughout."""
    small = SmallProblem(kind="delta", steps=steps, defense=Pruning(PruningConfig(variant="as_released")))
    update = small.update
    inferred = infer_gradient(
        small.sent.tensors,
        returned_model(small.sent.tensors, update, lr=small.lr),
        reach=small.local.reach,
    )
    inferred = {name: inferred[name] for name in update.tensors}
    seen = replace_update(inferred)
    mirrored = small.defense.mirror(small.defense.estimate(seen), SMALL.update.tensors)
    dots = {name: float((mirrored[name] * tensor).sum()) for name, tensor in inferred.items()}
    assert all(float(tensor.max()) <= 0 for tensor in inferred.values())
    assert all(dot > 0 for dot in dots.values())
    if steps == 1:
        joined, expected = (torch.cat([t.flatten() for t in ts.values()]) for ts in (mirrored, inferred))
        assert float((joined - expected).norm() / expected.norm()) < 1e-3
