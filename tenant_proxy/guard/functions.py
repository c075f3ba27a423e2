"""What the guard knows of functions, from data: catalog facts and a reviewed list (data/).

`FUNCTIONS` has every function of pg_catalog by name: None for one that is safe whatever its
arguments, else a `Fact`.  A name that is in neither `FUNCTIONS` nor `EXTENSIONS` is not known:
it may be the tenant's own.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from importlib import resources
from typing import Any, Final

import yaml

import tenant_proxy.shims.names as shims
from tenant_proxy.model import Effect

#: types whose input turns a name into an object's OID, or has names in it -> kind of name
REG_TYPES: Final[Mapping[str, str]] = {
    "aclitem": "rights",
    "regclass": "relation",
    "regcollation": "object",
    "regconfig": "object",
    "regdictionary": "object",
    "regnamespace": "schema",
    "regoper": "object",
    "regoperator": "routine",
    "regproc": "object",
    "regprocedure": "routine",
    "regrole": "role",
    "regtype": "type",
}


@dataclass(frozen=True, slots=True)
class Name:
    """An argument that names an object."""

    position: int
    #: relation, object, routine, type, schema, role, rights, or schema_name and role_name (taken literally);
    #: `expressions.judge_name`
    kind: str
    #: also overloads exist in which this argument is plain text: what is no name is let through
    unsure: bool = False


@dataclass(frozen=True, slots=True)
class Fact:
    #: why it is refused, "" if it is not
    refused: str = ""
    effects: Effect = Effect(0)
    pin_reason: str = ""
    #: number of arguments -> those that name objects
    names: Mapping[int, tuple[Name, ...]] = field(default_factory=dict)
    #: number of arguments -> positions of those that are SQL
    queries: Mapping[int, tuple[int, ...]] = field(default_factory=dict)
    #: reads rows of what its arguments name, so these must be constants
    reads_rows: bool = False
    #: reads its first argument as the type that the second names
    reads_input: bool = False
    #: set_config, whose arguments decide more than the above can say
    sets: bool = False
    #: settings that it changes, whatever its arguments
    changes: tuple[str, ...] = ()
    #: fewest arguments of any overload
    least: int = 0
    #: calls may be turned to a function of the proxy's own (catalogs.py)
    turned: bool = False


def _load(name: str) -> Any:
    text = resources.files(__package__).joinpath("data", name).read_text("utf-8")
    if name.endswith(".json"):
        return json.loads(text)
    # libyaml's loader, where PyYAML was built with it, is 15 times faster
    return yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506


class _Names:
    """A list of names in which an entry may end in *."""

    def __init__(self, entries: Iterable[str]) -> None:
        self.exact = {entry for entry in entries if "*" not in entry}
        self.patterns = [tuple(entry.split("*")) for entry in entries if "*" in entry]
        self._pattern = re.compile(
            "|".join(f"{re.escape(begin)}.*{re.escape(end)}" for begin, end in self.patterns) or "(?!)",
            re.DOTALL,
        )

    def __contains__(self, name: str) -> bool:
        return name in self.exact or self._pattern.fullmatch(name) is not None


class _Reasons:
    """reason -> names, turned around."""

    def __init__(self, groups: Mapping[str, list[str]]) -> None:
        self.groups = [(reason, _Names(entries)) for reason, entries in groups.items()]

    def of(self, name: str) -> str:
        return next((reason for reason, names in self.groups if name in names), "")

    def plain(self) -> Iterator[str]:
        for _, names in self.groups:
            yield from names.exact


def _names_by_type(calls: list[tuple[int, int, str]]) -> dict[int, tuple[Name, ...]]:
    """The arguments of regclass and its siblings, by number of arguments, from facts.json's `calls`."""
    found: dict[int, dict[tuple[int, str], int]] = {}
    overloads: dict[int, int] = {}
    for least, most, arguments in calls:
        types = arguments.split(",")
        for count in range(least, (most if most >= 0 else least) + 1):
            overloads[count] = overloads.get(count, 0) + 1
            for position, type_name in enumerate(types[:count]):
                if type_name in REG_TYPES:
                    key = (position, REG_TYPES[type_name])
                    found.setdefault(count, {}).setdefault(key, 0)
                    found[count][key] += 1
    return {
        count: tuple(
            Name(position, kind, unsure=used < overloads[count])
            for (position, kind), used in positions.items()
        )
        for count, positions in found.items()
    }


