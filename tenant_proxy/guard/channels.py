"""LISTEN, UNLISTEN, NOTIFY and pg_listening_channels(): channels are the tenant's own.

In transaction mode no client keeps a server for LISTEN: the proxy listens in its place (relay.ears), and what
the client says of it becomes a NOTIFY to the proxy, which takes effect when, and only if, the client's
transaction commits (docs/decisions/0016-ears.md).  `GuardScope.ear` says how.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from tenant_proxy.guard import catalogs
from tenant_proxy.guard.source import NotFound, quoted_name, quoted_string
from tenant_proxy.guard.walk import NOWHERE, Body, Rule, Walk, strings
from tenant_proxy.model import Effect

_LISTENS, _CHANNELS = int(Effect.LISTENS), int(Effect.CHANNELS)

#: longest name of a channel, in bytes: the tenant's space and a dot stand before it
_MAX_CHANNEL: Final = 63 - 14

#: the function that tells them
LISTENING: Final = "pg_listening_channels"


def _named(w: Walk, keyword: str, body: Body) -> str:
    """The channel's name on the server, "" for all; it is put there."""
    name = str(body.get("conditionname", ""))
    if not name or not catalogs.turns(w, f"channel {name}", NOWHERE):
        return name
    if len(name.encode("utf-8", "surrogatepass")) > _MAX_CHANNEL:
        w.refuse(
            "channel",
            "channel name too long",
            sqlstate="22023",
            detail=f"Through the proxy a channel's name has at most {_MAX_CHANNEL} bytes.",
            name=name,
        )
    turned = f"{w.scope.space}.{name}"
    w.rename([name], NOWHERE, quoted_name(turned), keyword=keyword)
    return turned


def _in_code(w: Walk) -> bool:
    return w.in_code or w.here is not w.text


def _listen(w: Walk, body: Body) -> bool:
    channel = _named(w, "LISTEN", body)
    if _in_code(w):
        w.pin("listen")
        return True
    w.effects |= _LISTENS
    w.listens.append(channel)
    _tell(w, "L", channel)
    return True


def _unlisten(w: Walk, body: Body) -> bool:
    channel = _named(w, "UNLISTEN", body)
    if not _in_code(w):
        w.effects |= _CHANNELS
        _tell(w, "U", channel)
    return True


def _notify(w: Walk, body: Body) -> bool:
    _named(w, "NOTIFY", body)
    if not _in_code(w):
        w.tags += "N"
    return True


def _tell(w: Walk, what: str, channel: str) -> None:
    w.tags += what
    if w.scope.ear is not None:
        w.tokens.instead = w.scope.ear.message(what, channel)


def listening(w: Walk, parts: list[str], location: int) -> bool:
    """A call of pg_listening_channels(); true if it has been dealt with."""
    if parts[-1] != LISTENING or (len(parts) > 1 and parts[-2] != "pg_catalog") or _in_code(w):
        return False
    w.effects |= _CHANNELS
    if w.scope.ear is None:
        return False
    source = w.tokens
    first = source.index(source.character(location))
    last = first + 2 * len(parts)
    tokens = source.tokens[first : last + 1]
    if len(tokens) != 2 * len(parts) + 1 or tokens[-2].kind != "ASCII_40" or tokens[-1].kind != "ASCII_41":
        raise NotFound
    names = ", ".join(quoted_string(name) for name in w.scope.ear.channels)
    text = f"pg_catalog.unnest(ARRAY[{names}]::pg_catalog.text[])"
    if location in w.unnamed:
        # by its own name it would be called otherwise
        text += f" AS {LISTENING}"
    source.edit(tokens[0].start, tokens[-1].end, text)
    return True


def _result(w: Walk, body: Body) -> None:
    """An item of SELECT's list."""
    if w.scope.ear is not None and "name" not in body:
        _note_unnamed(w, body.get("val", {}))


def _from_function(w: Walk, body: Body) -> None:
    w.row_functions = True
    if w.scope.ear is not None and "alias" not in body:
        for item in body.get("functions", ()):
            for function in item.get("List", {}).get("items", ()):
                _note_unnamed(w, function)


def _note_unnamed(w: Walk, node: Mapping[str, Any]) -> None:
    function = node.get("FuncCall")
    if function is not None and strings(function["funcname"])[-1] == LISTENING:
        w.unnamed.add(function.get("location", 0))


RULES: Final[Mapping[str, Rule]] = {
    "ListenStmt": _listen,
    "UnlistenStmt": _unlisten,
    "NotifyStmt": _notify,
    "ResTarget": _result,
    "RangeFunction": _from_function,
}
