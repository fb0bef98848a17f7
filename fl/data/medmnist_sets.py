"""Facts about MedMNIST v2 and MedMNIST+ (Yang et al., Scientific Data 10, 2023, arXiv 2110.14795)."""

from __future__ import annotations

from typing import NamedTuple

from fl.specs import Task

RESOLUTIONS = (28, 64, 128, 224)
"""Sides of the images that are published, in pixels: one file each."""

HOST = "https://zenodo.org/records/10519652/files"


class MedMnistSet(NamedTuple):
    """A two-dimensional set as it is published.

    Attributes:
        flag: MedMNIST's name for it.
        holds: What its images are.
        task: What it is for; ordinal regression counts as multiclass.
        channels: Image channels.
        class_names: What its classes or findings are called.
        images: Images of the official training, validation and test part.
        md5: Digest of the file of each of `RESOLUTIONS`.
        overlap: What is known of patients in several official parts.
        licence: Licence of the images.
    """

    flag: str
    holds: str
    task: Task
    channels: int
    class_names: tuple[str, ...]
    images: tuple[int, int, int]
    md5: tuple[str, str, str, str]
    overlap: str = "patients are not named"
    licence: str = "CC BY 4.0"

    def file(self, resolution: int) -> str:
        """Return the name of the file of that resolution."""
        return f"{self.flag}.npz" if resolution == RESOLUTIONS[0] else f"{self.flag}_{resolution}.npz"

    def url(self, resolution: int) -> str:
        """Return where that file is published."""
        return f"{HOST}/{self.file(resolution)}?download=1"


