"""A verdict in words or as JSON, for people and for logs; holds no literal of the statement."""

from __future__ import annotations

from tenant_proxy.guard.shape import readable
from tenant_proxy.model import Action, Verdict


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
            for title, text in (("DETAIL", verdict.detail), ("HINT", verdict.hint), ("RULE", verdict.rule))
            if text
        ]
        return "\n".join(lines)
    does = ", ".join(effect.name.lower() for effect in verdict.effects if effect.name) or "nothing to note"
    lines = [f"allowed: {does}"]
    if verdict.pin_reason:
        lines.append(f"pins the client to its backend: {verdict.pin_reason}")
    if verdict.settings:
        lines.append("changes settings: " + ", ".join(verdict.settings))
    lines.append("holds for this text only" if verdict.exact else "holds for every text of this shape")
    return "\n".join(lines)


def _pointed_at(sql: str, position: int) -> list[str]:
    before = sql[: position - 1]
    number = before.count("\n")
    line = sql.split("\n")[number]
    label = f"LINE {number + 1}: "
    return [label + line, " " * (len(label) + len(before) - (before.rfind("\n") + 1)) + "^"]
