"""The phases of a search through a generator: Adam over rows of latent vectors, features or weights."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch

from attacks.generative import Evaluated, Evaluator, Hunt, Run
from attacks.generative_plan import Features, Phase
from attacks.optimizers import SNAPSHOTS
from attacks.parametrisations import Drawn, Latents, Parametrisation, Weights, styles_of
from attacks.parametrisations import Features as FeatureRows

if TYPE_CHECKING:
    from torch import Tensor

    from fl.types import ImageSpec


def hunt(hunts: Sequence[Hunt], evaluator: Evaluator) -> None:
    """Take hunts that share plan and generator through all phases, as many rows at a time as there are.

    Source: Jeon et al. 2021, arXiv 2110.14962, algorithm 1, and Fang et al. 2023, arXiv 2308.04699, algorithm
    1, with two corrections: a phase hands on the iterate with the lowest matching cost, not its last, and the
    search for weights starts from the best restart alone, since all would start from the same weights.
    """
    plan = hunts[0].plan
    runs = [Run(each, restart) for each in hunts for restart in range(plan.restarts)]
    for start in range(0, len(runs), evaluator.lanes):
        chunk = runs[start : start + evaluator.lanes]
        vectors = _search_latents(chunk, evaluator)
        if plan.features is not None:
            _search_features(chunk, evaluator, vectors, plan.features)
    if plan.parameters is None:
        return
    ready = [each for each in hunts if each.best is not None and not each.stopped]
    for start in range(0, len(ready), evaluator.lanes):
        _search_weights(ready[start : start + evaluator.lanes], evaluator)


def _search_latents(runs: Sequence[Run], evaluator: Evaluator) -> Tensor:
    """Return where the latent vectors of all rows came to, `B x n x latent`."""
    first = runs[0].hunt
    latents = _rows([run.hunt.first_latents(run.restart) for run in runs], evaluator.lanes)
    labels = _labels([run.hunt for run in runs], evaluator.lanes)
    way = Latents(first.generator, first.problem.images, weight=first.plan.latent_norm, labels=labels)
    found = _descend(runs, evaluator, way, way.rows(latents), first.plan.latent)
    vectors = way.latents(found.rows)
    for lane, run in enumerate(runs):
        run.hunt.offer(found.terms[lane], found.inputs[lane], vectors[lane])
    return vectors


def _search_features(runs: Sequence[Run], evaluator: Evaluator, latents: Tensor, plan: Features) -> None:
    """Walk outwards: what a phase came to, through one more block, is where the next one begins."""
    generator = runs[0].hunt.generator
    styles = styles_of(generator, latents, _labels([run.hunt for run in runs], evaluator.lanes))
    features = _by_image(styles, latents)
    for block, radius in enumerate(plan.radii):
        with torch.no_grad():
            entered = generator.synthesis.enter(features.flatten(0, 1), block, styles)
        way = FeatureRows(generator, block + 1, _by_image(entered, latents), styles, radius=radius)
        found = _descend(runs, evaluator, way, way.rows(), plan.phase)
        features = way.features(found.rows)
        for lane, run in enumerate(runs):
            run.hunt.offer(found.terms[lane], found.inputs[lane], latents[lane])


def _by_image(batch: Tensor, latents: Tensor) -> Tensor:
    """From `(B n) x ...` to `B x n x ...`, latent vectors having B and n."""
    return batch.view(*latents.shape[:2], *batch.shape[1:])


def _search_weights(hunts: Sequence[Hunt], evaluator: Evaluator) -> None:
    first = hunts[0]
    assert first.plan.parameters is not None
    latents = _rows([each.best[1] for each in hunts if each.best is not None], evaluator.lanes)
    way = Weights(first.generator, latents, _labels(hunts, evaluator.lanes))
    runs = [Run(each, each.plan.restarts) for each in hunts]
    found = _descend(runs, evaluator, way, way.rows(), first.plan.parameters)
    for lane, each in enumerate(hunts):
        each.offer(found.terms[lane], found.inputs[lane], latents[lane])


class _Found(NamedTuple):
    """Where rows had their lowest matching cost: rows `B x D`, inputs, and terms of each."""

    rows: Tensor
    inputs: Tensor
    terms: list[dict[str, float]]


def _descend(
    runs: Sequence[Run], evaluator: Evaluator, way: Parametrisation, start: Tensor, phase: Phase
) -> _Found:
    """Take a phase's steps in all rows at once."""
    evaluator.load([run.hunt for run in runs])
    image = runs[0].hunt.problem.task.observation.image
    rows = start.clone()
    optimizer = torch.optim.Adam([rows], lr=phase.lr)
    stride = max(1, phase.iterations // SNAPSHOTS)
    best: _Found | None = None
    for iteration in range(phase.iterations + 1):
        stopping = [run.hunt.check_stopping() for run in runs]
        if all(stopping):
            break
        drawn = way.draw(rows)
        inputs = image.normalise(drawn.images)
        evaluated = evaluator.evaluate(inputs)
        terms = _by_row(evaluated.terms, drawn.norm, way.weight, active=len(runs))
        for lane, run in enumerate(runs):
            last = iteration == phase.iterations
            run.hunt.see(terms[lane], inputs[lane], run.restart, keep=last or iteration % stride == 0)
        best = _better(best, _Found(rows, inputs, terms))
        if iteration < phase.iterations:
            rows.grad = _pulled(drawn, evaluated, image, active=len(runs))
            optimizer.param_groups[0]["lr"] = phase.rate(iteration)
            optimizer.step()
            if (kept := way.confined(rows)) is not rows:
                rows.copy_(kept)
    return best or _Found(rows, rows, [{"matching": math.inf} for _ in runs])


def _pulled(drawn: Drawn, evaluated: Evaluated, image: ImageSpec, *, active: int) -> Tensor:
    """Return the slope in the rows; none where a row is idle or no longer finite."""
    slopes = evaluated.slopes
    alive = evaluated.terms["total"].isfinite() & slopes.flatten(1).isfinite().all(1)
    alive[active:] = False
    kept = torch.where(alive.view(-1, 1, 1, 1, 1), slopes, 0)
    deviations = slopes.new_tensor(image.std).view(-1, 1, 1)
    return torch.where(alive.unsqueeze(1), drawn.pull(kept / deviations), 0)


def _by_row(
    terms: Mapping[str, Tensor], norm: Tensor | None, weight: float, *, active: int
) -> list[dict[str, float]]:
    found = dict(terms)
    if norm is not None:
        found |= {"latent_norm": norm, "total": terms["total"] + weight * norm}
    lists = {name: rows.tolist() for name, rows in found.items()}
    return [{name: values[lane] for name, values in lists.items()} for lane in range(active)]


def _better(best: _Found | None, now: _Found) -> _Found:
    """Return, row by row, the one with the lower matching cost."""
    if best is None:
        return now._replace(rows=now.rows.clone())
    falls = [new["matching"] < old["matching"] for new, old in zip(now.terms, best.terms, strict=True)]
    lower = torch.zeros(len(now.rows), dtype=torch.bool, device=now.rows.device)
    lower[: len(falls)] = torch.tensor(falls, device=now.rows.device)
    return _Found(
        rows=torch.where(lower.unsqueeze(1), now.rows, best.rows),
        inputs=torch.where(lower.view(-1, 1, 1, 1, 1), now.inputs, best.inputs),
        terms=[new if falls else old for new, old, falls in zip(now.terms, best.terms, falls, strict=True)],
    )


def _labels(hunts: Sequence[Hunt], lanes: int) -> Tensor | None:
    """Return the labels that the attacker works with, stacked, where the generator draws by them."""
    if not hunts[0].generator.classes:
        return None
    return _rows([each.labelling.fixed for each in hunts if each.labelling.fixed is not None], lanes)


def _rows(rows: Sequence[Tensor], lanes: int) -> Tensor:
    """Stack rows, and zeros for idle lanes."""
    stacked = torch.stack(list(rows))
    return torch.cat([stacked, stacked.new_zeros(lanes - len(rows), *stacked.shape[1:])])
