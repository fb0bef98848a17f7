"""Masks at another size, against counting on a grid that both sizes divide."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fl.data.resize import resize, resize_mask

SIDES = st.integers(1, 9)


@given(data=st.data(), rows=SIDES, columns=SIDES, size=SIDES)
def test_a_new_pixel_is_inside_where_more_than_half_its_area_is(data, rows, columns, size):
    mask = data.draw(arrays(bool, (rows, columns)))
    fine = np.kron(mask, np.ones((size, size), dtype=int))  # rows * size by columns * size equal cells
    blocks = fine.reshape(size, rows, size, columns).sum(axis=(1, 3))
    resized = resize_mask(torch.from_numpy(mask).view(1, 1, rows, columns), size)
    assert resized.dtype == torch.bool
    np.testing.assert_array_equal(resized[0, 0], 2 * blocks > rows * columns)


def test_masks_and_images_share_their_grid():
    mask = torch.zeros(2, 1, 60, 60, dtype=torch.bool)
    mask[0, :, 12:33, 40:55] = True
    mask[1, :, 5:9, 0:31] = True
    for size in (20, 37, 60, 96):
        resized, image = resize_mask(mask, size), resize(mask.float(), size)
        differs = (resized.float() - image).abs()
        assert differs.mean() < 0.02  # they differ on the border only, where the image has grays
        assert not differs[(image == 1) | (image == 0)].any()


def test_half_of_a_pixel_is_not_inside():
    mask = torch.tensor([[1, 0], [1, 0]], dtype=torch.bool).view(1, 1, 2, 2)
    assert resize_mask(mask, 1).tolist() == [[[[False]]]]
    assert resize_mask(~mask, 1).tolist() == [[[[False]]]]
