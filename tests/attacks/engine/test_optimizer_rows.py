"""Optimizers over lanes against torch's, lane by lane."""

import math

import pytest
import torch

from attacks.engine.curvature import Curvature
from attacks.engine.descent import DescentRows
from attacks.engine.lbfgs import LbfgsRows
from attacks.engine.rows import Event
from attacks.optimizers import Adam, Evaluation, Lbfgs, Sgd

SIZE = 48
SHAPE = (1, 2, 4, 4)


class Wells:
    """A different function in each lane: a chain of springs, an ill-conditioned bowl, a tilted one."""

    def __init__(self, lanes, seed=0):
        generator = torch.Generator().manual_seed(seed)
        self.starts = torch.randn(lanes, SIZE, generator=generator, dtype=torch.float64)
        self.scales = 10 ** -(3 * torch.rand(lanes, SIZE, generator=generator, dtype=torch.float64))
        self.tilt = torch.randn(SIZE, SIZE, generator=generator, dtype=torch.float64) / SIZE**0.5

    def total(self, lane, x):
        if lane % 3 == 0:
            return ((x[1:] - 0.9 * x[:-1]) ** 2).sum() + 0.1 * torch.cosh(x - 0.5).log().sum()
        if lane % 3 == 1:
            return (self.scales[lane] * (x - self.scales[lane]) ** 2).sum()
        return ((self.tilt @ x - self.scales[lane]) ** 2).sum()

    def evaluate(self, values):
        values = values.clone().requires_grad_()
        totals = torch.stack([self.total(lane, row) for lane, row in enumerate(values)])
        return totals.detach(), torch.autograd.grad(totals.sum(), values)[0]


def run_rows(rows, wells, settings, allowances):
    """Run every lane to its end; return the iterates' values and totals by lane, the last included."""
    seen = {lane: [] for lane in range(len(settings))}
    counts = dict.fromkeys(seen, 0)
    for lane, (one, allowance) in enumerate(zip(settings, allowances, strict=True)):
        rows.load(lane, wells.starts[lane], one, allowance)
    running = set(seen)
    while running:
        values = rows.values.clone()
        totals, gradients = wells.evaluate(values)
        for lane, event in rows.advance(totals.tolist(), gradients).items():
            counts[lane] += 1
            if event in (Event.ITERATE, Event.LAST):
                seen[lane].append((values[lane], totals[lane]))
            if event in (Event.LAST, Event.DEAD):
                running.discard(lane)
    return seen, counts


def run_loop(wells, lane, optimizer, allowance):
    """The same by the plain loop."""
    x = wells.starts[lane].clone().requires_grad_()
    evaluations = []

    def objective():
        total = wells.total(lane, x)
        evaluations.append(float(total.detach()))
        return Evaluation(total, {})

    seen = [(it.values[0], torch.tensor(it.total)) for it in optimizer.run([x], objective, allowance)]
    final = objective()
    seen.append((x.detach(), final.total.detach()))
    return seen, len(evaluations)


def check_same(wells, rows, settings, allowances, *, atol):
    seen, counts = run_rows(rows, wells, settings, allowances)
    for lane, (one, allowance) in enumerate(zip(settings, allowances, strict=True)):
        expected, count = run_loop(wells, lane, one, allowance)
        assert counts[lane] == count
        assert len(seen[lane]) == len(expected)
        for (values, total), (wanted, wanted_total) in zip(seen[lane], expected, strict=True):
            torch.testing.assert_close(values[:SIZE], wanted, atol=atol, rtol=0)
            torch.testing.assert_close(total, wanted_total.double(), atol=atol, rtol=1e-6)


@pytest.mark.parametrize("allowance", [math.inf, 1, 2, 3, 20, 21, 47])
def test_lbfgs_is_torchs_in_every_lane(allowance):
    wells = Wells(6)
    settings = [Lbfgs(iterations=2, solved=0.0, patience=2) for _ in range(6)]
    rows = LbfgsRows(6, SIZE, torch.zeros(1, dtype=torch.float64))
    check_same(wells, rows, settings, [allowance] * 6, atol=1e-5)


def test_lbfgs_lanes_with_settings_of_their_own_are_independent():
    wells = Wells(6, seed=1)
    settings = [
        Lbfgs(iterations=1 + i % 3, solved=1e9 if i == 4 else 0.0, patience=1 + i % 2) for i in range(6)
    ]
    rows = LbfgsRows(6, SIZE, torch.zeros(1, dtype=torch.float64))
    check_same(wells, rows, settings, [math.inf, 5, math.inf, 30, math.inf, 64], atol=1e-5)


def test_a_lane_that_is_loaded_again_has_forgotten_its_past():
    wells = Wells(3)
    rows = LbfgsRows(3, SIZE, torch.zeros(1, dtype=torch.float64))
    settings = [Lbfgs(iterations=3, solved=0.0, patience=9)] * 3
    first, _ = run_rows(rows, wells, settings, [math.inf] * 3)
    again, _ = run_rows(rows, wells, settings, [math.inf] * 3)
    for lane in range(3):
        for (a, _), (b, _) in zip(first[lane], again[lane], strict=True):
            assert torch.equal(a, b)


