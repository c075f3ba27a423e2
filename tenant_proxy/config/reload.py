"""What differs between two configurations, and when each difference takes effect.

Pure: a reload loads the new file whole (`config.load`, which raises and so changes nothing when
the file is bad), calls `keep_fixed`, and swaps the result in.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, StrEnum
from typing import Any, Final

from pydantic import BaseModel

from tenant_proxy.config.schema import Config, SecretRef


class When(StrEnum):
    """From when on a changed key counts after a reload."""

    AT_ONCE = "at once"
    #: connections and backends that exist keep what they began with
    NEW = "new connections"
    RESTART = "restart"


#: keys of `listen` that the supervisor bound at its start
FIXED_LISTEN: Final = ("addresses", "port", "backlog", "unix_socket_dir")

#: all that a running proxy can't change
FIXED_KEYS: Final = frozenset({"workers", *(f"listen.{key}" for key in FIXED_LISTEN)})

#: key, or section with all below it -> when; what isn't listed counts at once
_WHEN: Final[Mapping[str, When]] = {
    **dict.fromkeys(FIXED_KEYS, When.RESTART),
    "listen.tls": When.NEW,
    "clusters[].host": When.NEW,
    "clusters[].port": When.NEW,
    "clusters[].database": When.NEW,
    "clusters[].tls": When.NEW,
    "clusters[].dead_after_s": When.NEW,
    "clusters[].auth_query": When.NEW,
    "clusters[].service": When.NEW,
    "tenants[].cluster": When.NEW,
    "tenants[].database": When.NEW,
    "tenants[].schema": When.NEW,
    "tenants[].role": When.NEW,
    "isolation": When.NEW,
    "tenants[].isolation": When.NEW,
    "tenants[].settings": When.NEW,
    "tenants[].locked_settings": When.NEW,
    "tenants[].sni": When.NEW,
    "tenants[].logins": When.NEW,
    "tenants[].max_clients": When.NEW,
    "users[]": When.NEW,
    "auth": When.NEW,
    "mapping": When.NEW,
    "limits.max_clients": When.NEW,
    "limits.max_logins_in_progress": When.NEW,
    "limits.max_startup_bytes": When.NEW,
    "timeouts.login_s": When.NEW,
}

#: lists whose entries are known by their names
_NAMED: Final[Mapping[str, str]] = {"clusters": "cluster", "tenants": "tenant", "users": "user"}

_MAX_SHOWN = 60


@dataclass(frozen=True, slots=True)
class Change:
    """One difference, e.g. "pool.max: was 20, is now 30"; never shows a secret."""

    #: e.g. pool.max, or tenants[acme].pool.max
    key: str
    text: str
    when: When

    def __str__(self) -> str:
        note = {When.AT_ONCE: "", When.NEW: " (for new connections)", When.RESTART: " (needs a restart)"}
        return f"{self.text}{note[self.when]}"


def when_of(key: str) -> When:
    """When a changed key takes effect; entries of lists are written as in tenants[].role."""
    while key:
        if key in _WHEN:
            return _WHEN[key]
        key = key.rpartition(".")[0]
    return When.AT_ONCE


def changes(old: Config, new: Config) -> list[Change]:
    """All that differs, in the order of the file's sections."""
    return list(_compare("", "", old, new))


def keep_fixed(old: Config, new: Config) -> tuple[Config, list[str]]:
    """`new` with the values of `old` where only a restart can change them, and a sentence for each."""
    sentences = [
        f"{key}: {_show(before)} stays in force, a change needs a restart"
        for key in sorted(FIXED_KEYS)
        if (before := _value(old, key)) != _value(new, key)
    ]
    if not sentences:
        return new, []
    listen = new.listen.model_copy(update={key: getattr(old.listen, key) for key in FIXED_LISTEN})
    return new.model_copy(update={"workers": old.workers, "listen": listen}), sentences


def _value(config: Config, key: str) -> object:
    value: object = config
    for part in key.split("."):
        value = getattr(value, part)
    return value


def _compare(key: str, kind: str, old: BaseModel, new: BaseModel) -> Iterator[Change]:
    """Differences of two sections; `kind` is the key without names, for `when_of`."""
    for name, field in type(old).model_fields.items():
        before, after = getattr(old, name), getattr(new, name)
        if before == after:
            continue
        word = field.alias or name
        inner, inner_kind = _join(key, word), _join(kind, word)
        if not key and word in _NAMED:
            yield from _compare_named(word, before, after)
        elif isinstance(before, SecretRef) or isinstance(after, SecretRef):
            what = "is removed" if after is None else "is new" if before is None else "is changed"
            yield Change(inner, f"{inner} {what}", when_of(inner_kind))
        elif isinstance(before, BaseModel) and isinstance(after, BaseModel):
            yield from _compare(inner, inner_kind, before, after)
        elif isinstance(before, dict) and isinstance(after, dict):
            yield from _compare_values(inner, inner_kind, before, after)
        else:
            yield Change(inner, f"{inner}: {_from_to(before, after)}", when_of(inner_kind))


def _compare_values(
    key: str, kind: str, old: Mapping[str, object], new: Mapping[str, object]
) -> Iterator[Change]:
    """Differences of two dictionaries, e.g. a tenant's pool or settings."""
    when = when_of(kind)
    for name in dict.fromkeys((*old, *new)):
        inner = _join(key, name)
        if name not in new:
            yield Change(inner, f"{inner} is removed (was {_show(old[name])})", when)
        elif name not in old:
            yield Change(inner, f"{inner} is set to {_show(new[name])}", when)
        elif old[name] != new[name]:
            yield Change(inner, f"{inner}: {_from_to(old[name], new[name])}", when)


def _compare_named(section: str, old: Sequence[Any], new: Sequence[Any]) -> Iterator[Change]:
    before, after = ({item.name: item for item in items} for items in (old, new))
    noun = _NAMED[section]
    for name in dict.fromkeys((*before, *after)):
        key = f"{section}[{name}]"
        if name not in after:
            yield Change(key, f'{noun} "{name}" is removed', When.AT_ONCE)
        elif name not in before:
            yield Change(key, f'{noun} "{name}" is added', When.AT_ONCE)
        else:
            yield from _compare(key, f"{section}[]", before[name], after[name])


def _join(key: str, name: str) -> str:
    return f"{key}.{name}" if key else name


def _from_to(before: object, after: object) -> str:
    old, new = _show(before), _show(after)
    return f"was {old}, is now {new}" if old != new else f"{old}, with other values"


def _show(value: object) -> str:
    text = str(_plain(value)) if not isinstance(value, str) or isinstance(value, Enum) else f'"{value}"'
    return text if len(text) <= _MAX_SHOWN else text[: _MAX_SHOWN - 1] + "…"


def _plain(value: object) -> object:
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, list):
        if any(isinstance(item, BaseModel) for item in value):
            return f"{len(value)} entries"
        return ", ".join(str(_plain(item)) for item in value) or "nothing"
    return "nothing" if value is None else value
