import pytest
import torch

from defenses.catalog import SIGN, SignConfig
from defenses.sign import Sign
from fl.seeds import Streams
from fl.types import Update
from harness.testing import SmallProblem


def protect(tensors, magnitude, small=None):
    small = small or SmallProblem()
    client = Sign(SignConfig(magnitude=magnitude)).for_client(small.client_context)
    update = Update(small.kind, tensors, {}, 1)
    return client.protect(update, small.step(Streams(0).torch("protect"))).tensors


TENSORS = {"a": torch.tensor([[3.0, -0.1], [0.0, 0.5]]), "b": torch.tensor([-2e-9])}


def test_signs_of_one():
    signs = protect(TENSORS, "one")
    assert signs["a"].tolist() == [[1.0, -1.0], [0.0, 1.0]]
    assert signs["b"].tolist() == [-1.0]


def test_signs_times_the_tensors_mean_magnitude():
    signs = protect(TENSORS, "mean")
    torch.testing.assert_close(signs["a"], torch.tensor([[0.9, -0.9], [0.0, 0.9]]))
    torch.testing.assert_close(signs["b"], torch.tensor([-2e-9]))


def test_on_a_delta_one_is_in_units_of_the_gradient():
    small = SmallProblem(kind="delta", steps=4, lr=0.05)
    torch.testing.assert_close(protect(TENSORS, "one", small)["b"], torch.tensor([-0.2]))
    torch.testing.assert_close(protect(TENSORS, "mean", small)["b"], TENSORS["b"])


@pytest.mark.parametrize("magnitude", ["one", "mean"])
def test_the_magnitude_is_read_off_the_observation(magnitude):
    small = SmallProblem(defense=Sign(SignConfig(magnitude=magnitude)))
    clean = SmallProblem().update.tensors
    for name, estimated in small.defense.estimate(small.observation).items():
        expected = 1.0 if magnitude == "one" else float(clean[name].abs().mean())
        assert float(estimated) == pytest.approx(expected)


def test_the_mirrors_derivative_is_that_of_a_soft_sign():
    """Against central differences of tanh(g / mean |g|), in float64."""
    guess = torch.tensor([0.3, -1.0, 2.0], dtype=torch.float64, requires_grad=True)
    weights = torch.tensor([1.0, 2.0, -1.0], dtype=torch.float64)
    mirrored = Sign(SignConfig()).mirror({"a": torch.tensor(0.5)}, {"a": guess})["a"]
    (derivative,) = torch.autograd.grad(mirrored @ weights, guess)

    def soft(values):
        return 0.5 * (values / values.abs().mean()).tanh() @ weights

    shift = 1e-6 * torch.eye(3, dtype=torch.float64)
    with torch.no_grad():
        expected = torch.stack([(soft(guess + h) - soft(guess - h)) / 2e-6 for h in shift])
    assert mirrored.tolist() == [0.5, -0.5, 0.5]
    torch.testing.assert_close(derivative, expected)


def test_a_zero_tensor_has_finite_derivatives():
    zero = torch.zeros(3, requires_grad=True)
    mirrored = Sign(SignConfig()).mirror({"a": torch.tensor(1.0)}, {"a": zero})["a"]
    (derivative,) = torch.autograd.grad(mirrored.sum(), zero)
    assert not mirrored.any()
    assert derivative.isfinite().all()


def test_it_has_no_noise_budget():
    budget = SIGN.noise_budget(SignConfig())
    assert (budget.field, budget.off) == ("", None)
