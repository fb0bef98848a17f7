"""Files are decoded when they are asked for, and only so many stay in memory."""

import numpy as np
import pytest
import torch
from PIL import Image

from fl.data.decoded import DecodedFiles, image_reader, label_tensor, region_reader
from fl.data.measure import measure
from fl.specs import Task


@pytest.fixture
def decoded():
    """Ten files of 12 bytes, of which three stay in memory, and the list of what was decoded."""
    log = []

    def decode(number):
        log.append(number)
        return torch.full((3, 2, 2), number, dtype=torch.uint8)

    return DecodedFiles(range(10), decode, kept_bytes=36), log


def test_order_and_repetition(decoded):
    files, log = decoded
    images = files([7, 2, 7])
    assert images.shape == (3, 3, 2, 2)
    assert images[:, 0, 0, 0].tolist() == [7, 2, 7]
    assert log == [7, 2]


def test_the_least_recently_used_is_forgotten(decoded):
    files, log = decoded
    files([0, 1, 2])
    files([0])
    files([3])  # 1 has to go
    files([0, 2, 3])
    assert log == [0, 1, 2, 3]
    files([1])
    assert log == [0, 1, 2, 3, 1]


def test_more_than_fits_is_still_read(decoded):
    files, log = decoded
    assert files(range(10))[:, 0, 0, 0].tolist() == list(range(10))
    files([7, 8, 9])
    assert log == list(range(10))


def test_one_that_does_not_fit():
    files = DecodedFiles(range(2), lambda number: torch.full((3, 4, 4), number), kept_bytes=1)
    assert files([1, 0, 1])[:, 0, 0, 0].tolist() == [1, 0, 1]


@pytest.mark.parametrize(
    ("task", "labels", "shape", "dtype"),
    [
        (Task("multiclass", 3), [2, 0], (2,), torch.int64),
        (Task("multiclass", 3), [], (0,), torch.int64),
        (Task("binary", 2), [1, 0, 1], (3, 1), torch.float32),
        (Task("binary", 2), [], (0, 1), torch.float32),
        (Task("multilabel", 2), [(1, 0), (0, 0), (1, 1)], (3, 2), torch.float32),
        (Task("multilabel", 2), [], (0, 2), torch.float32),
    ],
)
def test_label_tensors(task, labels, shape, dtype):
    tensor = label_tensor(labels, task)
    assert (tensor.shape, tensor.dtype) == (shape, dtype)
    assert tensor.flatten().tolist() == [
        v for label in labels for v in (label if task.kind == "multilabel" else [label])
    ]


@pytest.mark.parametrize(("fit", "margin"), [("crop", 0.0), ("stretch", 1.0)])
def test_margins_are_cut_off_or_squeezed(tmp_path, fit, margin):
    pixels = np.full((16, 48), 255, dtype=np.uint8)
    pixels[:, 16:32] = 0  # the centre square is black
    Image.fromarray(pixels).save(tmp_path / "wide.png")
    paths = [tmp_path / "wide.png"]
    image = image_reader(paths, size=12, channels="gray", fit=fit)([0])[0, 0]
    inside = region_reader(paths, size=12, fit=fit)([0])[0, 0]
    assert image.shape == (12, 12)
    assert image[:, 0].tolist() == pytest.approx([margin] * 12, abs=0.1)  # the filter reaches beyond the cut
    assert image[:, 6].tolist() == [0.0] * 12
    assert inside[:, 0].tolist() == [margin > 0.5] * 12
    mean = measure("wide", paths, size=12, channels="gray", fit="stretch").mean
    assert mean == pytest.approx((2 / 3,), abs=0.02)
