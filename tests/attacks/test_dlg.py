import itertools

import pytest
import torch
from torch.nn import functional as F

from attacks.catalog import DlgConfig, IdlgConfig
from attacks.dlg import Dlg
from attacks.idlg import Idlg
from defenses.catalog import PruningConfig
from defenses.pruning import Pruning
from fl.models import materialise
from fl.specs import Task
from harness.testing import SmallProblem


def solve(attack, small, config, **changes):
    return next(attack.solve([small.attack_task(config, **changes)], small.env()))


def psnr_db(images, truth):
    """Best over the order of images, mean over images."""
    orders = itertools.permutations(range(len(images)))
    best = min((images[list(order)] - truth).square().flatten(1).mean(1).log10().mean() for order in orders)
    return float(-10 * best)


@pytest.mark.parametrize("seed", range(3))
def test_dlg_recovers_image_and_label(seed):
    small = SmallProblem(seed=seed)
    answer = solve(Dlg(), small, DlgConfig(restarts=3))
    assert psnr_db(answer.images, small.images) > 30
    assert torch.equal(answer.labels, small.labels)


def test_dlg_recovers_a_colour_image():
    small = SmallProblem(channels=3)
    answer = solve(Dlg(), small, DlgConfig(restarts=3))
    assert psnr_db(answer.images, small.images) > 30


def test_dlg_recovers_a_batch():
    small = SmallProblem(n=2, seed=1)
    answer = solve(Dlg(), small, DlgConfig(iterations=60, restarts=3))
    assert psnr_db(answer.images, small.images) > 20
    assert torch.equal(answer.labels.sort().values, small.labels.sort().values)


@pytest.mark.parametrize("task", [Task("binary", 2), Task("multilabel", 5)])
def test_dlg_optimises_sigmoid_labels(task):
    small = SmallProblem(task=task)
    answer = solve(Dlg(), small, DlgConfig(iterations=100, restarts=3))
    assert torch.equal(answer.labels.view(1, -1), small.labels.long())
    assert answer.labels.shape == ((1,) if task.kind == "binary" else (1, 5))


@pytest.mark.parametrize("seed", range(2))
def test_idlg_recovers_image_and_label(seed):
    small = SmallProblem(seed=seed)
    answer = solve(Idlg(), small, IdlgConfig(restarts=3))
    assert psnr_db(answer.images, small.images) > 30
    assert torch.equal(answer.labels, small.labels)


def test_granted_labels_are_used_and_not_claimed_as_recovered():
    small = SmallProblem(know_labels=True)
    joint, images_only = (solve(attack, small, DlgConfig(iterations=3)) for attack in (Dlg(), Idlg()))
    assert joint.labels is None
    assert torch.equal(joint.images, images_only.images)


def test_dlg_follows_the_reference_loop():
    """An independent loop: torch's L-BFGS with its defaults on the summed squared differences."""
    small = SmallProblem()
    steps = 2
    task = small.attack_task(DlgConfig(iterations=steps, tolerance=0))
    model = materialise(small.sent)
    observed = [small.update.tensors[name] for name, _ in model.named_parameters()]
    x = torch.randn(1, 1, 16, 16, generator=task.streams.torch("first_guess", restart=0)).requires_grad_()
    y = torch.randn(1, 10, generator=task.streams.torch("labels", restart=0)).requires_grad_()
    optimizer = torch.optim.LBFGS([x, y], lr=1, max_iter=20, history_size=100)

    def closure():
        optimizer.zero_grad()
        loss = -(F.softmax(y, 1) * F.log_softmax(model(x), 1)).sum(1).mean()
        gradients = torch.autograd.grad(loss, model.parameters(), create_graph=True)
        distance = sum(((a - b) ** 2).sum() for a, b in zip(gradients, observed, strict=True))
        x.grad, y.grad = torch.autograd.grad(distance, [x, y])
        return distance.detach()

    for _ in range(steps):
        optimizer.step(closure)

    answer = next(Dlg().solve([task], small.env()))
    expected = small.image.denormalise(x.detach()).clamp(0, 1)
    torch.testing.assert_close(answer.images, expected, atol=3e-2, rtol=0)  # L-BFGS amplifies rounding
    assert answer.objective["matching"] == pytest.approx(float(closure()), rel=0.05)


def test_a_net_it_does_not_work_on_gives_a_poor_result_and_no_crash():
    """Saturated tanh units; the matching loss says so without the truth."""
    small = SmallProblem(model={"convs": 3, "activation": "tanh"})
    answer = solve(Dlg(), small, DlgConfig(iterations=10))
    assert psnr_db(answer.images, small.images) < 15
    assert answer.images.isfinite().all()
    assert answer.objective["matching"] > 1e-2


def test_more_restarts_never_end_with_a_higher_loss():
    """Here the first guess fails and the second does not, as the own loss tells; no third is then tried."""
    small = SmallProblem(n=2)
    answers = [solve(Dlg(), small, DlgConfig(iterations=40, restarts=restarts)) for restarts in (1, 2, 4)]
    losses = [answer.objective["matching"] for answer in answers]
    assert losses[0] > 1
    assert losses[1] == losses[2] < 1e-5
    assert answers[1].gradient_evaluations == answers[2].gradient_evaluations
    assert max(psnr_db(answers[-1].images, images) for images in (small.images, small.images.flip(0))) > 30


def test_a_solved_restart_is_the_last():
    small = SmallProblem()
    one, many = (solve(Dlg(), small, DlgConfig(restarts=restarts)) for restarts in (1, 5))
    assert one.objective["matching"] < 1e-5
    assert one.gradient_evaluations == many.gradient_evaluations


def test_an_adaptive_attacker_matches_a_pruned_gradient_better():
    small = SmallProblem(defense=Pruning(PruningConfig(ratio=0.5)))
    config = DlgConfig(iterations=20)
    static, adaptive = (solve(Dlg(), small, config, adaptive=adaptive) for adaptive in (False, True))
    assert adaptive.objective["matching"] < static.objective["matching"] / 100
    assert psnr_db(adaptive.images, small.images) > psnr_db(static.images, small.images)


def test_signless_pruning_hides_the_label_and_correct_pruning_does_not():
    right = {"standard": 0, "as_released": 0}
    for variant, seed in itertools.product(right, range(5)):
        small = SmallProblem(seed=seed, defense=Pruning(PruningConfig(ratio=0.2, variant=variant)))
        answer = solve(Idlg(), small, IdlgConfig(iterations=1))
        right[variant] += int(torch.equal(answer.labels, small.labels))
    assert right["standard"] == 5
    assert right["as_released"] <= 1
