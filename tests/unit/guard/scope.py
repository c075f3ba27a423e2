"""The scopes that the guard's tests judge in: tenant acme, whose neighbour is beta."""

from __future__ import annotations

from tenant_proxy.config.schema import Policy
from tenant_proxy.guard.judge import Guard
from tenant_proxy.guard.policy import GuardScope
from tenant_proxy.guard.source import edited
from tenant_proxy.model import Action, Effect, Verdict

GUARD = Guard()

SPACE = "abcdefghijklm"


def scope(
    *,
    schema: str = "acme",
    login: str = "acme_app",
    role: str | None = None,
    roles: tuple[str, ...] = (),
    client_encoding: str = "UTF8",
    hides: bool = False,
    hide_missing: bool = False,
    **policy: object,
) -> GuardScope:
    return GuardScope.build(
        id=1,
        tenant="acme",
        schema=schema,
        login=login,
        role=role,
        roles=roles,
        policy=Policy.model_validate(policy),
        client_encoding=client_encoding,
        hides=hides,
        hide_missing=hide_missing,
        space=SPACE,
    )


ACME = scope()
#: where other tenants are hidden
HIDING = scope(hides=True)
#: where `public` is acme's schema as well
PUBLIC = scope(hides=True, public_is_own=True)


def judge(sql: str | bytes, in_scope: GuardScope = ACME) -> Verdict:
    return GUARD.judge(in_scope, sql)


def effects(sql: str) -> Effect:
    verdict = judge(sql)
    assert verdict.action is Action.ALLOW, verdict
    return verdict.effects


def refusal(sql: str | bytes, in_scope: GuardScope = ACME) -> Verdict:
    verdict = judge(sql, in_scope)
    assert verdict.action is Action.REJECT, f"allowed: {sql!r}"
    return verdict


def rewritten(sql: str, in_scope: GuardScope = HIDING) -> str:
    """The text as it goes to the server."""
    verdict = judge(sql, in_scope)
    assert verdict.action is Action.ALLOW, (sql, verdict)
    return applied(sql, verdict)


def applied(sql: str, verdict: Verdict) -> str:
    for edit in verdict.edits:
        assert edit.start < edit.end
    return edited(sql, verdict.edits)
