"""Sizes and costs of layers, computed without torch."""

from __future__ import annotations


def after_stride(size: int, stride: int) -> int:
    """Return the side of a 'same'-padded convolution's output."""
    return -(-size // stride)


def conv_mflop(inputs: int, outputs: int, kernel: int, side: int) -> float:
    """Return the cost of a convolution whose output has that side: multiply-adds, in millions times two."""
    return 2e-6 * inputs * outputs * kernel**2 * side**2


def linear_mflop(inputs: int, outputs: int) -> float:
    """Return the cost of a linear layer: multiply-adds, in millions times two."""
    return 2e-6 * inputs * outputs
