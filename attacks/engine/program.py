"""From a model to a program over lanes: the same graph, with the lanes' channels side by side.

Where a model computes `n x C x H x W` its program computes `n x (B C) x H x W`. Only operations that are
known to treat every channel alone are taken as they are, a few that join or pad channels are done lane by
lane, and a model with any other is refused, so that lanes cannot leak into each other.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from attacks.engine.conv_layer import LaneConv2d
from attacks.engine.graphs import UnsupportedModelError, check_convolution, traced
from attacks.engine.layers import LaneBatchNorm, LaneLayer, LaneLinear
from attacks.engine.products import Product, Products
from attacks.engine.rectify import rectify_all
from attacks.engine.replay import Replayed, replace_kinks
from attacks.engine.sums import spatial_mean
from fl.batch_norm import Moments
from fl.types import Tensors

if TYPE_CHECKING:
    from torch.fx import Node

_MODULES: tuple[type[nn.Module], ...] = (
    nn.AdaptiveAvgPool2d,
    nn.AvgPool2d,
    nn.ELU,
    nn.Flatten,
    nn.GELU,
    nn.Identity,
    nn.LeakyReLU,
    nn.MaxPool2d,
    nn.ReLU,
    nn.SiLU,
    nn.Sigmoid,
    nn.Softplus,
    nn.Tanh,
)
_FUNCTIONS: frozenset[Callable[..., Any]] = frozenset(
    {
        F.adaptive_avg_pool2d,
        F.avg_pool2d,
        F.leaky_relu,
        F.max_pool2d,
        F.pad,
        F.relu,
        F.silu,
        operator.add,
        operator.mul,
        torch.add,
        torch.flatten,
        torch.relu,
        torch.sigmoid,
        torch.tanh,
    }
)
_METHODS = frozenset({"relu", "sigmoid", "tanh"})


class Program:
    """A model with a row of parameters for each lane.

    Args:
        model: The model, in the mode to compute in.
        lanes: B.
        replayed: Whether kinks can be made to take the side they took before, for `Difference`; parameters
            are then differentiated in once, without a graph.
        watch: Whether the moments of what batch norms take in are kept, which are then not folded.

    Raises:
        UnsupportedModelError: If an operation is not known to treat images alone, or has kinks that cannot be
            replayed where they must.
    """

    def __init__(self, model: nn.Module, lanes: int, *, replayed: bool = False, watch: bool = False) -> None:
        self.lanes = lanes
        self._graph_module, self._layers = _translate(model, lanes, fold=not watch)
        for layer in self._layers:
            layer.watched = watch
        self._kinks: list[Replayed] = []
        if replayed:
            self._kinks = replace_kinks(self._graph_module)
            for layer in self._layers:
                layer.once = True
        else:
            rectify_all(self._graph_module)

    def load(self, lane: int, tensors: Tensors) -> None:
        """Give a lane the parameters and buffers of a model's state."""
        for layer in self._layers:
            layer.load(lane, tensors)

    def __call__(self, inputs: Tensor) -> Tensor:
        """Return logits, `B x n x outputs`, for normalised images, `B x n x C x H x W`."""
        lanes, images = inputs.shape[:2]
        beside = inputs.transpose(0, 1).flatten(1, 2).contiguous(memory_format=torch.channels_last)
        logits: Tensor = self._graph_module(beside)
        return logits.view(images, lanes, -1).transpose(0, 1)

    @property
    def moments(self) -> dict[str, Moments]:
        """Of what batch norms took in, by the model's names, `B x C`, with a graph, where watched."""
        norms = [layer for layer in self._layers if isinstance(layer, LaneBatchNorm)]
        return {norm.name: norm.moments for norm in norms if norm.moments is not None}

    @property
    def layers(self) -> Sequence[LaneLayer]:
        """Those with parameters, in the model's order."""
        return self._layers

    @property
    def leaves(self) -> list[Tensor]:
        """What is multiplied with, the tensors to differentiate in."""
        return [leaf for layer in self._layers for leaf in layer.leaves.values()]

    def rows(self, leaf: Tensor) -> Tensor:
        """View a leaf or its gradient with B rows."""
        return leaf.view(self.lanes, -1, *leaf.shape[1:])

    def named(self, gradients: Sequence[Tensor]) -> Tensors:
        """Turn gradients of `leaves` into those of the parameters, by the model's names, each with B rows."""
        found: dict[str, Tensor] = {}
        rest = iter(gradients)
        for layer in self._layers:
            found |= layer.gradients({name: next(rest) for name in layer.leaves})
        return found

    def gradients(self, loss: Tensor, names: Sequence[str]) -> Tensors:
        """Return the gradients of lanes' losses, summed to a scalar, in the named parameters.

        Each has B rows and a graph. A parameter that the loss does not depend on has gradient 0.
        """
        computed = torch.autograd.grad(loss, self.leaves, create_graph=True, materialize_grads=True)
        found = self.named(computed)
        return {name: found[name] for name in names}

    def aim(self, lane: int, observed: Tensors) -> None:
        """Give a lane the observed gradient that `products` are with."""
        for layer in self._layers:
            layer.aim(lane, observed)

    def products(self, loss: Tensor, names: Sequence[str]) -> Products:
        """Return the inner products of what `gradients` returns."""
        sources = [source for layer in self._layers for source in layer.sources.values()]
        computed = iter(torch.autograd.grad(loss, sources, create_graph=True, materialize_grads=True))
        found: dict[str, Product] = {}
        for layer in self._layers:
            found |= layer.products({name: next(computed) for name in layer.sources})
        return Products({n: found[n].dot for n in names}, {n: found[n].square for n in names})

    def replay(self, replaying: bool) -> None:
        """Make kinks take the sides they took in the last evaluation, or choose anew."""
        for kink in self._kinks:
            kink.replaying = replaying

    @contextmanager
    def moved(self, directions: Sequence[Tensor], step: Tensor) -> Iterator[None]:
        """Move the leaves along directions, by each lane's step, for the time of a `with`."""
        kept = [dict(layer.leaves) for layer in self._layers]
        rest = iter(directions)
        with torch.no_grad():
            for layer in self._layers:
                for name, leaf in layer.leaves.items():
                    rows, direction = self.rows(leaf), self.rows(next(rest))
                    over = step.view(-1, *[1] * (rows.ndim - 1))
                    layer.leaves[name] = torch.addcmul(rows, over, direction).view(leaf.shape)
        try:
            yield
        finally:
            for layer, leaves in zip(self._layers, kept, strict=True):
                layer.leaves = leaves


