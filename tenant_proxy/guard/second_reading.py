"""PostgreSQL's own reader of PL/pgSQL beside ours: what it finds in a body, ours must have judged.

libpg_query has the parser of PL/pgSQL.  It needs all of a CREATE FUNCTION or DO, and to know which variables
are records, but has no types beside those of pg_catalog.  So the statement is made anew around the body, and
types, which are judged as such, are replaced: names with a dot behind them are records, unless they stand
where only scalars can, and all others are text.

A text that it would run as SQL, and that was not judged in as many places, refuses the body.  A body that it
can't read is not proven: it may be one that no server reads either.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import orjson
from pglast.parser import ParseError, parse_plpgsql_json

from tenant_proxy.guard import sharing
from tenant_proxy.guard.source import quoted_name, quoted_string
from tenant_proxy.guard.walk import Walk

#: of a body in which PostgreSQL would run something else
REFUSED: Final = "this code can't be checked"

#: what a text is run as: an SQL statement, an expression, an assignment with its target, the expression that
#: EXECUTE takes its text from, arguments of a cursor
STATEMENT, EXPRESSION, ASSIGNMENT, DYNAMIC, ARGUMENTS = range(5)

#: what is run, by PL/pgSQL's RawParseMode
_MODES: Final = {0: STATEMENT, 2: EXPRESSION, 3: ASSIGNMENT, 4: ASSIGNMENT, 5: ASSIGNMENT}

#: where EXECUTE has its text
_EXECUTED: Final = frozenset(
    {("PLpgSQL_stmt_dynexecute", "query"), ("PLpgSQL_stmt_dynfors", "query")}
    | {("PLpgSQL_stmt_return_query", "dynquery"), ("PLpgSQL_stmt_open", "dynquery")}
)
#: variables that are shown once more where they are used
_SHOWN: Final = frozenset({"var", "target"})

#: what PL/pgSQL makes of WHEN a, b in a CASE with an expression
_CASE: Final = re.compile(r'"__Case__Variable_\d+__" IN \((.*)\)', re.DOTALL)
#: … and puts behind the arguments of a cursor, if one of them is named
_ALIAS: Final = re.compile(r' AS (?:\w+|"(?:[^"]|"")*")(?:, |$)')

#: what triggers have for parameters
_OF_TRIGGERS: Final = (
    ", ".join(f"{name} record" for name in ("new", "old"))
    + ", "
    + ", ".join(
        f"tg_{name} text"
        for name in (
            *("name", "when", "level", "op", "relid", "relname", "table_name", "table_schema", "nargs"),
            *("argv", "event", "tag"),
        )
    )
)


class Type(NamedTuple):
    """The type, and collation, that a variable is declared to have, from character `start` to `end`."""

    start: int
    end: int
    variable: str
    is_cursor: bool


class Parameter(NamedTuple):
    #: IN, OUT, INOUT or VARIADIC
    mode: str
    name: str
    is_cursor: bool


@dataclass(frozen=True, slots=True)
class Around:
    """What a body stands in."""

    name: str
    #: PROCEDURE, FUNCTION, or DO
    kind: str = "DO"
    parameters: Sequence[Parameter] = ()
    returns: str = "value"
    is_set: bool = False


@dataclass(slots=True)
class Reading:
    """What our reader has found in a body."""

    #: how often each text was judged as what
    judged: Counter[tuple[int, str]] = field(default_factory=Counter)
    #: arguments of cursors, in alphabetical order, and each of them
    sorted: Counter[tuple[str, ...]] = field(default_factory=Counter)
    arguments: set[str] = field(default_factory=set)
    types: list[Type] = field(default_factory=list)
    #: the character behind #option dump and its like: that would be carried out at once
    options: int = 0
    #: names with a dot behind, and those of what is assigned together with others
    dotted: set[str] = field(default_factory=set)
    scalars: set[str] = field(default_factory=set)

    def saw(self, kind: int, text: str) -> None:
        self.judged[kind, text] += 1

    def gave(self, arguments: Sequence[str]) -> None:
        """A cursor was given arguments, each an expression of its own."""
        self.judged[ARGUMENTS, ", ".join(arguments)] += 1
        self.sorted[tuple(sorted(arguments))] += 1
        self.arguments.update(arguments)


def compare(w: Walk, text: str, around: Around, reading: Reading) -> None:
    """Refuses a body, `text`, in which something runs that was not judged."""
    found = read(text, around, reading)
    if found is None:
        sharing.unread(w)
        return
    left, named = reading.judged.copy(), reading.sorted.copy()
    for kind, sql, line in _run_as_sql(found):
        if kind == ARGUMENTS and left[kind, sql] <= 0:
            given = _arguments(sql, reading.arguments)
            named[given] -= 1
            if named[given] >= 0:
                continue
        if left[kind, sql] <= 0:
            w.refuse(
                "syntax",
                REFUSED,
                sqlstate="0A000",
                detail=f"PostgreSQL and the proxy read line {line} of a body in PL/pgSQL differently.",
                hint="Write it in another way, and report it to the operator.",
            )
        left[kind, sql] -= 1


def _arguments(query: str, given: Collection[str]) -> tuple[str, ...]:
    """The arguments that the query of a cursor's is made of, in alphabetical order.

    If one of them is named, behind each is the name that the cursor declares for it.
    """
    found, at = [], 0
    while at < len(query):
        for alias in _ALIAS.finditer(query, at):
            if query[at : alias.start()] in given:
                found.append(query[at : alias.start()])
                at = alias.end()
                break
        else:
            return (query,)
    return tuple(sorted(found))


# --- what PostgreSQL's reader finds -------------------------------------------------------


def _run_as_sql(tree: Mapping[str, Any]) -> Iterator[tuple[int, str, int]]:
    """What of a body is run as SQL, as what, and on which line."""
    stack: list[tuple[str, str, Any, int]] = [("", "", tree, 1)]
    while stack:
        parent, key, node, line = stack.pop()
        if isinstance(node, list):
            stack += ((parent, key, item, line) for item in node)
        elif isinstance(node, dict):
            if "PLpgSQL_expr" in node:
                yield *_kind(parent, key, node["PLpgSQL_expr"]), line
                continue
            for name, value in node.items():
                if name in _SHOWN:
                    continue
                if name.startswith("PLpgSQL_"):
                    stack += ((name, inner, item, value.get("lineno", line)) for inner, item in value.items())
                else:
                    stack.append((parent, name, value, line))


def _kind(parent: str, key: str, expression: Mapping[str, Any]) -> tuple[int, str]:
    text = str(expression["query"])
    kind = _MODES.get(expression["parseMode"], -1)
    if (parent, key) in _EXECUTED:
        return DYNAMIC, text
    if key == "argquery":
        return ARGUMENTS, text
    if parent == "PLpgSQL_case_when":
        compared = _CASE.fullmatch(text)
        return kind, compared[1] if compared else text
    return kind, text


def read(text: str, around: Around, reading: Reading) -> Mapping[str, Any] | None:
    """PostgreSQL's tree of a body, None if it can't read it."""
    for records in _records(reading):
        try:
            found = orjson.loads(parse_plpgsql_json(_statement(text, around, reading, records)))
        except (ParseError, ValueError):
            continue
        if len(found) == 1:
            tree: Mapping[str, Any] = found[0]
            return tree
    return None


def _records(reading: Reading) -> Iterator[frozenset[str]]:
    """The names of variables that may be records, the likeliest first."""
    likely = frozenset(reading.dotted - reading.scalars)
    yield likely
    if likely != reading.dotted:
        yield frozenset(reading.dotted)
    if likely:
        yield frozenset()


def _statement(text: str, around: Around, reading: Reading, records: frozenset[str]) -> str:
    """The whole of a DO or CREATE FUNCTION, with other types."""
    pieces, at = ["\n" * text.count("\n", 0, reading.options)], reading.options
    for one in reading.types:
        lines = "\n" * text.count("\n", one.start, one.end)
        pieces += (text[at : one.start], _type(one.variable, one.is_cursor, records), lines)
        at = one.end
    body = quoted_string("".join((*pieces, text[at:])))
    if around.kind == "DO":
        return f"DO LANGUAGE plpgsql {body}"
    name = quoted_name(around.name)
    if around.returns == "trigger":
        return f"CREATE FUNCTION {name}({_OF_TRIGGERS}) RETURNS record LANGUAGE plpgsql AS {body}"
    given = ", ".join(
        f"{mode} {quoted_name(name) if name else ''} {_type(name, is_cursor, records)}"
        for mode, name, is_cursor in around.parameters
    )
    returns = _returns(around, records)
    return f"CREATE {around.kind} {name}({given}) {returns} LANGUAGE plpgsql AS {body}"


def _returns(around: Around, records: frozenset[str]) -> str:
    if around.kind == "PROCEDURE":
        return ""
    out = [one for one in around.parameters if one.mode in ("OUT", "INOUT")]
    if out and not around.is_set:
        return ""
    kind = around.returns
    if len(out) == 1:
        kind = _type(out[0].name, out[0].is_cursor, records)
    elif out:
        kind = "record"
    elif kind != "void":
        kind = "text"
    return f"RETURNS {'SETOF ' if around.is_set else ''}{kind}"


def _type(variable: str, is_cursor: bool, records: frozenset[str]) -> str:
    if is_cursor:
        return "refcursor"
    return "record" if variable in records else "text"
