"""The messages that make a shared backend a tenant's: docs/decisions/0012-shared-backends.md.

A backend is opened as the service login, with `BASE` in its startup packet, so that RESET ROLE and RESET
ALL lead back to nobody: no role, no search_path.  A switch is one message, hence one transaction: it is made
whole or not at all.  Where it leads from nobody, whom the first error ends, the client's own bytes are behind
it in the same write (`ahead_messages`); otherwise they follow when it is acknowledged.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from tenant_proxy.relay.settings import has_bytes, literal
from tenant_proxy.tenancy.startup import READING_SETTINGS
from tenant_proxy.wire import messages

#: what a shared backend is opened with: an error while it is nobody's ends it
BASE: Final[Mapping[str, str]] = {
    **READING_SETTINGS,
    "search_path": "",
    # what a client has that says nothing of it
    "application_name": "",
    "exit_on_error": "on",
}

#: first column of the rows that tell what a client is greeted with
GREETING: Final = "tenant_proxy"

#: settings that are the proxy's on a shared backend, and no part of what clients have set
OWN: Final = frozenset({"exit_on_error", "role", "session_authorization"})

#: what begin with this is looked at when a transaction begins, before a turn could set it
AT_BEGIN: Final = ("default_transaction_", "transaction_")

#: settings that a turn sets: a bit of Server.turns each
MOST_IN_TURN: Final = 31

#: … and that end a backend at rest, which others use next
NOT_CARRIED: Final = frozenset({"idle_session_timeout"})


def switch_sql(
    role: str, settings: Mapping[str, str], *, from_other: bool, forget: bool, sequences: bool
) -> str:
    """SQL that makes a backend `role`'s, with exactly these settings.

    `from_other`: it was another's, or the same tenant's with other settings.  `forget`: it knows that one's
    prepared statements.  `sequences`: … and may know the last values of its sequences.
    """
    parts: list[str] = []
    if from_other:
        # first, as until then the time-outs of whoever had it are in force
        parts.append("RESET ROLE; RESET ALL")
    if forget:
        parts.append("DEALLOCATE ALL")
    if sequences:
        parts.append("DISCARD SEQUENCES")
    # the switch is awaited: an error in it need not end the backend
    parts.append("SET exit_on_error = off")
    parts.append(f"SELECT {_calls(role, settings)}")
    return "; ".join(parts)


def ahead_messages(role: str, settings: Mapping[str, str]) -> bytes:
    """The two messages that make nobody's backend `role`'s: the switch, and what disarms it."""
    return messages.query(f"SELECT {_calls(role, settings)}") + messages.query("SET exit_on_error = off")


def turn_messages(role: str, settings: Mapping[str, str]) -> tuple[int, bytes, bytes]:
    """How many settings make nobody's backend `role`'s for one transaction, what makes the statement known
    that sets so many, and what runs it; (0, b"", b"") where a switch of that kind does not do."""
    wanted = _wanted(role, settings)
    # the last: until then the backend is armed
    wanted["exit_on_error"] = "off"
    count = len(wanted)
    if count > MOST_IN_TURN or any(name.lower().startswith(AT_BEGIN) for name in wanted):
        return 0, b"", b""
    if any(has_bytes(value) for value in wanted.values()):
        return 0, b"", b""
    name = f"tp_turn{count}"
    calls = ", ".join(f"pg_catalog.set_config(${2 * n + 1}, ${2 * n + 2}, true)" for n in range(count))
    values = [text.encode() for pair in wanted.items() for text in pair]
    return (
        count,
        messages.parse(name, f"SELECT {calls}", [messages.TEXT_OID] * len(values)),
        messages.bind(name, values) + messages.execute(),
    )


def _wanted(role: str, settings: Mapping[str, str]) -> dict[str, str]:
    # it is nobody's by now, so what that is need not be set again: each costs the server some microseconds
    return {"role": role} | {
        name: value
        for name, value in settings.items()
        if name not in NOT_CARRIED and name.lower() not in OWN and BASE.get(name) != value
    }


def _calls(role: str, settings: Mapping[str, str]) -> str:
    return ", ".join(
        f"pg_catalog.set_config({literal(name)}, {literal(value)}, false)"
        for name, value in _wanted(role, settings).items()
    )


def greeting_sql(names: Iterable[str]) -> str:
    """SQL that returns what a server would say of itself at a login: (GREETING, name, value)."""
    values = ", ".join(f"({literal(name)})" for name in names)
    return (
        f"SELECT {literal(GREETING)}, n, pg_catalog.current_setting(n, true)"
        f" FROM (VALUES {values}) AS names (n)"
    )


def with_greeting(message: bytes, names: Iterable[str]) -> bytes:
    """A switch that also tells what the client is greeted with."""
    return messages.query(message[5:-1].decode() + "; " + greeting_sql(names))


def parameter_names(parameters: Iterable[bytes]) -> list[str]:
    """Names in ParameterStatus messages."""
    return [one[5:].split(b"\0")[0].decode() for one in parameters]


def changed(asked: Mapping[str, str], base: Mapping[str, str]) -> dict[str, str]:
    """What of a shared backend's settings is its client's doing: not what the switch has set."""
    return {name: value for name, value in asked.items() if name not in OWN and base.get(name) != value}
