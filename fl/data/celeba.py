"""CelebA: aligned faces with 40 attributes and the identity of each person."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Literal, NamedTuple

from pydantic import Field, field_validator, model_validator

from fl.data.base import UNLABELLED
from fl.data.release_config import Entry, ReleaseConfig
from fl.data.table_labels import Label
from fl.data.tables import fail
from fl.errors import DataUnavailableError, UsageError
from fl.specs import Task

IMAGES = "img_align_celeba"
ATTRIBUTE_FILE, IDENTITY_FILE, PARTITION_FILE = (
    "list_attr_celeba.txt",
    "identity_CelebA.txt",
    "list_eval_partition.txt",
)
PARTITION = {"0": "", "1": "evaluation", "2": "test"}
"""Part of the official training, validation and test set; "": by person."""


class Value(NamedTuple):
    """What a table says of an image.

    Attributes:
        origin: `file:line`.
        text: What it says.
    """

    origin: str
    text: str


class CelebAConfig(ReleaseConfig):
    """Configuration of `celeba`.

    With `task: multiclass` the classes are persons, so the persons of the private part are those of the
    evaluation and test parts too, in other images; the public part holds all other persons, unlabelled.
    """

    name: ClassVar[str] = "celeba"
    get: ClassVar[str] = (
        "get CelebA's aligned images, attributes, identities and partition from the Multimedia Laboratory of "
        "the Chinese University of Hong Kong, or by torchvision; the folder holds img_align_celeba/, "
        "list_attr_celeba.txt, identity_CelebA.txt and list_eval_partition.txt"
    )

    size: int = Field(64, ge=8, le=178, description="side in pixels: the middle 178x178 of 178x218, resized")
    task: Literal["binary", "multilabel", "multiclass"] = Field(
        "binary", description="binary: one attribute; multilabel: several; multiclass: whose face it is"
    )
    attributes: tuple[str, ...] = Field(
        ("Smiling",), min_length=1, description="binary, multilabel: attributes to tell, in order"
    )
    identities: int = Field(
        1000, ge=2, description="multiclass: so many persons, those with most images; the others are public"
    )

    @field_validator("attributes")
    @classmethod
    def _each_once(cls, attributes: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(attributes)) < len(attributes):
            raise ValueError(f"expected each attribute once, got {', '.join(attributes)}")
        return attributes

    @model_validator(mode="after")
    def _attributes_belong_to_the_task(self) -> CelebAConfig:
        if (self.task == "multilabel") != (len(self.attributes) > 1):
            needed = "several attributes" if self.task == "multilabel" else "one attribute"
            raise ValueError(f"task: {self.task} needs {needed}, got {len(self.attributes)}")
        return self

    @property
    def learned(self) -> Task:
        """One output per attribute, or one class per person."""
        if self.task == "multiclass":
            return Task("multiclass", self.identities)
        return Task("binary", 2) if self.task == "binary" else Task("multilabel", len(self.attributes))

    @property
    def given(self) -> frozenset[str]:
        """Attributes: the official validation and test set; persons: the public part, of all others."""
        return frozenset({"public"}) if self.task == "multiclass" else frozenset(PARTITION.values()) - {""}

    def sources(self, root: Path) -> list[Path]:
        """Return the tables and the folder of images."""
        return [root / name for name in (ATTRIBUTE_FILE, IDENTITY_FILE, PARTITION_FILE, IMAGES)]

    def entries(self, root: Path) -> Iterator[Entry]:
        """Return all images.

        Raises:
            DataUnavailableError: If a table is missing.
            UsageError: If a table breaks the release's form, or tables name different images.
        """
        people = _read_values(root / IDENTITY_FILE, get=self.get)
        if self.task == "multiclass":
            yield from self._by_person(people)
            return
        labels = _read_attributes(root / ATTRIBUTE_FILE, self.attributes, get=self.get)
        partition = _read_values(root / PARTITION_FILE, get=self.get)
        _refuse_different(root, people=people, labels=labels, partition=partition)
        fail(
            [
                f"{value.origin}: expected 0, 1 or 2, got {value.text!r}"
                for value in partition.values()
                if value.text not in PARTITION
            ]
        )
        for name, entries in labels.items():
            label = entries[0] if len(entries) == 1 else entries
            part = PARTITION[partition[name].text]
            yield Entry(f"{IMAGES}/{name}", people[name].origin, label, people[name].text, part)

    def _by_person(self, people: Mapping[str, Value]) -> Iterator[Entry]:
        counts = Counter(value.text for value in people.values())
        if len(counts) < self.identities:
            raise UsageError(f"{self.name}: expected at least {self.identities} persons, got {len(counts)}")
        chosen = sorted(counts, key=lambda person: (-counts[person], person))[: self.identities]
        label_of = {person: label for label, person in enumerate(chosen)}
        for name, (origin, person) in people.items():
            label = label_of.get(person, UNLABELLED)
            yield Entry(f"{IMAGES}/{name}", origin, label, None, "public" if label == UNLABELLED else "")


def _read_lines(table: Path, *, get: str) -> list[list[str]]:
    """Return the words of each line.

    Raises:
        DataUnavailableError: If the file cannot be read.
    """
    try:
        return [line.split() for line in table.read_text(encoding="ascii").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise DataUnavailableError(f"{table}: expected a table of CelebA, got: {error}; {get}") from error


def _read_values(table: Path, *, get: str) -> dict[str, Value]:
    """Return the value of each image of a table of two columns."""
    lines = _read_lines(table, get=get)
    fail(
        [
            f"{table}:{number}: expected an image and a number, got {' '.join(words)!r}"
            for number, words in enumerate(lines, 1)
            if len(words) != 2 or not words[1].isdecimal()
        ]
    )
    return {words[0]: Value(f"{table}:{number}", words[1]) for number, words in enumerate(lines, 1)}


def _read_attributes(table: Path, wanted: Sequence[str], *, get: str) -> dict[str, tuple[int, ...]]:
    """Return 0 or 1 per wanted attribute of each image; the table begins with a count and a header."""
    lines = _read_lines(table, get=get)
    header = lines[1] if len(lines) > 1 else []
    lacking = [name for name in wanted if name not in header]
    if lacking:
        raise UsageError(
            f"{table}:2: expected the attribute {lacking[0]!r}, got {' '.join(header) or 'nothing'}"
        )
    columns = [header.index(name) + 1 for name in wanted]
    problems = []
    found = {}
    for number, words in enumerate(lines[2:], 3):
        values = [words[column] for column in columns] if len(words) == len(header) + 1 else []
        if values and set(values) <= {"1", "-1"}:
            found[words[0]] = tuple(int(value == "1") for value in values)
        else:
            problems.append(
                f"{table}:{number}: expected an image and {len(header)} values of 1 or -1, got "
                + (f"{len(words) - 1} values" if not values else ", ".join(values))
            )
    fail(problems)
    return found


def _refuse_different(
    root: Path, *, people: Mapping[str, Value], labels: Mapping[str, Label], partition: Mapping[str, Value]
) -> None:
    tables: dict[str, Mapping[str, object]] = {
        IDENTITY_FILE: people,
        PARTITION_FILE: partition,
        ATTRIBUTE_FILE: labels,
    }
    everything = frozenset[str]().union(*tables.values())
    fail(
        [
            f"{root / table}: expected a line for {name}, got none"
            for table, images in tables.items()
            for name in sorted(everything - images.keys())
        ]
    )
