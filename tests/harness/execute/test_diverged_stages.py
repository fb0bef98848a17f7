"""A training that ends in NaN fails as the stage that it is: nothing is stored, and the rows say why."""

from __future__ import annotations

import pytest

from harness.plan.stage_requests import attack_stages
from harness.store.artifacts import ArtifactStore

GAN = "gan: {steps: 4, batch_size: 8, latent: 8, width: 2, lr: 1.0e+20%s}"
TEXT = f"""
defaults:
  data: {{name: digits, size: 16}}
  model: {{name: lenet, convs: 2, init: default}}
  federation: {{clients: 4, rounds: 1, batch_size: 16, algorithm: fedavg, lr: 0.1}}
  observe: {{kind: global_model, round: 1}}
  threat_model: {{position: participant}}
  targets: 2
matrix:
  attack:
    - {{name: random_prior, samples: 2, prior: {{width: 2, latent: 8, steps: 4, batch_size: 8}}}}
    - {{name: gmi, samples: 2, prior: {{width: 2, latent: 8, steps: 4, batch_size: 8, lr: 1.0e+20}}}}
    - {{name: kedmi, samples: 2, {GAN % ", kernels: 2, kernel_dimensions: 2"}}}
    - {{name: plgmi, samples: 2, {GAN % ", top_n: 4"}}}
"""


pytestmark = pytest.mark.usefixtures("hasty_judge")


def test_trials_fail_with_the_stage_that_they_need(run, trials, trials_of, folder):
    specs = {trial.spec.attack.name: trial.spec for trial in trials_of(TEXT)}
    result = run(TEXT)
    assert (result.complete, result.failed) == (1, 3)
    rows = trials().set_index("attack")
    assert rows["status"].to_dict() == {
        "random_prior": "complete", "gmi": "failed", "kedmi": "failed", "plgmi": "failed",
    }  # fmt: skip
    assert rows["error"]["gmi"].startswith("prior prior: expected finite weights after 4 steps of wgan_gp")
    for name in ("kedmi", "plgmi"):
        assert rows["error"][name].startswith("gan gan: expected finite weights after 4 steps of gan")
    assert rows["error"].dropna().str.contains("it diverged; give .* a smaller lr than 1e").all()

    stores = [ArtifactStore(folder / name) for name in ("artifacts", "private")]
    kept = {
        name: any(store.has(stage.key) for stage in attack_stages(spec) for store in stores)
        for name, spec in specs.items()
    }
    assert kept == {"random_prior": True, "gmi": False, "kedmi": False, "plgmi": False}