def two_loops(pairs, gradient):
    """The direction by the textbook's two loops over (s, y), oldest first."""
    q, weights = -gradient, []
    for s, y in reversed(pairs):
        weights.append(s.dot(q) / y.dot(s))
        q = q - weights[-1] * y
    s, y = pairs[-1]
    r = q * (s.dot(y) / y.dot(y))
    for (s, y), weight in zip(pairs, reversed(weights), strict=True):
        r = r + s * (weight - y.dot(r) / y.dot(s))
    return r


def test_directions_are_the_two_loops_also_when_the_oldest_pair_makes_room():
    """13 pairs where 5 fit, with pairs of no curvature in between, in two lanes out of step."""
    generator = torch.Generator().manual_seed(0)
    curvature = Curvature(3, SIZE, 5, torch.zeros(1, dtype=torch.float64))
    matrix = torch.randn(SIZE, SIZE, generator=generator, dtype=torch.float64)
    hessian = matrix @ matrix.T / SIZE + torch.eye(SIZE)
    kept = {0: [], 2: []}
    gradient = torch.randn(3, SIZE, generator=generator, dtype=torch.float64)
    for number in range(13):
        steps = torch.randn(3, SIZE, generator=generator, dtype=torch.float64)
        changes = steps @ hessian
        lanes = [0, 2] if number % 4 else [2]
        if number == 6:
            changes[0] = -changes[0]
        gradient = gradient + torch.where(torch.tensor([[0 in lanes], [False], [True]]), changes, 0)
        directions = curvature.directions(lanes, gradient, steps, changes, tiny=1e-10)
        for lane in lanes:
            if steps[lane].dot(changes[lane]) > 0:
                kept[lane].append((steps[lane], changes[lane]))
            expected = two_loops(kept[lane][-5:], gradient[lane])
            torch.testing.assert_close(directions[lane], expected, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("family", [Adam, Sgd])
def test_descent_is_torchs_in_every_lane(family):
    wells = Wells(6)
    box = (torch.full((2, 1, 1), -0.5), torch.tensor([0.75, 2.0]).view(2, 1, 1))
    settings = [
        family(
            iterations=16 - i,
            lr=0.01 * (i + 1),
            signed=i % 2 == 0,
            decay=i != 2,
            box=None if i == 3 else box,
        )
        for i in range(6)
    ]
    rows = DescentRows(6, SIZE, SHAPE, torch.zeros(1, dtype=torch.float64), moments=family is Adam)
    seen, counts = run_rows(rows, wells, settings, [math.inf, 9, 0, 16, 3, math.inf])
    for lane, (one, allowance) in enumerate(zip(settings, [math.inf, 9, 0, 16, 3, math.inf], strict=True)):
        expected, count = run_split_loop(wells, lane, one, allowance)
        assert counts[lane] == count
        for (values, _), wanted in zip(seen[lane], expected, strict=True):
            torch.testing.assert_close(values, wanted, atol=1e-9, rtol=0)


def run_split_loop(wells, lane, optimizer, allowance):
    """The plain loop on images, which have signs and a box, and on other variables, which have neither."""
    pixels = math.prod(SHAPE)
    images = wells.starts[lane][:pixels].view(SHAPE).clone().requires_grad_()
    rest = wells.starts[lane][pixels:].clone().requires_grad_()
    count = 0

    def objective():
        nonlocal count
        count += 1
        return Evaluation(wells.total(lane, torch.cat([images.flatten(), rest])), {})

    iterates = optimizer.run([images, rest], objective, allowance)
    seen = [torch.cat([it.values[0].flatten(), it.values[1]]) for it in iterates]
    objective()
    return [*seen, torch.cat([images.detach().flatten(), rest.detach()])], count


@pytest.mark.parametrize("kind", ["lbfgs", "adam"])
def test_a_lane_that_is_not_finite_dies_alone(kind):
    wells = Wells(3)
    like = torch.zeros(1, dtype=torch.float64)
    if kind == "lbfgs":
        rows, one = LbfgsRows(3, SIZE, like), Lbfgs(iterations=2, solved=0.0, patience=9)
    else:
        rows = DescentRows(3, SIZE, SHAPE, like, moments=True)
        one = Adam(iterations=9, lr=0.1, signed=True, decay=True, box=None)
    alone, _ = run_rows(rows, wells, [one] * 3, [math.inf] * 3)
    for lane in range(3):
        rows.load(lane, wells.starts[lane], one, math.inf)
    seen, events = [], {}
    for number in range(60):
        values = rows.values.clone()
        totals, gradients = wells.evaluate(values)
        if number == 3:
            totals[1], gradients[1] = math.nan, math.nan
        events = rows.advance(totals.tolist(), gradients)
        if number == 3:
            assert events[1] is Event.DEAD
        assert number < 4 or 1 not in events
        if events.get(0) in (Event.ITERATE, Event.LAST):
            seen.append(values[0])
        if events.get(0) is Event.LAST:
            break
    assert rows.values[1].eq(0).all()
    for (values, _), other in zip(alone[0], seen, strict=True):
        assert torch.equal(values, other)
