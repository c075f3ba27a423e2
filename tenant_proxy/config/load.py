"""Reads a configuration file: all of it or nothing, and every problem at once.

    loaded = load("tenant_proxy.yaml")        # raises ConfigError with .problems
    loaded.config, loaded.warnings

In the `Config` that comes out every secret is resolved (`SecretRef.reveal`), every path is absolute, and
every tenant names its cluster and schema, so that no part has to know the defaults or the file's directory.
"""

from __future__ import annotations

import gc
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path as FilePath
from typing import Any

from tenant_proxy.config import crosscheck, opaque, yaml_nodes
from tenant_proxy.config.policy_files import merge_policy_files
from tenant_proxy.config.problems import ConfigError, Path, Problem, dotted
from tenant_proxy.config.schema import Config, Policy, Pool
from tenant_proxy.config.secrets import resolve_secret
from tenant_proxy.config.validate import STAND_IN, stand_in, validate
from tenant_proxy.config.yaml_nodes import Document

#: a configuration with ten thousand tenants has a few megabytes
MAX_FILE_BYTES = 64 * 1024 * 1024


#: keys of a tenant that are not left as they are given
_REWRITTEN = frozenset(("pool", "policy", "policy_file"))


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
    # many objects are made and none is garbage: looking for some takes a third of the time
    collects = gc.isenabled()
    gc.disable()
    try:
        return _load(source, file, base, environ, world_readable=world_readable)
    finally:
        if collects:
            gc.enable()


def _load(
    source: str,
    file: str,
    base: FilePath | None,
    environ: Mapping[str, str] | None,
    *,
    world_readable: bool,
) -> Loaded:
    document = yaml_nodes.parse(source, file)
    config = _build(document, (base or FilePath()).absolute(), os.environ if environ is None else environ)
    if config is not None and world_readable:
        _warn_of_readable_secrets(document)
    # this file's first, then those of the policy files
    document.problems.sort(key=lambda one: (one.file != file, one.file, one.line, one.column))
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
    failed: set[Path] = set()
    merge_policy_files(document, data, base, failed)
    first = validate(Config, document, data, failed=failed)
    # to Config the overrides of tenants are any dictionaries
    _validate_overrides(document, data, failed)
    config: Config | None = None
    if first is not None or stand_in(Config, data) is not None:
        resolved = _resolve_secrets(document, data, base, environ, failed)
        _resolve_paths(data, base)
        config = opaque.named(document, _validated(data, None if failed else first, resolved))
        if failed:
            _check_the_rest(document, config, failed)
        else:
            crosscheck.check(document, config)
    return None if config is None or failed else _with_defaults(config)


def _validated(data: dict[str, Any], first: Config | None, resolved: set[Path]) -> Config:
    """`first` was of the same data, less what has been merged, resolved and made absolute: what that has
    not changed, nearly all where there are many, is taken from it.
    """
    if first is None:
        return Config.model_validate(data)
    tenants = [
        given if given.keys() & _REWRITTEN else was
        for given, was in zip(data.get("tenants", ()), first.tenants, strict=True)
    ]
    users = [
        given if ("users", index) in resolved else was
        for index, (given, was) in enumerate(zip(data.get("users", ()), first.users, strict=True))
    ]
    return Config.model_validate({**data, "tenants": tenants, "users": users})


def _check_the_rest(document: Document, config: Config, failed: set[Path]) -> None:
    """The cross-checks of a configuration in which other values stand for those that are wrong.

    One run is to show everything; what only follows from a problem that is reported already is dropped.
    """
    other = replace(document, problems=[])
    crosscheck.check(other, config)
    reported = {dotted(path) for path in failed}
    around = {dotted(path[:-1]) for path in failed}
    for problem in other.problems:
        follows = (
            problem.key in around
            or any(problem.key == key or problem.key.startswith((f"{key}.", f"{key}[")) for key in reported)
            or STAND_IN in f"{problem.message} {problem.allowed} {problem.hint}"
        )
        if not follows:
            document.problems.append(problem)


def _validate_overrides(document: Document, data: dict[str, Any], failed: set[Path]) -> None:
    """The dictionaries pool and policy of each tenant, against the sections whose keys they hold.

    One with problems is emptied.
    """
    tenants = data.get("tenants")
    for index, tenant in enumerate(tenants if isinstance(tenants, list) else []):
        if not isinstance(tenant, dict):
            continue
        for key, model in (("pool", Pool), ("policy", Policy)):
            override = tenant.get(key)
            path = ("tenants", index, key)
            if isinstance(override, dict) and not validate(model, document, override, path, failed=failed):
                tenant[key] = {}


def _secret_places(data: dict[str, Any]) -> list[tuple[Path, dict[str, Any], str]]:
    """(path, section, key) of every SecretRef in valid data."""
    places: list[tuple[Path, dict[str, Any], str]] = []
    for index, user in enumerate(data.get("users", [])):
        places += [(("users", index, key), user, key) for key in ("password", "verifier", "server_password")]
        places.append((("users", index, "previous", "verifier"), user.get("previous", {}), "verifier"))
    for index, cluster in enumerate(data["clusters"]):
        section = cluster.get("auth_query", {})
        places.append((("clusters", index, "auth_query", "password"), section, "password"))
        for name in ("service", "admin"):
            login = cluster.get(name, {})
            places.append((("clusters", index, name, "password"), login, "password"))
    places.append((("catalog", "dsn"), data.get("catalog", {}), "dsn"))
    places.append((("lifecycle", "signing_key"), data.get("lifecycle", {}), "signing_key"))
    places.append((("secret",), data, "secret"))
    return [place for place in places if place[1].get(place[2]) is not None]


def _resolve_secrets(
    document: Document, data: dict[str, Any], base: FilePath, environ: Mapping[str, str], failed: set[Path]
) -> set[Path]:
    """Where something is other than it was: the first two parts of the path."""
    changed: set[Path] = set()
    for path, section, key in _secret_places(data):
        resolved = resolve_secret(document, path, section[key], base, environ)
        if resolved is None:
            failed.add(path)
        if resolved != section[key]:
            changed.add(path[:2])
        section[key] = resolved or {"value": STAND_IN}
    return changed


def _resolve_paths(data: dict[str, Any], base: FilePath) -> None:
    sections: list[tuple[dict[str, Any], tuple[str, ...]]] = [
        (data.get("listen", {}), ("unix_socket_dir",)),
        (data.get("listen", {}).get("tls", {}), ("cert", "key", "client_ca")),
        (data.get("auth", {}).get("jwt", {}), ("keys",)),
        (data.get("api", {}), ("cert", "key")),
        (data.get("api", {}).get("jwt", {}), ("keys",)),
        (data.get("lifecycle", {}), ("directory",)),
    ]
    sections += [(cluster.get("tls", {}), ("ca", "cert", "key")) for cluster in data["clusters"]]
    sections += [(holder, ("policy_file",)) for holder in (data, *data.get("tenants", []))]
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
    given = [(*path, "value") for path, _, _ in _secret_places(document.data)]
    lines = [document.place(path, key=True) for path in given if document.has(path)]
    if lines:
        line, column = min(lines)
        text = "a secret is in this file, which everybody can read"
        hint = "use {env: …} or {file: …}, or chmod o-r the file"
        document.problems.append(
            Problem(document.file, line, column, "", text, hint=hint, severity="warning")
        )
