import pytest
import torch
from torch.nn import functional as F

from attacks.catalog import IdlgConfig, InvertingGradientsConfig
from attacks.idlg import Idlg
from attacks.inverting_gradients import InvertingGradients
from defenses.catalog import PruningConfig
from defenses.pruning import Pruning
from fl.models import materialise
from harness.testing import SmallProblem


def solve(small, config, **changes):
    env = small.env()
    answer = next(InvertingGradients().solve([small.attack_task(config, **changes)], env))
    return answer, env.snapshots.get("small", [])


def psnr_db(images, truth):
    return float(-10 * (images - truth).square().mean().log10())


def test_it_recovers_a_colour_image_and_its_cost_falls():
    small = SmallProblem(channels=3)
    answer, snapshots = solve(small, InvertingGradientsConfig(iterations=200, total_variation=1e-2))
    assert psnr_db(answer.images, small.images) > 14
    assert answer.objective["matching"] < snapshots[0].objective["matching"] / 100
    assert torch.equal(answer.labels, small.labels)


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"signed": False},
        {"boxed": False},
        {"decay": False},
        {"optimizer": "sgd"},
        {"tensors": "last", "tensor_count": 4},
    ],
)
def test_it_follows_the_reference_loop(config):
    """An independent loop: torch's step and MultiStepLR on 1 - cos + TV, the sign taken, then the box."""
    iterations, weight = 24, 1e-2
    settings = InvertingGradientsConfig(iterations=iterations, total_variation=weight, **config)
    small = SmallProblem(channels=3, n=2, know_labels=True)
    task = small.attack_task(settings)
    model = materialise(small.sent)
    matched = [name for name, _ in model.named_parameters()][-(settings.tensor_count or 0) :]
    observed = torch.cat([small.update.tensors[name].flatten() for name in matched])
    x = torch.randn(2, 3, 16, 16, generator=task.streams.torch("first_guess", restart=0)).requires_grad_()
    optimizer = {"adam": torch.optim.Adam, "sgd": torch.optim.SGD}[settings.optimizer]([x], lr=0.1)
    stages = [iterations // 2.667, iterations // 1.6, iterations // 1.142] if settings.decay else []
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, milestones=stages, gamma=0.1)
    for _ in range(iterations):
        loss = F.cross_entropy(model(x), small.labels)
        parameters = [model.get_parameter(name) for name in matched]
        gradients = torch.autograd.grad(loss, parameters, create_graph=True)
        cost = 1 - F.cosine_similarity(torch.cat([g.flatten() for g in gradients]), observed, dim=0)
        variation = F.l1_loss(x[..., 1:], x[..., :-1]) + F.l1_loss(x[..., 1:, :], x[..., :-1, :])
        (x.grad,) = torch.autograd.grad(cost + weight * variation, x)
        if settings.signed:
            x.grad = x.grad.sign()
        optimizer.step()
        schedule.step()
        if settings.boxed:  # mean 0.5, standard deviation 0.25
            x.data = x.data.clamp(-2, 2)

    answer = next(InvertingGradients().solve([task], small.env()))
    expected = small.image.denormalise(x.detach()).clamp(0, 1)
    assert float((answer.images - expected).abs().median()) < 1e-5  # signs of tiny entries may differ


def test_the_score_is_the_cost_of_the_returned_images_without_total_variation():
    small = SmallProblem()
    answer, _ = solve(small, InvertingGradientsConfig(iterations=10, restarts=3, total_variation=0.5))
    model = materialise(small.sent)
    loss = F.cross_entropy(model(small.image.normalise(answer.images)), small.labels)
    gradients = torch.autograd.grad(loss, model.parameters())
    dummy = torch.cat([g.flatten() for g in gradients])
    observed = torch.cat([small.update.tensors[name].flatten() for name, _ in model.named_parameters()])
    cost = 1 - float(F.cosine_similarity(dummy, observed, dim=0))
    assert answer.objective["matching"] == pytest.approx(cost, abs=1e-5)


