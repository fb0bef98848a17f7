"""What was computed from files, remembered in the cache for as long as the files stay as they are.

A file (or folder) counts as unchanged while its size and its time of change are the same. A folder's time of
change tells when entries are added, removed or renamed, not when one of its files is rewritten.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import cast

from fl.data.cache import read_document, write_document
from fl.specs import JSON, canonical_json, digest

Stamp = list[JSON]


def cached(files: Sequence[Path], compute: Callable[[], JSON], *, purpose: str) -> JSON:
    """Return what `compute` makes of the files; it is called only if they changed since it last was.

    The cache names the files by a digest only. What `compute` returns is stored as it is: it must hold
    nothing that a cache should not.

    Args:
        files: Files and folders that the result depends on; a missing one is a state like any other.
        compute: Makes the result; its errors are not remembered.
        purpose: All else that the result depends on, such as the data set's name, version and options.
    """
    places = [str(file.absolute()) for file in files]
    document = f"indexes/{digest(canonical_json([purpose, places]))[:32]}.json"
    stamps = [_stamp(file) for file in files]
    known = read_document(document)
    if known.get("stamps") == stamps and "value" in known:
        return cast(JSON, known["value"])
    value = compute()
    write_document(document, {"stamps": stamps, "value": value})
    return value


def _stamp(file: Path) -> Stamp:
    try:
        stat = file.stat()
    except OSError:
        return []
    return [stat.st_size, stat.st_mtime_ns]
