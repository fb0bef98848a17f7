"""The gradient of a convolution's weights at each of many candidates, which share these weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn import functional as F

if TYPE_CHECKING:
    from torch import Tensor

    from attacks.engine.convolution import Kernels


def weight_rows(inputs: Tensor, slopes: Tensor, kernels: Kernels) -> Tensor:
    """Return the gradient of the weights at every candidate, `m x O x C x kernel rows x kernel columns`.

    It is the product of the outputs' slopes and of the windows that made them, summed over all positions.
    Where there are more positions than outputs, copying windows is what takes long, so that they are copied
    in one direction only and multiplied by one row of the kernel at a time.

    Args:
        inputs: `m x n x C x H x W`.
        slopes: Of the outputs, `m x n x O x H' x W'`.
        kernels: Of one lane.
    """
    over = _last(slopes).flatten(1, 3)
    across, strips = over.transpose(1, 2), _strips(inputs, kernels)
    outputs, channels, height, width = kernels.weight.shape
    if over.shape[1] > outputs:
        product = torch.cat([torch.bmm(across, strip) for strip in strips], 2)
    else:
        product = torch.bmm(across, torch.cat(strips, 2))
    return product.view(-1, outputs, height, width, channels).permute(0, 1, 4, 2, 3)


def _strips(inputs: Tensor, kernels: Kernels) -> list[Tensor]:
    """Return what each row of the kernel slides over, `m x (n positions) x (kernel columns C)`."""
    (down, across), (top, left) = kernels.stride, kernels.padding
    padded = F.pad(_last(inputs), (0, 0, left, left, top, top)).contiguous()
    candidates, images, height, width, channels = padded.shape
    rows, columns = kernels.weight.shape[2:]
    first, second, line, pixel, _ = padded.stride()
    size = (candidates, images, height, (width - columns) // across + 1, columns * channels)
    windows = padded.as_strided(size, (first, second, line, across * pixel, 1)).contiguous()
    reach = (height - rows) // down * down + 1
    return [windows[:, :, row : row + reach : down].flatten(1, 3) for row in range(rows)]


def _last(images: Tensor) -> Tensor:
    return images.permute(0, 1, 3, 4, 2)