@pytest.mark.parametrize("start", [{}, {"init": "mean", "init_jitter": 0.05}])
def test_the_best_restart_is_returned(start):
    small = SmallProblem()
    config = InvertingGradientsConfig(iterations=5, restarts=4, decay=False, **start)
    answer, snapshots = solve(small, config)
    ends = {s.restart: s.objective["matching"] for s in snapshots}  # the last of each
    assert list(ends) == [0, 1, 2, 3]
    assert len(set(ends.values())) == 4
    assert answer.objective["matching"] == min(ends.values())


def test_the_total_is_what_is_minimised():
    config = InvertingGradientsConfig(iterations=3, total_variation=0.5)
    answer, snapshots = solve(SmallProblem(), config)
    for terms in (answer.objective, snapshots[0].objective):
        assert terms["total"] == pytest.approx(terms["matching"] + 0.5 * terms["total_variation"])


def test_lbfgs_with_the_euclidean_cost_is_dlg_with_the_labels_read():
    """The baseline of the reference implementation, without its total variation."""
    small = SmallProblem()
    config = InvertingGradientsConfig(
        cost="l2", optimizer="lbfgs", total_variation=0, signed=False, boxed=False, decay=False, iterations=5
    )
    answer, _ = solve(small, config)
    baseline = next(Idlg().solve([small.attack_task(IdlgConfig(iterations=5))], small.env()))
    assert torch.equal(answer.images, baseline.images)


@pytest.mark.parametrize("cost", ["l1", "l2", "cosine_per_tensor"])
def test_other_costs_recover_an_image_too(cost):
    answer, snapshots = solve(SmallProblem(), InvertingGradientsConfig(iterations=200, cost=cost))
    assert psnr_db(answer.images, SmallProblem().images) > 14
    assert answer.objective["matching"] < snapshots[0].objective["matching"] / 3


def test_restarts_that_did_not_run_are_never_chosen():
    """With an allowance of one evaluation a restart, and with too little for all of them."""
    small = SmallProblem()
    config = InvertingGradientsConfig(iterations=50, restarts=10)
    answer, snapshots = solve(small, config, max_evaluations=4)
    assert answer.gradient_evaluations <= 4
    assert answer.objective["matching"] == min(s.objective["matching"] for s in snapshots)


def test_unrolling_local_steps_beats_one_step_of_their_length():
    model = {"convs": 3, "activation": "relu", "init": "default"}
    small = SmallProblem(kind="delta", steps=5, model=model)
    naive, unrolled = (
        solve(small, InvertingGradientsConfig(iterations=300, unroll=unroll))[0] for unroll in (False, True)
    )
    assert psnr_db(unrolled.images, small.images) > psnr_db(naive.images, small.images) + 5
    assert unrolled.gradient_evaluations == 5 * naive.gradient_evaluations


def test_the_learning_rate_does_not_matter_to_the_cosine_of_one_step():
    answers = [
        solve(SmallProblem(kind="delta", steps=1, lr=lr), InvertingGradientsConfig(iterations=40))[0]
        for lr in (0.02, 0.05)
    ]
    assert answers[0].objective["matching"] == pytest.approx(answers[1].objective["matching"], rel=0.05)


def test_an_all_zero_update_leaves_the_first_guess():
    """Nothing was sent, so nothing is found: a result, not a failure."""
    small = SmallProblem(defense=Pruning(PruningConfig(ratio=1.0)), know_labels=True)
    config = InvertingGradientsConfig(iterations=3, total_variation=0)
    answer, _ = solve(small, config)
    guess = torch.randn(
        1, 1, 16, 16, generator=small.attack_task(config).streams.torch("first_guess", restart=0)
    )
    assert torch.equal(answer.images, small.image.denormalise(guess.clamp(-2, 2)).clamp(0, 1))
    assert answer.objective["matching"] == 1
