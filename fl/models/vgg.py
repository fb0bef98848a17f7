"""VGG-16 (Simonyan and Zisserman 2015, arXiv 1409.1556, configuration D), from torchvision's layers."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torchvision.models import vgg

from fl.models.base import Classifier, out_of_place
from fl.models.imagenet_cards import VGG_SMALLEST, VGG_WIDTHS, VGG16Config
from fl.models.initialise import kaiming_normal, normal, pytorch_default
from fl.models.pretrained import load_weights, read_weights
from fl.types import ImageSpec

_HIDDEN_NAMES = {"classifier.0": "hidden.linear1", "classifier.3": "hidden.linear2"}


class VGG16(Classifier):
    """Five stages of 3x3 convolutions and max-pools, an averaged map, hidden linear layers if wanted, a head.

    Without dropout, which the published hidden layers have: an update is a function of its batch.
    """

    def __init__(self, config: VGG16Config, image: ImageSpec, outputs: int) -> None:
        super().__init__()
        self._config = config
        layout = [layer for stage in VGG_WIDTHS for layer in (*stage, "M")]
        self.body: nn.Sequential = vgg.make_layers(layout, batch_norm=config.batch_norm)
        self.body[0] = nn.Conv2d(image.channels, VGG_WIDTHS[0][0], 3, padding=1)
        if image.size < 2 * VGG_SMALLEST:
            self.body[-1] = nn.MaxPool2d(2, ceil_mode=True)  # keeps the one pixel that is left
        self.pool = nn.AdaptiveAvgPool2d(config.pooled)
        hidden: OrderedDict[str, nn.Module] = OrderedDict()
        if config.hidden:
            hidden["linear1"] = nn.Linear(config.features, config.hidden)
            hidden["relu1"] = nn.ReLU()
            hidden["linear2"] = nn.Linear(config.hidden, config.hidden)
            hidden["relu2"] = nn.ReLU()
        self.hidden = nn.Sequential(hidden)
        self.head = nn.Linear(config.hidden or config.features, outputs)
        out_of_place(self)

    def features(self, x: Tensor) -> Tensor:
        """Return the averaged map, flattened, or the last hidden activation."""
        features: Tensor = self.hidden(self.pool(self.body(x)).flatten(1))
        return features

    @property
    def blocks(self) -> Mapping[str, nn.Module]:
        """The max-pools that end the stages, and the hidden activations."""
        pools = [layer for layer in self.body if isinstance(layer, nn.MaxPool2d)]
        hidden = {name: layer for name, layer in self.hidden.named_children() if name.startswith("relu")}
        return {**{f"pool{stage}": pool for stage, pool in enumerate(pools, start=1)}, **hidden}

    @property
    def cam_layer(self) -> nn.Module:
        """The last activation before the last max-pool."""
        return self.body[-2]

    def initialise(self, generator: torch.Generator) -> None:
        """Draw as torchvision does, or take its weights; the head is drawn in any case.

        Convolutions from N(0, 2/fan_out), linear layers from N(0, 0.01^2), biases zero.
        """
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                kaiming_normal(module.weight, generator, fan="out")
            elif isinstance(module, nn.Linear):
                normal(module.weight, generator, std=0.01)
            else:
                pytorch_default(module, generator)
                continue
            assert module.bias is not None
            nn.init.zeros_(module.bias)
        if self._config.weights != "none":
            load_weights(self, self._pretrained(), self._renamed)

    def _pretrained(self) -> Mapping[str, Tensor]:
        name = "vgg16_bn-imagenet" if self._config.batch_norm else "vgg16-imagenet"
        convolutions = [f"features.{i}" for i, m in enumerate(self.body) if isinstance(m, nn.Conv2d)]
        return read_weights(name, convolutions=None if self._config.hidden else convolutions)

    def _renamed(self, name: str) -> str | None:
        layer, _, tensor = name.rpartition(".")
        if name.startswith("features."):
            return name.replace("features.", "body.", 1)
        if self._config.hidden and layer in _HIDDEN_NAMES:
            return f"{_HIDDEN_NAMES[layer]}.{tensor}"
        return None
