import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from defenses.catalog import QuantizationConfig
from defenses.quantization import Quantization
from fl.seeds import Streams
from fl.types import Update
from harness.testing import SmallProblem

SMALL = SmallProblem()
NUMBERS = st.floats(-1e3, 1e3, width=32).map(lambda x: x if abs(x) > 1e-30 else 0.0)
"""Smaller ones have spacings that float32 has no digits for."""
ENTRIES = st.lists(NUMBERS, min_size=1, max_size=80)


def protect(tensors, seed=0, **options):
    client = Quantization(QuantizationConfig(**options)).for_client(SMALL.client_context)
    update = Update("gradient", tensors, {}, 1)
    return client.protect(update, SMALL.step(Streams(seed).torch("protect"))).tensors


def test_four_bits_by_hand():
    """The largest of 14 makes a spacing of 14 / 7 = 2."""
    tensor = torch.tensor([14.0, -13.1, 12.9, 1.1, -0.9, 0.0, 5.2])
    assert protect({"a": tensor}, bits=4)["a"].tolist() == [14.0, -14.0, 12.0, 2.0, 0.0, 0.0, 6.0]


def test_two_bits_are_minus_largest_zero_and_largest():
    assert protect({"a": torch.tensor([3.0, 1.4, -1.6, -2.0])}, bits=2)["a"].tolist() == [
        3.0,
        0.0,
        -3.0,
        -3.0,
    ]


@given(ENTRIES, st.integers(2, 8), st.sampled_from(["nearest", "stochastic"]))
@settings(max_examples=80)
def test_few_levels_near_the_entries_with_their_signs(values, bits, rounding):
    tensor = torch.tensor(values)
    rounded = protect({"a": tensor}, bits=bits, rounding=rounding)["a"]
    spacing = float(tensor.abs().max()) / (2 ** (bits - 1) - 1)
    assert len(rounded.unique()) <= 2**bits - 1
    assert bool((rounded * tensor >= 0).all())
    within = spacing / 2 if rounding == "nearest" else spacing
    assert float((rounded - tensor).abs().max()) <= within * 1.001
    if spacing:
        levels = rounded / spacing
        torch.testing.assert_close(levels, levels.round(), atol=1e-4, rtol=0)


@pytest.mark.parametrize("rounding", ["nearest", "stochastic"])
def test_zeros_stay_zero_with_finite_derivatives(rounding):
    zero = torch.zeros(3, requires_grad=True)
    rounded = protect({"a": zero}, rounding=rounding)["a"]
    (derivative,) = torch.autograd.grad(rounded.sum(), zero)
    assert not rounded.any()
    assert derivative.isfinite().all()


def test_each_tensor_has_its_own_spacing_or_all_have_one():
    tensors = {"large": torch.tensor([7.0, 2.6]), "small": torch.tensor([0.7, -0.26])}
    each, shared = (protect(tensors, scope=scope) for scope in ("per_tensor", "global"))
    torch.testing.assert_close(each["small"], torch.tensor([0.7, -0.3]))
    assert shared["small"].tolist() == [1.0, 0.0]
    assert each["large"].tolist() == shared["large"].tolist() == [7.0, 3.0]


def test_stochastic_rounding_keeps_the_mean():
    """Of 20,000 entries at 2.3 spacings, 30 % go up; the mean's standard error is 0.0033."""
    tensor = torch.cat([torch.tensor([7.0]), torch.full((20_000,), -2.3), torch.full((20_000,), 0.5)])
    rounded = protect({"a": tensor}, rounding="stochastic")["a"]
    assert rounded[0] == 7
    assert set(rounded[1:20_001].tolist()) == {-3.0, -2.0}
    assert float(rounded[1:20_001].mean()) == pytest.approx(-2.3, abs=0.015)
    assert float(rounded[20_001:].mean()) == pytest.approx(0.5, abs=0.015)


def test_only_stochastic_rounding_draws():
    tensors = SMALL.update.tensors
    for rounding, same in (("nearest", True), ("stochastic", False)):
        first, again, other = (protect(tensors, seed, rounding=rounding) for seed in (0, 0, 1))
        assert torch.equal(first["head.weight"], again["head.weight"])
        assert torch.equal(first["head.weight"], other["head.weight"]) is same


@pytest.mark.parametrize("scope", ["per_tensor", "global"])
def test_the_spacing_is_read_off_the_observation(scope):
    small = SmallProblem(defense=Quantization(QuantizationConfig(bits=5, scope=scope)))
    estimated = small.defense.estimate(small.observation)
    clean = SMALL.update.tensors
    overall = max(float(tensor.abs().max()) for tensor in clean.values())
    for name, tensor in clean.items():
        largest = float(tensor.abs().max()) if scope == "per_tensor" else overall
        assert float(estimated[name]) == pytest.approx(largest / 15, rel=1e-5)


def test_the_mirror_rounds_guesses_at_the_observed_spacing_and_passes_derivatives_on():
    guess = torch.tensor([0.4, -1.2, 9.0], requires_grad=True)
    mirror = Quantization(QuantizationConfig(bits=3)).mirror
    mirrored = mirror({"a": torch.tensor(1.0)}, {"a": guess})["a"]
    (derivative,) = torch.autograd.grad(mirrored @ torch.tensor([1.0, 2.0, 3.0]), guess)
    assert mirrored.tolist() == [0.0, -1.0, 3.0]
    assert derivative.tolist() == [1.0, 2.0, 3.0]


def test_the_mirror_leaves_out_unbiased_rounding():
    guess = {"a": torch.tensor([0.4, -1.2])}
    mirrored = Quantization(QuantizationConfig(rounding="stochastic")).mirror({"a": torch.tensor(1.0)}, guess)
    assert torch.equal(mirrored["a"], guess["a"])


def test_one_bit_is_refused():
    with pytest.raises(ValidationError, match="greater than or equal to 2"):
        QuantizationConfig(bits=1)
