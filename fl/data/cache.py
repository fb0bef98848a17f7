"""The user's cache folder, and small JSON documents in it."""

from __future__ import annotations

import json
import logging
import os
import tempfile
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)


def cache_dir() -> Path:
    """Return the folder for fetched assets and file indexes: `LEAKBENCH_CACHE`, or `~/.cache/leakbench`."""
    configured = os.environ.get("LEAKBENCH_CACHE")
    return Path(configured).expanduser() if configured else Path.home() / ".cache" / "leakbench"


def read_document(name: str) -> dict[str, Any]:
    """Return the cached JSON object `name`; {} if it is missing or unreadable, as a cache may be."""
    try:
        document = json.loads((cache_dir() / name).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return document if isinstance(document, dict) else {}


def write_document(name: str, document: dict[str, Any]) -> None:
    """Replace the cached JSON object `name`; an unwritable cache costs time later and is only logged."""
    target = cache_dir() / name
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=".writing-")
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(document, file)
        Path(temporary).replace(target)
    except OSError as error:
        logger.warning("%s was not cached: %s", target, error)
