"""Each defect of the released code, alone: it does what it is said to do."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from defenses.cards_shadowdef import DEFECTS, GENERATOR, SHADOWDEF, ShadowDefConfig
from defenses.shadowdef import mechanism, rehearsal
from defenses.shadowdef.latents import fit_latents
from defenses.shadowdef.saliency import explained, saliency
from defenses.shadowdef.shadow import public_shadow
from fl.cam import grad_cam_pp
from fl.seeds import Streams
from fl.specs import Task

THREE, BINARY, MANY = Task("multiclass", 3), Task("binary", 2), Task("multilabel", 3)


def noise_under(bench, federation, round_=0):
    at = bench(federation, round_=round_)
    batch = at.batch()
    return at.defense.perturb_batch(at.step(), batch).images - batch.images


def test_a_variant_sets_what_is_not_set_alone():
    released = ShadowDefConfig(variant="as_released", flat_cam=False)
    assert [released.has(defect) for defect in DEFECTS] == [defect != "flat_cam" for defect in DEFECTS]
    assert not any(ShadowDefConfig().has(defect) for defect in DEFECTS)
    assert ShadowDefConfig(scrambled_map=True).has("scrambled_map")


def test_every_defect_is_an_option_and_off_by_default():
    for defect in DEFECTS:
        assert ShadowDefConfig.model_fields[defect].default is None


@pytest.mark.parametrize("defect", DEFECTS)
def test_each_defect_changes_the_noise(config, make_federation, bench, defect):
    """At the second local step and with the options at which it can show."""
    options = {"latent_lr": 0.5, "shadow_lr": 0.02, "cam_class": "predicted"}
    if defect == "class_one_cam":
        options["cam_class"] = "true"
    if defect in ("recovered_statistics", "mismatched_modes"):
        options |= {"batch_norm_weight": 1.0, "gradient_weight": 1.0}
    noises = []
    for switch in (None, True):
        at = bench(make_federation(config(**options, **{defect: switch}), channels=3))
        with torch.no_grad():  # the client's second step: weights and statistics are not those received
            at.trainer.forward(at.batch(4, 4).images)
            for parameter in at.trainer.parameters.values():
                parameter.mul_(1.05)
        batch = at.batch()
        noises.append(at.defense.perturb_batch(at.step(), batch).images - batch.images)
    assert not torch.equal(*noises)


def test_a_random_generator_is_the_clients_own_draw(config, artifacts):
    released = config(random_generator=True)
    own = [
        public_shadow(artifacts()[GENERATOR], released, Streams(0).at(client=c), torch.device("cpu")).weights
        for c in (0, 0, 1)
    ]
    public = public_shadow(artifacts()[GENERATOR], config(), Streams(0), torch.device("cpu")).weights
    for name, tensor in own[0].items():
        assert torch.equal(tensor, own[1][name])
        if tensor.dim() > 1:
            assert not torch.equal(tensor, own[2][name])
            assert not torch.equal(tensor, public[name])


def test_random_latents_are_first_draws(config, make_federation, bench):
    at = bench(make_federation(config(random_latents=True)), client=1)
    batch = at.batch(2)
    at.defense.perturb_batch(at.step(), batch)
    state = at.defense.state_dict()
    streams = Streams(0).at(client=1)
    for image_id in batch.image_ids:
        expected = torch.randn(8, generator=streams.torch("latent", image=image_id))
        assert torch.equal(state[f"latents/{image_id}"], expected)


@pytest.mark.parametrize("uncleared", [False, True])
def test_latents_are_fitted_by_adamw_and_gradients_cleared_or_not(
    config, artifacts, make_federation, bench, uncleared
):
    """Against torch's AdamW, with the step size halved after 3, 5 and 7 of 8 steps."""
    options = config(latent_steps=8, latent_lr=0.01, latent_weight_decay=0.1, accumulated_gradients=uncleared)
    at = bench(make_federation(config()))
    normalise, images = at.received.architecture.image.normalise, at.batch(1).images
    shadow = public_shadow(artifacts()[GENERATOR], options, Streams(0), torch.device("cpu"))
    start = torch.randn(1, 8, generator=Streams(0).torch("z"))
    image = at.received.architecture.image
    found = fit_latents(shadow, images, start, config=options, image=image)

    latents = start.clone().requires_grad_()
    optimizer = torch.optim.AdamW([latents], lr=0.01, weight_decay=0.1)
    for step in range(8):
        optimizer.param_groups[0]["lr"] = 0.01 / 2 ** sum(step >= at for at in (3, 5, 7))
        if not uncleared:
            optimizer.zero_grad()
        drawn = shadow.images(shadow.styles(latents))
        (normalise(drawn) - normalise(images)).square().mean().backward()
        optimizer.step()
    torch.testing.assert_close(found, latents.detach(), rtol=1e-4, atol=1e-5)


