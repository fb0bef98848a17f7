"""Configurations of the data sets that are published as whole arrays, read without torch or numpy."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from fl.data.array_sets import ArraySet
from fl.data.config import DataConfig, Root


class ArrayConfig(DataConfig):
    """Base of these configurations: their identity is the content of the files, not where they lie."""

    root: Root | None = Field(
        None,
        description="folder of the download; by default LEAKBENCH_DATA, or data in the cache folder",
    )

    @property
    def facts(self) -> ArraySet:
        """What is fixed about the data set under this configuration."""
        raise NotImplementedError

    def resolved(self) -> dict[str, Any]:
        """Return the identity: the root gives way to a digest of the files' content.

        Raises:
            DataUnavailableError: If the files are missing, damaged or of another data set.
        """
        from fl.data.array_index import read_index

        return self.identity(read_index(self.facts, self.root).content)

    def identity(self, content: str) -> dict[str, Any]:
        """Return the identity, given the digest of the files."""
        values = super().resolved()
        del values["root"]
        return {**values, "content": content}
