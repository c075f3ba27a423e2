"""What SHOW and the metrics are made of: a worker's figures as plain data."""

from __future__ import annotations

import resource
import socket
import time
from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Any

from tenant_proxy.relay.session import PoolRecord, ServerInfo, Session

if TYPE_CHECKING:
    from tenant_proxy.worker import Worker

_SUMMED = (
    "xacts",
    "queries",
    "bytes_in",
    "bytes_out",
    "xact_us",
    "query_us",
    "wait_us",
    "assignments",
    "client_parses",
    "server_parses",
    "binds",
    "rejected",
    "switches",
    "kept",
)


def take(worker: Worker, what: list[str]) -> dict[str, Any]:
    """The parts named in `what`: counters, pools, tenants, lanes, clients, servers, pins, listeners,
    stats, violations."""
    worker.engine.poke()
    figures = [one for one in worker.engine.pool_figures() if not _record(worker, one["id"]).is_ear]
    parts: dict[str, Any] = {}
    if "counters" in what:
        parts["counters"] = _counters(worker, figures)
    if "pools" in what:
        parts["pools"] = [_pool(worker, one) for one in figures]
    tenants = [one for one in figures if not _record(worker, one["id"]).is_group]
    if "tenants" in what:
        parts["tenants"] = _tenants(worker, tenants)
    if "stats" in what:
        parts["stats"] = _stats(worker, tenants)
    if "lanes" in what:
        parts["lanes"] = [_lane(worker, one) for one in tenants if _record(worker, one["id"]).shared]
    if "clients" in what:
        parts["clients"] = [_client(row) for row in worker.engine.client_rows()]
    if "pins" in what:
        parts["pins"] = _pins(worker)
    if "listeners" in what:
        parts["listeners"] = _listeners(worker)
    if "violations" in what:
        parts["violations"] = worker.judging.violations.rows()
        parts["violations_kept"] = {"dropped": worker.judging.violations.dropped}
    if "servers" in what:
        parts["servers"] = [_server(worker, row) for row in worker.engine.server_rows()]
    return parts


def _record(worker: Worker, pool_id: int) -> PoolRecord:
    record = worker.pools.get(pool_id)
    assert record is not None
    return record


def _counters(worker: Worker, figures: list[dict[str, Any]]) -> dict[str, Any]:
    engine = worker.engine.counters()
    usage = resource.getrusage(resource.RUSAGE_SELF)
    cache = worker.judging.cache.stats()
    entered, entered_us = worker.engine.entry_figures()
    return {
        "clients_accepted": engine["clients_accepted"],
        "clients_open": engine["clients_open"],
        "clients_closed": engine["client_ends"],
        "logins": {"ok": worker.logins.succeeded + entered, "failed": dict(worker.logins.failed)},
        "login_us_sum": worker.logins.time_us + entered_us,
        "servers_open": engine["servers_open"],
        "server_connects": worker.dialer.connects,
        "server_connect_failures": worker.dialer.failures,
        "servers_closed": engine["server_ends"],
        "cancels": {
            "forwarded": worker.cancels.counts["forwarded"],
            "unmatched": worker.cancels.counts["unmatched"],
        },
        "guard": [
            {"tenant": tenant, "action": action, "reason": reason, "count": count}
            for (tenant, action, reason), count in worker.judging.counts.items()
        ],
        "guard_cache": {**cache, "parse_us_sum": worker.parse_us},
        "judges": worker.judging.judges.state(),
        "pins": [
            {"tenant": tenant, "reason": reason, "count": count}
            for (tenant, reason), count in worker.pins.counts.items()
        ],
        "listeners": dict(Counter(one.session.tenant for one in worker.ears.listeners())),
        "notifications": dict(worker.ears.notifications),
        "listening_servers": worker.ears.connections,
        "errors": [
            {"tenant": tenant, "sqlstate_class": sqlstate, "source": source, "count": count}
            for (tenant, sqlstate, source), count in worker.error_counts.items()
        ],
        "prepared": {
            "hits": sum(one["prepared_hits"] for one in figures),
            "misses": sum(one["prepared_misses"] for one in figures),
            "evictions": sum(one["prepared_evictions"] for one in figures),
        },
        "handoffs": worker.handovers,
        "rss_bytes": _rss_bytes(),
        "cpu_us": int((usage.ru_utime + usage.ru_stime) * 1e6),
        "uptime_s": int(time.monotonic() - worker.started),
        "draining": worker.draining,
    }


