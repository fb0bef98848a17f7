"""What the data sets whose files users get for themselves have in common, read without torch or numpy."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

from pydantic import Field

from fl.data.config import FIT, DataConfig, Fit, Root
from fl.data.roots import data_root
from fl.data.split import Shares
from fl.data.table_labels import Label
from fl.specs import Config, Task


class Entry(NamedTuple):
    """An image that a release names.

    Attributes:
        name: Its file, relative to the root, with `/`: also its id.
        origin: Where it was named, for messages.
        label: Its label.
        group: Its patient or person, where known.
        part: The part that the release gives it; "" where the rule of `fl.data.split` decides.
    """

    name: str
    origin: str
    label: Label
    group: str | None
    part: str


class PartLimits(Config):
    """At most so many images of each part: the first in the order of a hash of their names; None: all."""

    private: int | None = Field(None, ge=1)
    public: int | None = Field(2000, ge=1, description="the attacker's images are held in memory whole")
    evaluation: int | None = Field(None, ge=1)
    test: int | None = Field(None, ge=1)

    def of(self, part: str) -> int | None:
        """Return the limit of a part."""
        limit: int | None = getattr(self, part)
        return limit


class ReleaseConfig(DataConfig):
    """Base of their configurations: the identity is what the release holds, not where it lies.

    Attributes:
        name: The registered name.
        version: The card's version.
        get: What to get, from whom, and how its files lie in the folder, in words.
        hashed: Whether files are told apart by their sha256, at the cost of reading each of them once;
            otherwise by name and size.
        regions: Whether sensitive regions of the images are marked (`region_name`).
    """

    name: ClassVar[str]
    version: ClassVar[int] = 1
    get: ClassVar[str]
    hashed: ClassVar[bool] = False
    regions: ClassVar[bool] = False

    root: Root | None = Field(
        None, description="folder of the release; by default that of its name in LEAKBENCH_DATA"
    )
    size: int = Field(224, ge=8, le=1024, description="side in pixels")
    fit: Fit = Field("crop", description=FIT)
    channels: Literal["gray", "rgb"] = "rgb"
    limit: PartLimits = Field(default_factory=PartLimits, description="at most so many images of each part")

    @property
    @abstractmethod
    def learned(self) -> Task:
        """What a model is trained for."""

    @property
    def given(self) -> frozenset[str]:
        """The parts that the release itself tells apart; the rule of `fl.data.split` makes the others."""
        return frozenset()

    @abstractmethod
    def sources(self, root: Path) -> list[Path]:
        """Return the tables and folders that tell which images, and regions of them, there are.

        A missing one may be among them.
        """

    @abstractmethod
    def entries(self, root: Path) -> Iterator[Entry]:
        """Return the images that the release names, with their labels.

        Raises:
            DataUnavailableError: If tables or folders are missing.
            UsageError: If they break their form.
        """

    def region_name(self, name: str) -> str:
        """Return the file of an image's region, relative to the root (`regions`)."""
        raise NotImplementedError

    @property
    def shares(self) -> Shares:
        """Share of each part in the images that the release does not give one."""
        left = {part: 0.0 if part in self.given else share for part, share in Shares()._asdict().items()}
        return Shares(**{part: share / sum(left.values()) for part, share in left.items()})

    def find_root(self) -> Path:
        """Return the folder of the release.

        Raises:
            DataUnavailableError: If there is none.
        """
        return data_root(self.name, self.root, get=self.get)

    def resolved(self) -> dict[str, Any]:
        """Return the identity: the root gives way to a digest of what the release holds.

        Raises:
            DataUnavailableError: If the release is not there or lacks files.
            UsageError: If its tables break their form.
        """
        from fl.data.release_index import summarise

        return self.identity(summarise(self).content)

    def identity(self, content: str) -> dict[str, Any]:
        """Return the identity, given the digest of what the release holds."""
        return {**self.options(), "content": content}

    def options(self) -> dict[str, Any]:
        """Return every option but the root, as plain JSON."""
        values = super().resolved()
        del values["root"]
        return values
