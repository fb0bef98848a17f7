import json
import math
from dataclasses import dataclass, replace
from fnmatch import fnmatch

import numpy as np
import pytest
import torch
from torch import Tensor

from fl.cards import MetricCard
from fl.errors import BenchError
from fl.seeds import Streams
from fl.specs import NoConfig
from harness.metrics import METRICS, comparison
from harness.metrics.catalog import reconstruction_columns, trial_columns
from harness.metrics.judge import Judge
from harness.metrics.pairs import Gallery, Unavailable
from harness.metrics.regions import Regions
from harness.metrics.targets import BlindTarget, ScoredTarget
from harness.metrics.yardsticks import ScoreContext

SHAPE = (1, 16, 16)
NO_LPIPS = Unavailable("no weights here")


@dataclass
class Public:
    images: Tensor

    @property
    def labels(self):
        return torch.zeros(len(self.images), dtype=torch.long)

    @property
    def mean_image(self):
        return self.images.mean(0)


def draw(n, *, seed, shape=SHAPE):
    return torch.rand(n, *shape, generator=torch.Generator().manual_seed(seed))


PRIVATE = draw(40, seed=0)
IDS = tuple(f"p{i}" for i in range(40))


def first_pixels(images):
    return images.flatten(1)[:, :20]


def context(**changes):
    base = ScoreContext(Streams(7), Public(draw(30, seed=1)), Gallery(IDS, PRIVATE), first_pixels)
    return replace(base, **changes)


def target(name, indices, reconstruction=None, **changes):
    truth = PRIVATE[indices]
    base = ScoredTarget(
        target_id=name,
        truth=truth,
        image_ids=tuple(IDS[i] for i in indices),
        labels=tuple(i % 3 for i in indices),
        reconstruction=truth.clone() if reconstruction is None else reconstruction,
    )
    return replace(base, **changes)


def noisy_targets(*, n=3, size=2):
    targets = []
    for k in range(n):
        indices = list(range(k * size, (k + 1) * size))
        guess = (PRIVATE[indices] + (k + 1) * 0.05 * (draw(size, seed=90 + k) - 0.5)).clamp(0, 1)
        targets.append(target(f"t{k}", indices, guess, recovered_labels=torch.tensor(indices) % 3))
    return targets


def score(targets, judge=None, **changes):
    return (judge or Judge(NO_LPIPS)).score(targets, context=context(**changes))


def unexplained(columns):
    """Return null columns that no reason covers, but for what only an evaluator measures."""
    reasons = json.loads(columns["null_reasons"])
    evaluated = [card.column for card in METRICS if card.evaluated] + [
        "evaluator_accuracy",
        "n_reconstructions",
    ]
    return [
        name
        for name, value in columns.items()
        if value is None
        and not name.endswith("_upsampled_to")
        and name.removeprefix("ceiling_") not in evaluated
        and not any(fnmatch(name, pattern) for pattern in reasons)
    ]


def assert_well_formed(result):
    assert list(result.columns) == [column.name for column in trial_columns()]
    assert unexplained(result.columns) == []
    kinds = {"float": float, "int": int, "str": str, "bool": bool}
    tables = [(trial_columns, [result.columns]), (reconstruction_columns, result.reconstructions)]
    for columns, rows in tables:
        for row in rows:
            assert list(row) == [column.name for column in columns()]
            for column in columns():
                value = row[column.name]
                assert value is None or type(value) is kinds[column.type]
                assert not isinstance(value, float) or math.isfinite(value)


def test_exact_reconstructions():
    result = score([target("a", [0, 1]), target("b", [2, 3])])
    assert_well_formed(result)
    columns = result.columns
    assert (columns["mse"], columns["psnr_db"], columns["success_rate"]) == (0, 100, 1)
    assert columns["ssim"] == pytest.approx(1)
    assert (columns["identification_top1"], columns["feature_distance"]) == (1, 0)
    assert (columns["psnr_db_ci_low"], columns["psnr_db_ci_high"]) == (100, 100)
    assert (columns["n_targets"], columns["n_images"], columns["n_missed"]) == (2, 4, 0)
    gallery = ("identification_gallery", "identification_chance", "identification_distance")
    assert [columns[name] for name in gallery] == [40, 1 / 40, "pixel_mse"]


