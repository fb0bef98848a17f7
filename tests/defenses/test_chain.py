import pickle
from dataclasses import dataclass, replace
from itertools import pairwise

import pytest
import torch
from pydantic import ValidationError

from defenses import DEFENSES
from defenses.base import ClientDefense, Defense, PrivacySpent, ServerDefense
from defenses.catalog import CHAIN, PRUNING, ChainConfig, hooks_of, is_mirrored
from defenses.chain import Chain
from fl.cards import DefenseCard
from fl.hooks import Batch, GuaranteeContext, ServerContext
from fl.seeds import Streams
from fl.specs import NoConfig, Plugin
from fl.types import Refusal, Update
from harness.testing import SmallProblem
from harness.testing.small_setting import small_setting


def chain(*links):
    return ChainConfig.model_validate({"links": [{"name": name, "config": config} for name, config in links]})


class CountingClient(ClientDefense):
    """Adds one to images and updates, counts its calls, and refuses."""

    def __init__(self):
        self.calls = torch.zeros(())

    def state_dict(self):
        return {"calls": self.calls}

    def load_state_dict(self, state):
        self.calls = state["calls"]

    def sampler(self, n, batch_size, epochs, stream):
        yield torch.arange(n)

    def inspect(self, model, step):
        return Refusal("counted")

    def perturb_batch(self, step, batch):
        self.calls = self.calls + 1
        return replace(batch, images=batch.images + 1)

    def gradients(self, step, batch):
        return {"counted": self.calls}


class CountingServer(ServerDefense):
    visible = "sum"

    def per_update(self, update):
        return replace(update, n_images=update.n_images + 1)

    def release(self, mean, context):
        return replace(mean, n_images=mean.n_images * 10)


@dataclass(frozen=True)
class Counting(Defense[NoConfig]):
    def for_client(self, context):
        return CountingClient()

    def for_server(self):
        return CountingServer()

    def guarantee(self, context):
        return PrivacySpent(1.5, 1e-5, "example", "counted")


COUNTING = DefenseCard(
    name="counting",
    version=3,
    summary="For tests.",
    config=NoConfig,
    implementation=f"{__name__}:Counting",
    noise_budget=DEFENSES.get("none").noise_budget,
    hooks=frozenset({"sampler", "inspect", "perturb_batch", "gradients", "visible", "per_update", "release"}),
    mirrored=False,
)


@pytest.fixture
def counting(monkeypatch, register):
    register(DEFENSES, COUNTING)
    implementation = DEFENSES.implementation
    monkeypatch.setattr(
        DEFENSES, "implementation", lambda name: Counting if name == "counting" else implementation(name)
    )
    return Chain(chain(("gaussian", {"sigma": 0.0}), ("counting", {}), ("clipping", {"bound": 1e9})))


def protect(config, clean):
    small = SmallProblem()
    client = Chain(config).for_client(small.client_context)
    return client.protect(clean, small.step(Streams(0).torch("protect"))).tensors


def test_links_act_in_order():
    """Noise after pruning leaves no zeros; noise before it does; both differ from either alone."""
    clean = SmallProblem().update
    prune, noise = ("pruning", {"ratio": 0.5}), ("gaussian", {"sigma": 1e-2})
    results = [protect(chain(*links), clean) for links in ([prune, noise], [noise, prune], [prune], [noise])]
    zeros = [float((result["head.weight"] == 0).float().mean()) for result in results]
    assert zeros[0] == 0
    assert zeros[1] == pytest.approx(0.5, abs=0.01)
    for first, second in pairwise(results):
        assert not torch.equal(first["head.weight"], second["head.weight"])


def test_a_chain_of_one_is_its_link():
    clean = SmallProblem().update
    small = SmallProblem()
    step = small.step(Streams(0).torch("protect"))
    link = DEFENSES.implementation("gaussian")(DEFENSES.get("gaussian").config(sigma=0.1))
    alone = link.for_client(small.client_context).protect(clean, step)
    chained = protect(chain(("gaussian", {"sigma": 0.1})), clean)
    assert all(torch.equal(chained[name], tensor) for name, tensor in alone.tensors.items())


def test_the_noise_budget_is_that_of_the_last_link():
    budget = CHAIN.noise_budget(chain(("gaussian", {}), ("pruning", {"ratio": 0.3})))
    last = PRUNING.noise_budget(PRUNING.config())
    assert budget.field == "links.-1.config.ratio"
    assert (budget.unit, budget.stronger, budget.grid) == (last.unit, last.stronger, last.grid)
    assert budget.off is None


def test_identity_holds_every_default_and_the_links_versions(counting):
    resolved = chain(("clipping", {}), ("counting", {})).resolved()
    assert resolved == {
        "links": [
            {"name": "clipping", "version": 1, "config": {"bound": 1.0}},
            {"name": "counting", "version": 3, "config": {}},
        ]
    }
    assert ChainConfig.model_validate(resolved).resolved() == resolved


