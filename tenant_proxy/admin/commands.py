"""Commands that change something; all of them need an admin login."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from tenant_proxy import errors
from tenant_proxy.admin import pausing, refusals
from tenant_proxy.admin.context import AdminContext, AdminResult, local_id


@dataclass(frozen=True, slots=True)
class Command:
    #: as SHOW HELP writes it
    usage: str
    help: str
    #: gets the words behind the command, as they were written
    run: Callable[[list[str], AdminContext], Awaitable[AdminResult]]


async def _reload(arguments: list[str], ctx: AdminContext) -> AdminResult:
    if arguments:
        raise refusals.bad_argument("RELOAD", "no argument")
    answer = await ctx.call("supervisor", "reload", timeout_s=RELOAD_TIMEOUT_S)
    if not answer["ok"]:
        raise errors.reload_failed(answer["errors"])
    return AdminResult(tag="RELOAD", notices=answer["warnings"])


async def _kill_client(arguments: list[str], ctx: AdminContext) -> AdminResult:
    if len(arguments) != 1 or not re.fullmatch(r"\d{1,10}", arguments[0], re.ASCII):
        raise refusals.bad_argument("KILL_CLIENT", 'a number from the column "id" of SHOW CLIENTS')
    number, worker = local_id(int(arguments[0]), ctx.config.workers)
    answer = await ctx.call(f"worker:{worker}", "kill_client", {"id": number})
    if not answer["found"]:
        raise refusals.no_such_client(arguments[0])
    return AdminResult(tag="KILL_CLIENT")


async def _reset_violations(arguments: list[str], ctx: AdminContext) -> AdminResult:
    if arguments:
        raise refusals.bad_argument("RESET VIOLATIONS", "no argument")
    await ctx.call("workers", "reset_violations")
    return AdminResult(tag="RESET")


def _later(name: str, hint: str) -> Callable[[list[str], AdminContext], Awaitable[AdminResult]]:
    async def run(arguments: list[str], ctx: AdminContext) -> AdminResult:
        raise refusals.unsupported(name, hint)

    return run


#: reading and checking ten thousand tenants takes seconds
RELOAD_TIMEOUT_S = 120.0

COMMANDS = {
    "reload": Command("RELOAD", "Reads the configuration again; a bad file changes nothing.", _reload),
    "reset violations": Command(
        "RESET VIOLATIONS", "Empties the table of SHOW VIOLATIONS.", _reset_violations
    ),
    "pause": Command(
        "PAUSE [tenant]",
        "What its clients (or all) begin waits; answers when nothing is at work.",
        pausing.pause,
    ),
    "resume": Command("RESUME [tenant]", "What waits goes on.", pausing.resume),
    "kill_client": Command("KILL_CLIENT id", "Closes a client's connection.", _kill_client),
} | {
    # PgBouncer has them: said clearly rather than "unknown"
    name: Command("", "", _later(name.upper(), hint))
    for name, hint in {
        "disable": "Take the tenant out of the configuration and RELOAD.",
        "enable": "Put the tenant into the configuration and RELOAD.",
        "reconnect": "Server connections are replaced by pool.server_lifetime_s.",
        "kill": "KILL_CLIENT closes one client.",
        "suspend": "Send SIGTERM to the supervisor to drain.",
        "shutdown": "Send SIGTERM (drain) or SIGINT (at once) to the supervisor.",
        "wait_close": "SHOW SERVERS tells which connections are left.",
    }.items()
}
