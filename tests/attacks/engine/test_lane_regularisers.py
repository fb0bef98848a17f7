"""Terms with rows of lanes against the plain loop's, one lane at a time."""

import pytest
import torch

from attacks.engine.objective import ObjectiveSpec, Target
from attacks.engine.regularisers import LaneRegularisers
from attacks.regularisers import VARIATIONS, group_distance, image_norm, moments_distance
from fl.batch_norm import Moments
from fl.specs import Task

LANES, N, SHAPE = 3, 2, (2, 5, 5)
CHANNELS = {"one": 4, "two": 3}


def random(generator, *shape):
    return torch.rand(shape, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("variation", VARIATIONS)
def test_every_lane_has_the_plain_terms(variation):
    draw = torch.Generator().manual_seed(0)
    spec = ObjectiveSpec(
        Task("multiclass", 3),
        N,
        SHAPE,
        (),
        (),
        "l2",
        None,
        varied=True,
        joint=False,
        mirrored=False,
        variation=variation,
        normed=True,
        watched=tuple(CHANNELS),
        grouped=True,
    )
    inputs = random(draw, LANES, N, *SHAPE)
    found = {name: Moments(*random(draw, 2, LANES, c).unbind()) for name, c in CHANNELS.items()}
    lanes = LaneRegularisers(spec, LANES, inputs)
    targets, means = [], random(draw, LANES, N, *SHAPE)
    for lane in range(LANES):
        known = {name: Moments(*random(draw, 2, c).unbind()) for name, c in CHANNELS.items()}
        weights = {"image_norm": 0.1 * lane, "batch_norm": 1.0 + lane, "group": 2.0 + lane}
        targets.append(Target({}, {}, None, 0.5 * lane, 1.0, None, statistics=known, **weights))
        lanes.load(lane, targets[-1])
    assert float(lanes.terms(inputs, found)["group"].weight.abs().sum()) == 0
    for lane in (0, 2):
        lanes.gather(lane, means[lane].flatten())
    terms = lanes.terms(inputs, found)
    for lane, target in enumerate(targets):
        mine = {name: Moments(m.mean[lane], m.variance[lane]) for name, m in found.items()}
        plain = {
            "total_variation": (0.5 * lane, VARIATIONS[variation](inputs[lane])),
            "image_norm": (0.1 * lane, image_norm(inputs[lane])),
            "batch_norm": (1.0 + lane, moments_distance(mine, target.statistics)),
        }
        if lane != 1:
            plain["group"] = (2.0 + lane, group_distance(inputs[lane], means[lane]))
        for name, (weight, value) in plain.items():
            assert float(terms[name].weight[lane]) == pytest.approx(weight)
            torch.testing.assert_close(terms[name].rows[lane], value, rtol=1e-12, atol=0)
    assert float(terms["group"].weight[1]) == 0


def test_a_lane_that_is_loaded_anew_has_no_mean():
    spec = ObjectiveSpec(
        Task("multiclass", 3), 1, (1, 2, 2), (), (), "l2", None, False, False, False, grouped=True
    )
    like = torch.zeros(1)
    lanes = LaneRegularisers(spec, 1, like)
    target = Target({}, {}, None, 0.0, 1.0, None, group=3.0)
    lanes.load(0, target)
    lanes.gather(0, torch.ones(4))
    assert float(lanes.terms(torch.zeros(1, 1, 1, 2, 2), {})["group"].weight) == 3
    lanes.load(0, target)
    assert float(lanes.terms(torch.zeros(1, 1, 1, 2, 2), {})["group"].weight) == 0