def _translate(model: nn.Module, lanes: int, *, fold: bool) -> tuple[fx.GraphModule, list[LaneLayer]]:
    graph = traced(model)
    modules = dict(model.named_modules())
    norms = _fold(graph, modules) if fold else {}
    replaced: dict[str, nn.Module] = {}
    for node in graph.nodes:
        if node.op == "call_module":
            name = str(node.target)
            if isinstance(replaced.get(name), LaneLayer):
                raise UnsupportedModelError(f"{name!r} is used twice")
            stem = any(source.op == "placeholder" for source in node.all_input_nodes)
            replaced[name] = _replacement(name, modules, lanes, norm=norms.get(node), stem=stem)
        elif node.op not in ("placeholder", "output"):
            _adapt(node, lanes)
    layers = [module for module in replaced.values() if isinstance(module, LaneLayer)]
    return fx.GraphModule(replaced, graph), layers


def _fold(graph: fx.Graph, modules: dict[str, nn.Module]) -> dict[Node, str]:
    """Take out every batch norm in eval mode behind a convolution; return its name by the convolution."""
    folded: dict[Node, str] = {}
    for node in list(graph.nodes):
        if node.op != "call_module" or not isinstance(modules[str(node.target)], _BatchNorm):
            continue
        source = node.args[0]
        is_conv = source.op == "call_module" and isinstance(modules[str(source.target)], nn.Conv2d)
        if is_conv and len(source.users) == 1 and not modules[str(node.target)].training:
            folded[source] = str(node.target)
            node.replace_all_uses_with(source)
            graph.erase_node(node)
    return folded


