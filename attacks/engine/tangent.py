"""The exact derivative of gradient matching by hand: two passes for the gradient, two for its tangent.

For a cost D of the weights' gradient g(x) and v = dD/dg, dD/dx = d/de of dL/dx at weights W + e v, e = 0,
since derivatives commute: a forward and a backward pass give g, and their tangents along v the image
gradient. Nothing here asks autograd to differentiate twice but the loss, so that each layer computes in its
own way (`attacks.engine.direct`, `attacks.engine.winograd`), and for costs of <g, g*> and |g|^2 alone need
not even form its gradient. Lanes are computed one after the other: this is for models that fill a core by
themselves.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from itertools import product
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.fx.node import map_arg
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from attacks.engine.filters import Part, Scratch
from attacks.engine.graphs import UnsupportedModelError, check_convolution, traced
from attacks.engine.losses import lane_losses
from attacks.engine.passes import Linear, MaxPool, Rectifier, Step, Sum
from attacks.engine.products import Products
from attacks.engine.weighted import Layer, Norm, Weighted
from fl.batch_norm import Moments
from fl.specs import Task
from fl.types import Tensors

if TYPE_CHECKING:
    from torch.fx import Node

_LINEAR_MODULES = (nn.AdaptiveAvgPool2d, nn.AvgPool2d, nn.Flatten, nn.Identity)
_LINEAR_FUNCTIONS: frozenset[Callable[..., Any]] = frozenset(
    {F.adaptive_avg_pool2d, F.avg_pool2d, operator.getitem, torch.cat, torch.flatten}
)
_LINEAR_METHODS = frozenset({"flatten", "mean"})


class TangentPasses:
    """Lanes' gradients, or what a cosine takes of them, differentiable in inputs and labels.

    Args:
        model: The model.
        lanes: B.
        watched: Whether moments are kept.

    Raises:
        UnsupportedModelError: If the model has an operation that is neither linear nor a kink, such as a
            smooth activation, or batch norm in train mode.
    """

    def __init__(self, model: nn.Module, lanes: int, *, watched: bool = False) -> None:
        own = {name: tensor.detach() for name, tensor in model.state_dict().items()}
        self._watched, self._moments = watched, dict[str, Moments]()
        self._lanes = [_Lane(model) for _ in range(lanes)]
        for lane in self._lanes:
            lane.tensors = own

    @property
    def moments(self) -> Mapping[str, Moments]:
        """Of what batch norms took in at the last evaluation, by layer, `B x C`, with a graph."""
        return self._moments

    def load(self, lane: int, tensors: Tensors) -> None:
        """Give a lane its weights."""
        self._lanes[lane].tensors, self._lanes[lane].observed = tensors, {}
        self._lanes[lane].stale = True

    def aim(self, lane: int, observed: Tensors) -> None:
        """Give a lane the observed gradient that `products` are with."""
        self._lanes[lane].observed = observed
        self._lanes[lane].stale = True

    def gradients(self, inputs: Tensor, labels: Tensor, task: Task, names: Sequence[str]) -> Tensors:
        """Return lanes' gradients."""
        context = Context(self._lanes, task, names, self._watched)
        computed: tuple[Tensor, ...] = _Gradients.apply(inputs, labels, context)
        self._keep(computed[len(names) :])
        return dict(zip(names, computed, strict=False))

    def products(self, inputs: Tensor, labels: Tensor, task: Task, names: Sequence[str]) -> Products:
        """Return the inner products of lanes' gradients in the named parameters."""
        context = Context(self._lanes, task, names, self._watched)
        dots, squares, *moments = _Products.apply(inputs, labels, context)
        self._keep(moments)
        return Products(
            dict(zip(names, dots.unbind(1), strict=True)), dict(zip(names, squares.unbind(1), strict=True))
        )

    def _keep(self, rows: Sequence[Tensor]) -> None:
        norms = self._lanes[0].norms if self._watched else []
        self._moments = {norm.name: Moments(*rows[2 * i : 2 * i + 2]) for i, norm in enumerate(norms)}


