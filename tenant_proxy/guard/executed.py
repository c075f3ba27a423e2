"""SQL that EXECUTE may be given in a body in PL/pgSQL, where it is put together from constants (`folding`).

Whether variables hold it when EXECUTE runs is not followed: what is assigned to them anywhere in the body
counts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from tenant_proxy.guard import folding
from tenant_proxy.guard.parse import Unreadable, parse
from tenant_proxy.guard.source import NotFound
from tenant_proxy.guard.walk import Refusal, Walk

#: assignments that are looked at, and texts of a variable and of all that is executed
_MAX_ASSIGNMENTS: Final = 200
_MAX_TEXTS: Final = 16

#: why such SQL is refused at once; for all else it may be what never runs, or only part of a statement
_REACHES: Final = frozenset(
    {"cross_schema", "read_only_schema", "role", "search_path", "setting_refused", "server_file", "statement"}
    | {"shared_object", "two_phase", "whole_database"}
)


class Executed:
    """Of one body."""

    def __init__(self) -> None:
        #: variables, and queries whose first column they are given, or whose columns
        self._assigned: list[tuple[str, str]] = []
        #: what EXECUTE is given that is no constant
        self._values: list[Mapping[str, Any]] = []

    def assigned(self, variable: str, query: str) -> None:
        if len(self._assigned) < _MAX_ASSIGNMENTS:
            self._assigned.append((variable, query))

    def runs(self, value: Mapping[str, Any]) -> None:
        self._values.append(value)

    def judge(self, w: Walk) -> None:
        """Refuses what reaches outside the tenant."""
        if not self._values or w.is_apart:
            return
        held = self._held()
        found: dict[str, None] = {}
        for value in self._values:
            found.update(dict.fromkeys(folding.texts(value, held)))
        for text in [*found][:_MAX_TEXTS]:
            try:
                w.apart(text).statements(parse(text))
            except (Unreadable, NotFound):
                continue
            except Refusal as refusal:
                if refusal.reason in _REACHES:
                    w.refuse(
                        refusal.reason,
                        refusal.message,
                        sqlstate=refusal.sqlstate,
                        detail=refusal.detail,
                        hint=refusal.hint,
                        name=refusal.object_name,
                        rule=refusal.rule,
                    )

    def _held(self) -> dict[str, list[str]]:
        """The texts that variables may hold."""
        held: dict[str, list[str]] = {}
        given = [pair for variable, query in self._assigned for pair in _columns(variable, query)]
        # once more, as loops come back to what stands before
        for variable, value in given * 2:
            known = held.setdefault(variable, [])
            known += [text for text in folding.texts(value, held) if text not in known]
            del known[_MAX_TEXTS:]
        return held


def _columns(variable: str, query: str) -> list[tuple[str, Mapping[str, Any]]]:
    """What a variable, or fields of one, are given by a query."""
    try:
        targets = parse(query)[0]["stmt"]["SelectStmt"]["targetList"]
    except (Unreadable, KeyError, IndexError):
        return []
    found = []
    for target in targets:
        body = target["ResTarget"]
        if "val" in body:
            found += [(name, body["val"]) for name in (variable, body.get("name")) if name]
    return found
