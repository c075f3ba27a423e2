"""The list of what is measured, in the order in which it runs (one pool mode after the other)."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

from loadtests.catalogs import Introspection
from loadtests.crowd_work import CROWD_SCENARIOS
from loadtests.guard import Costs, HoldUp, Shapes
from loadtests.work import Bulk, Growth, Idle, Pgbench, Scenario, TwoTenants

CLIENTS = (1, 16, 100)

#: groups in the order of the report, with what is to be known of them
GROUPS = {
    "select": "pgbench -S: one row by primary key. It costs the server least, so the proxy shows most.",
    "tpcb": "pgbench's TPC-B-like transaction: seven statements, one transaction.",
    "connect": (
        "A new connection with SCRAM-SHA-256 for each transaction (pgbench -S -C). Latency is the whole "
        "cycle: connect, log in, query, disconnect. Clients share the machine with the proxy, and a login "
        "costs its client some 4 ms of PBKDF2, so the rate per CPU second of the proxy is what compares "
        "proxies."
    ),
    "tls": (
        "pgbench -S with TLS 1.3 towards the clients, which don't verify the certificate, and none towards "
        "the server."
    ),
    "bulk": (
        "One connection that moves 100 MB with each statement. Rows to be sent come from a generator and "
        "received ones go nowhere (`WHERE false`), so that no table or disk of the server is what is "
        "measured. Data to be copied in has a message for each row."
    ),
    "idle": (
        "Own memory of the proxy's process tree (PSS without files) before and after very many clients have "
        "logged in and run one query each, divided by their number. The kernel's socket buffers are not in "
        "it, for any target."
    ),
    "growth": "Memory of the proxy's process tree while it serves a million transactions from 16 clients.",
    "tenants": (
        "A tenant with one client, first by itself, then beside another tenant's 32 clients, which never "
        "pause; then two tenants with 16 clients each."
    ),
    "crowd": (
        "Tenants with a login each on 50 backends. PgBouncer has a pool a login (max_db_connections = 50): "
        "it closes backends to open others; tenant_proxy shares them (`isolation: shared`, one worker). The "
        "client is one process that waits for 64 answers at a time and shares the machine."
    ),
    "guard": (
        "What the guard costs by itself (in this process: the median of a lookup that hits and of judgements "
        "of statements not seen before); the longest round trip of a tenant's client while another tenant's "
        "sends statements that are made to take long, all of which are refused; and the memory that 100,000 "
        "different statements take."
    ),
    "catalogs": (
        "The statements that a tool sends to look at its schema, one after the other on one connection, in a "
        "database of 1,000 schemas with 50 tables each. PostgreSQL and PgBouncer show the catalogs as they "
        "are; through the proxy they are views that show a tenant its own."
    ),
}

#: scenario of the group catalogs, which is the name in introspection.yaml too -> title
TOOLS = {
    "psql-list": r"psql: \d",
    "psql-table": r"psql: \d of a table",
    "psql-tables": r"psql: \dt",
    "psql-schemas": r"psql: \dn",
    "django": "Django: all tables, then one in detail",
    "sqlalchemy": "SQLAlchemy: all tables, then one in detail",
    "sqlalchemy-reflect": "SQLAlchemy: reflection of 50 tables",
}


def _select(protocol: str, mode: str, clients: int) -> Pgbench:
    where = "transaction pooling" if mode == "transaction" else "session pooling"
    suffix = "-tx" if protocol == "prepared" and mode == "transaction" else ""
    return Pgbench(
        name=f"select-{protocol}{suffix}-{clients}",
        group="select",
        title=f"{protocol}, {clients} client{'s'[: clients > 1]}, {where}",
        mode=mode,
        builtin="select-only",
        protocol=protocol,
        clients=clients,
    )


def _transaction_scenarios() -> list[Scenario]:
    found: list[Scenario] = [
        _select(protocol, "transaction", n)
        for protocol in ("simple", "extended", "prepared")
        for n in CLIENTS
    ]
    found += [
        Pgbench(
            f"tpcb-{n}", "tpcb", f"{n} client{'s'[: n > 1]}", "transaction", "tpcb-like", "simple", clients=n
        )
        for n in CLIENTS
    ]
    found += [
        Pgbench(
            f"connect-{n}",
            "connect",
            f"{n} client{'s'[: n > 1]}",
            "transaction",
            "select-only",
            "simple",
            clients=n,
            connect=True,
        )
        for n in (1, 16)
    ]
    found += [
        Pgbench(
            f"tls-{name}-16",
            "tls",
            title,
            "transaction",
            "select-only",
            "simple",
            clients=16,
            connect=connect,
            tls=True,
        )
        for name, title, connect in (
            ("select", "simple, 16 clients", False),
            ("connect", "a connection for each transaction, 16 clients", True),
        )
    ]
    found += [
        Bulk(
            "result-wide",
            "bulk",
            "SELECT, rows of 1,000 bytes",
            "transaction",
            "SELECT repeat('x', {width}) FROM generate_series(1, {rows})",
            1000,
        ),
        Bulk(
            "result-narrow",
            "bulk",
            "SELECT, rows of 50 bytes",
            "transaction",
            "SELECT n, repeat('x', {width}) FROM generate_series(1, {rows}) AS n",
            50,
        ),
        Bulk(
            "copy-out",
            "bulk",
            "COPY TO STDOUT, rows of 1,000 bytes",
            "transaction",
            "COPY (SELECT repeat('x', {width}) FROM generate_series(1, {rows})) TO STDOUT",
            1000,
        ),
        Bulk(
            "copy-in",
            "bulk",
            "COPY FROM STDIN, rows of 1,000 bytes",
            "transaction",
            "COPY sink FROM STDIN WHERE false",
            1000,
        ),
        TwoTenants("two-tenants", "tenants", "two tenants at once", "transaction"),
        *CROWD_SCENARIOS,
        Costs("guard-costs", "guard", "lookups and judgements", "transaction"),
        HoldUp("guard-hold-up", "guard", "beside hostile statements", "transaction"),
        Shapes("guard-shapes", "guard", "very many different statements", "transaction"),
        Idle("idle", "idle", "idle clients", "transaction"),
        Growth("growth", "growth", "very many transactions", "transaction"),
    ]
    return found


#: everything; session mode last, so that each target is started once for each mode
SCENARIOS: tuple[Scenario, ...] = (
    *_transaction_scenarios(),
    *(_select("prepared", "session", n) for n in CLIENTS),
    # the very last: they fill the database
    *(Introspection(f"catalogs-{tool}", "catalogs", title, "session", tool) for tool, title in TOOLS.items()),
)


class UnknownScenario(Exception):
    """A name or pattern on the command line that fits nothing."""


def choose(patterns: Sequence[str]) -> list[Scenario]:
    """Scenarios whose name or group fits one of the shell patterns, in the list's order; all without any."""
    for pattern in patterns:
        if not any(fits(one, pattern) for one in SCENARIOS):
            names = ", ".join(s.name for s in SCENARIOS)
            raise UnknownScenario(f'no scenario fits "{pattern}"; there are: {names}')
    return [s for s in SCENARIOS if not patterns or any(fits(s, pattern) for pattern in patterns)]


def fits(scenario: Scenario, pattern: str) -> bool:
    return fnmatchcase(scenario.name, pattern) or scenario.group == pattern
