"""What `tenant-proxy guard scan` reads and finds: scripts and dumps of pg_stat_statements in, a report out.

Memory stays bounded whatever is read: a statement at a time, and of each rule's places the first ones.
"""

from __future__ import annotations

import csv
import itertools
import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import IO, Any, Final

from tenant_proxy.cli.sql_scripts import MAX_STATEMENT, statements
from tenant_proxy.guard.judge import Guard
from tenant_proxy.guard.policy import GuardScope
from tenant_proxy.guard.reasons import REASONS
from tenant_proxy.model import Action, Verdict
from tenant_proxy.settings_policy import FIXED_SETTINGS, OBJECT_NAME_SETTINGS

#: a file with a longer line is none of statements
MAX_LINE: Final = 16 * 1024 * 1024
#: a dump as one JSON array is read whole; larger ones are to be written a row a line
MAX_JSON: Final = 256 * 1024 * 1024
#: rules and reasons of a report; there are some dozens
MAX_GROUPS: Final = 1000

_DUMPS: Final = frozenset({".csv", ".json", ".jsonl", ".ndjson"})
#: migrations that are programs
_PROGRAMS: Final = {".py": "Python", ".rb": "Ruby", ".js": "JavaScript", ".ts": "TypeScript", ".java": "Java"}

#: what to do about them
PROGRAMS_HINT: Final = (
    "let the tool print its SQL (alembic upgrade head --sql, manage.py sqlmigrate) and scan that"
)

_PARAMETER: Final = re.compile(r"(?<![\w$])\$[0-9]+")
#: what a tool puts a value in place of before it sends the text
_PLACEHOLDER: Final = re.compile(r"\$\{|\{\{|\{%|(?<![:\w]):['\"]?[A-Za-z_]\w*|%\(\w+\)s|(?<!\w)%s")

_LITERALS_DECIDE: Final = "its literals decide, and are not in the text"
_DECIDED_BY_VALUE: Final = frozenset(
    {"search_path", "client_encoding", *FIXED_SETTINGS, *OBJECT_NAME_SETTINGS}
)

#: refusals that come from a value, which a normalised text does not have
_BY_VALUE: Final = frozenset(
    {
        "setting_dynamic",
        "setting_name",
        "setting_refused",
        "setting_value",
        "search_path",
        "dynamic_query",
        "invalid_name",
    }
)


class Kind(StrEnum):
    ALLOWED = "allowed"
    REFUSED = "refused"
    #: literals that the text does not hold decide
    UNSURE = "unsure"
    UNREADABLE = "unreadable"


class Unusable(Exception):
    """A file that can't be read as what it should be."""


@dataclass(frozen=True, slots=True)
class Text:
    sql: str
    file: str
    line: int
    #: how often it ran, where that is known
    calls: int = 1
    #: literals are replaced by $1 …
    normalised: bool = False
    too_long: bool = False
    #: its line breaks are the file's
    in_lines: bool = True


@dataclass(frozen=True, slots=True)
class Place:
    file: str
    line: int
    message: str
    object: str
    calls: int


@dataclass(slots=True)
class Group:
    kind: Kind
    rule: str
    reason: str
    count: int = 0
    places: list[Place] = field(default_factory=list)


