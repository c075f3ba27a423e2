"""Resolves what a `SecretRef` points at, once, while the file is loaded."""

from __future__ import annotations

import stat
from collections.abc import Mapping
from pathlib import Path as FilePath
from typing import Any

from tenant_proxy.config.problems import Path
from tenant_proxy.config.yaml_nodes import Document

#: a secret's file larger than this is certainly another file
MAX_SECRET_BYTES = 64 * 1024


def resolve_secret(
    document: Document, path: Path, ref: dict[str, Any], base: FilePath, environ: Mapping[str, str]
) -> dict[str, str] | None:
    """The reference with the secret itself in it ({"value": …}), or None when there is a problem, then
    recorded.

    Relative paths are seen from `base`, the directory of the configuration file.
    """
    secret: str | None
    if ref.get("env") is not None:
        key, name = "env", str(ref["env"])
        secret = environ.get(name)
        if secret is None:
            document.problem((*path, "env"), f'the environment variable "{name}" is not set')
            return None
    elif ref.get("file") is not None:
        key = "file"
        secret = _read_file(document, (*path, "file"), base / str(ref["file"]))
        if secret is None:
            return None
    else:
        key, secret = "value", str(ref["value"])
    if not secret:
        document.problem((*path, key), "the secret is empty")
        return None
    if "\0" in secret:
        document.problem((*path, key), "the secret holds a NUL byte, which PostgreSQL's protocol can't carry")
        return None
    return {"value": secret}


def _read_file(document: Document, path: Path, file: FilePath) -> str | None:
    try:
        with file.open("rb") as stream:
            mode = stat.S_IMODE(file.stat().st_mode)
            content = stream.read(MAX_SECRET_BYTES + 1)
    except OSError as error:
        document.problem(path, f'cannot read "{file}": {error.strerror}')
        return None
    if len(content) > MAX_SECRET_BYTES:
        document.problem(path, f'"{file}" is larger than {MAX_SECRET_BYTES} bytes, so it is no secret')
        return None
    if mode & stat.S_IROTH:
        document.problem(
            path,
            f'"{file}" can be read by everybody (mode {mode:04o})',
            hint="chmod o-r it",
            severity="warning",
        )
    try:
        text = content.decode()
    except UnicodeDecodeError:
        document.problem(path, f'"{file}" is not UTF-8 text')
        return None
    # editors and echo end a file with one newline that nobody means
    return text.removesuffix("\n").removesuffix("\r")
