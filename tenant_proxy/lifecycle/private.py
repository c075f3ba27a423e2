"""Files that hold tenants' data or keys: new ones, which nobody but their owner may read."""

from __future__ import annotations

import os
from io import BufferedWriter
from pathlib import Path


def opener(path: str, flags: int) -> int:
    """For `open` with mode "x": FileExistsError where there is something of the name already."""
    return os.open(path, flags, 0o600)


def created(path: Path) -> BufferedWriter:
    return open(path, "xb", opener=opener)


def partial_of(path: Path) -> Path:
    """Where a file is written that must not be there before it is whole; `.*.part` finds what was left."""
    return path.with_name(f".{path.name}.{os.urandom(6).hex()}.part")
