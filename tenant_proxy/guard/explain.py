"""A verdict in words or as JSON, for people and for logs.

`as_dict` and `in_words` hold no literal of the statement.  `explain` judges once more and notes what the
statement names; what it gives is for who wrote the statement.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tenant_proxy.guard.judge import Guard, Judgement
from tenant_proxy.guard.objects import Named, named
from tenant_proxy.guard.policy import GuardScope
from tenant_proxy.guard.reasons import REASONS
from tenant_proxy.guard.shape import readable
from tenant_proxy.guard.source import edited
from tenant_proxy.guard.walk import NOWHERE
from tenant_proxy.model import Action, Verdict


@dataclass(frozen=True, slots=True)
class Explanation:
    sql: str
    verdict: Verdict
    #: what the statement and the code in it name, as far as it was judged; with positions in the text
    objects: tuple[Named, ...]

    @property
    def rewritten(self) -> str | None:
        """The text that the server gets, if it is another."""
        return edited(self.sql, self.verdict.edits) if self.verdict.edits else None

    def as_dict(self) -> dict[str, Any]:
        said: dict[str, Any] = as_dict(self.verdict, self.sql)
        said["objects"] = [
            {"kind": kind, "name": name}
            | ({"position": _position(self.sql, location)} if location != NOWHERE else {})
            for kind, name, location in self.objects
        ]
        if self.rewritten is not None:
            said["rewritten"] = self.rewritten
        return said

    def in_words(self) -> str:
        lines = [in_words(self.verdict, self.sql)]
        if self.rewritten is not None:
            lines += ["the server gets:", *(f"  {line}" for line in self.rewritten.split("\n"))]
        if self.objects:
            lines.append("names:")
            kinds = max(len(one.kind) for one in self.objects)
            names = max(len(one.name) for one in self.objects)
            lines += (
                f"  {kind:{kinds}}  {name:{names}}  {_place(self.sql, location)}".rstrip()
                for kind, name, location in self.objects
            )
        return "\n".join(lines)


def explain(scope: GuardScope, sql: str) -> Explanation:
    """The verdict of a text as one message would bring it, and what it names."""
    notes: dict[Named, None] = {}
    verdict = Guard(functools.partial(_Noting, notes)).judge(scope, sql)
    return Explanation(sql, verdict, tuple(notes))


class _Noting(Judgement):
    """A judgement that notes what its statements name; those behind a refusal are not seen."""

    __slots__ = ("_notes",)

    def __init__(self, notes: dict[Named, None], scope: GuardScope, text: str) -> None:
        super().__init__(scope, text)
        self._notes = notes

    def statement(self, node: Mapping[str, Any]) -> None:
        for one in named(node):
            # in a text inside the text a place would be one of the inner
            location = one.location if self.fixed == NOWHERE else self.fixed
            self._notes.setdefault(one._replace(location=location))
        super().statement(node)


def as_dict(verdict: Verdict, sql: str = "") -> dict[str, object]:
    """What a verdict says, JSON-able; keys that say nothing are left out.  `sql` adds its shape."""
    said: dict[str, object] = {
        "action": verdict.action.value,
        "effects": [effect.name for effect in verdict.effects],
        "exact": verdict.exact,
        "sqlstate": verdict.sqlstate,
        "message": verdict.message,
        "detail": verdict.detail,
        "hint": verdict.hint,
        "position": verdict.position,
        "reason": verdict.reason,
        "object": verdict.object_name,
        "rule": verdict.rule,
        "bound": [{"parameter": number, "names": kind} for number, kind in verdict.bound],
        "settings": list(verdict.settings),
        "deallocates": list(verdict.deallocates),
        "pin_reason": verdict.pin_reason,
        "shape": readable(sql.encode("utf-8", "replace")) if sql else None,
    }
    return {key: value for key, value in said.items() if value or key in ("action", "exact")}


def in_words(verdict: Verdict, sql: str = "") -> str:
    """Some lines as psql would show an error, or what an allowed statement does."""
    if verdict.action is Action.REJECT:
        lines = [f"refused: ERROR {verdict.sqlstate}: {verdict.message}"]
        if verdict.position and sql:
            lines += _pointed_at(sql, verdict.position)
        lines += [
            f"{title}: {text}"
            for title, text in (
                ("DETAIL", verdict.detail),
                ("HINT", verdict.hint),
                ("OBJECT", verdict.object_name),
                ("RULE", _rule(verdict)),
            )
            if text
        ]
        return "\n".join(lines)
    does = ", ".join(effect.name.lower() for effect in verdict.effects if effect.name) or "nothing to note"
    lines = [f"allowed: {does}"]
    if verdict.pin_reason:
        lines.append(f"pins the client to its backend: {verdict.pin_reason}")
    if verdict.settings:
        lines.append("changes settings: " + ", ".join(verdict.settings))
    lines += (
        f"the value of ${number} is judged when it is bound: {kind.rstrip('?')}"
        for number, kind in verdict.bound
    )
    lines.append("holds for this text only" if verdict.exact else "holds for every text of this shape")
    return "\n".join(lines)


def _rule(verdict: Verdict) -> str:
    meaning = REASONS.get(verdict.reason, "")
    return f"{verdict.rule} ({meaning})" if meaning else verdict.rule


def _position(sql: str, location: int) -> int:
    """1-based character position of a byte offset."""
    return len(sql.encode("utf-8", "surrogatepass")[:location].decode("utf-8", "ignore")) + 1


def _place(sql: str, location: int) -> str:
    if location == NOWHERE:
        return ""
    before = sql[: _position(sql, location) - 1]
    return f"line {before.count(chr(10)) + 1}, column {len(before) - (before.rfind(chr(10)) + 1) + 1}"


def _pointed_at(sql: str, position: int) -> list[str]:
    before = sql[: position - 1]
    number = before.count("\n")
    line = sql.split("\n")[number]
    label = f"LINE {number + 1}: "
    return [label + line, " " * (len(label) + len(before) - (before.rfind("\n") + 1)) + "^"]
