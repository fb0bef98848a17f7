from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image

from fl.errors import NotApplicableError
from harness.metrics.png import encode


@pytest.mark.parametrize("channels", [1, 3])
def test_every_level_survives_the_round_trip(channels):
    levels = torch.arange(256).reshape(1, 16, 16).expand(channels, -1, -1)
    decoded = np.asarray(Image.open(BytesIO(encode(levels / 255))))
    expected = levels[0].numpy() if channels == 1 else levels.movedim(0, -1).numpy()
    np.testing.assert_array_equal(decoded, expected)


def test_values_are_rounded_clamped_and_made_finite():
    image = torch.tensor([0.4 / 255, 0.6 / 255, -1.0, 2.0, torch.nan, torch.inf, -torch.inf])
    decoded = np.asarray(Image.open(BytesIO(encode(image.view(1, 1, -1)))))
    assert decoded.flatten().tolist() == [0, 1, 0, 255, 0, 255, 0]


def test_equal_images_give_equal_bytes():
    image = torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(0))
    assert encode(image) == encode(image.clone())


def test_two_channels_are_no_picture():
    with pytest.raises(NotApplicableError, match="1 or 3 channels, got 2"):
        encode(torch.zeros(2, 4, 4))
