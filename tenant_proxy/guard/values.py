"""Judges the values that Bind gives to parameters that name objects or settings, or are SQL (`bound`)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Final

from tenant_proxy.guard import bound, expressions, settings
from tenant_proxy.guard.parse import COST_OF_A_NAME, charge
from tenant_proxy.guard.source import NotFound, edited
from tenant_proxy.guard.walk import NOWHERE, Walk
from tenant_proxy.model import Action, Effect, Verdict

#: what a bound query may do: the relay has been told of the statement around it before it was known
_QUERY_MAY: Final = Effect.READS | Effect.WRITES | Effect.OPAQUE | Effect.DDL | Effect.MULTI

#: longer than any setting's name
_MAX_SETTING: Final = 1000

#: longest array of names, in characters
_MAX_NAMES: Final = 64 * 1024


def values_judged(
    judgement: Callable[[str], Walk],
    judge: Callable[[str], Verdict],
    kinds: Iterable[tuple[int, str]],
    values: Mapping[int, str | None],
) -> dict[int, str]:
    """The values that have to be replaced, by the parameter's number; raises Refusal.

    `judgement` starts one of a text, `judge` judges a statement.
    """
    kinds = tuple(kinds)
    known = {kind for _, kind in kinds}
    replaced: dict[int, str] = {}
    for number, kind in kinds:
        value = values.get(number)
        charge(COST_OF_A_NAME)
        w = judgement(value or "")
        if kind.startswith(bound.VALUE):
            meant = settings.bound_setting(w, kind.removeprefix(bound.VALUE), value)
        elif kind.startswith(bound.VALUE_OF):
            name = values.get(int(kind.removeprefix(bound.VALUE_OF)))
            if name is None:
                continue  # the server's to refuse
            meant = settings.bound_setting(w, name[:_MAX_SETTING], value)
        elif value is None:
            continue
        elif kind == bound.SETTING:
            if f"{bound.VALUE_OF}{number}" not in known:
                settings.bound_setting(w, value[:_MAX_SETTING], None, known=False)
            continue
        elif kind == bound.QUERY:
            meant = _query(w, judge(value), value)
        elif kind.endswith(bound.ARRAY):
            expressions.judge_names(w, value, kind.removesuffix(bound.ARRAY), NOWHERE, longest=_MAX_NAMES)
            continue
        else:
            name_kind = kind.removesuffix(bound.UNSURE)
            expressions.judge_name(w, value, name_kind, NOWHERE, unsure=name_kind != kind)
            meant = value if w.source is None else w.source.edited()
            if w.source is not None and w.source.pending:
                raise NotFound
        if meant is not None and meant != value:
            replaced[number] = meant
    return replaced


def _query(w: Walk, verdict: Verdict, text: str) -> str:
    if verdict.action is not Action.ALLOW:
        w.refuse(
            verdict.reason,
            verdict.message,
            sqlstate=verdict.sqlstate,
            detail=verdict.detail,
            hint=verdict.hint,
            name=verdict.object_name,
        )
    if verdict.effects & ~_QUERY_MAY or verdict.bound:
        w.refuse(
            "dynamic_query",
            "the query of a parameter does more than read and write rows",
            detail="It changes the session or the transaction.",
            hint="Write the query as a constant.",
        )
    return edited(text, verdict.edits)