class _Lane:
    """A model's steps, with weights and an observed gradient.

    Attributes:
        tensors: The model's parameters and buffers.
        observed: The observed gradient by name.
        stale: Whether they are not yet what the steps hold.
        norms: The batch norms.
    """

    def __init__(self, model: nn.Module) -> None:
        graph = traced(model)
        modules = dict(model.named_modules())
        self.tensors: Tensors = {}
        self.observed: Tensors = {}
        self.stale = True
        self._steps: dict[Node, Step] = {}
        scratch = Scratch()
        self._moving: set[Node] = set()
        for node in graph.nodes:
            if node.op == "placeholder":
                self._source = node
            elif node.op == "output":
                (self._last,) = node.all_input_nodes
            else:
                step = _step(node, modules, scratch)
                if isinstance(step, Layer) and any(node.target == other.target for other in self._steps):
                    raise UnsupportedModelError(f"{node.target!r} is used twice")
                self._steps[node] = step
                if isinstance(step, Layer) or any(source in self._moving for source in node.all_input_nodes):
                    self._moving.add(node)
        self._layers = [step for step in self._steps.values() if isinstance(step, Layer)]
        self.norms = [step for step in self._layers if isinstance(step, Norm)]

    def part(self, name: str) -> Part:
        """Return a parameter."""
        return self._parts[name]

    def primal(self, inputs: Tensor, labels: Tensor, task: Task) -> None:
        """Do the first two passes on `n x C x H x W` and `n x outputs`."""
        if self.stale:
            for layer in self._layers:
                layer.load(self.tensors, self.observed)
            self.stale = False
        values = {self._source: inputs.contiguous(memory_format=torch.channels_last)}
        for node, step in self._steps.items():
            values[node] = step.forward(*(values[source] for source in node.all_input_nodes))
        self._parts = {name: part for layer in self._layers for name, part in layer.parts.items()}
        with torch.enable_grad():
            self._logits = values[self._last].detach().requires_grad_()
            self._labels = labels.detach().requires_grad_()
            loss = lane_losses(task, self._logits.unsqueeze(0), self._labels.unsqueeze(0))
            (self._to_logits,) = torch.autograd.grad(loss.sum(), self._logits, create_graph=True)
        gradients = {self._last: self._to_logits.detach()}
        for node, step in reversed(self._steps.items()):
            if node not in self._moving:
                continue
            wanted = any(source in self._moving for source in node.all_input_nodes)
            found = step.backward(gradients.pop(node), wanted=wanted)
            for source, gradient in zip(node.all_input_nodes, found, strict=True):
                if gradient is not None and source in self._moving:
                    gradients[source] = gradient if source not in gradients else gradients[source] + gradient

    def tangent(self) -> tuple[Tensor, Tensor]:
        """Do the other two along the parts' directions; return the derivatives in inputs and labels."""
        tangents: dict[Node, Tensor | None] = {self._source: None}
        for node, step in self._steps.items():
            tangents[node] = step.tangent(*(tangents[source] for source in node.all_input_nodes))
        moved = tangents[self._last]
        moved = torch.zeros_like(self._logits) if moved is None else moved
        variables = [self._logits, self._labels]
        to_logits, to_labels = torch.autograd.grad(self._to_logits, variables, moved, materialize_grads=True)
        gradients = {self._last: to_logits}
        for node, step in reversed(self._steps.items()):
            found = step.tangent_backward(gradients.pop(node))
            for source, gradient in zip(node.all_input_nodes, found, strict=True):
                gradients[source] = gradient if source not in gradients else gradients[source] + gradient
        return gradients[self._source], to_labels


class Context(NamedTuple):
    """What is computed: whose gradients of which loss in which parameters, and whether moments as well."""

    lanes: Sequence[_Lane]
    task: Task
    names: Sequence[str]
    watched: bool

    def primal(self, inputs: Tensor, labels: Tensor) -> tuple[Tensor, ...]:
        """Do the first two passes in all lanes; return the norms' means and variances, `B x C`."""
        for i, lane in enumerate(self.lanes):
            lane.primal(inputs[i], labels[i], self.task)
        if not self.watched:
            return ()
        rows = ([moment for norm in lane.norms for moment in norm.moments()] for lane in self.lanes)
        return tuple(torch.stack(moments) for moments in zip(*rows, strict=True))

    def tangent(self, to_moments: Sequence[Tensor]) -> tuple[Tensor, Tensor, None]:
        """Do the other two along the parts' directions; return the derivatives for inputs and labels."""
        found = []
        for i, lane in enumerate(self.lanes):
            if self.watched:
                for j, norm in enumerate(lane.norms):
                    norm.draw(to_moments[2 * j][i], to_moments[2 * j + 1][i])
            found.append(lane.tangent())
        to_inputs, to_labels = (torch.stack(rows) for rows in zip(*found, strict=True))
        return to_inputs, to_labels, None


