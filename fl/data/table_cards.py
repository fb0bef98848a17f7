"""Cards of the labelled image folders and tables that users bring, read without torch or numpy."""

from __future__ import annotations

from typing import Any

from fl.cards import DataCard, DataInfo, Reference
from fl.data.celeba import CelebAConfig
from fl.data.chestxray import ChestXRayConfig
from fl.data.chexpert import CheXpertConfig
from fl.data.eyepacs import CLASSES, EyepacsConfig
from fl.data.folder_config import FolderConfig
from fl.data.imagenet import ImageNetConfig
from fl.data.release_config import ReleaseConfig


def _describe_folder(config: FolderConfig) -> DataInfo:
    from fl.data.folder_index import describe

    return describe(config)


def _describe_release(config: ReleaseConfig) -> DataInfo:
    from fl.data.release_index import describe

    return describe(config)


LOAD_RELEASE = "fl.data.release:load"

CARDS: tuple[DataCard[Any], ...] = (
    DataCard(
        name="folder",
        version=1,
        summary="Your own images: a folder per class, or a CSV of path, labels, optional split and patient.",
        config=FolderConfig,
        implementation="fl.data.folder:load",
        licence="yours",
        parts="a split column; or shares of the patients; or, per class (multilabel: of all), shares of the "
        "images: each in the order of a hash of its name or content, equal files always in one part",
        describe=_describe_folder,
    ),
    DataCard(
        name=CheXpertConfig.name,
        version=CheXpertConfig.version,
        summary="CheXpert: 224,316 chest X-rays of 65,240 patients, 14 observations with uncertain labels.",
        config=CheXpertConfig,
        implementation=LOAD_RELEASE,
        reference=Reference(
            "Irvin et al., CheXpert: a large chest radiograph dataset with uncertainty labels, AAAI 2019, "
            "arXiv 1901.07031"
        ),
        licence="Stanford University Dataset Research Use Agreement",
        parts="valid.csv is test; the patients of train.csv are private, public and evaluation, in the order "
        "of a hash of their numbers, 55 : 15 : 15",
        describe=_describe_release,
    ),
    DataCard(
        name=ChestXRayConfig.name,
        version=ChestXRayConfig.version,
        summary="COVID-19 Radiography Database: 21,165 chest X-rays of 299x299 pixels with lung masks.",
        config=ChestXRayConfig,
        implementation=LOAD_RELEASE,
        reference=Reference(
            "Chowdhury et al., Can AI help in screening viral and COVID-19 pneumonia?, IEEE Access 8, 2020; "
            "Rahman et al., Computers in Biology and Medicine 132, 2021"
        ),
        licence="as its authors state with the data; it collects images of several sources",
        parts="per class, in the order of a hash of their content: 55 % private, 15 % each of the others, "
        "equal files in one part; patients are not named, so one patient may be in several parts",
        describe=_describe_release,
    ),
    DataCard(
        name=EyepacsConfig.name,
        version=EyepacsConfig.version,
        summary="EyePACS-AIROGS-light: fundus photographs, referable glaucoma (1) or not (0), balanced.",
        config=EyepacsConfig,
        implementation=LOAD_RELEASE,
        reference=Reference(
            "de Vente et al., AIROGS: Artificial Intelligence for Robust Glaucoma Screening Challenge, "
            "IEEE Transactions on Medical Imaging 43(1), 2024, arXiv 2302.01738"
        ),
        licence="CC-BY-NC-ND-4.0 (Rotterdam EyePACS AIROGS)",
        parts="validation is evaluation, test is test; train is private and public, per class, in the order "
        "of a hash of their content, 55 : 15; patients are not named, so one patient may be in several parts",
        describe=_describe_release,
        class_names=CLASSES,
    ),
    DataCard(
        name=CelebAConfig.name,
        version=CelebAConfig.version,
        summary="CelebA: 202,599 aligned faces of 10,177 persons with 40 attributes.",
        config=CelebAConfig,
        implementation=LOAD_RELEASE,
        reference=Reference(
            "Liu, Luo, Wang and Tang, Deep Learning Face Attributes in the Wild, ICCV 2015, arXiv 1411.7766"
        ),
        licence="non-commercial research only, no redistribution (its agreement)",
        parts="attributes: by person; the official validation set is evaluation, the test set test, the "
        "training set's persons are private and public, 55 : 15. task: multiclass: the chosen persons' "
        "images are private, evaluation and test, 55 : 15 : 15; all other persons are public, unlabelled",
        describe=_describe_release,
    ),
    DataCard(
        name=ImageNetConfig.name,
        version=ImageNetConfig.version,
        summary="ImageNet (ILSVRC 2012): 1.3 million photographs of 1,000 synsets, or of those chosen.",
        config=ImageNetConfig,
        implementation=LOAD_RELEASE,
        reference=Reference(
            "Russakovsky et al., ImageNet Large Scale Visual Recognition Challenge, IJCV 115(3), 2015, "
            "arXiv 1409.0575"
        ),
        licence="non-commercial research and education only (ImageNet's terms of access)",
        parts="val is test; train is private, public and evaluation, per class, in the order of a hash of "
        "the sizes of the files, 55 : 15 : 15",
        describe=_describe_release,
    ),
)