def _names_listed(kinds: Mapping[str, Mapping[int, list[int]]]) -> dict[int, tuple[Name, ...]]:
    found: dict[int, tuple[Name, ...]] = {}
    for kind, counts in kinds.items():
        for count, positions in counts.items():
            found[count] = (*found.get(count, ()), *(Name(position, kind) for position in positions))
    return found


def _queries_listed(counts: Mapping[int, int | list[int]]) -> dict[int, tuple[int, ...]]:
    return {count: (at,) if isinstance(at, int) else tuple(at) for count, at in counts.items()}


def _build(facts: Mapping[str, Any], listed: Mapping[str, Any]) -> dict[str, Fact | None]:
    refused = _Reasons(listed["refused"])
    writes = _Names(listed["effects"]["writes"])
    locks = _Names(listed["effects"]["advisory_lock"])
    seeds = _Names(listed["effects"]["random_seed"])
    logins = _Names(listed["effects"]["login"])
    reads_rows = _Names(listed["reads_rows"])
    reviewed = _Names(listed["reviewed"])
    fleeting = _Names(listed["fleeting"])
    own = frozenset(listed["own_session"])
    last = frozenset(listed["last_values"])
    names, queries = listed["names"], listed["queries"]
    result: dict[str, Fact | None] = {}
    known = {*facts["pg_catalog"], *facts["types"], *names, *queries, *refused.plain(), *reviewed.exact}
    for name in sorted(known | writes.exact | locks.exact):
        fact = facts["pg_catalog"].get(name, {})
        calls = [tuple(call) for call in fact.get("calls", ())]
        effects = Effect(0)
        if name in writes:
            effects |= Effect.WRITES
        if name in locks or name in seeds:
            effects |= Effect.PINS
        if name in logins:
            effects |= Effect.ESCALATES
        if name in last:
            effects |= Effect.LAST | Effect.KEEPS
        by_type = {} if name in names else _names_by_type(calls)
        entry = Fact(
            effects=effects,
            pin_reason="advisory_lock" if name in locks else "random_seed" if name in seeds else "",
            names=_names_listed(names[name]) if name in names else by_type,
            queries=_queries_listed(queries.get(name, {})),
            reads_rows=name in reads_rows,
            reads_input=name in ("pg_input_is_valid", "pg_input_error_info"),
            sets=name == "set_config",
            least=min((call[0] for call in calls), default=0),
            turned=name in shims.FUNCTIONS
            or name in shims.PUBLIC_FUNCTIONS
            or name in shims.CHECKED_FUNCTIONS,
        )
        classified = bool(entry.names or entry.queries or entry.effects or entry.sets or name in reviewed)
        if fact.get("volatility") == "v" and name not in fleeting and not (entry.effects or entry.sets):
            entry = replace(entry, effects=entry.effects | Effect.KEEPS)
        reason = refused.of(name)
        if not reason and fact.get("privileged"):
            reason = "what PostgreSQL itself keeps from ordinary roles"
        if not reason and not classified and fact.get("volatility") == "v" and fact.get("callable"):
            reason = "functions that nobody has classified yet"
        if reason:
            # what is turned may be called where it is
            result[name] = replace(entry, refused=reason)
        elif entry.names or entry.queries or entry.effects or entry.sets or entry.turned or name in own:
            result[name] = entry
        else:
            result[name] = None
    return result


