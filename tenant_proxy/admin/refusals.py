"""What the admin console says of commands that it does not run."""

from __future__ import annotations

from tenant_proxy.errors import ProxyError, Source
from tenant_proxy.model import ALL


def unknown_command(command: str) -> ProxyError:
    return ProxyError(
        "42601", f'unknown command "{command}"', hint="SHOW HELP lists the commands.", reason="admin_unknown"
    )


def unsupported(what: str, hint: str = "SHOW HELP lists the commands.") -> ProxyError:
    return ProxyError("0A000", f"{what} is not supported here", hint=hint, reason="admin_unsupported")


def denied(command: str) -> ProxyError:
    return ProxyError(
        "42501",
        f"permission denied for {command}",
        detail="The login may only use SHOW.",
        hint="Connect as a user with admin: true.",
        reason="admin_denied",
    )


def bad_argument(command: str, expected: str) -> ProxyError:
    return ProxyError(
        "22023", f"invalid argument of {command}", hint=f"It takes {expected}.", reason="admin_argument"
    )


def no_such_client(number: str) -> ProxyError:
    return ProxyError(
        "22023",
        f"there is no client {number}",
        hint='The numbers are in the column "id" of SHOW CLIENTS.',
        reason="admin_argument",
    )


def no_such_tenant(name: str) -> ProxyError:
    return ProxyError(
        "3D000",
        f'there is no tenant "{name}"',
        hint='The names are in the column "name" of SHOW DATABASES.',
        reason="admin_argument",
    )


def not_paused(name: str, *, all_are: bool) -> ProxyError:
    if all_are:
        return ProxyError(
            "55000", "all tenants are paused together", hint="Resume all: RESUME.", reason="admin_not_paused"
        )
    return ProxyError(
        "55000",
        f'tenant "{name}" is not paused',
        hint="SHOW DATABASES tells which are.",
        reason="admin_not_paused",
    )


def still_at_work(name: str, holding: int, *, paused: bool) -> ProxyError:
    who = "the tenants" if name == ALL else f'tenant "{name}"'
    return ProxyError(
        "55006",
        f"{who} did not come to rest, so "
        + ("this pause is given up, but another is in force" if paused else "nothing is paused"),
        detail=f"{holding} connections were still held, in transactions or by what clients keep.",
        hint="SHOW SERVERS and SHOW PINS tell by whom; KILL_CLIENT ends one.",
        source=Source.PROXY,
        reason="admin_still_at_work",
    )


def resumed_meanwhile(name: str) -> ProxyError:
    who = "the tenants were" if name == ALL else f'tenant "{name}" was'
    return ProxyError(
        "55000",
        f"{who} resumed before all had come to rest",
        hint="Another administrator did so. PAUSE again if you still want it.",
        reason="admin_resumed",
    )


def unavailable(detail: str) -> ProxyError:
    return ProxyError(
        "57P03",
        "the proxy's processes did not answer",
        detail=detail,
        hint="Try again shortly.",
        source=Source.PROXY,
        reason="admin_unavailable",
    )
