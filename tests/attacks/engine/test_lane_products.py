"""Inner products of weight gradients that are read off rows, or not even formed."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from attacks.engine.constant import Constant, turns
from attacks.engine.filters import Window
from attacks.engine.formulations import Layers
from attacks.engine.grams import lane_products, pixel_products, window_products
from attacks.engine.objective import LaneObjective, ObjectiveSpec, Target
from attacks.engine.products import row_products
from attacks.engine.program import Program
from attacks.engine.rectify import rectify
from fl.losses import task_loss
from fl.specs import Task

WINDOWS = [
    Window(1, 3, 5, 6, 4, (3, 3), (1, 1), (1, 1)),
    Window(2, 2, 6, 5, 3, (3, 2), (2, 1), (1, 0)),
    Window(1, 2, 7, 7, 3, (5, 5), (2, 3), (2, 2)),
    Window(1, 2, 2, 2, 3, (5, 5), (1, 1), (2, 2)),
]
LANES = 3


def draw(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def windows_of(images, window):
    """Every window of a lane's images as a row, `P x K`."""
    columns = F.unfold(images, window.kernel, padding=window.padding, stride=window.stride)
    return columns.transpose(1, 2).flatten(0, 1)


def pixels_of(images):
    return images.permute(0, 2, 3, 1).flatten(0, 2)


@pytest.mark.parametrize("window", WINDOWS)
def test_inner_products_of_windows_are_sums_of_those_of_pixels(window):
    lanes = [draw(window.images, window.channels, window.height, window.width, seed=i) for i in range(2)]
    grams = torch.stack([pixels_of(images) @ pixels_of(images).T for images in lanes])
    expected = torch.stack([windows_of(images, window) @ windows_of(images, window).T for images in lanes])

    assert torch.allclose(window_products(grams, window), expected)


@pytest.mark.parametrize("window", WINDOWS)
def test_the_way_back_to_pixels_is_the_transposed_one(window):
    pixels = window.images * window.height * window.width
    positions = window.images * window.size[0] * window.size[1]
    there, back = draw(2, pixels, pixels, seed=1), draw(2, positions, positions, seed=2)

    one = (window_products(there, window) * back).sum((1, 2))
    assert torch.allclose(one, (there * pixel_products(back, window)).sum((1, 2)))


SAME = Window(2, 4, 5, 3, 6, (3, 3), (1, 1), (1, 1))


@pytest.fixture(name="layer")
def a_layer():
    """Inputs, slopes of outputs and observed gradients of three lanes."""
    rows, columns = SAME.size
    inputs = draw(SAME.images, LANES * SAME.channels, SAME.height, SAME.width)
    slopes = draw(SAME.images, LANES * SAME.outputs, rows, columns, seed=1)
    observed = draw(LANES * SAME.outputs, SAME.channels, *SAME.kernel, seed=2)
    last = torch.channels_last
    return inputs.contiguous(memory_format=last), slopes.contiguous(memory_format=last), observed


def test_products_are_those_of_the_weight_gradient(layer):
    inputs, slopes, observed = layer
    dots, squares = lane_products(inputs, slopes, Constant(observed, SAME, lanes=LANES), SAME)

    for lane in range(LANES):
        weight = torch.zeros(SAME.outputs, SAME.channels, *SAME.kernel, dtype=torch.float64)
        weight.requires_grad_()
        outputs = F.conv2d(inputs.chunk(LANES, 1)[lane], weight, padding=1)
        (gradient,) = torch.autograd.grad(outputs, weight, slopes.chunk(LANES, 1)[lane])
        assert dots[lane].item() == pytest.approx((gradient * observed.chunk(LANES)[lane]).sum().item())
        assert squares[lane].item() == pytest.approx(gradient.square().sum().item())


def test_products_can_be_differentiated(layer):
    inputs, slopes, observed = layer
    constant = Constant(observed, SAME, lanes=LANES)

    def products(inputs, slopes):
        return lane_products(inputs, slopes, constant, SAME)

    assert torch.autograd.gradcheck(products, (inputs.requires_grad_(), slopes.requires_grad_()))


def test_rows_are_multiplied_as_they_are_one_by_one():
    rows, one, other = (draw(5, 40000, seed=seed) for seed in range(3))
    found = row_products(rows, [one, other])

    for products, fixed in zip(found, (one, other, rows), strict=True):
        assert torch.allclose(products, torch.stack([a @ b for a, b in zip(rows, fixed, strict=True)]))


def test_products_of_rows_can_be_differentiated():
    rows, one, other = (draw(4, 7, seed=seed) for seed in range(3))
    assert torch.autograd.gradcheck(lambda rows: row_products(rows, [one, other]), rows.requires_grad_())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("window", [w for w in WINDOWS if turns(w)])