ORGANS = (
    "bladder",
    "femur-left",
    "femur-right",
    "heart",
    "kidney-left",
    "kidney-right",
    "liver",
    "lung-left",
    "lung-right",
    "pancreas",
    "spleen",
)
SCANS = "patients are not named; the official parts are of different CT scans"
PATHMNIST = MedMnistSet(
    flag="pathmnist",
    holds="patches of colorectal tissue slides",
    task=Task("multiclass", 9),
    channels=3,
    class_names=(
        "adipose",
        "background",
        "debris",
        "lymphocytes",
        "mucus",
        "smooth muscle",
        "normal colon mucosa",
        "cancer-associated stroma",
        "colorectal adenocarcinoma epithelium",
    ),
    images=(89_996, 10_004, 7_180),
    md5=(
        "a8b06965200029087d5bd730944a56c1",
        "55aa9c1e0525abe5a6b9d8343a507616",
        "ac42d08fb904d92c244187169d1fd1d9",
        "2c51a510bcdc9cf8ddb2af93af1eadec",
    ),
    overlap="patients are not named; the test part is of another hospital than the other two",
)
CHESTMNIST = MedMnistSet(
    flag="chestmnist",
    holds="chest X-rays (NIH ChestX-ray14) with 14 findings",
    task=Task("multilabel", 14),
    channels=1,
    class_names=(
        "atelectasis",
        "cardiomegaly",
        "effusion",
        "infiltration",
        "mass",
        "nodule",
        "pneumonia",
        "pneumothorax",
        "consolidation",
        "edema",
        "emphysema",
        "fibrosis",
        "pleural",
        "hernia",
    ),
    images=(78_468, 11_219, 22_433),
    md5=(
        "02c8a6516a18b556561a56cbdd36c4a8",
        "9de6cd0b934ebb5b7426cfba5efbae16",
        "db107e5590b27930b62dbaf558aebee3",
        "45bd33e6f06c3e8cdb481c74a89152aa",
    ),
)
DERMAMNIST = MedMnistSet(
    flag="dermamnist",
    holds="dermatoscopic images (HAM10000)",
    task=Task("multiclass", 7),
    channels=3,
    class_names=(
        "actinic keratoses and intraepithelial carcinoma",
        "basal cell carcinoma",
        "benign keratosis-like lesions",
        "dermatofibroma",
        "melanoma",
        "melanocytic nevi",
        "vascular lesions",
    ),
    images=(7_007, 1_003, 2_005),
    md5=(
        "0744692d530f8e62ec473284d019b0c7",
        "b70a2f5635c6199aeaa28c31d7202e1f",
        "2defd784463fa5243564e855ed717de1",
        "8974907d8e169bef5f5b96bc506ae45d",
    ),
    licence="CC BY-NC 4.0",
)
OCTMNIST = MedMnistSet(
    flag="octmnist",
    holds="optical coherence tomograms of the retina",
    task=Task("multiclass", 4),
    channels=1,
    class_names=("choroidal neovascularization", "diabetic macular edema", "drusen", "normal"),
    images=(97_477, 10_832, 1_000),
    md5=(
        "c68d92d5b585d8d81f7112f81e2d0842",
        "e229e9440236b774d9f0dfef9d07bdaf",
        "0a97e76651ace45c5d943ee3f65b63ae",
        "abc493b6d529d5de7569faaef2773ba3",
    ),
)
PNEUMONIAMNIST = MedMnistSet(
    flag="pneumoniamnist",
    holds="pediatric chest X-rays",
    task=Task("binary", 2),
    channels=1,
    class_names=("normal", "pneumonia"),
    images=(4_708, 524, 624),
    md5=(
        "28209eda62fecd6e6a2d98b1501bb15f",
        "8f4eceb4ccffa70c672198ea285246c6",
        "05b46931834c231683c68f40c47b2971",
        "d6a3c71de1b945ea11211b03746c1fe1",
    ),
)
RETINAMNIST = MedMnistSet(
    flag="retinamnist",
    holds="fundus photographs (DeepDRiD)",
    task=Task("multiclass", 5),
    channels=3,
    class_names=("grade 0", "grade 1", "grade 2", "grade 3", "grade 4"),
    images=(1_080, 120, 400),
    md5=(
        "bd4c0672f1bba3e3a89f0e4e876791e4",
        "afda852cc34dcda56f86ad2b2457dbcc",
        "e48e916a24454daf90583d4e6efb1a18",
        "eae7e3b6f3fcbda4ae613ebdcbe35348",
    ),
)
BREASTMNIST = MedMnistSet(
    flag="breastmnist",
    holds="breast ultrasound images",
    task=Task("binary", 2),
    channels=1,
    class_names=("malignant", "normal, benign"),
    images=(546, 78, 156),
    md5=(
        "750601b1f35ba3300ea97c75c52ff8f6",
        "742edef2a1fd1524b2efff4bd7ba9364",
        "363e4b3f8d712e9b5de15470a2aaadf1",
        "b56378a6eefa9fed602bb16d192d4c8b",
    ),
)
BLOODMNIST = MedMnistSet(
    flag="bloodmnist",
    holds="microscope images of single blood cells",
    task=Task("multiclass", 8),
    channels=3,
    class_names=(
        "basophil",
        "eosinophil",
        "erythroblast",
        "immature granulocytes(myelocytes, metamyelocytes and promyelocytes)",
        "lymphocyte",
        "monocyte",
        "neutrophil",
        "platelet",
    ),
    images=(11_959, 1_712, 3_421),
    md5=(
        "7053d0359d879ad8a5505303e11de1dc",
        "2b94928a2ae4916078ca51e05b6b800b",
        "adace1e0ed228fccda1f39692059dd4c",
        "b718ff6835fcbdb22ba9eacccd7b2601",
    ),
)
TISSUEMNIST = MedMnistSet(
    flag="tissuemnist",
    holds="microscope images of kidney cortex cells",
    task=Task("multiclass", 8),
    channels=1,
    class_names=(
        "collecting Duct, Connecting Tubule",
        "distal Convoluted Tubule",
        "glomerular endothelial cells",
        "interstitial endothelial cells",
        "leukocytes",
        "podocytes",
        "proximal Tubule Segments",
        "thick Ascending Limb",
    ),
    images=(165_466, 23_640, 47_280),
    md5=(
        "ebe78ee8b05294063de985d821c1c34b",
        "123ece2eba09d0aa5d698fda57103344",
        "61b955355d7425a89687b06cca3ce0c2",
        "b077128c4a949f0a4eb01517f9037b9c",
    ),
    overlap="cells of three tissue specimens, all of them in every part",
)
ORGANAMNIST = MedMnistSet(
    flag="organamnist",
    holds="axial slices of abdominal CT (LiTS)",
    task=Task("multiclass", 11),
    channels=1,
    class_names=ORGANS,
    images=(34_561, 6_491, 17_778),
    md5=(
        "68e3f8846a6bd62f0c9bf841c0d9eacc",
        "2dcccc29b88e6da5a01161ef20cda288",
        "eeae80d0a227a8d099027e1b3cfd3b60",
        "50747347e05c87dd3aaf92c49f9f3170",
    ),
    overlap=SCANS,
)
ORGANCMNIST = MedMnistSet(
    flag="organcmnist",
    holds="coronal slices of abdominal CT (LiTS)",
    task=Task("multiclass", 11),
    channels=1,
    class_names=ORGANS,
    images=(12_975, 2_392, 8_216),
    md5=(
        "b9ceb9546e10131b32923c5bbeaea2b1",
        "3ce34a8724ea6f548e6db4744d03b6a9",
        "773c1f009daa3fe5d9a2a201b2a7ed94",
        "050f5e875dc056f6768abf94ec9995d1",
    ),
    overlap=SCANS,
)
ORGANSMNIST = MedMnistSet(
    flag="organsmnist",
    holds="sagittal slices of abdominal CT (LiTS)",
    task=Task("multiclass", 11),
    channels=1,
    class_names=ORGANS,
    images=(13_932, 2_452, 8_827),
    md5=(
        "9ab87b696fb54e2a387ebe992d6ed5f1",
        "53a6d115339d874c25e309a994ff46d3",
        "ded0c5fa01a95dc4978b956f613e9b8e",
        "b354719e553fbbb2513d5533f52a4cb1",
    ),
    overlap=SCANS,
)