def _replacement(
    name: str, modules: dict[str, nn.Module], lanes: int, *, norm: str | None, stem: bool
) -> nn.Module:
    module = modules[name]
    if isinstance(module, nn.Linear):
        return LaneLinear(name, module, lanes)
    if isinstance(module, nn.Conv2d):
        check_convolution(name, module)
        behind = modules[norm] if norm is not None else None
        return LaneConv2d(
            name,
            module,
            lanes,
            norm=(norm, behind) if norm is not None and isinstance(behind, _BatchNorm) else None,
            stem=stem,
        )
    if isinstance(module, _BatchNorm):
        if not module.training and module.running_mean is None:
            raise UnsupportedModelError(f"{name!r} has no running statistics")
        return LaneBatchNorm(name, module, lanes)
    if type(module) in _MODULES or (isinstance(module, nn.Dropout) and not module.training):
        return module
    raise UnsupportedModelError(f"{name!r} is a {type(module).__name__}")


def _adapt(node: Node, lanes: int) -> None:
    """Take an operation as it is, have it done lane by lane, or refuse it."""
    if node.target is F.pad and len(node.args[1]) == 6 and _pads_with_zeros(node):  # type: ignore[arg-type]
        node.target, node.args, node.kwargs = _pad_channels, (*node.args[:2], lanes), {}
    elif node.target is torch.cat and _axes(node) == (1,):
        node.target, node.args, node.kwargs = _join_channels, (node.args[0], lanes), {}
    elif node.target == "mean" and sorted(_axes(node)) == [2, 3] and not node.kwargs.get("keepdim"):
        node.op, node.target, node.args, node.kwargs = "call_function", spatial_mean, node.args[:1], {}
    elif not _treats_channels_alone(node):
        raise UnsupportedModelError(f"{node.format_node()} is not known to treat every channel alone")


def _treats_channels_alone(node: Node) -> bool:
    if node.op == "call_function" and node.target is operator.getitem:
        index = node.args[1]
        return isinstance(index, tuple) and len(index) > 2 and index[:2] == (slice(None), slice(None))
    if node.target in ("flatten", torch.flatten):
        return _axes(node) == (1,)
    if node.target is F.pad:
        return len(node.args[1]) <= 4  # type: ignore[arg-type]
    return (node.op == "call_function" and node.target in _FUNCTIONS) or (
        node.op == "call_method" and node.target in _METHODS
    )


def _pads_with_zeros(node: Node) -> bool:
    return bool(node.kwargs.get("mode", "constant") == "constant" and node.kwargs.get("value") in (None, 0))


def _axes(node: Node) -> tuple[int, ...]:
    """Return the axes that an operation reduces or joins, or flattens from."""
    keyword = "start_dim" if node.target in ("flatten", torch.flatten) else "dim"
    given: Any = node.kwargs.get(keyword, node.args[1] if len(node.args) > 1 else 0)
    return tuple(given) if isinstance(given, tuple | list) else (int(given),)


def _pad_channels(images: Tensor, pads: Sequence[int], lanes: int) -> Tensor:
    """Pad `n x (B C) x H x W` with zeros in all of C, H, W, `pads` as in `torch.nn.functional.pad`."""
    return _beside(F.pad(_by_lane(images, lanes), (*pads[4:], 0, 0, *pads[:4])))


def _join_channels(parts: Sequence[Tensor], lanes: int) -> Tensor:
    """Join each lane's channels of several `n x (B C_i) x H x W`."""
    return _beside(torch.cat([_by_lane(part, lanes) for part in parts], 4))


def _by_lane(images: Tensor, lanes: int) -> Tensor:
    """View `n x (B C) x H x W`, channels last, as `n x H x W x B x C`."""
    last = images.permute(0, 2, 3, 1)
    return last.reshape(*last.shape[:3], lanes, -1)


def _beside(images: Tensor) -> Tensor:
    """View `n x H x W x B x C` as `n x (B C) x H x W`, channels last."""
    return images.flatten(3, 4).permute(0, 3, 1, 2)
