"""Cards must be read, validated and described where neither torch nor numpy can be imported."""

import subprocess
import sys

from PIL import Image

PLANNING = """
import sys

sys.modules["torch"] = sys.modules["numpy"] = None
from fl.data import DATASETS
from fl.data.assets import ASSETS, cached
from fl.data.partition_bounds import smallest_client
from fl.errors import DataUnavailableError
from fl.specs import Dirichlet, Iid

for card in DATASETS:
    assert all(asset in ASSETS for asset in card.assets)
    config = card.config(root=sys.argv[1], size=8) if card.name == "folder" else card.config()
    try:
        info = card.describe(config)
    except DataUnavailableError:
        assert card.name != "folder" and "root" in card.config.model_fields  # the user's own copy
    else:
        assert sum(info.images.values()) > 0
normalised = DATASETS.get("folder").config(root=sys.argv[1], size=8, normalise="dataset")
assert DATASETS.get("folder").describe(normalised).std != (1.0, 1.0, 1.0)
assert [cached(name) for name in ASSETS] == [None] * len(ASSETS)
assert smallest_client(Iid(), 10, 3) == smallest_client(Dirichlet(), 10, 3) == 3
"""


def test_planning_imports_neither_torch_nor_numpy(tmp_path, monkeypatch):
    monkeypatch.setenv("LEAKBENCH_CACHE", str(tmp_path / "cache"))
    for label in ("a", "b"):
        (tmp_path / "images" / label).mkdir(parents=True)
        for number in range(10):
            picture = Image.radial_gradient("L").resize((8 + number, 9))
            picture.save(tmp_path / "images" / label / f"{number}{label}.png", comment=label)
    done = subprocess.run(
        [sys.executable, "-c", PLANNING, str(tmp_path / "images")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
