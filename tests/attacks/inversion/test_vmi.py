import pytest
import torch

from attacks.base import Reconstruction, TaskFailure
from attacks.inversion import vmi
from attacks.inversion.cards_vmi import VMI, VmiConfig, VmiDiversityConfig
from attacks.inversion.diversity import diversity
from fl.generators import GeneratorConfig, stage
from fl.models import materialise
from fl.specs import Task
from harness.testing import AttackConformance, SmallProblem
from harness.testing.small_env import SmallEnv
from harness.testing.small_setting import inversion_setting, small_data

SIZES = {"width": 2, "latent": 8, "steps": 1, "batch_size": 2, "kind": "wgan_gp", "critic": True}
PRIOR = GeneratorConfig(**SIZES)
STYLED = GeneratorConfig(**SIZES, architecture="styled", mapping_layers=1)
QUICK = {"iterations": 3, "batch_size": 4, "samples": 2, "lr": 2e-2, "flow_steps": 2, "flow_hidden": 8}


class VmiConformance(AttackConformance):
    card = VMI

    def artifacts(self, problem):
        return artifacts(self.config.prior, problem)


class TestVmiFlow(VmiConformance):
    config = VmiConfig(prior=PRIOR, **QUICK)


class TestVmiGaussian(VmiConformance):
    config = VmiConfig(prior=PRIOR, posterior="gaussian", **QUICK)


class TestVmiLayers(VmiConformance):
    config = VmiConfig(prior=STYLED, layers="all", **QUICK, diversity=VmiDiversityConfig(weight=0.05))


def artifacts(prior, problem):
    needs = {"generator": prior.resolved(), "image": [problem.channels, 16]}
    return {"prior": stage.train(needs, {}, problem.stage_context())}


@pytest.fixture(scope="module")
def problem():
    return SmallProblem(observes="global_model")


@pytest.fixture(scope="module")
def made(problem):
    return {prior.architecture: artifacts(prior, problem) for prior in (PRIOR, STYLED)}


def tasks(problem, made, config, labels=(0, 1, 2), group="trial"):
    found = made[config.prior.architecture]
    return [
        problem.attack_task(config, task_id=f"{group}/{y}", artifacts=found, target=y, group=group)
        for y in labels
    ]


def solve(*arguments, env=None, **settings):
    answers = vmi.Vmi().solve(tasks(*arguments, **settings), env or SmallEnv())
    return {answer.task_id: answer for answer in answers}


def settings(**changes):
    return VmiConfig(**{"prior": PRIOR} | QUICK | changes)