class Report:
    """Counts all, keeps `limit` places of each rule."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.counts: Counter[Kind] = Counter()
        self.files = 0
        #: why files were left out -> how many
        self.skipped: Counter[str] = Counter()
        self._groups: dict[tuple[Kind, str], Group] = {}

    def add(self, text: Text, kind: Kind, verdict: Verdict, message: str) -> None:
        self.counts[kind] += 1
        if kind is Kind.ALLOWED:
            return
        rule = verdict.rule or verdict.reason or kind.value
        group = self._groups.get((kind, rule))
        if group is None:
            if len(self._groups) >= MAX_GROUPS:
                return
            group = self._groups[kind, rule] = Group(kind, rule, verdict.reason)
        group.count += 1
        if len(group.places) < self._limit:
            below = text.sql.count("\n", 0, max(0, verdict.position - 1)) if text.in_lines else 0
            group.places.append(Place(text.file, text.line + below, message, verdict.object_name, text.calls))

    def groups(self, kind: Kind) -> list[Group]:
        """The most frequent first."""
        return sorted(
            (group for group in self._groups.values() if group.kind is kind),
            key=lambda group: (-group.count, group.rule),
        )

    def as_dict(self) -> dict[str, Any]:
        return {
            "ok": not self.counts[Kind.REFUSED],
            "files": self.files,
            "statements": {kind.value: self.counts[kind] for kind in Kind},
            "skipped": dict(self.skipped),
            **{
                kind.value: [
                    {
                        "rule": group.rule,
                        "reason": group.reason,
                        "meaning": REASONS.get(group.reason, ""),
                        "count": group.count,
                        "places": [
                            {
                                "file": place.file,
                                "line": place.line,
                                "message": place.message,
                                "object": place.object,
                                "calls": place.calls,
                            }
                            for place in group.places
                        ],
                    }
                    for group in self.groups(kind)
                ]
                for kind in (Kind.REFUSED, Kind.UNSURE, Kind.UNREADABLE)
            },
        }


def scan(scope: GuardScope, paths: Iterable[Path], report: Report, stdin: IO[str]) -> None:
    """Judges all that is in `paths`, as in mode enforce; raises Unusable for a file that was named and can't
    be read."""
    guard = Guard()
    for path in paths:
        for text in _texts(path, report, stdin):
            kind, verdict, message = classify(guard, scope, text)
            report.add(text, kind, verdict, message)


def classify(guard: Guard, scope: GuardScope, text: Text) -> tuple[Kind, Verdict, str]:
    if text.too_long:
        why = f"longer than {MAX_STATEMENT} characters"
        return Kind.REFUSED, Verdict(Action.REJECT, reason="too_large", rule="too_large"), why
    verdict = guard.judge(scope, text.sql)
    if text.normalised:
        return _normalised(guard, scope, text, verdict)
    if verdict.action is not Action.REJECT:
        return Kind.ALLOWED, verdict, ""
    if verdict.reason == "syntax" and (found := _PLACEHOLDER.search(text.sql)):
        why = f'{verdict.message}; "{found[0]}" looks like a place that a tool fills in'
        return Kind.UNREADABLE, verdict, why
    return Kind.REFUSED, verdict, verdict.message


def _normalised(guard: Guard, scope: GuardScope, text: Text, verdict: Verdict) -> tuple[Kind, Verdict, str]:
    """A text whose literals were replaced by $1 …, and that may be cut off."""
    parameters = _PARAMETER.search(text.sql) is not None
    first = verdict
    if parameters and verdict.reason in ("syntax", "setting_dynamic"):
        # the grammar has a literal or name there: interval $1, SET x TO $1, FETCH $1 IN c, SAVEPOINT $1
        for stand_in in ("''", "1", "x"):
            verdict = guard.judge(scope, _PARAMETER.sub(stand_in, text.sql))
            if verdict.reason != "syntax":
                break
        if verdict.action is Action.ALLOW and verdict.exact and not _harmless(verdict):
            return Kind.UNSURE, _because("literals", verdict), _LITERALS_DECIDE
    if verdict.reason in ("syntax", "encoding"):
        return Kind.UNREADABLE, first, f"{first.message}; the text may be cut off"
    if verdict.action is Action.REJECT:
        if parameters and verdict.reason in _BY_VALUE:
            return Kind.UNSURE, first, f"{first.message}, if its literals are not those that it takes"
        return Kind.REFUSED, verdict, verdict.message
    if verdict.bound:
        return Kind.UNSURE, _because("literals", verdict), _LITERALS_DECIDE
    return Kind.ALLOWED, verdict, ""


def _harmless(verdict: Verdict) -> bool:
    """Exact only as every statement of its kind is: its literals are values of settings that may have any."""
    return _DECIDED_BY_VALUE.isdisjoint(verdict.settings)


def _because(rule: str, verdict: Verdict) -> Verdict:
    return Verdict(verdict.action, verdict.effects, rule=rule, reason=rule)


# --- files -------------------------------------------------------------------------


def _texts(path: Path, report: Report, stdin: IO[str]) -> Iterator[Text]:
    if str(path) == "-":
        report.files += 1
        yield from _script(stdin, "<stdin>")
        return
    try:
        if not path.is_dir():
            report.files += 1
            yield from _file(path)
            return
        for file in _walk(path, report):
            report.files += 1
            yield from _file(file)
    except OSError as error:
        raise Unusable(f"{error.filename or path}: {error.strerror}") from None


def _walk(directory: Path, report: Report) -> Iterator[Path]:
    """The scripts below a directory, in the order of their names; hidden directories are passed over."""
    for root, directories, names in os.walk(directory, onerror=_raise):
        directories[:] = sorted(name for name in directories if not name.startswith("."))
        for name in sorted(names):
            suffix = Path(name).suffix.lower()
            if suffix == ".sql":
                yield Path(root, name)
            elif suffix in _PROGRAMS and not name.startswith(("_", ".")):
                report.skipped[_PROGRAMS[suffix]] += 1
            else:
                report.skipped["other"] += 1


def _raise(error: OSError) -> None:
    raise error


def _file(path: Path) -> Iterator[Text]:
    suffix = path.suffix.lower()
    if suffix in _PROGRAMS:
        raise Unusable(f"{path}: {_PROGRAMS[suffix]} is not parsed; {PROGRAMS_HINT}")
    try:
        # newline: CSV has line breaks of its own inside of fields
        with path.open(encoding="utf-8-sig", newline="" if suffix == ".csv" else None) as stream:
            if suffix == ".csv":
                yield from _csv(stream, str(path))
            elif suffix in _DUMPS:
                yield from _json(stream, str(path))
            else:
                yield from _script(stream, str(path))
    except UnicodeDecodeError:
        raise Unusable(f"{path}: not UTF-8 text") from None


def _script(stream: IO[str], name: str) -> Iterator[Text]:
    for statement in statements(_lines(stream, name)):
        yield Text(statement.text, name, statement.line, too_long=statement.too_long)


def _lines(stream: IO[str], name: str) -> Iterator[str]:
    while line := stream.readline(MAX_LINE):
        if len(line) == MAX_LINE:
            raise Unusable(f"{name}: a line is longer than {MAX_LINE} characters")
        yield line


def _csv(stream: IO[str], name: str) -> Iterator[Text]:
    csv.field_size_limit(MAX_LINE)
    reader = csv.reader(_lines(stream, name))
    try:
        header = [column.strip().lower() for column in next(reader, [])]
        if "query" not in header:
            raise Unusable(f'{name}: the first line names no column "query"')
        line = reader.line_num + 1
        for row in reader:
            if row:
                yield _of_dump(dict(zip(header, row, strict=False)), name, line)
            line = reader.line_num + 1
    except csv.Error as error:
        raise Unusable(f"{name}:{reader.line_num}: {error}") from None


def _json(stream: IO[str], name: str) -> Iterator[Text]:
    """An array of objects, or an object a line."""
    lines = enumerate(_lines(stream, name), 1)
    number, first = next(((number, line) for number, line in lines if line.strip()), (0, ""))
    if first.lstrip().startswith("["):
        rest = stream.read(MAX_JSON)
        if len(rest) == MAX_JSON:
            raise Unusable(f"{name}: longer than {MAX_JSON} characters; write a row a line")
        yield from _array(first + rest, name)
        return
    for at, line in itertools.chain([(number, first)], lines):
        if line.strip():
            yield _object(line, name, at)


def _object(line: str, name: str, number: int) -> Text:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise Unusable(f"{name}:{number}: not JSON: {error}") from None
    return _checked(row, name, number)


def _array(text: str, name: str) -> Iterator[Text]:
    try:
        rows = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Unusable(f"{name}: not JSON: {error}") from None
    for number, row in enumerate(rows, 1):
        yield _checked(row, name, number)


def _checked(row: object, name: str, number: int) -> Text:
    if not isinstance(row, dict) or "query" not in row:
        raise Unusable(f'{name}:{number}: no object with a key "query"')
    return _of_dump(row, name, number, in_lines=False)


def _of_dump(row: dict[str, Any], name: str, line: int, *, in_lines: bool = True) -> Text:
    calls = str(row.get("calls") or 1)
    return Text(
        str(row.get("query") or ""),
        name,
        line,
        int(calls) if calls.isdecimal() else 1,
        normalised=True,
        in_lines=in_lines,
    )
