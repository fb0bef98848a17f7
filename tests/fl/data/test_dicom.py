"""DICOM files in `folder`: pydicom's own test files, and small ones that the tests write."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pydicom.data
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from pydantic import ValidationError
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.pixels import apply_modality_lut, apply_windowing, convert_color_space
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from fl.data import DATASETS, load
from fl.data.cache import cache_dir
from fl.data.dicom import decode, read_facts
from fl.data.folder_pixels import UnusableError, is_dicom, open_resized
from fl.errors import DataUnavailableError, UsageError
from fl.specs import Plugin

SAMPLES = Path(pydicom.data.__file__).parent / "test_files"
CARD = DATASETS.get("folder")
RAMP = np.arange(0, 4096, 64, dtype=np.uint16).reshape(8, 8)
HALVES = {"private": 0.5, "public": 0, "evaluation": 0, "test": 0.5}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("LEAKBENCH_CACHE", str(tmp_path_factory.mktemp("cache")))


def sample(name):
    return (SAMPLES / f"{name}.dcm").read_bytes()


def dicom(pixels=RAMP, **attributes):
    """A DICOM file of these pixels, `H x W` or `H x W x 3`, as pydicom writes it."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[repr(attributes)])
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.SOPClassUID, dataset.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
    dataset.Rows, dataset.Columns = pixels.shape[:2]
    dataset.SamplesPerPixel = 1 if pixels.ndim == 2 else 3
    dataset.PhotometricInterpretation = "MONOCHROME2" if pixels.ndim == 2 else "RGB"
    dataset.BitsAllocated = dataset.BitsStored = 8 * pixels.dtype.itemsize
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelRepresentation = int(pixels.dtype.kind == "i")
    if pixels.ndim == 3:
        dataset.PlanarConfiguration = 0
    dataset.PixelData = pixels.tobytes()
    for name, value in attributes.items():
        setattr(dataset, name, value)
    buffer = pydicom.filebase.DicomBytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def shown(content):
    return np.asarray(decode(content))


def flaw(content):
    with pytest.raises(UnusableError) as caught:
        read_facts(content)
    return str(caught.value)


def grays(values):
    return np.round(255 * np.clip(values, 0, 1))


def test_ct_small_is_shown_between_its_percentiles():
    content = sample("CT_small")
    dataset = pydicom.dcmread(SAMPLES / "CT_small.dcm")
    stored = np.frombuffer(dataset.PixelData, "<i2").reshape(128, 128)
    values = stored * float(dataset.RescaleSlope) + float(dataset.RescaleIntercept)
    low, high = np.percentile(values, [0.5, 99.5])
    np.testing.assert_array_equal(shown(content), grays((values - low) / (high - low)))
    assert read_facts(content)[:2] == (128, 128)


def test_mr_small_is_shown_in_its_window():
    dataset = pydicom.dcmread(SAMPLES / "MR_small.dcm")
    stored = np.frombuffer(dataset.PixelData, "<i2").reshape(64, 64).astype(float)
    # centre 600, width 1600 (PS3.3 section C.11.2.1.2.1)
    np.testing.assert_array_equal(shown(sample("MR_small")), grays((stored - 599.5) / 1599 + 0.5))


@pytest.mark.parametrize("syntax", ["RLE", "bigendian", "implicit", "jp2klossless", "padded"])
def test_transfer_syntaxes_hold_the_same_image(syntax):
    np.testing.assert_array_equal(shown(sample(f"MR_small_{syntax}")), shown(sample("MR_small")))


@pytest.mark.parametrize(
    ("name", "plugin", "packages"),
    [
        ("MR_small_jpeg_ls_lossless", "jpeg_ls", "pyjpegls"),
        ("SC_rgb_jpeg_gdcm", "libjpeg", "pylibjpeg pylibjpeg-libjpeg"),
        ("JPGExtended", "libjpeg", "pylibjpeg pylibjpeg-libjpeg"),
    ],
)
def test_a_missing_decoder_is_named(name, plugin, packages):
    if importlib.util.find_spec(plugin) or importlib.util.find_spec("gdcm"):
        pytest.skip("a decoder is installed")
    assert f"; `pip install {packages}`, or convert it" in flaw(sample(name))


@pytest.mark.parametrize(
    ("centre", "width", "function"),
    [(2048, 4096, "LINEAR"), (100, 1, "LINEAR"), (2000, 1500, "LINEAR_EXACT"), (2000, 800, "SIGMOID")],
)
def test_windows_are_those_of_pydicom(centre, width, function):
    attributes = {"WindowCenter": centre, "WindowWidth": width, "VOILUTFunction": function}
    oracle = Dataset()
    oracle.PixelRepresentation, oracle.BitsStored = 0, 16
    oracle.PhotometricInterpretation = "MONOCHROME2"
    oracle.WindowCenter, oracle.WindowWidth, oracle.VOILUTFunction = centre, width, function
    expected = apply_windowing(RAMP.copy(), oracle) / (2**16 - 1)
    np.testing.assert_array_equal(shown(dicom(**attributes)), grays(expected))


