"""Facts about data sets that are published as whole arrays of images, and where their files lie.

What such a set holds is found from its files, so the official ones and subsets in the same format both work;
its identity is the content of the files, wherever they lie and however they are compressed.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fl.data.cache import cache_dir
from fl.data.roots import VARIABLE
from fl.data.split import Shares
from fl.errors import DataUnavailableError
from fl.specs import Task

TRAIN_SHARES = Shares(0.7, 0.15, 0.15, 0.0)
"""How an official training part is dealt out where there is no official validation part."""

TEST_SHARES = Shares(0.0, 0.0, 0.0, 1.0)


@dataclass(frozen=True)
class ArraySet:
    """What is fixed about a data set under one configuration.

    Attributes:
        name: The registered name.
        version: The card's version.
        task: What a model is trained for on it.
        channels: Image channels.
        side: Height and width of the images in the files.
        files: The names of the files of each official part.
        folders: Folders below the root that may hold them, the first one that holds any counts.
        format: `module:attribute` of the `fl.data.array_formats.ArrayFormat` that reads them.
        shares: How each official part is dealt out; no part comes from two.
        get: The command that gets the files, in the words of a message.
        suffixes: Endings under which a file may lie, the first one that is found counts.
        system_folder: Folder in which the operating system's package puts the files.
        first_label: Label of the first class in the files.
    """

    name: str
    version: int
    task: Task
    channels: int
    side: int
    files: Mapping[str, tuple[str, ...]]
    folders: tuple[str, ...]
    format: str
    shares: Mapping[str, Shares]
    get: str
    suffixes: tuple[str, ...] = ("",)
    system_folder: str | None = None
    first_label: int = 0

    def official_part(self, part: str) -> str:
        """Return the official part that `part` is taken from."""
        return next(official for official, shares in self.shares.items() if shares._asdict()[part] > 0)

    def locate(self, root: str | None) -> dict[str, tuple[Path, ...]]:
        """Return the paths of the files of each official part.

        Args:
            root: The configured root; None for the default.

        Raises:
            DataUnavailableError: If a file is missing.
        """
        base = data_dir(root)
        places = [base / folder for folder in self.folders]
        if root is None and self.system_folder is not None:
            places.append(Path(self.system_folder))
        wanted = [name for names in self.files.values() for name in names]
        found = [(place, self._present(place, wanted)) for place in places]
        place, paths = next((each for each in found if each[1]), found[0])
        missing = [name for name in wanted if name not in paths]
        if missing:
            more = f" and {len(missing) - 1} more files" if len(set(missing)) > 1 else ""
            raise DataUnavailableError(
                f"{self.name}: expected {place / missing[0]}{more}, got no such file; {self.get}, or set "
                f"root: of data: {self.name}, or {VARIABLE}, to a folder that holds a download"
            )
        return {part: tuple(paths[name] for name in names) for part, names in self.files.items()}

    def _present(self, folder: Path, names: Sequence[str]) -> dict[str, Path]:
        candidates = (
            (name, folder / f"{name}{suffix}") for name in names for suffix in reversed(self.suffixes)
        )
        return {name: path for name, path in candidates if path.is_file()}


def data_dir(root: str | None) -> Path:
    """Return the folder of data sets: `root`, or `LEAKBENCH_DATA`, or `data` in the cache folder."""
    configured = root or os.environ.get(VARIABLE)
    return Path(configured).expanduser() if configured else cache_dir() / "data"
