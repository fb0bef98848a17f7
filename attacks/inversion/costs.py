"""What it takes to train a GAN with the attacked model, counted without torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

from fl.cards import DataInfo, Work
from fl.generators.costs import FORWARD, THROUGH, TRAINED, generator_mflop
from fl.generators.layout import Layout
from fl.models.costs import conv_mflop, linear_mflop

if TYPE_CHECKING:
    from attacks.inversion.cards_kedmi import KedmiGanConfig
    from attacks.inversion.cards_plgmi import PlgmiGanConfig

_SMALLEST = 4

COMPARED = 150
"""What it costs to compare two entries of minibatch discrimination, in operations of a convolution.

Few as they are, each goes through memory several times: forward and back took 12 ns on one core, in which a
convolution of a batch does about 500 operations.
"""


class World(NamedTuple):
    """What a GAN is trained with.

    Attributes:
        data: Whose images it draws.
        public: Images to train on.
        attacked_mflop: Cost of the attacked model's forward pass on one image.
    """

    data: DataInfo
    public: int
    attacked_mflop: float


WorkOf = Callable[[World], Work]


def kedmi_work(config: KedmiGanConfig, world: World) -> Work:
    """Return what it takes to train KED-MI's GAN (`attacks.inversion.kedmi_gan`)."""
    data = world.data
    layout = Layout(config.architecture, data.channels, data.size, config.latent, config.width)
    generator, features = generator_mflop(layout), kedmi_critic_mflop(config, data)
    critic = features + 1e-6 * COMPARED * config.batch_size * config.kernels * config.kernel_dimensions
    turns = config.steps // config.critic_steps
    told = generator * FORWARD + critic * 3 * TRAINED
    drawn = generator * TRAINED + features * FORWARD + critic * THROUGH
    images = config.batch_size * (config.steps * told + turns * drawn)
    return Work(images + world.public * world.attacked_mflop, config.steps + turns)


def plgmi_work(config: PlgmiGanConfig, world: World) -> Work:
    """Return what it takes to train PLG-MI's GAN (`attacks.inversion.plgmi_gan`)."""
    data, classes = world.data, world.data.task.outputs
    layout = Layout("upsampling", data.channels, data.size, config.latent, config.width, classes=classes)
    generator, critic = generator_mflop(layout), plgmi_critic_mflop(config, data)
    told = generator * FORWARD + critic * 2 * TRAINED
    drawn = generator * TRAINED + (world.attacked_mflop + critic) * THROUGH
    images = config.batch_size * config.steps * (config.critic_steps * told + drawn)
    evaluations = config.steps * (config.critic_steps + 1)
    return Work(images + world.public * world.attacked_mflop, evaluations)


def kedmi_critic_mflop(config: KedmiGanConfig, data: DataInfo) -> float:
    """Return the cost of judging one image, but for its likeness to the rest of the batch."""
    sides = [data.size]
    while sides[-1] > _SMALLEST:
        sides.append((sides[-1] + 1) // 2)
    maps = _widening(data.channels, config.width, blocks=len(sides) - 1, most=8)
    mflop = 0.0
    for (inputs, outputs), side in zip(pairwise(maps), sides[1:], strict=True):
        mflop += conv_mflop(inputs, outputs, 5, side)
    entries = maps[-1] * sides[-1] ** 2
    mflop += linear_mflop(entries, config.kernels * config.kernel_dimensions)
    return mflop + linear_mflop(entries + config.kernels, data.task.outputs)


def plgmi_critic_mflop(config: PlgmiGanConfig, data: DataInfo) -> float:
    """Return the cost of judging one image: residual blocks whose shortcuts are convolutions of one pixel."""
    sides = [data.size]
    while sides[-1] > _SMALLEST:
        sides.append(sides[-1] // 2)
    maps = _widening(data.channels, config.width, blocks=len(sides) - 1, most=16)
    mflop = 0.0
    for block, (inputs, outputs) in enumerate(pairwise(maps)):
        shortcut = sides[block] if block else sides[1]
        mflop += conv_mflop(inputs, outputs, 3, sides[block]) + conv_mflop(outputs, outputs, 3, sides[block])
        mflop += conv_mflop(inputs, outputs, 1, shortcut)
    return mflop + linear_mflop(maps[-1], 1 + data.task.outputs)


def _widening(channels: int, width: int, *, blocks: int, most: int) -> Sequence[int]:
    return [channels, *(width * min(2**block, most) for block in range(blocks))]
