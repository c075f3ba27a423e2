"""The reference file config/tenant_proxy.yaml and the tables of docs/configuration.md, from the schema.

`scripts/generate_reference.py` writes both, and the JSON schema; a test checks that they are current.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from typing import Final

from tenant_proxy.config.reference import Key, keys, section_text
from tenant_proxy.config.reload import When

_HEAD: Final = """\
The configuration of tenant_proxy: every key, with its default.

A key may be left out when it has its default value.  Times are in seconds (_s),
sizes in bytes (_bytes); 0 switches a time-out or limit off.  What stands in
[brackets] is what is allowed; "restart" means that a reload (SIGHUP, RELOAD)
doesn't change it.

A secret is one of {env: NAME}, {file: PATH} or {value: TEXT}.  Paths are seen from
this file's directory.  Unlike in older YAML on, off, yes and no are plain words.

tenant-proxy check -c FILE finds what is wrong here and missing on the servers.
"""

_POLICY_HEAD: Final = """\
A policy: what the guard lets tenants do.  Every key, with its default.

Name it by `policy_file`, at the top of the configuration for all tenants or at a tenant for that one;
what the key `policy` says there is merged over it.  policy.strict.yaml, policy.legacy.yaml and
policy.observe.yaml are ready to be used so; they leave out what they don't change.

Refused whatever a policy says, as nothing of it stays in a tenant (docs/guard.md has all of it):
  objects of other schemas than the tenant's own and allowed_schemas, to read or to change;
  another role, a search_path that leads outside, settings that decide how SQL is read;
  ALTER SYSTEM, roles, databases, schemas, tablespaces, extensions, languages, foreign servers,
  publications, subscriptions, event triggers, security labels, two-phase transactions;
  COPY with files or programs, LOAD, catalogs that hold passwords or other tenants' values;
  upkeep (VACUUM, ANALYZE, REINDEX …) of the whole database.
Refused unless allowed_functions names them: functions about the server's files, other sessions, WAL,
replication, statistics of the cluster, and those of pg_catalog that are not known.

tenant-proxy guard explain --policy FILE "SELECT …" says what a policy means for a statement,
tenant-proxy guard scan --policy FILE DIRECTORY what it would refuse of an application's SQL.
"""

#: values of keys that need one to be a sensible example
_EXAMPLES: Final = {
    "clusters[].name": "main",
    "clusters[].host": '"127.0.0.1"',
    "clusters[].database": "app",
    "tenants[].name": "acme",
    "users[].name": "acme_app",
    "users[].tenant": "acme",
    "users[].password": "{env: ACME_APP_PASSWORD}",
    "auth.rules[].type": "local",
    "auth.rules[].method": "scram-sha-256",
}

#: further entries of lists
_MORE: Final = {
    "users": "- {name: admin, admin: true, password: {env: ADMIN_PASSWORD}}",
    "auth.rules": "- {type: host, method: scram-sha-256}",
}

_WIDTH: Final = 100

_MINIMAL: Final = """\
# The least that tenant_proxy needs: a server, a tenant, a login.
#
#   ACME_APP_PASSWORD=… tenant-proxy serve -c config/minimal.yaml
#   psql postgresql://acme_app:…@127.0.0.1:6432/anything

clusters:
  - {name: main, host: "127.0.0.1", database: app}

tenants:
  - name: acme  # its schema on the server has the same name

users:
  - name: acme_app  # logs in to the server under this name too
    tenant: acme
    password: {env: ACME_APP_PASSWORD}