@pytest.mark.parametrize(
    ("links", "location", "message"),
    [
        ([{"name": "gausian"}], ("links", 0, "name"), "Did you mean 'gaussian'"),
        ([{"name": "chain"}], ("links", 0, "name"), "another 'chain'"),
        (
            [{"name": "none"}, {"name": "gaussian", "config": {"sigma": -1}}],
            ("links", 1, "config", "sigma"),
            "0",
        ),
        ([{"name": "clipping", "config": {"bond": 1}}], ("links", 0, "config", "bond"), "Extra"),
        ([{"name": "clipping", "version": 7}], ("links", 0, "version"), "expected version 1"),
        ([], ("links",), "at least one"),
    ],
)
def test_mistakes_are_located(links, location, message):
    with pytest.raises(ValidationError) as caught:
        ChainConfig.model_validate({"links": links})
    (error,) = caught.value.errors()
    assert error["loc"] == location
    assert message in error["msg"]


def test_two_ways_to_take_gradients_do_not_compose(counting):
    with pytest.raises(ValidationError, match="do not compose"):
        chain(("counting", {}), ("counting", {}))


def test_hooks_are_those_of_the_links(counting):
    def plugin(config):
        return Plugin("chain", 1, config)

    assert hooks_of(plugin(chain(("clipping", {}), ("gaussian", {})))) == {"protect"}
    assert hooks_of(plugin(counting.config)) == COUNTING.hooks | {"protect"}
    assert hooks_of(Plugin("none", 1, NoConfig())) == frozenset()


def test_every_client_hook_reaches_its_link(counting):
    small = SmallProblem(n=2)
    client = counting.for_client(small.client_context)
    step = small.step(Streams(0).torch("step"))
    batch = Batch(small.images, small.labels, ("0", "1"))

    assert torch.equal(client.perturb_batch(step, batch).images, small.images + 1)
    assert list(client.gradients(step, batch)) == ["counted"]
    assert [b.tolist() for b in client.sampler(4, 1, 1, Streams(0).torch("x"))] == [[0, 1, 2, 3]]
    assert client.inspect(step.trainer.model, step).reason == "counted"
    assert client.state_dict() == {"1.calls": torch.tensor(1.0)}
    again = counting.for_client(small.client_context)
    again.load_state_dict(client.state_dict())
    assert again.state_dict() == client.state_dict()


def test_without_an_owner_training_is_plain():
    small = SmallProblem()
    client = Chain(chain(("clipping", {}), ("gaussian", {}))).for_client(small.client_context)
    step = small.step(Streams(0).torch("step"))
    batch = Batch(small.images, small.labels, ("0",))
    plain = ClientDefense()
    assert torch.equal(client.loss(step, batch), plain.loss(step, batch))
    for name, tensor in plain.gradients(step, batch).items():
        assert torch.equal(client.gradients(step, batch)[name], tensor)
    drawn, expected = (list(c.sampler(5, 2, 2, Streams(0).torch("b"))) for c in (client, plain))
    assert all(torch.equal(a, b) for a, b in zip(drawn, expected, strict=True))
    assert client.inspect(step.trainer.model, step) is None


def test_the_server_side_composes(counting):
    server = counting.for_server()
    update = Update("gradient", {}, {}, 1)
    context = ServerContext(0, 2, Streams(0).torch("release"))
    assert server.visible == "sum"
    assert server.release(server.per_update(update), context).n_images == 20
    assert Chain(chain(("clipping", {}))).for_server().visible == "each"


def test_a_guarantee_survives_unless_another_link_mixes_images(counting):
    context = GuaranteeContext(0, 10, 1, 1.0, 2, 1)
    assert counting.guarantee(context).epsilon == 1.5
    assert Chain(chain(("clipping", {}))).guarantee(context) is None


def test_pickles_with_its_links_built(counting):
    links = Chain(chain(("clipping", {}), ("gaussian", {})))
    assert links.links
    assert pickle.loads(pickle.dumps(links)) == links


OPAQUE = replace(COUNTING, name="opaque", hooks=frozenset({"protect", "visible"}))


@pytest.fixture
def opaque(register):
    register(DEFENSES, OPAQUE)
    return chain(("clipping", {}), ("opaque", {}))


def test_an_adaptive_attacker_mirrors_or_simulates_every_link(counting, opaque):
    setting, adaptive = small_setting(), small_setting(attacker="adaptive")
    assert CHAIN.compatible(opaque, setting) is None
    assert CHAIN.compatible(opaque, adaptive) == "link 'opaque': it has no mirror for an adaptive attacker"
    assert CHAIN.compatible(counting.config, adaptive) is None
    assert CHAIN.compatible(chain(("clipping", {}), ("gaussian", {})), adaptive) is None


@pytest.mark.parametrize(
    ("links", "mirrored"),
    [
        ((("pruning", {}), ("quantization", {}), ("gaussian", {})), True),
        ((("label_smoothing", {}), ("quantization", {})), False),
        ((("pruning", {}), ("mixup", {})), False),
    ],
)
def test_a_chain_is_mirrored_if_every_link_is(links, mirrored):
    assert is_mirrored(Plugin("chain", 1, chain(*links))) is mirrored
    assert is_mirrored(Plugin("pruning", 1, PRUNING.config()))
    assert not is_mirrored(Plugin("input_noise", 1, DEFENSES.get("input_noise").config()))
