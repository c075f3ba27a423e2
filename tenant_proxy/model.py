"""Small values that all parts share; immutable, and without behaviour."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Final, NamedTuple

#: the reason for which a tenant is suspended while it is moved to another cluster
MOVING: Final = "it is being moved"
#: … and those who still hold a server are waited for no longer
MOVED: Final = "it is being moved, which waits no longer"
#: either of them
IN_MOVE: Final = frozenset({MOVING, MOVED})
#: what is said of one that the operator has paused
PAUSED: Final = "it is paused"
#: in a list of tenants that are paused: all
ALL: Final = "*"


class Effect(enum.IntFlag):
    """What a statement does that the relay must know of (bits of a verdict).

    The same numbers are constants in `relay/states.pxd`; a test compares them.
    """

    READS = 1 << 0
    WRITES = 1 << 1
    #: BEGIN, COMMIT, ROLLBACK, SAVEPOINT …
    XACT_CONTROL = 1 << 2
    #: changes session settings (SET, RESET, set_config): the relay asks the server afterwards
    SETTINGS = 1 << 3
    #: leaves session state that only this backend has (temp table, LISTEN, WITH HOLD,
    #: session advisory lock, SQL PREPARE, LOAD): pins the client to its backend
    PINS = 1 << 4
    #: DEALLOCATE or DISCARD ALL: prepared statements go; see `Verdict.deallocates`
    DEALLOCATES = 1 << 5
    #: DISCARD ALL (also ends every pin)
    DISCARDS_ALL = 1 << 6
    #: runs code that was not parsed (user-defined function, DO, CALL)
    OPAQUE = 1 << 7
    #: changes definitions (CREATE, ALTER, DROP …)
    DDL = 1 << 8
    #: more than one statement in the text
    MULTI = 1 << 9
    #: the text is changed before it goes to a server; set by the relay where `Verdict.edits` has some
    REWRITES = 1 << 10
    #: values of parameters are judged at Bind; set by the relay where `Verdict.bound` has some
    BOUND = 1 << 11
    #: may not run on a backend that tenants share, only on one logged in as the tenant's own role
    ESCALATES = 1 << 12
    #: makes or runs code that is not proven harmless on a shared backend (dynamic SQL in a body …)
    UNPROVEN = 1 << 13
    #: takes CopyData: what is sent behind it is read as data
    COPIES = 1 << 14
    #: makes the tenant's data more: refused to one that is over its storage
    GROWS = 1 << 16
    #: EXECUTE: names a prepared statement, perhaps one that the client has made by Parse (`Verdict.executes`)
    EXECUTES = 1 << 17
    #: RESET ALL, and nothing else that sets or tells a setting: a shared backend goes back to what the client
    #: began with
    RESETS = 1 << 18
    # BEGIN, START TRANSACTION, COMMIT (END), ROLLBACK (ABORT), alone in their text: where nothing else comes
    # between no server is needed
    BEGINS = 1 << 19
    STARTS = 1 << 20
    COMMITS = 1 << 21
    ROLLS_BACK = 1 << 22
    #: LISTEN: where the proxy does not listen for the client, it pins (`Verdict.listens`)
    LISTENS = 1 << 23
    #: UNLISTEN or pg_listening_channels(): of a client for which the proxy listens not the server's to answer
    CHANNELS = 1 << 24
    #: leaves more in its transaction than what it wrote: a cursor, a lock that was asked for, a setting; or
    #: reads what its session has done
    KEEPS = 1 << 25
    #: asks for something of the session itself: in transaction mode the client's, not its backend's
    SELF = 1 << 26
    #: currval() or lastval(): what the session itself has last had of a sequence
    LAST = 1 << 27
    #: changes how literals are read, by a setting that the server does not report
    LITERALS = 1 << 28


class Edit(NamedTuple):
    """One place of a statement's text, and what stands there instead (docs/decisions/0010-rewriting.md).

    Offsets are bytes into the text's UTF-8.
    """

    start: int
    #: exclusive
    end: int
    text: str


class Action(enum.Enum):
    ALLOW = "allow"
    REJECT = "reject"
    ESCALATE = "escalate"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the guard says of one statement text in one scope."""

    action: Action
    effects: Effect = Effect(0)
    #: true when a literal decided (the verdict holds for this text only, not for its shape)
    exact: bool = False
    # of a rejection:
    sqlstate: str = ""
    message: str = ""
    detail: str = ""
    hint: str = ""
    #: 1-based character position in the text, or 0
    position: int = 0
    #: stable word for metrics: "cross_schema", "set_role", "syntax" …
    reason: str = ""
    #: the object that was named, for logs and the error
    object_name: str = ""
    #: rule of the policy that decided
    rule: str = ""
    #: names of prepared statements that DEALLOCATE names, or ("*",) for all
    deallocates: tuple[str, ...] = ()
    #: names of settings that the statement changes, lower case
    settings: tuple[str, ...] = ()
    #: what pins, for SHOW and metrics: "temp_table", "listen", "hold_cursor", "advisory_lock", "prepare",
    #: "random_seed", "session_state" (of an extension), "code"
    pin_reason: str = ""
    #: sorted and apart from each other.  Unless `exact`, they neither touch literals nor depend on them: the
    #: same places of the shape for every text of it
    edits: tuple[Edit, ...] = ()
    #: (number of a parameter from 1, what its value names): judged when it is bound.  The kinds are those of
    #: `guard.bound`
    bound: tuple[tuple[int, str], ...] = ()
    #: names of prepared statements that EXECUTE names
    executes: tuple[str, ...] = ()
    #: names of channels that LISTEN names, as they are on the server
    listens: tuple[str, ...] = ()
    #: "L", "U" or "N" for each LISTEN, UNLISTEN and NOTIFY: to an ear, all of them go as NOTIFY
    tags: str = ""


@dataclass(frozen=True, slots=True)
class StartupRequest:
    """What a client says of itself before it is authenticated."""

    user: str
    database: str
    #: every other startup parameter, `options` already split into its settings
    settings: dict[str, str] = field(default_factory=dict)
    replication: str | None = None
    address: str = ""
    tls: bool = False
    #: host name of TLS SNI
    sni: str | None = None
    #: subject common name and DNS/URI/mail alternative names of a verified client certificate
    cert_cn: str | None = None
    cert_names: tuple[str, ...] = ()
    #: protocol minor version asked for (0 for 3.0, 2 for 3.2)
    minor: int = 0
