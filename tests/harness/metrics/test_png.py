from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image

from fl.errors import NotApplicableError
from harness.metrics.png import encode, encode_all


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


@pytest.mark.parametrize("shape", [(1, 16, 16), (3, 40, 56), (1, 1, 300), (3, 200, 200)])
def test_smooth_and_noisy_images_of_any_size_survive(shape):
    ramp = torch.linspace(0, 255, shape[1] * shape[2]).reshape(1, *shape[1:]).expand(shape)
    noise = 255 * torch.rand(shape, generator=torch.Generator().manual_seed(1))
    for levels in (ramp.round(), noise.round(), (ramp / 2 + noise / 8).round()):
        content = encode(levels / 255)
        picture = Image.open(BytesIO(content))
        picture.verify()
        decoded = torch.from_numpy(np.asarray(Image.open(BytesIO(content))).astype(np.float32))
        planes = decoded[None] if shape[0] == 1 else decoded.movedim(-1, 0)
        assert torch.equal(planes, levels)


def test_a_smooth_image_is_small():
    ramp = (torch.arange(64) / 255).expand(3, 64, -1)
    assert len(encode(ramp)) < 64 * 64 * 3 / 20


def test_images_are_encoded_together_as_they_are_alone():
    generator = torch.Generator().manual_seed(2)
    images = [
        torch.rand(shape, generator=generator) for shape in [(1, 8, 8), (3, 8, 8), (1, 8, 8), (1, 8, 4)]
    ]
    assert encode_all(images) == [encode(image) for image in images]
    assert encode_all([]) == []
