"""Reads the corpus: `corpus/attacks/*.yaml` and `corpus/legitimate/*.yaml`.

A file is a list of groups; what a group says holds for each of its entries unless the entry says otherwise.
An entry is a statement, a list of statements (a conversation, whose last one counts), or a mapping of the
fields of `Entry`.  `{oid:…}`, `{proc:…}`, `{type:…}` and `{role:…}` in a statement stand for the OID of what
is named.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import psycopg
import yaml

from tests.pg_server import Server

HERE = Path(__file__).parent / "corpus"

#: database of the corpus, beside the one of all other tests
DATABASE = "corpus"
#: the same with the views that hide other tenants
HIDING = "corpus_hiding"


@dataclass(frozen=True)
class Entry:
    group: str
    name: str
    #: statements in order
    sql: tuple[str, ...] = ()
    #: given: the last statement is sent by Parse, Bind and Execute with these
    params: tuple[str | None, ...] | None = None
    #: under this name
    statement_name: str = ""
    #: a FunctionCall: signature, and arguments as text
    function: str = ""
    args: tuple[str | None, ...] = ()
    #: settings of a startup packet
    startup: Mapping[str, str] = field(default_factory=dict)
    #: the raw bytes of a simple Query
    raw: bytes = b""
    client_encoding: str = ""
    #: what the neighbour does first, in a session of its own that stays open
    neighbour: str = ""

    #: SQLSTATE and the verdict's reason, each "" if it does not matter; None: it is let through
    refuse: tuple[str, str] | None = None
    #: let through, and must touch nothing of the neighbour's
    harmless: bool = False
    #: the neighbour must notice nothing
    meets_nobody: bool = False
    #: the first value of the answer; "none" for no row
    gives: str | None = None
    #: what must not be in the answer
    lacks: str = ""

    #: what it takes to hold: "shims", or "opaque names", which are the platform's
    needs: str = ""
    #: majors of PostgreSQL
    since: int = 0
    until: int = 99
    #: not None: not run by a superuser without the guard to see that it is a real attack; why
    unguarded: str | None = None

    def __str__(self) -> str:
        what = self.sql or self.function or self.startup or self.raw.hex()
        return f"{self.group} / {self.name}: {what}"


_FIELDS = {
    "name": "statement_name",
    "beta": "neighbour",
    "bytes": "raw",
}


def _entry(group: Mapping[str, Any], name: str, given: Any) -> Entry:
    values: dict[str, Any] = {"harmless": bool(group.get("harmless")), "needs": group.get("needs", "")}
    values["meets_nobody"] = group.get("meets") == "nobody"
    values |= {key: group[key] for key in ("since", "until") if key in group}
    given = dict(given) if isinstance(given, Mapping) else {"sql": given}
    refuse = given.pop("refuse", group.get("refuse"))
    if refuse:
        sqlstate, _, reason = str(refuse).partition(" ")
        values["refuse"] = (sqlstate, reason)
    if "parse" in given:
        given["sql"] = given.pop("parse")
        given.setdefault("params", [])
    if "acme" in given:
        given["sql"] = given.pop("acme")
    statements = given.pop("sql", [])
    if not isinstance(statements, list):
        statements = [statements]
    if statements and isinstance(statements[-1], Mapping):
        last = dict(statements[-1])
        statements = [*statements[:-1], last.pop("sql")]
        given |= last
    values["sql"] = tuple(map(str, statements))
    for key, value in given.items():
        if key == "bytes":
            value = bytes.fromhex(value)
        elif isinstance(value, list):
            value = tuple(value)
        values[_FIELDS.get(key, key)] = value
    return Entry(group=group["what"], name=str(name), **values)


def read(path: Path) -> Any:
    """What a YAML file of the corpora says; by the C loader, as each test process reads them all."""
    return yaml.load(path.read_text("utf-8"), getattr(yaml, "CSafeLoader", yaml.SafeLoader))


@functools.cache
def _groups(kind: str) -> list[dict[str, Any]]:
    return [group for path in sorted((HERE / kind).glob("*.yaml")) for group in read(path)]


@functools.cache
def attacks() -> tuple[Entry, ...]:
    return tuple(
        _entry(group, name, given) for group in _groups("attacks") for name, given in group["attacks"].items()
    )


def own_public(which: str) -> Iterator[Entry]:
    """Of `corpus/public_is_own`: attacks, or what is legitimate."""
    for group in read(HERE / "public_is_own" / f"{which}.yaml"):
        for name, given in group["attacks"].items():
            yield _entry(group, name, given)


@dataclass(frozen=True)
class Talk:
    """Legitimate statements, one after the other."""

    group: str
    name: str
    #: each with the parameters of a Bind, or None for a simple Query
    steps: tuple[tuple[str, tuple[str | None, ...] | None], ...]
    #: reads catalogs, in which others' names may be missing
    catalog: bool = False
    #: not inside of a transaction that is undone
    alone: bool = False
    since: int = 0
    until: int = 99

    def __str__(self) -> str:
        return f"{self.group} / {self.name}"


def _talk(group: Mapping[str, Any], name: str, given: Any) -> Talk:
    bounds = {key: group[key] for key in ("since", "until", "alone", "catalog") if key in group}
    steps = []
    for step in given if isinstance(given, list) else [given]:
        fields = dict(step) if isinstance(step, Mapping) else {"sql": step}
        bounds |= {key: fields.pop(key) for key in ("since", "until") if key in fields}
        params = fields.pop("params", None)
        steps.append((str(fields.pop("sql")), None if params is None else tuple(params)))
        assert not fields, f"{group['what']} / {name} has {fields}"
    return Talk(group=group["what"], name=str(name), steps=tuple(steps), **bounds)


@functools.cache
def legitimate() -> tuple[Talk, ...]:
    return tuple(
        _talk(group, name, given)
        for group in _groups("legitimate")
        for name, given in group["statements"].items()
    )


_T = TypeVar("_T", Entry, Talk)


def by_group(things: Iterable[_T]) -> dict[str, list[_T]]:
    found: dict[str, list[_T]] = {}
    for thing in things:
        found.setdefault(thing.group, []).append(thing)
    return found


_PLACE = re.compile(r"\{(oid|proc|type|role):([^{}]+)\}")
_TYPES = {"oid": "regclass", "proc": "regprocedure", "type": "regtype", "role": "regrole"}


def filled(sql: str, oid: Callable[[str, str], int]) -> str:
    """The statement with OIDs in their places; `oid` is asked for (type, name)."""
    return _PLACE.sub(lambda m: str(oid(_TYPES[m[1]], m[2])), sql)


def any_oid(_type: str, _name: str) -> int:
    """For where there is no server."""
    return 16384


class Database:
    """The corpus's database on a server."""

    def __init__(self, server: Server, name: str = DATABASE) -> None:
        self.server = server
        self.name = name
        with server.connect(database="postgres") as conn:
            conn.execute(f"CREATE DATABASE {name}")
        self.superuser = self.connect()
        self.superuser.execute((HERE / "setup.sql").read_text().encode())
        self._oids: dict[tuple[str, str], int] = {}

    def connect(self, user: str | None = None, password: str | None = None) -> psycopg.Connection:
        return self.server.connect(user, password, self.name)

    def oid(self, type_name: str, name: str) -> int:
        key = (type_name, name)
        if key not in self._oids:
            row = self.superuser.execute(f"SELECT %s::{type_name}::oid::int".encode(), [name]).fetchone()
            assert row is not None
            self._oids[key] = row[0]
        return self._oids[key]

    def close(self) -> None:
        self.superuser.close()
        with self.server.connect(database="postgres") as conn:
            conn.execute(f"DROP DATABASE {self.name} WITH (FORCE)")
