"""Plans of searches through a generator: sizes of steps, and what an allowance leaves."""

import pytest

from attacks import gias, gifd
from attacks.cards_generative import GIAS, GiasConfig
from attacks.cards_gifd import GifdConfig
from attacks.generative_plan import Phase, Plan


def test_steps_shrink_at_three_five_and_seven_eighths():
    phase = Phase(iterations=16, lr=2.0, decay=0.5)
    assert [phase.rate(i) for i in range(16)] == [2.0] * 6 + [1.0] * 4 + [0.5] * 4 + [0.25] * 2


def test_steps_rise_and_fall():
    """Over the first twentieth, then along a cosine over the last three quarters; none in the first step."""
    phase = Phase(iterations=1000, lr=2.0, decay=None)
    rates = [phase.rate(i) for i in range(1000)]
    assert rates[0] == 0
    assert rates[25] == pytest.approx(1.0)
    assert rates[50:250] == pytest.approx([2.0] * 200)
    assert rates[625] == pytest.approx(1.0)
    assert rates[999] < 1e-4
    assert rates[250:] == sorted(rates[250:], reverse=True)


def test_the_plan_is_the_configuration():
    config = GiasConfig(restarts=2, latent_iterations=6, parameter_iterations=5, latent_lr=0.1)
    plan = gias._plan(config)
    assert plan == Plan(plan.recipe, 2, Phase(6, 0.1, 0.1), Phase(5, 1e-3, 0.1))
    assert plan.evaluations == GIAS.evaluations(config) == 2 * 7 + 6
    only = config.model_copy(update={"parameter_iterations": 0})
    assert gias._plan(only).parameters is None


@pytest.mark.parametrize(
    ("plan", "limit", "expected"),
    [((3, 10, 20), 100, (3, 10, 20)), ((3, 10, 20), 27, None), ((3, 10, 20), 1, (1, 0, None))],
)
def test_an_allowance_is_shared_by_both_phases(plan, limit, expected):
    restarts, latent, parameters = plan
    config = GiasConfig(restarts=restarts, latent_iterations=latent, parameter_iterations=parameters)
    whole = gias._plan(config)
    within = whole.within(limit)
    assert within.evaluations <= limit
    if expected is not None:
        steps = None if within.parameters is None else within.parameters.iterations
        assert (within.restarts, within.latent.iterations, steps) == expected
    else:
        assert within.evaluations == limit
        assert within.parameters.iterations > 0
    assert whole.within(None) == whole


@pytest.mark.parametrize(
    ("limit", "expected"),
    [(1000, (4, 10, 0, 3)), (88, (4, 4, 0, 3)), (20, (2, 1, 0, 3)), (5, (1, 1, 0, 1)), (1, (1, 0, 0, 0))],
)
def test_an_allowance_gives_up_steps_then_restarts_then_blocks(limit, expected):
    config = GifdConfig(restarts=4, iterations=10, depth=3)
    within = gifd._plan(config).within(limit)
    assert within.shape == expected
    assert within.evaluations <= limit
