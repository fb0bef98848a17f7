"""Metrics inside and outside a region, against numpy, scikit-image and class activation maps."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity
from torch import nn
from torch.nn import functional as F

from fl.cam import grad_cam
from fl.data.base import Part
from fl.errors import NotApplicableError
from fl.types import ImageSpec
from harness.metrics import regions
from harness.metrics.image import mse
from harness.metrics.pairs import Instruments, Pairs, Unavailable
from harness.metrics.regions import Labelled, Regions, find_regions, salient

NONE = Unavailable("none")


def draw(seed, *shape):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def masked(truth, guess, masks):
    ids = tuple(f"i{k}" for k in range(len(truth)))
    known = Regions("data_set", dict(zip(ids, masks, strict=True)))
    return Pairs(truth, guess, ids, Instruments(NONE, NONE, NONE, known))


@pytest.fixture
def pairs():
    truth = draw(0, 3, 3, 24, 24)
    guess = (truth + 0.4 * (draw(1, 3, 3, 24, 24) - 0.5)).clamp(0, 1)
    return masked(truth, guess, draw(2, 3, 24, 24) < 0.3)


def test_errors_are_means_over_the_masked_pixels_alone(pairs):
    inside = pairs.instruments.regions.of(pairs.image_ids).numpy()
    squares = (pairs.truth.double().numpy() - pairs.guess.double().numpy()) ** 2
    for k in range(3):
        for metric, mask in ((regions.region_mse, inside[k]), (regions.outside_mse, ~inside[k])):
            expected = squares[k][:, mask].mean()
            assert metric(pairs)[k].item() == pytest.approx(expected)
    assert regions.region_psnr_db(pairs).tolist() == pytest.approx(
        [-10 * math.log10(e) for e in regions.region_mse(pairs).tolist()]
    )


@pytest.mark.parametrize(("share", "seed"), [(0.1, 0), (0.5, 1), (0.9, 2)])
def test_both_parts_together_are_the_image(share, seed):
    truth, guess, mask = (
        draw(seed, 1, 1, 16, 16),
        draw(seed + 1, 1, 1, 16, 16),
        draw(seed + 2, 1, 16, 16) < share,
    )
    pair = masked(truth, guess, mask)
    area = mask.double().mean()
    parts = area * regions.region_mse(pair) + (1 - area) * regions.outside_mse(pair)
    torch.testing.assert_close(parts, mse(pair))


def test_a_small_region_does_not_make_its_error_look_small():
    truth, mask = torch.full((1, 1, 32, 32), 0.5), torch.zeros(1, 32, 32, dtype=torch.bool)
    mask[:, 10:14, 10:14] = True
    guess = truth + 0.2 * mask[:, None]
    pair = masked(truth, guess, mask)
    assert regions.region_mse(pair).item() == pytest.approx(0.04)
    assert regions.outside_mse(pair).item() == 0
    assert mse(pair).item() == pytest.approx(0.04 * 16 / 1024)


def test_ssim_is_that_of_scikit_image_at_the_masked_windows(pairs):
    inside = pairs.instruments.regions.of(pairs.image_ids).numpy()
    for k in range(3):
        _, full = structural_similarity(
            pairs.truth[k].double().numpy(),
            pairs.guess[k].double().numpy(),
            data_range=1,
            channel_axis=0,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
            full=True,
        )
        full, centres = full.mean(0)[5:-5, 5:-5], inside[k][5:-5, 5:-5]
        assert regions.region_ssim(pairs)[k].item() == pytest.approx(full[centres].mean())
        assert regions.outside_ssim(pairs)[k].item() == pytest.approx(full[~centres].mean())


def test_masks_are_enlarged_with_small_images():
    truth, guess = draw(3, 2, 1, 8, 8), draw(4, 2, 1, 8, 8)
    mask = draw(5, 2, 8, 8) < 0.5
    doubled = [F.interpolate(x, size=16, mode="bilinear", align_corners=False) for x in (truth, guess)]
    large = masked(*doubled, mask.repeat_interleave(2, 1).repeat_interleave(2, 2))
    torch.testing.assert_close(regions.region_ssim(masked(truth, guess, mask)), regions.region_ssim(large))


def test_without_a_region_there_is_nothing_to_measure(pairs):
    empty = masked(pairs.truth, pairs.guess, torch.zeros(3, 24, 24, dtype=torch.bool))
    whole = masked(pairs.truth, pairs.guess, torch.ones(3, 24, 24, dtype=torch.bool))
    edge = torch.zeros(3, 24, 24, dtype=torch.bool)
    edge[:, 0] = True
    for metric in (regions.region_mse, regions.region_psnr_db, regions.region_ssim):
        assert metric(empty).isnan().all()
        assert metric(whole).isfinite().all()
    for metric in (regions.outside_mse, regions.outside_psnr_db, regions.outside_ssim):
        assert metric(empty).isnan().all()
        assert metric(whole).isnan().all()
    assert regions.region_ssim(masked(pairs.truth, pairs.guess, edge)).isnan().all()
    unknown = replace(pairs, instruments=Instruments(NONE, NONE, NONE, Unavailable("blind")))
    with pytest.raises(NotApplicableError, match="blind"):
        regions.region_mse(unknown)


class Tiny(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.head = nn.Conv2d(1, 3, 3, padding=1), nn.Linear(3, 4)
        with torch.no_grad():
            for index, parameter in enumerate(self.parameters()):
                parameter.copy_(draw(10 + index, *parameter.shape) - 0.4)

    @property
    def cam_layer(self):
        return self.conv

    def forward(self, x):
        return self.head(self.conv(x).relu().mean((2, 3)))


SPEC = ImageSpec(1, 10, (0.4,), (0.2,))


def test_a_region_is_the_top_of_grad_cam_on_the_normalised_image():
    images, labels = draw(6, 20, 1, 10, 10), [k % 4 for k in range(20)]
    masks = salient(Tiny(), SPEC, images, labels)
    maps = grad_cam(Tiny(), (images - 0.4) / 0.2, torch.tensor(labels))
    for mask, image_map in zip(masks.numpy(), maps.numpy(), strict=True):
        expected = min(30, int((image_map > 0).sum()))
        assert mask.sum() == expected
        if expected:
            assert image_map[mask].min() > 0
            assert image_map[mask].min() >= image_map[~mask].max(initial=0) or expected < 30
    assert any(mask.sum() == 30 for mask in masks)


def test_labels_that_name_no_class_have_no_region():
    images = draw(7, 3, 1, 10, 10)
    several, plain = (
        salient(Tiny(), SPEC, images, [(0, 1, 1, 0), (0, 0, 0, 0), (0, 0, 0, 1)]),
        salient(Tiny(), SPEC, images, [1, -1, 3]),
    )
    assert torch.equal(several, plain)
    assert not several[1].any()


def test_the_data_sets_own_marks_come_first():
    marks = draw(8, 4, 1, 10, 10) < 0.2
    own = Part(tuple("abcd"), torch.arange(4), None, lambda i: draw(6, 4, 1, 10, 10)[list(i)])
    labelled = {name: Labelled(draw(6, 4, 1, 10, 10)["abcd".index(name)], 1) for name in "cb"}
    seen = find_regions(own, labelled, Tiny(), SPEC)
    marked = find_regions(replace(own, read_regions=lambda i: marks[list(i)]), labelled, Tiny(), SPEC)

    assert (seen.source, marked.source) == ("grad_cam", "data_set")
    assert torch.equal(marked.of(("b", "c")), marks[1:3, 0])
    assert marked.share == pytest.approx(np.mean(marks[1:3].numpy()))
    assert torch.equal(seen.of(("c",))[0], salient(Tiny(), SPEC, labelled["c"].image[None], [1])[0])
    assert find_regions(own, labelled, nn.Linear(2, 2), SPEC).reason.startswith(
        "expected a model with a spatial"
    )
    assert find_regions(own, {}, Tiny(), SPEC) == Regions("grad_cam", {})
