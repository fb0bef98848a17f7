"""Write the frozen results of the present schema version, once per version; the files never change again.

    python tests/harness/store/assets/freeze.py

makes `assets/v<SCHEMA_VERSION>/`, which `test_frozen_results.py` keeps readable. It refuses to overwrite.
"""

from __future__ import annotations

import base64
import json
import sys
from pathlib import Path

from harness.store.experiment import Experiment, TrialRows
from harness.store.schema import SCHEMA_VERSION

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAIAAAABCAAAAADRSSBWAAAAC0lEQVR4nGNg+A8AAQIBANHD2o0AAAAASUVORK5CYII="
)
"""Two grey pixels, 0 and 255."""

SPEC = {"attack": {"config": {"steps": 30}, "name": "dlg", "version": 1}, "noise_budget": 0.001, "seed": 7}


def trial(trial_id: str, **columns: object) -> dict[str, object]:
    """Return a row of `trials/`."""
    return {
        "trial_id": trial_id,
        "experiment": "frozen",
        "federation_key": "federation",
        "dataset": "digits",
        "model": "lenet",
        "defense": "gaussian",
        "noise_budget": 0.001,
        "attack": "dlg",
        "attacker": "static",
        "round": 0,
        "seed": 7,
        "attack_steps": 30,
        "attempts": 1,
        "finished": "2026-11-21T06:00:00+00:00",
        "spec": json.dumps(SPEC, sort_keys=True),
        **columns,
    }


def main() -> None:
    """Write the files."""
    folder = Path(__file__).parent / f"v{SCHEMA_VERSION}"
    if folder.exists():
        sys.exit(f"{folder} is frozen; bump SCHEMA_VERSION to make another")
    scores = {"ssim": 0.5, "ssim_ci_low": 0.25, "psnr_db": 20.0, "accuracy": 0.75, "gradient_evaluations": 60}
    complete = trial("complete-trial", status="complete", **scores)
    failed = trial("failed-trial", status="failed", error="ValueError: no", traceback="Traceback")
    skipped = {**trial("skipped-trial", status="not_applicable", error="no labels"), "federation_key": None}
    reconstructions = [
        {"reconstruction_index": 0, "matched_index": 1, "ssim": 0.5, "png": {"bytes": PNG, "path": None}},
        {"reconstruction_index": 1, "png": {"bytes": None, "path": "private/images/secret.png"}},
    ]
    traces = [{"iteration": 10, "objective": '{"gradient":0.5}', "best": 0.5, "png": None}]
    at = {"trial_id": "complete-trial", "target_id": "t0"}
    experiment = Experiment.open(folder, columns={"attack_steps": "int"})
    with experiment.lock():
        experiment.begin({"name": "frozen", "environment": {"python": "3.11"}})
        experiment.commit([TrialRows(failed), TrialRows(skipped)])
        rounds = [{"federation_key": "federation", "round": n, "accuracy": 0.25 * n} for n in (0, 3)]
        experiment.commit(
            [
                TrialRows(
                    complete,
                    reconstructions=[{**at, **row} for row in reconstructions],
                    traces=[{**at, **row} for row in traces],
                    rounds=rounds,
                )
            ]
        )
    (folder / "private" / "images").mkdir(parents=True)
    (folder / "private" / "images" / "secret.png").write_bytes(PNG)


if __name__ == "__main__":
    main()
