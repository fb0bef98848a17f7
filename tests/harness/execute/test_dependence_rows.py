"""Defenses against model inversion in local training, from a matrix to rows."""

from __future__ import annotations

MATRIX = """
defaults:
  data: {name: digits, size: 8}
  model: {name: lenet, convs: 2}
  federation: {clients: 4, rounds: 2, batch_size: 4, lr: 0.05}
  targets: 2
  attack: {name: inverting_gradients, iterations: 2}
matrix:
  attacker: [static, adaptive]
  defense:
    - {name: bido, measure: coco, estimator: spectral}
    - {name: bido, estimator: unbiased, kernel: linear, lambda_x: 0.01}
    - {name: mid_dependence, lambda_x: 10.0}
    - {name: mid_vib, bottleneck: 4}
    - {chain: [{name: bido, lambda_x: 0.1}, {name: gaussian, sigma: 1e-3}]}
include:
  - attack: {name: inverting_gradients, iterations: 2, unroll: true}
    attacker: adaptive
    defense: {grid: [{name: bido}, {name: mid_dependence}, {name: mid_vib}]}
    federation: {algorithm: fedavg, clients: 4, rounds: 2, batch_size: 4, local_steps: 2, lr: 0.05}
    observe: {round: 1}
"""


def test_every_trial_completes(rows_of):
    rows = rows_of(MATRIX)
    assert len(rows) == 13
    assert rows["psnr_db"].notna().all()
    assert rows["accuracy"].notna().all()