def test_a_scrambled_map_has_nothing_to_do_with_the_right_one(config, make_federation, bench, monkeypatch):
    seen = {}
    own = mechanism.Mechanism.noise
    for switch in (False, True):

        def spy(self, *arguments, switch=switch):
            seen[switch] = own(self, *arguments)
            return seen[switch]

        monkeypatch.setattr(mechanism.Mechanism, "noise", spy)
        noise_under(bench, make_federation(config(scrambled_map=switch), channels=3))
    pairs = zip(seen[True].flatten(1), seen[False].flatten(1), strict=True)
    assert abs(sum(float(torch.corrcoef(torch.stack(pair))[0, 1]) for pair in pairs) / 4) < 0.25


def test_a_flat_cam_hardly_depends_on_where_the_classifier_looks(config, make_federation, bench, monkeypatch):
    """Another map moves the noise by less than a hundredth; with the corrected steering by a lot."""
    change = {}
    for flat in (True, False):
        noises = []
        for flip in (False, True):
            own = mechanism.saliency
            with monkeypatch.context() as patch:
                if flip:
                    patch.setattr(mechanism, "saliency", lambda *a, own=own, **k: 1 - own(*a, **k))
                noises.append(noise_under(bench, make_federation(config(flat_cam=flat)), round_=3))
        change[flat] = float((noises[0] - noises[1]).norm() / noises[0].norm())
    assert change[True] < 0.05
    assert change[False] > 5 * change[True]


def test_whose_logit_is_explained(config):
    logits = torch.tensor([[3.0, 1.0, 2.0], [0.0, -1.0, -2.0]])
    of = {"true": config(), "predicted": config(cam_class="predicted"), "one": config(class_one_cam=True)}

    def classes(which, labels, task, values=logits):
        return explained(values, labels, config=of[which], task=task).tolist()

    assert classes("true", torch.tensor([2, 1]), THREE) == [2, 1]
    assert classes("true", torch.tensor([[0.1, 0.7, 0.2], [0.0, 0.0, 1.0]]), THREE) == [1, 2]
    assert classes("predicted", torch.tensor([2, 1]), THREE) == [0, 0]
    assert classes("one", torch.tensor([2, 0]), THREE) == [1, 1]
    assert classes("true", torch.tensor([[0.0, 1.0, 1.0], [0.0, 0.0, 0.0]]), MANY) == [2, 0]
    assert classes("predicted", torch.zeros(2, 3), MANY) == [0, 0]
    single = torch.tensor([[2.0], [-1.0]])
    assert classes("true", torch.tensor([[0.0], [1.0]]), BINARY, single) == [0, 1]
    assert classes("predicted", torch.zeros(2, 1), BINARY, single) == [1, 0]
    assert classes("one", torch.zeros(2, 1), BINARY, single) == [1, 1]


def test_a_train_mode_cam_is_of_one_image_and_its_own_statistics(config, make_federation, bench):
    at = bench(make_federation(config()))
    model, batch = rehearsal.received_model(at.trainer, at.received), at.batch()
    inputs, options = at.normalise(batch.images), {"task": THREE}
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    released = config(train_mode_cam=True)
    got = saliency(model, inputs, batch.labels, config=released, round_=0, **options)
    for i in range(4):
        alone = rehearsal.received_model(at.trainer, at.received)
        with torch.no_grad():  # running statistics that equal this image's own, from the first layer on
            for layer in (layer for layer in alone.modules() if isinstance(layer, nn.BatchNorm2d)):
                kept = []
                hook = layer.register_forward_pre_hook(lambda _, x, kept=kept: kept.append(x[0]))
                alone(inputs[[i]])
                hook.remove()
                layer.running_mean.copy_(kept[0].mean((0, 2, 3)))
                layer.running_var.copy_(kept[0].var((0, 2, 3), correction=0))
        expected = grad_cam_pp(alone, inputs[[i]], batch.labels[[i]])
        torch.testing.assert_close(got[[i]], expected, rtol=1e-3, atol=1e-3)
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in before.items())
    later = saliency(model, inputs, batch.labels, config=released, round_=1, **options)
    assert torch.equal(later, grad_cam_pp(model, inputs, batch.labels))


def test_mismatched_modes_trace_the_received_model_in_evaluation_mode(config, make_federation, bench):
    at = bench(make_federation(config()))
    model, batch = rehearsal.received_model(at.trainer, at.received), at.batch()
    image, names = at.received.architecture.image, at.received.trainable
    trace = rehearsal.received_probe(model, names, image=image, task=THREE)(batch.images, batch.labels)
    twin = rehearsal.received_model(at.trainer, at.received).requires_grad_()
    loss = nn.functional.cross_entropy(twin(at.normalise(batch.images)), batch.labels)
    loss.backward()
    for gradient, parameter in zip(trace.gradients, twin.parameters(), strict=True):
        assert torch.equal(gradient, parameter.grad)
    with rehearsal.rolled_back(at.trainer):
        own = rehearsal.client_probe(at.trainer)(batch.images, batch.labels)
    assert not torch.allclose(own.gradients[0], trace.gradients[0])


def test_the_card_names_every_defect_in_its_options():
    assert set(DEFECTS) < set(SHADOWDEF.config.model_fields)