_FACTS: Final = _load("facts.json")
_LISTED: Final = _load("functions.yaml")

#: functions of pg_catalog, and its types, which can be called like functions
FUNCTIONS: Final[Mapping[str, Fact | None]] = _build(_FACTS, _LISTED)

#: functions of information_schema
INFORMATION_SCHEMA: Final = frozenset(_FACTS["information_schema"])

#: trigger functions of pg_catalog
TRIGGERS: Final = frozenset(name for name, fact in _FACTS["pg_catalog"].items() if fact.get("trigger"))

#: tables and views of pg_catalog
CATALOG_RELATIONS: Final = frozenset(_FACTS["relations"])

#: those of them that are refused -> why
REFUSED_RELATIONS: Final[Mapping[str, str]] = {
    name: reason for reason, names in _LISTED["relations"].items() for name in names
}

_EXTENSIONS_REFUSED: Final = _Reasons(_LISTED["extensions"]["refused"])
_EXTENSIONS: Final[Mapping[str, Fact]] = {
    **{
        name: Fact(queries=_queries_listed(counts))
        for name, counts in _LISTED["extensions"]["queries"].items()
    },
    **{name: Fact(names=_names_listed(kinds)) for name, kinds in _LISTED["extensions"]["names"].items()},
    **{
        name: Fact(effects=Effect.PINS, pin_reason="session_state")
        for name in _LISTED["extensions"]["session_state"]
    },
    **{
        name: Fact(effects=Effect.SETTINGS, changes=tuple(names))
        for name, names in _LISTED["extensions"]["sets"].items()
    },
}


def _by_oid() -> dict[int, tuple[str, ...]]:
    names: dict[int, tuple[str, ...]] = {}
    for name, fact in _FACTS["pg_catalog"].items():
        for oid in fact["oids"]:
            names[oid] = (*names.get(oid, ()), name)
    return names


#: names by OID, for FunctionCall messages; built-in functions keep their OIDs over all versions, a few have
#: changed their names
OIDS: Final[Mapping[int, tuple[str, ...]]] = _by_oid()


#: what drivers call by number, within a transaction that may have written: these run on shared backends too
LARGE_OBJECTS: Final = frozenset(
    {"lo_open", "lo_close", "loread", "lowrite", "lo_lseek", "lo_lseek64", "lo_tell", "lo_tell64"}
    | {"lo_creat", "lo_create", "lo_unlink", "lo_truncate", "lo_truncate64"}
)


@functools.lru_cache(maxsize=4096)
def extension_fact(name: str) -> Fact | None:
    """What is known of a function outside pg_catalog by its name alone; None if nothing is."""
    reason = _EXTENSIONS_REFUSED.of(name)
    return Fact(refused=reason) if reason else _EXTENSIONS.get(name)


def refused_extensions() -> list[tuple[str, bool]]:
    """What names of refused functions of extensions begin with, and whether they go on."""
    groups = [names for _, names in _EXTENSIONS_REFUSED.groups]
    exact = {name for names in groups for name in names.exact}
    # an entry's only * is its end
    begins = {pattern[0] for names in groups for pattern in names.patterns}
    return sorted([*((name, False) for name in exact), *((name, True) for name in begins)])


#: functions of extensions, known by their name alone, that `x.name` may call
EXTENSION_ATTRIBUTES: Final = frozenset(_LISTED["extensions"]["of_one"]) | frozenset(
    name for name, fact in _EXTENSIONS.items() if fact.effects or 1 in fact.names or 1 in fact.queries
)

#: functions of extensions that leave something in their session
SESSION_STATE: Final = frozenset(name for name, fact in _EXTENSIONS.items() if fact.effects)

#: names that `x.name` may call with x as the only argument, and that are not safe
ATTRIBUTES: Final = EXTENSION_ATTRIBUTES | frozenset(
    name for name, fact in FUNCTIONS.items() if fact is not None and fact.least <= 1
)