def test_aggregates_are_those_of_the_image_rows():
    result = score(noisy_targets())
    assert_well_formed(result)
    for name in ("mse", "psnr_db", "ssim", "ncc", "feature_distance", "aligned_psnr_db"):
        values = [row[name] for row in result.reconstructions]
        assert len(values) == 6
        assert result.columns[name] == pytest.approx(np.mean(values))
        assert result.columns[f"{name}_median"] == pytest.approx(np.median(values))
        assert result.columns[f"{name}_p95"] == pytest.approx(np.percentile(values, 95))
        assert result.columns[f"{name}_max"] == max(values)
        assert result.columns[f"{name}_ci_low"] < result.columns[name] < result.columns[f"{name}_ci_high"]
    errors = [(r["mse"], r["psnr_db"]) for r in result.reconstructions]
    for error, psnr in errors:
        assert psnr == pytest.approx(-10 * math.log10(error))


def test_the_order_of_a_batch_does_not_matter():
    order = [2, 0, 3, 1]
    guess = (PRIVATE[:4] + 0.1 * draw(4, seed=5)).clamp(0, 1)
    straight = target("a", [0, 1, 2, 3], guess)
    shuffled = target("a", [0, 1, 2, 3], guess[order])
    other = target("b", [4, 5])
    one, two = score([straight, other]), score([shuffled, other])
    assert one.columns == two.columns
    matched = [row["matched_index"] for row in two.reconstructions[:4]]
    assert matched == order


def test_a_score_does_not_depend_on_what_was_scored_before():
    judge = Judge(NO_LPIPS)
    alone = score(noisy_targets())
    score([target("x", [9, 8, 7], draw(5, seed=2))], judge)
    assert score(noisy_targets(), judge) == alone


def test_reconstructions_that_are_not_finite_count_as_worst():
    guess = PRIVATE[[0, 1]].clone()
    guess[1, 0, 3, 3] = math.nan
    result = score([target("a", [0, 1], guess), target("b", [2], torch.full((1, *SHAPE), math.inf))])
    assert_well_formed(result)
    rows = {(row["target_id"], row["reconstruction_index"]): row for row in result.reconstructions}
    assert [rows[key]["finite"] for key in sorted(rows)] == [True, False, False]
    for key in (("a", 1), ("b", 0)):
        row = rows[key]
        assert row["matched_index"] == key[1]
        assert (row["mse"], row["psnr_db"], row["ssim"], row["success_rate"]) == (1, 0, -1, 0)
        assert row["identification_top1"] == 0
        assert row["feature_distance"] > 0  # that of random noise, since it has no largest value
    assert rows["a", 0]["mse"] == 0
    assert result.columns["n_missed"] == 2
    assert result.columns["success_rate"] == pytest.approx(1 / 3)
    assert result.columns["mse"] == pytest.approx(2 / 3)


def test_unbounded_distances_of_missed_images_are_those_of_noise():
    lost = target("a", [0], torch.full((1, *SHAPE), math.nan))
    noise = torch.rand(1, *SHAPE, generator=Streams(7).torch("floor", target="a"))
    expected = (first_pixels(PRIVATE[:1]) - first_pixels(noise)).norm().item()
    assert score([lost]).columns["feature_distance"] == pytest.approx(expected, rel=1e-6)


def test_fewer_reconstructions_than_images():
    result = score([target("a", [0, 1, 2], PRIVATE[[1]]), target("b", [3], PRIVATE[:0])])
    assert_well_formed(result)
    assert len(result.reconstructions) == 1
    assert result.reconstructions[0]["image_id"] == "p1"
    assert (result.columns["n_images"], result.columns["n_missed"]) == (4, 3)
    assert result.columns["success_rate"] == 0.25
    assert result.columns["psnr_db"] == 25.0


def test_more_reconstructions_than_images():
    result = score([target("a", [0], torch.cat([draw(2, seed=3), PRIVATE[:1]]))])
    assert_well_formed(result)
    assert [row["matched_index"] for row in result.reconstructions] == [None, None, 0]
    assert result.reconstructions[0]["mse"] is None
    assert result.columns["mse"] == 0


def test_an_empty_batch_adds_nothing():
    result = score([target("a", [], draw(1, seed=4)), target("b", [3], PRIVATE[[3]])])
    assert_well_formed(result)
    assert result.columns["n_images"] == 1
    assert result.columns["psnr_db"] == 100
    nothing = score([target("a", []), target("b", [])])
    assert_well_formed(nothing)
    assert nothing.columns["mse"] is None


