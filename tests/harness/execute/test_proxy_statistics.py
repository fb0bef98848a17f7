"""Batch-norm statistics of public images, for an adversary who has no better."""

import torch

from fl.models import materialise
from harness.execute.environment import make_task

MATRIX = """
defaults:
  data: {name: digits, size: 9}
  model: {name: convnet, convs: 2, width: 2, batch_norm: true}
  federation: {clients: 4, rounds: 1, batch_size: 4, batch_norm: %s}
  threat_model: {knowledge: {batch_norm: %s, public_data: %s}}
  targets: 1
matrix:
  attack: [mean_image]
"""


def task_of(workshop, trials_of, *words):
    (trial,), shop = trials_of(MATRIX % words), workshop()
    (seen,) = shop.materials.seen(trial.spec)
    return make_task(trial, seen, shop.materials)


def test_a_proxy_is_the_statistics_of_public_images_under_the_model_sent(workshop, trials_of):
    task = task_of(workshop, trials_of, "eval", "proxy", "true")
    count = len(task.public.images)
    images = task.public.images[:: max(count // 256, 1)][:256]
    model = materialise(task.observation.sent)
    with torch.no_grad():
        first = model.body.conv1(task.observation.image.normalise(images))
        second = model.body.conv2(model.body.relu1(model.body.norm1(first)))
    known = task.observation.knowledge.batch_norm
    assert len(known) == 4
    for name, values in (("norm1", first), ("norm2", second)):
        flat = values.movedim(1, 0).flatten(1)
        torch.testing.assert_close(known[f"body.{name}.running_mean"], flat.mean(1), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(
            known[f"body.{name}.running_var"], flat.var(1, correction=0), rtol=1e-4, atol=1e-5
        )


def test_other_tiers_are_left_as_they_were_granted(workshop, trials_of):
    running = task_of(workshop, trials_of, "eval", "running", "true").observation
    assert torch.equal(
        running.knowledge.batch_norm["body.norm1.running_mean"],
        running.sent.tensors["body.norm1.running_mean"],
    )
    assert task_of(workshop, trials_of, "eval", "none", "true").observation.knowledge.batch_norm is None


def test_inferred_statistics_reach_the_attack(workshop, trials_of):
    known = task_of(workshop, trials_of, "train", "inferred", "true").observation.knowledge.batch_norm
    exact = task_of(workshop, trials_of, "train", "exact", "true").observation.knowledge.batch_norm
    for name, values in exact.items():
        torch.testing.assert_close(known[name], values, rtol=1e-3, atol=1e-5)