def by_hand(task, model, generator, config):
    """Fit and draw for one label with a Gaussian, a vector at a time; return images and last terms."""
    layers = generator.layers if config.layers == "all" else 1
    d, label = generator.latent, task.target_label
    means = [torch.zeros(d, dtype=torch.float64, requires_grad=True) for _ in range(layers)]
    factors = [torch.eye(d, dtype=torch.float64, requires_grad=True) for _ in range(layers)]
    parameters = means + factors
    velocities = [torch.zeros_like(p) for p in parameters]

    def image(noise):
        latents = [m + f.tril() @ e for m, f, e in zip(means, factors, noise, strict=True)]
        styles = torch.stack([generator.mapping(z.float()[None])[0] for z in latents])
        return generator.synthesis(styles[None] if layers > 1 else styles)[0]

    def divergence(mean, factor):
        factor = factor.tril()
        trace, volume = factor.square().sum(), factor.diagonal().abs().log().sum()
        return (trace + mean.square().sum() - d) / 2 - volume

    stream, terms = task.streams.torch("posterior_noise"), {}
    for _ in range(config.iterations):
        noise = torch.randn(layers, config.batch_size, d, generator=stream, dtype=torch.float64)
        images = torch.stack([image(noise[:, b]) for b in range(config.batch_size)])
        logs = model(task.observation.image.normalise(images)).double().log_softmax(1)
        smooth = config.label_smoothing
        identity = -((1 - smooth) * logs[:, label] + smooth * logs.mean(1)).mean()
        kl = sum(divergence(m, f) for m, f in zip(means, factors, strict=True)) / layers
        entropy = -(logs.exp() * logs).sum(1).mean()
        total = identity + config.kl * kl - config.entropy * entropy
        if config.diversity.weight:
            own = torch.full((config.batch_size,), label)
            total = total + config.diversity.weight * diversity(images, own, config.diversity)
        slopes = torch.autograd.grad(total, parameters)
        length = sum(slope.square().sum() for slope in slopes).sqrt()
        factor = min(1.0, (config.clip or torch.inf) / length.item())
        with torch.no_grad():
            for parameter, velocity, slope in zip(parameters, velocities, slopes, strict=True):
                velocity.mul_(config.momentum).add_(slope * factor)
                parameter.sub_(config.lr * velocity)
        terms = {"identity": identity.item(), "kl": kl.item(), "total": total.item()}
    with torch.no_grad():
        drawn = []
        for sample in range(config.samples):
            stream = task.streams.torch("first_latents", restart=sample)
            drawn.append(image(torch.randn(layers * d, generator=stream).double().view(layers, d)))
    return torch.stack(drawn), terms


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"clip": 0.05, "momentum": 0.5},
        {"label_smoothing": 0.2, "entropy": 0.3, "kl": 0.5},
        {"diversity": VmiDiversityConfig(weight=2.0, sigma=0.5)},
        {"prior": STYLED},
        {"prior": STYLED, "layers": "all", "clip": 0.05},
    ],
)
def test_it_does_what_the_equations_say(problem, made, changes):
    config = settings(posterior="gaussian", lr=0.5, **changes)
    answers = solve(problem, made, config)
    generator = stage.load(made[config.prior.architecture]["prior"])
    model = materialise(problem.sent).eval().requires_grad_(False)
    for task in tasks(problem, made, config):
        images, terms = by_hand(task, model, generator, config)
        answer = answers[task.task_id]
        assert torch.allclose(answer.images, images, atol=1e-4)
        for name, value in terms.items():
            assert answer.objective[name] == pytest.approx(value, abs=1e-4)
        assert (answer.gradient_evaluations, answer.lane_iterations) == (3, 3)


@pytest.mark.parametrize(
    "changes", [{}, {"posterior": "gaussian"}, {"prior": STYLED, "layers": "all"}, {"clip": 0.1}]
)
def test_labels_together_are_what_they_are_alone(problem, made, changes):
    config = settings(lr=0.3, iterations=5, **changes)
    together = solve(problem, made, config)
    for label in range(3):
        alone = solve(problem, made, config, labels=(label,))
        for task_id, answer in alone.items():
            assert torch.allclose(answer.images, together[task_id].images, atol=1e-4)
            assert answer.objective == pytest.approx(together[task_id].objective, abs=1e-4)


def test_labels_that_do_not_fit_wait(problem, made, monkeypatch):
    config = settings()
    together = solve(problem, made, config)
    monkeypatch.setattr(vmi, "MOST_IMAGES", 2 * config.batch_size)
    apart = solve(problem, made, config)
    assert apart.keys() == together.keys()
    assert [answer.lane_width for answer in apart.values()] == [2, 2, 1]
    for task_id, answer in apart.items():
        assert torch.allclose(answer.images, together[task_id].images, atol=1e-4)


def test_layers_have_latent_vectors_of_their_own(problem, made):
    """Before it has gone anywhere: the prior's images, with a vector from N(0, I) for each layer."""
    config = settings(prior=STYLED, layers="all", posterior="gaussian", lr=1e-12, samples=3)
    generator = stage.load(made["styled"]["prior"])
    task = tasks(problem, made, config)[1]
    found = solve(problem, made, config)[task.task_id].images
    for sample, image in enumerate(found):
        noise = torch.randn(3 * 8, generator=task.streams.torch("first_latents", restart=sample)).view(3, 8)
        styles = generator.styles(noise)
        assert torch.allclose(image, generator.synthesis(styles[None])[0], atol=1e-5)
        assert not torch.allclose(image, generator(noise[:1])[0], atol=1e-3)