class _Products(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, inputs: Tensor, labels: Tensor, context: Context) -> tuple[Tensor, ...]:
        ctx.context = context
        lanes, names = context.lanes, context.names
        moments = context.primal(inputs, labels)
        nothing = inputs.new_zeros(())
        found: list[Tensor] = []
        for lane, name in product(lanes, names):
            aimed = name in lane.observed
            found += lane.part(name).products() if aimed else (nothing, nothing)
        dots, squares = torch.stack(found).view(len(lanes), len(names), 2).unbind(2)
        return dots.contiguous(), squares.contiguous(), *moments

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        context: Context = ctx.context
        to_dots, to_squares = (gradient.tolist() for gradient in gradients[:2])
        for i, lane in enumerate(context.lanes):
            along = zip(context.names, to_dots[i], to_squares[i], strict=True)
            for name, along_observed, along_square in along:
                if name in lane.observed:
                    lane.part(name).turn(along_observed, 2 * along_square)
        return context.tangent(gradients[2:])


class _Gradients(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, inputs: Tensor, labels: Tensor, context: Context) -> tuple[Tensor, ...]:
        ctx.context = context
        moments = context.primal(inputs, labels)
        gradients = (
            torch.stack([lane.part(name).gradient for lane in context.lanes]) for name in context.names
        )
        return *gradients, *moments

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        context: Context = ctx.context
        for i, lane in enumerate(context.lanes):
            for name, rows in zip(context.names, gradients, strict=False):
                lane.part(name).turn_to(rows[i])
        return context.tangent(gradients[len(context.names) :])


def _step(node: Node, modules: dict[str, nn.Module], scratch: Scratch) -> Step:
    if node.op == "call_module":
        return _module_step(str(node.target), modules[str(node.target)], scratch)
    if node.target in (F.relu, torch.relu, "relu"):
        return Rectifier(0.0)
    if node.target in (operator.add, torch.add) and len(node.all_input_nodes) == 2 and not node.kwargs:
        return Sum()
    linear = node.target in (_LINEAR_FUNCTIONS if node.op == "call_function" else _LINEAR_METHODS)
    pads = node.target is F.pad and node.kwargs.get("value") in (None, 0) and len(node.args) < 4
    if linear or pads:
        return Linear(_call(node))
    raise UnsupportedModelError(f"{node.format_node()} is not known to be linear")


def _module_step(name: str, module: nn.Module, scratch: Scratch) -> Step:
    if isinstance(module, nn.Conv2d | nn.Linear):
        if isinstance(module, nn.Conv2d):
            check_convolution(name, module)
        return Weighted(name, module, scratch)
    if isinstance(module, _BatchNorm) and not module.training and module.running_mean is not None:
        return Norm(name, module)
    if isinstance(module, nn.ReLU | nn.LeakyReLU):
        return Rectifier(module.negative_slope if isinstance(module, nn.LeakyReLU) else 0.0)
    if isinstance(module, nn.MaxPool2d):
        return MaxPool(module)
    if type(module) in _LINEAR_MODULES or (isinstance(module, nn.Dropout) and not module.training):
        return Linear(module)
    raise UnsupportedModelError(f"{name!r} is a {type(module).__name__}")


def _call(node: Node) -> Callable[..., Tensor]:
    """Return the node's operation as a function of the nodes that it takes."""

    def call(*tensors: Tensor) -> Tensor:
        given = dict(zip(node.all_input_nodes, tensors, strict=True))
        args, kwargs = map_arg((node.args, node.kwargs), given.__getitem__)
        if node.op == "call_method":
            result: Tensor = getattr(args[0], str(node.target))(*args[1:], **kwargs)
        else:
            assert callable(node.target)
            result = node.target(*args, **kwargs)
        return result

    return call
