"""A tenant's states, and which may follow which: the only place, but for the table's own check.

    draft ─▶ provisioning ─▶ ready ─▶ active ◀─▶ suspended
                  │            │         │           ▲ │
                  ▼            └─────────┴───▶ deleting ◀┘ ─▶ erased
               failed ◀───────────────────────────┘

A draft is a row and nothing else.  While it is provisioned its objects are made; ready it has all, and
nobody is let in; active it serves.  Suspended, logins are refused with the reason.  Deleting, it is as
suspended until its grace is over, then its objects go, and erased is what the row says for ever.  Failed goes
back to where it came from when it is tried again, or is deleted.

The function `may_follow` of the catalog (migrations/0001_catalog.sql) is the same; a test compares them.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from tenant_proxy.catalog.failures import Failure


class State(StrEnum):
    DRAFT = "draft"
    PROVISIONING = "provisioning"
    READY = "ready"
    ACTIVE = "active"
    SUSPENDED = "suspended"
    DELETING = "deleting"
    ERASED = "erased"
    FAILED = "failed"


FOLLOWERS: Final[dict[State, frozenset[State]]] = {
    State.DRAFT: frozenset({State.PROVISIONING, State.DELETING}),
    State.PROVISIONING: frozenset({State.READY, State.FAILED}),
    State.READY: frozenset({State.ACTIVE, State.DELETING}),
    State.ACTIVE: frozenset({State.SUSPENDED, State.DELETING}),
    State.SUSPENDED: frozenset({State.ACTIVE, State.DELETING}),
    State.DELETING: frozenset({State.SUSPENDED, State.ERASED, State.FAILED}),
    State.ERASED: frozenset(),
    # provisioning only where that is what failed
    State.FAILED: frozenset({State.PROVISIONING, State.DELETING}),
}

#: proxies know of tenants in these
SERVED: Final = frozenset({State.ACTIVE, State.SUSPENDED, State.DELETING})
#: its objects are there, and may be worked on
PROVISIONED: Final = frozenset({State.READY, State.ACTIVE, State.SUSPENDED})


def may_follow(now: State, then: State, failed_from: State | None = None) -> bool:
    if now is State.FAILED and then is State.PROVISIONING:
        return failed_from is State.PROVISIONING
    return then in FOLLOWERS[now]


#: what people do about a tenant in a state that does not allow what they want
_HINTS: Final = {
    State.DRAFT: "provision it first: tenant-proxy tenant provision {name}",
    State.PROVISIONING: "it is being provisioned: tenant-proxy job list --tenant {name}",
    State.READY: "activate it first: tenant-proxy tenant activate {name}",
    State.SUSPENDED: "resume it first: tenant-proxy tenant resume {name}",
    State.DELETING: "it may still be restored: tenant-proxy tenant restore {name}",
    State.FAILED: "see what failed: tenant-proxy tenant show {name}",
}


def check(name: str, now: State, then: State, failed_from: State | None = None) -> None:
    """Failure (conflict) unless `then` may follow `now`."""
    if not may_follow(now, then, failed_from):
        raise conflict(name, now, f"it can't become {then.value}")


def conflict(name: str, now: State, detail: str = "", *, hint: str | None = None) -> Failure:
    """`hint`: where what the state lets one do next does not lead to what is wanted."""
    if hint is None:
        hint = _HINTS.get(now, "").format(name=name)
    return Failure("conflict", f'tenant "{name}" is {now.value}', detail=detail, hint=hint)