def test_values_outside_the_range_are_clamped():
    black = target("a", [0], torch.full((1, *SHAPE), -5.0))
    truth = PRIVATE[0].double()
    assert score([black]).columns["mse"] == pytest.approx(truth.square().mean().item())


def test_reconstructions_may_come_straight_from_an_optimizer():
    guess = draw(1, seed=3).double().requires_grad_()
    assert score([target("a", [0], guess)]) == score([target("a", [0], guess.detach().float())])


def test_floors_name_the_best_guess_without_an_observation():
    public = context().public
    targets = [target("a", [0, 1]), target("b", [2])]
    columns = score(targets).columns
    truth = PRIVATE[:3].double()
    expected = (truth - public.mean_image.double()).square().mean((1, 2, 3)).mean().item()
    assert columns["floor_mse"] == pytest.approx(expected)
    named = json.loads(columns["floor"])
    assert named["mse"] == named["psnr_db"] == "mean_image"
    without = score(targets, public=None).columns
    assert set(json.loads(without["floor"]).values()) == {"random_guess"}
    assert without["floor_mse"] > columns["floor_mse"]
    assert unexplained(without) == []


def test_floors_do_not_depend_on_the_reconstruction():
    def floors(reconstruction):
        columns = score([target("a", [0, 1], reconstruction)]).columns
        return {name: value for name, value in columns.items() if name.startswith("floor")}

    assert floors(PRIVATE[:2]) == floors(draw(2, seed=6))


def test_the_ceiling_is_what_the_client_trained_on():
    protected = (PRIVATE[:2] + 0.1).clamp(0, 1)
    changed = score([target("a", [0, 1], protected=protected)]).columns
    expected = (PRIVATE[:2] - protected).double().square().mean().item()
    assert changed["ceiling_mse"] == pytest.approx(expected)
    unchanged = score([target("a", [0, 1], draw(2, seed=7))]).columns
    assert (unchanged["ceiling_mse"], unchanged["ceiling_psnr_db"]) == (0, 100)
    assert unchanged["ceiling_identification_top1"] == 1