def _rss_bytes() -> int:
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * resource.getpagesize()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _pool(worker: Worker, one: dict[str, Any]) -> dict[str, Any]:
    record = _record(worker, one["id"])
    tenant = record.tenant
    return {
        "tenant": tenant.name,
        "database": tenant.name,
        "user": record.server_user,
        "cl_active": one["cl_active"],
        "cl_waiting": one["cl_waiting"],
        "cl_active_cancel_req": 0,
        "cl_waiting_cancel_req": 0,
        "sv_active": one["sv_active"],
        "sv_active_cancel": 0,
        "sv_being_canceled": one["sv_being_canceled"],
        "sv_idle": one["sv_idle"],
        "sv_used": 0,
        "sv_tested": one["sv_tested"],
        "sv_login": one["sv_login"],
        "maxwait_us": one["maxwait_us"],
        "pool_mode": "session" if one["session_mode"] else "transaction",
        "max": one["max"],
        "cluster": tenant.cluster.name,
        "pinned": one["pinned"],
    }


#: why transactions ran on backends of the tenant's own: pool.Escalation
_ESCALATIONS = ("statement", "transaction", "code", "refused")


def _lane(worker: Worker, one: dict[str, Any]) -> dict[str, Any]:
    record = _record(worker, one["id"])
    known = worker.code.of(record.tenant.name)
    return {
        "tenant": record.tenant.name,
        "user": record.server_user,
        "cluster": record.tenant.cluster.name,
        "code": known.doubt or "proven",
        "begins_own": one["begins_own"],
        "shared_active": one["shared_active"],
        "shared_waiting": one["shared_waiting"],
        "width": one["width"],
        "own_active": one["sv_active"],
        "own_idle": one["sv_idle"],
        "pinned": one["pinned"],
        "switches": one["switches"],
        "kept": one["kept"],
        **{f"escalated_{why}": n for why, n in zip(_ESCALATIONS, one["escalated"], strict=True)},
        "weight": record.tenant.pool.weight,
        "reserved": record.tenant.pool.reserved,
    }


def _tenants(worker: Worker, figures: list[dict[str, Any]]) -> list[dict[str, Any]]:
    by_tenant: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for one in figures:
        by_tenant[_record(worker, one["id"]).tenant.name].append(one)
    rows = []
    # tenants that nobody has used have nothing to tell
    for own in by_tenant.values():
        tenant = _record(worker, own[0]["id"]).tenant
        row: dict[str, Any] = {
            "tenant": tenant.name,
            "cluster": tenant.cluster.name,
            "schema": tenant.schema,
            "role": tenant.role or "",
            "mode": tenant.pool.mode.value,
            "isolation": tenant.isolation.value,
            "guard_mode": tenant.policy.mode.value,
            "state": "active" if tenant.suspended is None else "suspended",
            "clients": sum(one["clients"] for one in own),
            "clients_waiting": sum(one["cl_waiting"] for one in own),
            "servers": sum(one["total"] for one in own),
            "servers_active": sum(one["sv_active"] for one in own),
            "shared_active": sum(one["shared_active"] for one in own),
            "shared_waiting": sum(one["shared_waiting"] for one in own),
            "pinned": sum(one["pinned"] for one in own),
            "holding": sum(
                one["sv_active"] + one["shared_active"] + one["cl_waiting"] + one["shared_waiting"]
                for one in own
            ),
        }
        row["escalated"] = {
            why: sum(one["escalated"][at] for one in own) for at, why in enumerate(_ESCALATIONS)
        }
        row["escalations"] = sum(row["escalated"].values())
        row |= {name: sum(one[name] for one in own) for name in _SUMMED}
        for hist in ("wait_hist", "query_hist"):
            row[hist] = [sum(column) for column in zip(*(one[hist] for one in own), strict=True)] or [0] * 16
        rows.append(row)
    return rows