"""


def sample_yaml() -> str:
    """Every key with its default, commented; it can be loaded."""
    return "\n".join(_sample_lines()) + "\n"


def minimal_yaml() -> str:
    return _MINIMAL


def policy_yaml() -> str:
    """Every key of a policy file with its default, commented; it can be loaded."""
    lines = [f"# {line}".rstrip() for line in _POLICY_HEAD.splitlines()]
    for key in keys():
        section, _, word = key.name.rpartition(".")
        if section == "policy":
            # a tenant's policy file may not have it
            mark = "# " if word == "cache_entries" else ""
            lines += ["", *_comment(_describe(key), ""), f"{mark}{word}: {key.default}"]
    return "\n".join(lines) + "\n"


def _sample_lines() -> Iterator[str]:
    for line in _HEAD.splitlines():
        yield f"# {line}".rstrip()
    all_keys = keys()
    lists = {key.name.rpartition("[].")[0] for key in all_keys}
    inside: list[str] = []  # sections around the last key; a list's name ends in []
    for key in all_keys:
        *around, word = key.name.split(".")
        shared = _shared(inside, around)
        yield from _further_entries(inside, shared)
        if not shared and not key.name.split(".")[0].endswith("[]"):
            yield ""
        for depth in range(shared, len(around)):
            if not around[depth].endswith("[]"):
                yield from _comment(section_text(".".join(around[: depth + 1])), _indent(around[:depth]))
                yield f"{_indent(around[:depth])}{around[depth]}:"
        inside = around

        begins_entry = shared < len(around) and around[-1].endswith("[]")
        indent = _indent(around)
        if begins_entry:
            indent = indent[:-2]
        yield from _comment(_describe(key), indent)
        if key.name in lists:
            yield f"{indent}{word}:"
            continue
        value = _EXAMPLES.get(key.name, key.default)
        note = (
            "  # required" if key.required else f"  # default: {key.default}" if value != key.default else ""
        )
        yield f"{indent}{'- ' if begins_entry else ''}{word}: {value}{note}"
    yield from _further_entries(inside, 0)


def _further_entries(inside: list[str], shared: int) -> Iterator[str]:
    """Entries at the end of the lists that are left, which are those behind the first `shared` sections."""
    for depth in range(len(inside), shared, -1):
        more = _MORE.get(".".join(inside[:depth]).removesuffix("[]"))
        if more is not None:
            yield f"{_indent(inside[:depth])[:-2]}{more}"


def _shared(left: list[str], right: list[str]) -> int:
    """How many sections two paths begin with in common."""
    count = 0
    for one, other in zip(left, right, strict=False):
        if one != other:
            break
        count += 1
    return count


def _indent(sections: list[str]) -> str:
    return "".join("    " if section.endswith("[]") else "  " for section in sections)


def _comment(text: str, indent: str) -> list[str]:
    return [f"{indent}# {line}" for line in textwrap.wrap(text, _WIDTH - len(indent) - 2)]


def _describe(key: Key) -> str:
    facts = [", ".join(key.allowed)] if key.allowed else []
    if key.when is When.RESTART:
        facts.append("restart")
    return f"{key.text} [{'; '.join(facts)}]" if facts else key.text


def markdown() -> str:
    """One table per section, one row per key."""
    sections: dict[str, list[Key]] = {}
    for key in keys():
        sections.setdefault(key.name.rpartition(".")[0], []).append(key)
    lines: list[str] = []
    for section, members in sections.items():
        lines += [f"### `{section}`" if section else "### Top", ""]
        if section:
            lines += [section_text(section), ""]
        lines += ["| key | default | allowed | unit | a reload | |", "| --- | --- | --- | --- | --- | --- |"]
        lines += [_row(key) for key in members]
        lines.append("")
    return "\n".join(lines)


def _row(key: Key) -> str:
    default = "*required*" if key.required else f"`{key.default}`"
    reload = {
        When.AT_ONCE: "at once",
        When.NEW: "for new connections",
        When.RESTART: "needs a **restart**",
    }[key.when]
    cells = (f"`{key.name}`", default, _allowed(key), key.unit, reload, key.text)
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _allowed(key: Key) -> str:
    if not key.allowed:
        return key.kind
    return ", ".join(key.allowed) if " to " in key.allowed[0] else ", ".join(f"`{v}`" for v in key.allowed)