def test_a_window_is_in_units_after_the_rescale():
    content = dicom(
        (RAMP // 2).astype(np.int16) - 1000,
        RescaleSlope=2,
        RescaleIntercept=2000,
        WindowCenter=2048,
        WindowWidth=4096,
    )
    np.testing.assert_array_equal(shown(content), grays(RAMP / 4095))


def test_of_several_windows_the_first_is_used():
    several = dicom(WindowCenter=[1000, 3000], WindowWidth=[500, 10])
    np.testing.assert_array_equal(shown(several), shown(dicom(WindowCenter=1000, WindowWidth=500)))


def test_without_a_window_a_constant_image_is_black():
    assert not shown(dicom(np.full((8, 8), 7, np.uint8))).any()


def test_monochrome1_is_inverted():
    window = {"WindowCenter": 2048, "WindowWidth": 4096}
    inverted = dicom(PhotometricInterpretation="MONOCHROME1", **window)
    np.testing.assert_array_equal(shown(inverted), grays(1 - RAMP / 4095))


def lookup(descriptor, data):
    item = Dataset()
    item.LUTDescriptor = descriptor
    item.add_new("LUTData", "OW", np.array(data, dtype="<u2").tobytes())
    return [item]


def test_a_voi_table_is_preferred_to_a_window():
    pixels = np.arange(16, dtype=np.uint8).reshape(4, 4)
    table = [0, 10, 1023, 500]
    content = dicom(pixels, VOILUTSequence=lookup([4, 6, 10], table), WindowCenter=8, WindowWidth=4)
    expected = [table[min(max(value - 6, 0), 3)] / 1023 for value in range(16)]
    np.testing.assert_array_equal(shown(content).ravel(), grays(np.array(expected)))


def test_a_modality_table_takes_the_place_of_the_rescale():
    pixels = np.arange(4, dtype=np.uint8).reshape(2, 2)
    sequence = lookup([4, 0, 16], [50, 0, 100, 25])
    sequence[0].ModalityLUTType = "US"
    content = dicom(pixels, ModalityLUTSequence=sequence, WindowCenter=50.5, WindowWidth=101)
    assert apply_modality_lut(pixels, pydicom.dcmread(pydicom.filebase.DicomBytesIO(content))).max() == 100
    np.testing.assert_array_equal(shown(content).ravel(), grays(np.array([50, 0, 100, 25]) / 100))


def test_colours():
    pixels = np.random.default_rng(0).integers(0, 256, (6, 5, 3), dtype=np.uint8)
    np.testing.assert_array_equal(shown(dicom(pixels)), pixels)
    ybr = convert_color_space(pixels, "RGB", "YBR_FULL")
    np.testing.assert_allclose(
        shown(dicom(ybr, PhotometricInterpretation="YBR_FULL")).astype(int), pixels, atol=2
    )


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("SC_rgb_rle_2frame", "expected one frame, got a DICOM file with 2"),
        ("examples_palette", "got DICOM pixels of PALETTE COLOR; convert it"),
        ("liver_1frame", "expected 8 or 16 bits per MONOCHROME2 value, got DICOM with 1"),
        ("SC_rgb_rle_16bit", "expected 8 bits per RGB value, got DICOM with 16"),
        ("reportsi", "got a file without pixel data"),
        ("MR_truncated", "expected 8192 bytes of DICOM pixels, got 8130"),
    ],
)
def test_what_is_not_one_image_is_refused(name, text):
    content = sample(name)
    assert text in flaw(content)
    with pytest.raises(UnusableError, match=re.escape(text)):
        decode(content)


def test_a_window_without_width_is_refused():
    with pytest.raises(UnusableError, match="SIGMOID of width 0"):
        decode(dicom(WindowCenter=1, WindowWidth=0, VOILUTFunction="SIGMOID"))


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_damaged_files_give_one_kind_of_error_that_names_nobody(data):
    content = bytearray(sample(data.draw(st.sampled_from(["CT_small", "MR_small_RLE"]))))
    for position in data.draw(st.lists(st.integers(132, 3000), min_size=1, max_size=8)):
        content[position] ^= data.draw(st.integers(1, 255))
    content = bytes(content[: data.draw(st.integers(200, len(content)))])
    for function in (read_facts, decode):
        assert not re.search(r"1CT1|4MR1|CompressedSamples", problem(function, content))


def problem(function, content):
    try:
        function(content)
    except UnusableError as error:
        return str(error)
    return ""


# --- in a folder -------------------------------------------------------------------------------------------