def _stats(worker: Worker, figures: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {
            "database": _record(worker, one["id"]).tenant.name,
            "tenant": _record(worker, one["id"]).tenant.name,
            "total_xact_count": one["xacts"],
            "total_query_count": one["queries"],
            "total_received": one["bytes_in"],
            "total_sent": one["bytes_out"],
            "total_xact_time": one["xact_us"],
            "total_query_time": one["query_us"],
            "total_wait_time": one["wait_us"],
            "total_server_assignment_count": one["assignments"],
            "total_client_parse_count": one["client_parses"],
            "total_server_parse_count": one["server_parses"],
            "total_bind_count": one["binds"],
        }
        for one in figures
    ]


def _client(row: tuple[Any, ...]) -> dict[str, Any]:
    number, session, state, connect_us, request_us, wait_us, link, status, pinned, statements, fd, tls, _ = (
        row
    )
    known = session if isinstance(session, Session) else None
    local_addr, local_port = _local_end(fd)
    return {
        "id": number,
        "tenant": known.tenant if known else "",
        "user": known.user if known else "",
        "database": known.database if known else "",
        "state": state,
        "addr": (known.address or "unix") if known else "",
        "port": known.port if known else 0,
        "local_addr": local_addr,
        "local_port": local_port,
        "connect_time": connect_us,
        "request_time": request_us,
        "wait_us": wait_us,
        "link": link,
        "remote_pid": 0,
        "tls": tls,
        "application_name": known.application_name if known else "",
        "prepared_statements": statements,
        "tx_status": status,
        "pinned": pinned,
    }


def _pins(worker: Worker) -> list[dict[str, Any]]:
    """Clients in transaction mode that keep a server, and why."""
    clients = {row[0]: row for row in worker.engine.client_rows() if row[8]}
    pids = {row[0]: row[12] for row in worker.engine.server_rows()}
    now = time.time()
    rows = []
    for number, pin in worker.pins.keep(set(clients)).items():
        client = _client(clients[number])
        rows.append(
            {
                **client,
                "reason": pin.reason,
                "since_us": int(pin.since * 1e6),
                "age_s": max(0, int(now - pin.since)),
                "remote_pid": pids.get(client["link"], 0),
            }
        )
    return rows


def _listeners(worker: Worker) -> list[dict[str, Any]]:
    """Clients for which the proxy listens."""
    clients = {row[0]: row for row in worker.engine.client_rows()}
    return [
        {
            **_client(clients[one.id]),
            "channels": len(one.active),
            "channel": one.channels[0],
            "notifications": one.told,
            "listener_pid": one.ear.pid,
        }
        for one in worker.ears.listeners()
        if one.id in clients
    ]


def _server(worker: Worker, row: tuple[Any, ...]) -> dict[str, Any]:
    (
        number,
        pool_id,
        info,
        state,
        connect_us,
        assigned_us,
        link,
        status,
        close_needed,
        statements,
        fd,
        tls,
        pid,
    ) = row
    record = _record(worker, pool_id)
    known = info if isinstance(info, ServerInfo) else None
    address = known.address if known else ""
    local_addr, local_port = _local_end(fd)
    return {
        "id": number,
        "tenant": record.tenant.name,
        "user": record.server_user,
        "database": record.tenant.cluster.database,
        "state": state,
        "addr": address if isinstance(address, str) else address[0],
        "port": record.tenant.cluster.port if isinstance(address, str) else address[1],
        "local_addr": local_addr,
        "local_port": local_port,
        "connect_time": connect_us,
        "request_time": assigned_us,
        "link": link,
        "remote_pid": pid,
        "tls": tls,
        "application_name": (known.settings.get("application_name", "") if known else ""),
        "prepared_statements": statements,
        "tx_status": status,
        "close_needed": close_needed,
    }


def _local_end(fd: int) -> tuple[str, int]:
    if fd < 0:
        return "", 0
    sock = socket.socket(fileno=fd)
    try:
        name = sock.getsockname()
    except OSError:
        return "", 0
    finally:
        sock.detach()
    return ("unix", 0) if isinstance(name, str | bytes) else (name[0], name[1])