def test_known_yardsticks_change_no_bit(perceptual):
    changes = {"regions": MARKED, "gallery": Gallery(IDS, PRIVATE, tuple(index // 4 for index in range(40)))}
    judge, where = Judge(perceptual), context(**changes)
    exact = [replace(one, reconstruction=one.truth) for one in noisy_targets()]
    lost = [replace(one, reconstruction=torch.full_like(one.truth, math.nan)) for one in noisy_targets()]
    yardsticks = judge.yardsticks(exact, context=where)
    for targets in (lost, noisy_targets(), exact, noisy_targets()):
        known = judge.score(targets, context=where, yardsticks=yardsticks)
        assert known == score(targets, Judge(perceptual), **changes)


def test_large_batches_are_measured_in_parts(monkeypatch):
    together = score(noisy_targets(n=4, size=3))
    monkeypatch.setattr(comparison, "VALUES_AT_ONCE", 2 * 256)
    apart = score(noisy_targets(n=4, size=3))
    assert apart.columns["floor"] == together.columns["floor"]
    for name, value in together.columns.items():
        if isinstance(value, float):
            assert apart.columns[name] == pytest.approx(value, rel=1e-12), name


MARKED = Regions("data_set", {name: draw(1, seed=k)[0, 0] < 0.4 for k, name in enumerate(IDS)})


def test_regions_the_prior_and_the_clients_images_are_measured_with_all_yardsticks():
    clients = tuple(index // 4 for index in range(40))
    gallery = Gallery(IDS, PRIVATE, clients)
    result = score(noisy_targets(), regions=MARKED, gallery=gallery)
    assert_well_formed(result)
    columns = result.columns
    for name in ("region_mse", "region_psnr_db", "region_ssim", "outside_mse", "rdlv", "iip_3"):
        values = [row[name] for row in result.reconstructions if row[name] is not None]
        assert len(values) == 6 or name == "rdlv"  # undefined where noise is unlike the mean of noise
        assert columns[name] == pytest.approx(np.mean(values))
        for yardstick in ("floor", "ceiling", "shuffled", "oracle_constant"):
            assert columns[f"{yardstick}_{name}"] is not None
    row = result.reconstructions[0]
    mask, squares = MARKED.masks[row["image_id"]], (PRIVATE[0] - noisy_targets()[0].reconstruction[0]) ** 2
    assert row["region_mse"] == pytest.approx(squares[0][mask].double().mean().item(), rel=1e-5)
    assert (columns["ceiling_region_mse"], columns["ceiling_iip_1"]) == (0, 1)
    assert columns["floor_rdlv"] >= 0  # that of the mean public image is 0
    masks = torch.stack([MARKED.masks[name] for name in IDS])
    assert (columns["region_source"], columns["region_share"]) == (
        "data_set",
        pytest.approx(masks.double().mean()),
    )


def test_the_ceiling_lies_inside_and_outside_the_region():
    masks = {name: mask.clone() for name, mask in MARKED.masks.items()}
    protected = PRIVATE[:1].lerp(1 - PRIVATE[:1], 0.5 * (~masks["p0"]).float())
    columns = score([target("a", [0], protected=protected)], regions=MARKED).columns
    assert columns["ceiling_region_psnr_db"] == 100
    expected = (PRIVATE[0] - protected[0]).double()[0][~masks["p0"]].square().mean().item()
    assert columns["ceiling_outside_mse"] == pytest.approx(expected)


def test_images_without_a_region_are_left_out_of_its_mean():
    masks = {**MARKED.masks, "p1": torch.zeros(16, 16, dtype=torch.bool)}
    result = score([target("a", [0, 1], draw(2, seed=3))], regions=Regions("grad_cam", masks))
    assert_well_formed(result)
    marked, unmarked = sorted(result.reconstructions, key=lambda row: row["image_id"])
    assert unmarked["region_mse"] is None is unmarked["outside_psnr_db"]
    assert result.columns["region_mse"] == marked["region_mse"]
    none = score([target("a", [1], draw(1, seed=3))], regions=Regions("grad_cam", masks))
    assert_well_formed(none)
    assert none.columns["region_mse"] is None
    assert "undefined for every image" in json.loads(none.columns["null_reasons"])["*region_mse*"]


def test_the_oracle_constant_is_the_images_own_mean():
    columns = score([target("a", [0, 1])]).columns
    expected = PRIVATE[:2].double().flatten(1).var(1, correction=0).mean().item()
    assert columns["oracle_constant_mse"] == pytest.approx(expected, rel=1e-6)


def test_the_shuffled_control_scores_against_another_target():
    a, b = target("a", [0]), target("b", [1])
    a, b = (replace(t, recovered_labels=torch.tensor(t.labels)) for t in (a, b))
    columns = score([a, b]).columns
    expected = (PRIVATE[0] - PRIVATE[1]).double().square().mean().item()
    assert columns["shuffled_mse"] == pytest.approx(expected)
    assert columns["shuffled_identification_top1"] == 0
    assert (columns["label_accuracy"], columns["shuffled_label_accuracy"]) == (1, 0)


def test_the_shuffled_control_leaves_out_shared_images():
    a, b = target("a", [0, 1]), target("b", [1, 2])
    columns = score([a, b]).columns
    pairs = [(PRIVATE[[0, 1]], PRIVATE[2]), (PRIVATE[[1, 2]], PRIVATE[0])]
    nearest = [(guess - other).double().square().mean((1, 2, 3)).min().item() for guess, other in pairs]
    assert columns["shuffled_mse"] == pytest.approx(np.mean(nearest))
    same = score([target("a", [0]), target("b", [0])])
    assert_well_formed(same)
    assert same.columns["shuffled_mse"] is None


def test_one_target_has_neither_control_nor_interval():
    result = score([target("a", [0, 1])])
    assert_well_formed(result)
    assert result.columns["shuffled_mse"] is None
    assert result.columns["mse_ci_low"] is None
    reasons = json.loads(result.columns["null_reasons"])
    assert "two targets" in reasons["shuffled_*"]
    assert "two targets" in reasons["*_ci_*"]


def test_what_cannot_be_had_is_null_with_its_reason():
    result = score(
        [target("a", [0])],
        gallery=Unavailable("no gallery here"),
        features=Unavailable("no features here"),
        regions=Unavailable("no regions here"),
        public=None,
    )
    assert_well_formed(result)
    columns = result.columns
    reasons = json.loads(columns["null_reasons"])
    for name, words in [
        ("lpips", "no weights here"),
        ("feature_distance", "no features here"),
        ("identification_top1", "no gallery here"),
        ("region_mse", "no regions here"),
        ("outside_ssim", "no regions here"),
        ("rdlv", "there are no public images"),
        ("iip_3", "no gallery here"),
    ]:
        assert columns[name] is None
        assert columns[f"floor_{name}"] is None
        assert reasons[f"*{name}*"] == words
    assert columns["label_accuracy"] is None
    assert "recovers no labels" in reasons["*label_accuracy*"]


def test_labels_are_rows_and_a_share():
    right = target("a", [0, 1], recovered_labels=torch.tensor([1, 0]))  # truth: 0, 1
    half = target("b", [3, 5], recovered_labels=torch.tensor([0, 1]))  # truth: 0, 2
    result = score([right, half])
    assert result.columns["label_accuracy"] == 0.75
    assert [row["label"] for row in result.reconstructions] == ["1", "0", "0", "1"]
    assert [row["true_label"] for row in result.reconstructions] == ["0", "1", "0", "2"]
    multilabel = target("c", [0], labels=((1, 0, 1),), recovered_labels=torch.tensor([[1.0, 0.0, 1.0]]))
    result = score([multilabel])
    assert result.columns["label_accuracy"] == 1
    assert result.reconstructions[0]["true_label"] == result.reconstructions[0]["label"] == "[1, 0, 1]"


def test_success_counts_images_from_20_db():
    steps = torch.tensor([0.05, 0.09, 0.11, 0.5]).view(-1, 1, 1, 1)
    truth = torch.full((4, *SHAPE), 0.25)
    one = replace(target("a", [0, 1, 2, 3]), truth=truth, reconstruction=truth + steps)
    assert score([one]).columns["success_rate"] == 0.5


def test_small_images_say_what_they_were_upsampled_to():
    small = draw(4, seed=8, shape=(1, 8, 8))
    gallery = Gallery(("a", "b", "c", "d"), small)
    one = ScoredTarget("t", small[:1], ("a",), (0,), reconstruction=small[:1])
    columns = score([one], gallery=gallery, public=Public(small[2:])).columns
    assert (columns["ssim_upsampled_to"], columns["lpips_upsampled_to"]) == (16, 64)
    assert columns["ssim"] == pytest.approx(1)
    large = draw(2, seed=9, shape=(3, 32, 32))
    one = ScoredTarget("t", large[:1], ("a",), (0,), reconstruction=large[:1])
    columns = score([one], gallery=Gallery(("a", "b"), large), public=None).columns
    assert (columns["ssim_upsampled_to"], columns["lpips_upsampled_to"]) == (None, None)


def test_another_shape_is_an_error():
    with pytest.raises(
        BenchError, match="target a: expected reconstructions of shape 1 x 16 x 16, got 3 x 16 x 16"
    ):
        target("a", [0], draw(1, seed=1, shape=(3, 16, 16)))


def test_lpips_is_filled_with_weights(perceptual):
    result = score(noisy_targets(), Judge(perceptual))
    assert_well_formed(result)
    columns = result.columns
    assert 0 < columns["lpips"] < columns["floor_lpips"]
    assert columns["ceiling_lpips"] == 0
    assert columns["lpips_upsampled_to"] == 64
    two_channels = draw(3, seed=3, shape=(2, 16, 16))
    one = ScoredTarget("t", two_channels[:1], ("a",), (0,), reconstruction=two_channels[:1])
    columns = score(
        [one], Judge(perceptual), gallery=Unavailable("none"), public=Public(two_channels)
    ).columns
    assert columns["lpips"] is None
    assert "not 2" in json.loads(columns["null_reasons"])["*lpips*"]


def test_a_metric_on_request_is_null_until_somebody_asks(perceptual, perceptual_vgg):
    columns = score(noisy_targets(), Judge(perceptual, vgg=perceptual_vgg)).columns
    assert columns["lpips_vgg"] is None
    assert columns["floor_lpips_vgg"] is None
    why = "lpips_vgg is measured on request: `metrics: [lpips_vgg]` in the matrix"
    assert json.loads(columns["null_reasons"])["*lpips_vgg*"] == why
    asked = score(noisy_targets(), Judge(perceptual, vgg=perceptual_vgg), asked=frozenset({"lpips_vgg"}))
    assert_well_formed(asked)
    assert "*lpips_vgg*" not in json.loads(asked.columns["null_reasons"])
    assert asked.columns["ceiling_lpips_vgg"] == 0 < asked.columns["lpips_vgg"]
    assert asked.columns["lpips_vgg"] < asked.columns["floor_lpips_vgg"]
    same = [name for name in columns if "lpips_vgg" not in name and name not in ("floor", "null_reasons")]
    assert [asked.columns[name] for name in same] == [columns[name] for name in same]


def test_a_metric_that_was_asked_for_and_cannot_be_had_says_why():
    judge = Judge(NO_LPIPS, vgg=Unavailable("no VGG here"))
    columns = score(noisy_targets(), judge, asked=frozenset({"lpips_vgg"})).columns
    assert json.loads(columns["null_reasons"])["*lpips_vgg*"] == "no VGG here"


def test_columns_of_published_tables_by_hand(perceptual):
    result = score(noisy_targets(), Judge(perceptual))
    columns, images = result.columns, result.reconstructions
    assert columns["mse_i"] == pytest.approx(4 * columns["mse"], rel=1e-12)
    assert columns["psnr_ref_db"] == pytest.approx(columns["psnr_db"] - 20 * math.log10(2), abs=1e-12)
    assert columns["lpips_alex"] == columns["lpips"]
    dimensions = first_pixels(PRIVATE).shape[1]
    expected = [row["feature_distance"] ** 2 / dimensions for row in images]
    assert [row["mse_r"] for row in images] == pytest.approx(expected, rel=1e-9)


def test_blind_targets_keep_their_rows_and_get_floors():
    targets = [
        BlindTarget(
            "a", torch.cat([draw(1, seed=5), torch.full((1, *SHAPE), math.nan)]), torch.tensor([4, 2])
        )
    ]
    judge = Judge(NO_LPIPS)
    result = judge.score_blind(
        targets, context=context(gallery=Unavailable("none")), reason="no secret in the file"
    )
    assert_well_formed(result)
    assert result.columns["mse"] is None
    assert result.columns["n_targets"] == 1
    assert json.loads(result.columns["null_reasons"])["*"] == "no secret in the file"
    assert (
        1 / 15 < result.columns["floor_mse"] < 1 / 6
    )  # uniform images: 1/12 from their mean, 1/6 from noise
    assert [row["finite"] for row in result.reconstructions] == [True, False]
    assert [row["label"] for row in result.reconstructions] == ["4", "2"]
    bare = judge.score_blind(targets, context=context(public=None), reason="no evaluator")
    assert_well_formed(bare)
    assert bare.columns["floor_mse"] is None


THIRD_PARTY = """
import math
import torch

def gap(pairs):
    values = (pairs.truth.amin((1, 2, 3)) - pairs.guess.amin((1, 2, 3))).abs().double()
    return torch.where(pairs.truth.mean((1, 2, 3)) > 0.5, math.nan, values)
"""


@pytest.fixture
def third_party(tmp_path, monkeypatch):
    """A metric from elsewhere: difference of the darkest pixels, undefined for bright images."""
    (tmp_path / "darkest_metric.py").write_text(THIRD_PARTY)
    monkeypatch.syspath_prepend(tmp_path)
    card = MetricCard(
        name="darkest",
        version=1,
        summary="Difference of the darkest pixels.",
        config=NoConfig,
        implementation="darkest_metric:gap",
        kind="pair",
        column="darkest_gap",
        unit="",
        leaks_more="lower",
        lower=0.0,
        upper=1.0,
    )
    METRICS.register(card)
    yield card
    METRICS.unregister("darkest")


def test_a_third_partys_metric_gets_all_its_columns(third_party):
    dark, bright = torch.full((1, *SHAPE), 0.2), torch.full((1, *SHAPE), 0.8)
    one = replace(target("a", [0]), truth=dark, reconstruction=dark + 0.1)
    two = replace(target("b", [1]), truth=bright, reconstruction=bright)
    result = score([one, two])
    assert_well_formed(result)
    assert result.columns["darkest_gap"] == pytest.approx(0.1)
    assert [row["darkest_gap"] for row in result.reconstructions] == [pytest.approx(0.1), None]
    assert result.columns["darkest_gap_ci_low"] is None
    only_bright = score([two])
    assert_well_formed(only_bright)
    assert only_bright.columns["darkest_gap"] is None
