"""Reads a configuration file: all of it or nothing, and every problem at once.

    loaded = load("tenant_proxy.yaml")        # raises ConfigError with .problems
    loaded.config, loaded.warnings

In the `Config` that comes out every secret is resolved (`SecretRef.reveal`), every path is absolute, and
every tenant names its cluster and schema, so that no part has to know the defaults or the file's directory.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import Any

from tenant_proxy.config import crosscheck, yaml_nodes
from tenant_proxy.config.problems import ConfigError, Path, Problem
from tenant_proxy.config.schema import Config, Policy, Pool
from tenant_proxy.config.secrets import resolve_secret
from tenant_proxy.config.validate import validate
from tenant_proxy.config.yaml_nodes import Document

#: a configuration with ten thousand tenants has a few megabytes
MAX_FILE_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Loaded:
    config: Config
    warnings: tuple[Problem, ...] = ()


def load(file: str | os.PathLike[str], environ: Mapping[str, str] | None = None) -> Loaded:
    """The configuration in `file`; raises ConfigError with all problems of it.

    `environ` replaces the process's environment, where secrets by `env` are looked up.
    """
    path = FilePath(file)
    try:
        with path.open("rb") as stream:
            content = stream.read(MAX_FILE_BYTES + 1)
            mode = stat.S_IMODE(os.fstat(stream.fileno()).st_mode)
    except OSError as error:
        raise ConfigError([Problem(str(file), 0, 0, "", f"cannot read the file: {error.strerror}")]) from None
    if len(content) > MAX_FILE_BYTES:
        text = f"the file is larger than {MAX_FILE_BYTES} bytes"
        raise ConfigError([Problem(str(file), 0, 0, "", text)])
    try:
        source = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigError([Problem(str(file), line, 1, "", "the file is not UTF-8 text")]) from None
    return load_text(
        source, str(file), base=path.parent, environ=environ, world_readable=bool(mode & stat.S_IROTH)
    )


def load_text(
    source: str,
    file: str = "<configuration>",
    *,
    base: FilePath | None = None,
    environ: Mapping[str, str] | None = None,
    world_readable: bool = False,
) -> Loaded:
    """As `load`, of a text; relative paths in it are seen from `base`."""
    document = yaml_nodes.parse(source, file)
    config = _build(document, (base or FilePath()).absolute(), os.environ if environ is None else environ)
    if config is not None and world_readable:
        _warn_of_readable_secrets(document)
    document.problems.sort(key=lambda problem: (problem.line, problem.column))
    if config is None or any(problem.severity == "error" for problem in document.problems):
        raise ConfigError(document.problems)
    return Loaded(config, tuple(document.problems))


def _build(document: Document, base: FilePath, environ: Mapping[str, str]) -> Config | None:
    """The finished configuration, or None when sections have errors; in any case all problems found so
    far.
    """
    if document.data is None:
        if not document.problems:
            document.problem((), "the file is empty", hint='it needs at least the key "clusters"')
        return None
    if not isinstance(document.data, dict):
        document.problem((), "the file must be a mapping (keys and values)")
        return None
    data: dict[str, Any] = document.data
    config = validate(Config, document, data)
    if config is None:
        # sections of tenants are dictionaries to Config; their problems belong into the same list
        _validate_overrides(document, data)
        return None
    good = _validate_overrides(document, data)
    good = _resolve_secrets(document, data, base, environ) and good
    _resolve_paths(data, base)
    if not good:
        return None
    config = Config.model_validate(data)
    crosscheck.check(document, config)
    return _with_defaults(config)


def _validate_overrides(document: Document, data: dict[str, Any]) -> bool:
    """The dictionaries pool and policy of each tenant, against the sections whose keys they hold."""
    good = True
    tenants = data.get("tenants")
    for index, tenant in enumerate(tenants if isinstance(tenants, list) else []):
        if not isinstance(tenant, dict):
            continue
        for key, model in (("pool", Pool), ("policy", Policy)):
            if isinstance(tenant.get(key), dict):
                good = validate(model, document, tenant[key], ("tenants", index, key)) is not None and good
    return good


def _secret_places(data: dict[str, Any]) -> list[tuple[Path, dict[str, Any], str]]:
    """(path, section, key) of every SecretRef in valid data."""
    places: list[tuple[Path, dict[str, Any], str]] = []
    for index, user in enumerate(data.get("users", [])):
        places += [(("users", index, key), user, key) for key in ("password", "verifier", "server_password")]
    for index, cluster in enumerate(data["clusters"]):
        section = cluster.get("auth_query", {})
        places.append((("clusters", index, "auth_query", "password"), section, "password"))
    return [place for place in places if place[1].get(place[2]) is not None]


def _resolve_secrets(
    document: Document, data: dict[str, Any], base: FilePath, environ: Mapping[str, str]
) -> bool:
    good = True
    for path, section, key in _secret_places(data):
        resolved = resolve_secret(document, path, section[key], base, environ)
        if resolved is None:
            good = False
        else:
            section[key] = resolved
    return good


def _resolve_paths(data: dict[str, Any], base: FilePath) -> None:
    sections: list[tuple[dict[str, Any], tuple[str, ...]]] = [
        (data.get("listen", {}), ("unix_socket_dir",)),
        (data.get("listen", {}).get("tls", {}), ("cert", "key", "client_ca")),
    ]
    sections += [(cluster.get("tls", {}), ("ca", "cert", "key")) for cluster in data["clusters"]]
    for section, keys in sections:
        for key in keys:
            if section.get(key) is not None:
                section[key] = str(base / section[key])


def _with_defaults(config: Config) -> Config:
    """Every tenant with its cluster and schema spelled out."""
    first = config.clusters[0].name
    tenants = [
        tenant.model_copy(
            update={"cluster": tenant.cluster or first, "schema_": tenant.schema_ or tenant.name}
        )
        for tenant in config.tenants
    ]
    return config.model_copy(update={"tenants": tenants})


def _warn_of_readable_secrets(document: Document) -> None:
    lines = [
        place for path, place in document.key_places.items() if path[-1] == "value" and path[0] != "tenants"
    ]
    if lines:
        line, column = min(lines)
        text = "a secret is in this file, which everybody can read"
        hint = "use {env: …} or {file: …}, or chmod o-r the file"
        document.problems.append(
            Problem(document.file, line, column, "", text, hint=hint, severity="warning")
        )
