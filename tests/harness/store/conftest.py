from __future__ import annotations

import io
import json

import pytest
from PIL import Image
from pyarrow.fs import LocalFileSystem

from harness.store.object_storage import ObjectStorage
from harness.store.storage import LocalStorage
from harness.store.tables import TrialRows


@pytest.fixture(params=["local", "object"])
def storage(request, tmp_path):
    """Storage of both kinds; the object store's is pyarrow's local file system."""
    root = tmp_path / "store"
    if request.param == "local":
        return LocalStorage(root)
    return ObjectStorage(LocalFileSystem(), str(root), uri=str(root))


@pytest.fixture
def png():
    buffer = io.BytesIO()
    Image.new("L", (3, 2), 7).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def rows_of(png):
    """From a trial id to everything the trial adds to the tables."""

    def make(trial_id, *, status="complete", federation="fed", images=2, attempts=1, **columns):
        complete = status == "complete"
        return TrialRows(
            trial={
                "trial_id": trial_id,
                "status": status,
                "federation_key": federation,
                "dataset": "digits",
                "model": "lenet",
                "defense": "none",
                "noise_budget": 0.0,
                "attack": "dlg",
                "attacker": "static",
                "round": 0,
                "seed": 1,
                "attempts": attempts,
                "error": None if complete else "out of luck",
                "lpips": None,
                "spec": json.dumps({"trial": trial_id}),
                **columns,
            },
            reconstructions=[
                {
                    "trial_id": trial_id,
                    "target_id": "t0",
                    "reconstruction_index": index,
                    "ssim": 0.5,
                    "png": {"bytes": png, "path": None},
                }
                for index in range(images if complete else 0)
            ],
            traces=[{"trial_id": trial_id, "target_id": "t0", "iteration": 5, "best": 0.1}]
            if complete
            else [],
            rounds=[
                {"federation_key": federation, "round": number, "accuracy": 0.1 * number}
                for number in range(2)
            ],
        )

    return make