@pytest.fixture
def scans(tmp_path):
    """Two classes of 12 DICOM files of 16x16 pixels; six patients, two files each in both classes."""
    root = tmp_path / "scans"
    for label in ("healthy", "ill"):
        (root / label).mkdir(parents=True)
        for number in range(12):
            pixels = np.random.default_rng([label == "ill", number]).integers(0, 4096, (16, 16), np.uint16)
            name = f"{number}.dcm" if number % 2 else f"{number}.DICOM"
            (root / label / name).write_bytes(dicom(pixels, PatientID=f"Doe-{number // 2}"))
    return root


def plugin(root, **config):
    return Plugin("folder", CARD.version, CARD.config(root=str(root), **{"size": 16, **config}))


def test_a_folder_of_dicom_files(scans):
    wanted = plugin(scans, channels="gray", split=HALVES)
    dataset = load(wanted)
    assert dataset.info == CARD.describe(wanted.config)
    assert dataset.info.groups is None
    expected = {shown(path.read_bytes()).tobytes() for path in scans.rglob("*.*")}
    images = [image for part in ("private", "test") for image in dataset.part(part).images()]
    assert {(image * 255).round().byte().numpy().tobytes() for image in images} == expected
    assert len(images) == 24


def test_dicom_is_known_by_its_mark_and_not_by_its_name(tmp_path):
    path = tmp_path / "export"
    path.write_bytes(sample("MR_small"))
    assert is_dicom(path.read_bytes()[:132])
    image = open_resized(path, 64, "gray")
    np.testing.assert_array_equal(image, shown(sample("MR_small")))
    colour = open_resized(path, 32, "rgb")
    assert (colour.mode, colour.size) == ("RGB", (32, 32))


def test_a_flaw_is_named_with_its_file(scans):
    path = scans / "ill" / "frames.dcm"
    path.write_bytes(sample("SC_rgb_rle_2frame"))
    with pytest.raises(DataUnavailableError, match=rf"^{re.escape(str(path))}: expected one frame, got .* 2"):
        CARD.describe(plugin(scans).config)
    with pytest.raises(DataUnavailableError, match=re.escape(f"{path}: expected one frame")):
        open_resized(path, 16, "gray")


def test_a_flaw_that_is_gone_is_forgotten(scans):
    wanted = CARD.config(root=str(scans), size=16, split=HALVES)
    before = CARD.describe(wanted)
    (remembered,) = cache_dir().rglob("*.json")
    remembered.write_text(remembered.read_text().replace(', 16, 16, "",', ', 0, 0, "no decoder for it",'))
    assert "no decoder" in remembered.read_text()
    assert CARD.describe(wanted) == before


def test_images_of_a_patient_stay_together(scans):
    dataset = load(plugin(scans, patients="dicom", split=HALVES))
    assert dataset.info.groups == 3
    groups = {part: set(dataset.part(part).groups) for part in ("private", "test")}
    assert len(groups["private"]) == len(groups["test"]) == 3
    assert not groups["private"] & groups["test"]
    assert len(dataset.part("private")) == len(dataset.part("test")) == 12


def test_patients_are_known_by_a_hash_only(scans):
    dataset = load(plugin(scans, patients="dicom", split=HALVES))
    kept = "".join(path.read_text() for path in cache_dir().rglob("*") if path.is_file())
    assert "Doe" not in kept + repr(dataset) + plugin(scans, patients="dicom").canonical


def test_a_patients_issuer_tells_equal_ids_apart():
    facts = [
        read_facts(dicom(PatientID="1", **more)) for more in ({}, {"IssuerOfPatientID": "x"}, {"Rows": 8})
    ]
    assert facts[0].patient == facts[2].patient != facts[1].patient
    assert read_facts(dicom()).patient == ""


def test_patients_enter_the_identity(scans):
    alone, together = plugin(scans, split=HALVES), plugin(scans, split=HALVES, patients="dicom")
    assert alone.canonical != together.canonical
    assert "patients" not in alone.canonical


def test_files_without_a_patient_are_named(scans):
    nameless = scans / "ill" / "nameless.dcm"
    nameless.write_bytes(dicom(np.eye(16, dtype=np.uint8)))
    picture = scans / "ill" / "picture.png"
    Image.new("L", (16, 16), 9).save(picture)
    with pytest.raises(UsageError) as caught:
        CARD.describe(plugin(scans, patients="dicom").config)
    assert str(caught.value).splitlines() == [
        f"{path}: expected a DICOM file with a PatientID, got none; unset patients:"
        for path in (nameless, picture)
    ]


def test_patients_come_from_one_place():
    with pytest.raises(ValidationError, match="expected patients: or patient_column:, got both"):
        CARD.config(root="x", csv="t.csv", patient_column="who", patients="dicom")


PLANNING = """
import sys

sys.modules["torch"] = sys.modules["numpy"] = None
from fl.data import DATASETS

card = DATASETS.get("folder")
print(card.describe(card.config(root=sys.argv[1], size=16, patients="dicom", public=True)).groups)
"""


def test_planning_over_dicom_imports_neither_torch_nor_numpy(scans):
    done = subprocess.run(
        [sys.executable, "-c", PLANNING, str(scans)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "3\n"