@pytest.mark.parametrize("changes", [{}, {"posterior": "gaussian"}, {"prior": STYLED, "layers": "all"}])
def test_the_model_comes_to_see_the_label(problem, made, changes):
    config = settings(iterations=60, batch_size=8, kl=1e-3, **changes)
    env = SmallEnv()
    answers = solve(problem, made, config, env=env)
    for task_id, answer in answers.items():
        first, last = env.snapshots[task_id][0], env.snapshots[task_id][-1]
        assert first.objective["kl"] == pytest.approx(0, abs=1e-9)
        assert last.objective["identity"] < first.objective["identity"] - 0.1
        assert last.objective["kl"] > 0
        assert last.best <= last.objective["total"]
        assert answer.objective == last.objective
        assert len(env.snapshots[task_id]) <= 32
        assert last.images.shape == (4, 1, 16, 16)


def test_the_divergence_holds_a_label_at_the_prior(problem, made):
    free, held = (
        solve(problem, made, settings(iterations=40, kl=weight))["trial/0"].objective["kl"]
        for weight in (0.0, 1.0)
    )
    assert held < free / 4


def test_features_of_the_critic_may_tell_how_diverse_images_are(problem, made):
    seen = {
        features: solve(
            problem,
            made,
            settings(diversity=VmiDiversityConfig(weight=0.05, features=features)),
        )["trial/0"].objective["diversity"]
        for features in ("pixels", "critic")
    }
    assert 0 < seen["pixels"] != seen["critic"] > 0


def test_what_runs_away_is_a_failure(problem, made):
    config = settings(posterior="gaussian", lr=1e200, kl=1.0, iterations=4)
    for answer in solve(problem, made, config).values():
        assert isinstance(answer, TaskFailure)
        assert "smaller lr" in answer.error
    held = solve(problem, made, config.model_copy(update={"clip": 1.0, "lr": 0.1}))
    assert all(isinstance(answer, Reconstruction) for answer in held.values())


def test_a_generator_with_one_style_is_refused(problem, made):
    config = settings(layers="all")
    for answer in solve(problem, made, config).values():
        assert isinstance(answer, TaskFailure)
        assert "one without" in answer.error


def compatible(config, *, kind="multiclass", size=16):
    return VMI.compatible(config, inversion_setting(small_data(Task(kind, 10), size=size)))


def test_the_plan_says_what_cannot_work():
    assert compatible(VmiConfig()) is None
    assert compatible(VmiConfig(layers="all", prior=STYLED)) is None
    assert "style per layer" in compatible(VmiConfig(layers="all"))
    assert "multilabel" in compatible(VmiConfig(), kind="multilabel")
    assert "pixels a side" in compatible(VmiConfig(), size=8)
    narrow = GeneratorConfig(latent=4)
    assert "3 scales are too many" in compatible(VmiConfig(prior=narrow))
    assert compatible(VmiConfig(prior=narrow, flow_scales=2)) is None
    assert compatible(VmiConfig(prior=narrow, posterior="gaussian")) is None


def test_terms_that_would_tie_labels_together_are_refused():
    with pytest.raises(ValueError, match="got halves"):
        VmiConfig(diversity={"split": "halves"})
    with pytest.raises(ValueError, match=r"prior\.critic: true \(diversity\.features: critic asks for it"):
        VmiConfig(prior=GeneratorConfig(), diversity={"features": "critic"})


def test_a_term_given_in_part_keeps_the_attacks_own_defaults():
    own = {"weight": 0, "measure": "hsic", "sigma": 5, "kernel": "gaussian", "split": "per_label"}
    own |= {"features": "pixels", "epsilon": 1e-5}
    assert VmiConfig().diversity.resolved() == own
    assert VmiConfig(diversity={"weight": 1}).diversity.resolved() == own | {"weight": 1}
    assert VmiConfig(diversity={"measure": "coco"}).diversity.resolved() == own | {"measure": "coco"}
