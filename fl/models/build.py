"""From a model's name and configuration to a module with weights, and back to the state that is sent."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal

from fl.cards import DataInfo
from fl.errors import UsageError
from fl.models.catalog import MODELS
from fl.specs import BatchNormMode, Plugin
from fl.types import Architecture, ImageSpec, ModelState, Wrapper

if TYPE_CHECKING:
    import torch
    from torch import nn

    from fl.models.base import Classifier
    from fl.seeds import Streams

    Wrap = Callable[[Wrapper, nn.Module], nn.Module]

Freeze = Literal["none", "batch_norm", "all_but_last", "middle"]


def architecture(plugin: Plugin, info: DataInfo, wrappers: Sequence[Wrapper] = ()) -> Architecture:
    """Return what rebuilds `plugin` as a classifier of the images that `info` describes.

    Raises:
        UsageError: If the model cannot take such images.
    """
    traits = MODELS.get(plugin.name).traits(plugin.config, info)
    if info.size < traits.min_size:
        raise UsageError(
            f"expected images of at least {traits.min_size} px for model {plugin.name!r}, "
            f"got {info.size} px; choose a larger size for the data set or another model"
        )
    if traits.channels is not None and info.channels not in traits.channels:
        raise UsageError(
            f"expected images of {' or '.join(map(str, traits.channels))} channels "
            f"for model {plugin.name!r}, got {info.channels}; choose another data set or model"
        )
    return Architecture(
        name=plugin.name,
        config=plugin.config.resolved(),
        image=ImageSpec(info.channels, info.size, info.mean, info.std),
        outputs=info.task.outputs,
        wrappers=tuple(wrappers),
    )


def initial_state(
    architecture: Architecture,
    *,
    streams: Streams,
    freeze: Freeze,
    batch_norm: BatchNormMode,
    wrap: Wrap | None = None,
) -> ModelState:
    """Return the model of round 0, drawn from the stream `initial_weights`.

    The classifier's own weights do not depend on wrappers. What a wrapper adds is drawn from a stream that
    also names it: convolution, linear and normalisation layers as PyTorch does by default; other parameters
    stay as they were built and so must be constants.

    Raises:
        UnknownPluginError: If no model has that name.
        UsageError: If the model leaves a parameter of its own without initial weights.
    """
    from fl.models.initialise import pytorch_default

    model = _bare(architecture)
    _initialise(model, streams.torch("initial_weights"))
    module: nn.Module = model
    for wrapper in architecture.wrappers:
        present = set(module.modules())
        module = _wrapped(module, wrapper, wrap)
        generator = streams.torch("initial_weights", wrapper=wrapper.name)
        for added in module.modules():
            if added not in present:
                pytorch_default(added, generator)
    return ModelState(
        architecture=architecture,
        tensors={name: tensor.detach() for name, tensor in module.state_dict().items()},
        trainable=trainable_names(module, freeze),
        batch_norm=batch_norm,
    )


def materialise(
    state: ModelState, *, device: torch.device | str = "cpu", wrap: Wrap | None = None
) -> nn.Module:
    """Return the module with the state's weights, wrappers included, in the state's mode.

    Only trainable parameters require gradients. The tensors are copied.

    Args:
        state: The model.
        device: Where the module goes.
        wrap: Applies one of the architecture's wrappers (a defense's `wrap_model`); needed if there are any.

    Raises:
        UnknownPluginError: If no model has that name.
        RuntimeError: If names or shapes of the tensors are not those of the architecture.
    """
    module = build(state.architecture, wrap)
    module.load_state_dict(dict(state.tensors))
    trainable = set(state.trainable)
    for name, parameter in module.named_parameters():
        parameter.requires_grad_(name in trainable)
    return module.to(device).train(state.batch_norm == "train")


def build(architecture: Architecture, wrap: Wrap | None = None) -> nn.Module:
    """Return the module with arbitrary weights; the global random generator is left as it was.

    Raises:
        UnknownPluginError: If no model has that name.
    """
    module: nn.Module = _bare(architecture)
    for wrapper in architecture.wrappers:
        module = _wrapped(module, wrapper, wrap)
    return module


def trainable_names(module: nn.Module, freeze: Freeze) -> tuple[str, ...]:
    """Return the names of the parameters that clients train, in the module's order.

    `none`: all; `batch_norm`: all but the affine parameters of batch norm; `all_but_last`: the head's;
    `middle`: the first convolution's and the head's.
    """
    from torch import nn

    modules = list(module.modules())
    if freeze == "none":
        kept = modules
    elif freeze == "batch_norm":
        kept = [m for m in modules if not isinstance(m, nn.modules.batchnorm._BatchNorm)]
    else:
        kept = [module.get_submodule("head")]
        if freeze == "middle":
            kept += [m for m in modules if isinstance(m, nn.modules.conv._ConvNd)][:1]
    trained = {id(p) for m in kept for p in m.parameters(recurse=False)}
    return tuple(name for name, p in module.named_parameters() if id(p) in trained)


def _bare(architecture: Architecture) -> Classifier:
    import torch

    card = MODELS.get(architecture.name)
    image = architecture.image
    with torch.random.fork_rng(devices=[]):
        model: Classifier = MODELS.implementation(card.name)(
            card.config.model_validate(dict(architecture.config)), image, architecture.outputs
        )
    return model


def _wrapped(module: nn.Module, wrapper: Wrapper, wrap: Wrap | None) -> nn.Module:
    import torch

    if wrap is None:
        raise ValueError(f"expected `wrap` for an architecture with wrapper {wrapper.name!r}, got None")
    with torch.random.fork_rng(devices=[]):
        return wrap(wrapper, module)


def _initialise(model: Classifier, generator: torch.Generator) -> None:
    import torch
    from torch import nn

    for parameter in model.parameters():
        nn.init.constant_(parameter, torch.nan)
    model.initialise(generator)
    for name, parameter in model.named_parameters():
        if parameter.isnan().any():
            raise UsageError(
                f"expected {type(model).__name__}.initialise to draw every parameter, got none for {name!r}"
            )