def test_a_constant_convolution_is_that_of_every_lane(window, dtype):
    inputs = draw(window.images, 2 * window.channels, window.height, window.width, dtype=dtype)
    slopes = draw(window.images, 2 * window.outputs, *window.size, seed=1, dtype=dtype)
    weight = draw(2 * window.outputs, window.channels, *window.kernel, seed=2, dtype=dtype)
    bias = draw(2 * window.outputs, seed=3, dtype=dtype)
    constant = Constant(weight, window, lanes=2)

    inputs.requires_grad_()
    expected = F.conv2d(inputs, weight, bias, window.stride, window.padding, groups=2)
    (gradient,) = torch.autograd.grad(expected, inputs, slopes)
    assert torch.allclose(constant.forward(inputs.detach(), bias), expected, atol=1e-5)
    assert torch.allclose(constant.backward(slopes), gradient, atol=1e-5)


def test_rectifying_is_torchs_relu_twice_differentiated():
    inputs = torch.tensor([-1.5, -0.0, 0.0, 0.5, 2.0]).requires_grad_()
    along = draw(5, dtype=torch.float32).requires_grad_()

    def derivatives(function):
        outputs = function(inputs) ** 3
        (first,) = torch.autograd.grad(outputs, inputs, along, create_graph=True)
        second = torch.autograd.grad(first.square().sum(), (inputs, along))
        return outputs.detach(), first.detach(), *second

    for ours, torchs in zip(derivatives(rectify), derivatives(torch.relu), strict=True):
        assert torch.equal(ours, torchs)


class Small(nn.Module):
    """Two layers over many positions and two over few, one with a batch norm that scales a channel by 0."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 16, 3, 2, 1, bias=False),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.Conv2d(16, 16, 3, 2, 1),
            nn.ReLU(),
            nn.Conv2d(16, 32, 3, 1, 1, bias=False),
            nn.BatchNorm2d(32),
            nn.ReLU(),
            nn.Conv2d(32, 16, 3, 1, 1),
            nn.Tanh(),
        )
        self.head = nn.Linear(16, 4)

    def forward(self, images):
        return self.head(self.body(images).mean((2, 3)))


@pytest.fixture(name="small")
def a_small_model():
    generator = torch.Generator().manual_seed(0)
    model = Small().eval()
    with torch.no_grad():
        for tensor in model.state_dict().values():
            if tensor.is_floating_point():
                tensor.add_(torch.rand(tensor.shape, generator=generator), alpha=0.1)
        model.get_parameter("body.6.weight")[3] = 0
    return model


def test_gradients_are_not_formed_where_positions_are_few(small):
    program = Program(small, LANES)
    program.aim(0, {name: torch.zeros_like(tensor) for name, tensor in small.named_parameters()})
    program(torch.zeros(LANES, 1, 3, 16, 16))

    assert ["outputs" in layer.sources for layer in program.layers] == [False, False, True, True, False]


@pytest.mark.parametrize("images", [1, 2])
@pytest.mark.parametrize("cost", ["cosine", "cosine_per_tensor"])
def test_the_objective_is_autograds_where_gradients_are_not_formed(small, images, cost):
    names = tuple(name for name, _ in small.named_parameters())
    task = Task("multiclass", 4)
    spec = ObjectiveSpec(task, images, (3, 16, 16), names, names, cost, None, False, False, False)
    objective = LaneObjective(spec, Layers(small, LANES), LANES, torch.zeros(1))
    labels = torch.softmax(draw(images, 4, seed=9, dtype=torch.float32), 1)
    state = {name: tensor.detach() for name, tensor in small.state_dict().items()}
    observed = [
        {name: draw(*p.shape, seed=lane, dtype=torch.float32) for name, p in small.named_parameters()}
        for lane in range(LANES)
    ]
    for lane in range(LANES):
        objective.load(lane, Target(state, observed[lane], labels, 0.0, 1.0, None))
    values = draw(LANES, spec.variables, seed=5, dtype=torch.float32)
    evaluated = objective.evaluate(values)

    for lane in range(LANES):
        inputs = values[lane, : spec.pixels].view(images, 3, 16, 16).requires_grad_()
        loss = task_loss(task, small(inputs), labels)
        gradients = torch.autograd.grad(loss, list(small.parameters()), create_graph=True)
        total = expected(dict(zip(names, gradients, strict=True)), observed[lane], cost)
        (gradient,) = torch.autograd.grad(total, inputs)
        assert evaluated.total[lane].item() == pytest.approx(total.item(), rel=1e-5, abs=1e-6)
        error = evaluated.gradients[lane, : spec.pixels].view_as(gradient) - gradient
        assert error.norm() <= 1e-4 * gradient.norm()


def expected(gradients, observed, cost):
    def cosine(names):
        ours, theirs = (torch.cat([t[name].flatten() for name in names]) for t in (gradients, observed))
        return 1 - torch.cosine_similarity(ours, theirs, 0)

    return cosine(list(observed)) if cost == "cosine" else sum(cosine([name]) for name in observed)
