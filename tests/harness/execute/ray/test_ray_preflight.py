from __future__ import annotations

import platform
from dataclasses import replace

import pytest

from fl.errors import StoreError, UsageError
from harness.execute.executor import LaneSettings
from harness.execute.ray_preflight import Preflight, StoreMarks, environment


@pytest.fixture
def marks(tmp_path):
    return StoreMarks(LaneSettings(str(tmp_path / "artifacts"), str(tmp_path / "private")))


def test_a_node_that_is_like_the_driver_passes_and_leaves_nothing_behind(marks, tmp_path):
    Preflight(environment(), marks.write()).check()
    assert len(list(tmp_path.glob("*/.*"))) == 2
    marks.remove()
    assert list(tmp_path.glob("*/*")) == []


def test_versions_are_those_of_this_process():
    import torch

    here = environment()
    assert here["torch"] == torch.__version__.partition("+")[0]
    assert here["Python"] == ".".join(platform.python_version().split(".")[:2])
    assert here == environment()


@pytest.mark.parametrize("name", ["Python", "leakbench", "torch", "code"])
def test_another_version_than_the_drivers_is_refused(name):
    driver = {**environment(), name: "0.0"}
    with pytest.raises(UsageError, match=f"expected {name} 0.0 as on the driver, got {environment()[name]}"):
        Preflight(driver, (), host="elsewhere").check()


def test_source_files_that_were_edited_since_the_start_on_this_machine_are_no_difference():
    Preflight({**environment(), "code": "before"}, ()).check()


def test_a_folder_of_the_same_name_on_another_node_is_refused(marks, tmp_path):
    written = marks.write()
    (tmp_path / "private").rename(tmp_path / "elsewhere")
    with pytest.raises(UsageError, match=r"expected the driver's store at .*private.*shared"):
        Preflight(environment(), written).check()


def test_a_store_that_can_be_read_but_not_written_is_refused(marks, tmp_path, monkeypatch):
    written = marks.write()
    from harness.store.storage import LocalStorage

    def full(*args):
        raise StoreError("no space")

    monkeypatch.setattr(LocalStorage, "write", full)
    with pytest.raises(StoreError, match="no space"):
        Preflight(environment(), written).check()


@pytest.mark.ray
def test_a_node_without_a_data_set_gets_no_work_and_is_told_what_to_do(start, store, tmp_path, monkeypatch):
    """Its processes keep the home folder that Ray was started with; the driver gets another one."""
    from PIL import Image
    from ray_test_items import log, run, spec, stage

    from fl.data import DATASETS
    from fl.specs import Plugin

    def trial(root):
        card = DATASETS.get("folder")
        data = Plugin("folder", card.version, card.config(root=root, size=8, channels="gray"))
        return replace(spec(), data=data, model=None)

    home, name = tmp_path / "home", "images-of-the-driver"
    for number in range(20):
        file = home / name / f"class{number % 2}" / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8), 10 * number).save(file)
    run(start(specs=[trial(str(home / name))]), [stage("square", value=2)])

    monkeypatch.setenv("HOME", str(home))
    missing = rf"^node \S+: data set folder: \S+/{name}: expected a folder of images, got none; set root:"
    with pytest.raises(UsageError, match=missing):
        start(specs=[trial(f"~/{name}")])
    assert len(log(store)) == 1
