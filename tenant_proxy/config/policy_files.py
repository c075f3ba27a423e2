"""Policies kept in files of their own: `policy_file`, at the top and of a tenant.

A policy file holds keys of the section `policy`, at its top.  They are merged under what the configuration
itself says, so that behind the loader nobody knows that there were several files; problems name the file
and line that they are in.
"""

from __future__ import annotations

import copy
import os
from pathlib import Path as FilePath
from typing import Any

from tenant_proxy.config import yaml_nodes
from tenant_proxy.config.problems import ConfigError, Path, Problem
from tenant_proxy.config.schema import Policy
from tenant_proxy.config.validate import validate
from tenant_proxy.config.yaml_nodes import Document

MAX_FILE_BYTES = 1024 * 1024


def load_policy(file: str | os.PathLike[str]) -> dict[str, Any]:
    """The keys of a policy file; raises ConfigError with all problems of it."""
    document = _read(str(file), str(file))
    if document.problems:
        raise ConfigError(document.problems)
    keys: dict[str, Any] = document.data
    return keys


def merge_policy_files(document: Document, data: dict[str, Any], base: FilePath, failed: set[Path]) -> None:
    """Puts the keys of policy files into `data`, which is not validated yet; each file is read once.

    `failed` gets the places that name a file which can't be used.
    """
    read: dict[str, Document] = {}
    tenants = data.get("tenants")
    holders: list[tuple[Path, Any]] = [((), data)]
    holders += [(("tenants", n), one) for n, one in enumerate(tenants if isinstance(tenants, list) else [])]
    for prefix, holder in holders:
        name = holder.get("policy_file") if isinstance(holder, dict) else None
        if not isinstance(name, str):
            continue  # not given, or a problem that validation tells
        if name not in read:
            read[name] = _read(str(base / name), name)
            if read[name].data is None:
                _tell_unreadable(document, (*prefix, "policy_file"), read[name])
            else:
                document.problems += read[name].problems
        if read[name].problems:
            failed.add((*prefix, "policy_file"))
            continue
        own = holder.get("policy")
        if own is not None and not isinstance(own, dict):
            continue
        holder["policy"] = copy.deepcopy(read[name].data) | (own or {})
        here: Path = (*prefix, "policy")
        for key in read[name].data.keys() - (own or {}).keys():
            document.adopted[(*here, key)] = (read[name], (key,))


def _tell_unreadable(document: Document, path: Path, file: Document) -> None:
    """A file that is not there is a problem of who names it."""
    for problem in file.problems:
        if problem.line:
            document.problems.append(problem)
        else:
            document.problem(path, problem.message)


def _read(path: str, name: str) -> Document:
    """A policy file; `data` is None if it can't be read or is no mapping."""
    try:
        with FilePath(path).open("rb") as stream:
            content = stream.read(MAX_FILE_BYTES + 1)
        if len(content) > MAX_FILE_BYTES:
            return _useless(path, f'"{name}" is larger than {MAX_FILE_BYTES} bytes')
        text = content.decode("utf-8-sig")
    except OSError as error:
        return _useless(path, f'cannot read "{name}": {error.strerror}')
    except UnicodeDecodeError:
        return _useless(path, f'"{name}" is not UTF-8 text')
    document = yaml_nodes.parse(text, path)
    if document.data is None and not document.problems:
        document.data = {}  # nothing but comments
    if not document.problems and not isinstance(document.data, dict):
        document.problem((), "the file must be a mapping (keys and values)")
    if document.problems:
        document.data = None
        return document
    validate(Policy, document, document.data)
    return document


def _useless(path: str, message: str) -> Document:
    return Document(path, problems=[Problem(path, 0, 0, "", message)])
