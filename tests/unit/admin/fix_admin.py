"""A console over made-up workers: a hub client in its place that answers from a dictionary."""

from typing import Any

from tenant_proxy.admin import console
from tenant_proxy.admin.context import AdminContext, AdminResult
from tenant_proxy.admin.pauses import Pauses
from tenant_proxy.admin.stats_window import StatsWindow
from tenant_proxy.config.schema import Config
from tenant_proxy.hub import HubError
from tenant_proxy.tenancy.registry import Registry

CONFIG = Config.model_validate(
    {
        "workers": 2,
        "clusters": [
            {
                "name": "main",
                "host": "db.example",
                "database": "app",
                "auth_query": {"password": {"value": "s3cret-a"}},
            }
        ],
        "tenants": [
            {"name": "acme", "schema": "acme_schema", "pool": {"max": 7, "mode": "transaction"}},
            {"name": "beta", "max_clients": 50, "policy": {"mode": "observe"}},
        ],
        "users": [
            {"name": "acme_app", "tenant": "acme", "password": {"value": "s3cret-b"}},
            {"name": "root", "admin": True, "password": {"value": "s3cret-c"}},
            {"name": "watcher", "stats": True, "verifier": {"value": "s3cret-d"}},
        ],
        "limits": {"max_clients": 1234},
    }
)


def pool(tenant: str, user: str, **values: Any) -> dict[str, Any]:
    row: dict[str, Any] = {"tenant": tenant, "database": tenant, "user": user}
    counts = (
        "cl_active", "cl_waiting", "cl_active_cancel_req", "cl_waiting_cancel_req", "sv_active",
        "sv_active_cancel", "sv_being_canceled", "sv_idle", "sv_used", "sv_tested", "sv_login", "maxwait_us",
        "pinned",
    )  # fmt: skip
    return row | dict.fromkeys(counts, 0) | {"pool_mode": "session", "max": 20, "cluster": "main"} | values


def connection(number: int, tenant: str, user: str, **values: Any) -> dict[str, Any]:
    return {
        "id": number, "tenant": tenant, "user": user, "database": "anything", "state": "active",
        "addr": "192.0.2.7", "port": 50001, "local_addr": "192.0.2.1", "local_port": 6432,
        "connect_time": 1_700_000_000_000_000, "request_time": 1_700_000_061_500_000,
        "wait_us": 0, "link": None,
        "remote_pid": 4711, "tls": False, "application_name": "psql", "prepared_statements": 3,
        "tx_status": "I", "pinned": False,
    } | values  # fmt: skip


def tenant_row(tenant: str, **values: Any) -> dict[str, Any]:
    counts = (
        "clients", "clients_waiting", "servers", "servers_active", "xacts", "queries",
        "bytes_in", "bytes_out", "xact_us", "query_us", "wait_us", "rejected", "holding",
    )  # fmt: skip
    return dict.fromkeys(counts, 0) | {
        "tenant": tenant, "cluster": "main", "schema": tenant, "role": None, "mode": "session",
        "isolation": "dedicated", "guard_mode": "enforce", "state": "active",
        "wait_hist": [0] * 16, "query_hist": [0] * 16,
    } | values  # fmt: skip


def violation(tenant: str, **values: Any) -> dict[str, Any]:
    return {
        "tenant": tenant, "user": f"{tenant}_app", "statement": "SELECT ? FROM beta.t", "action": "reject",
        "reason": "cross_schema", "rule": "cross_schema", "object": "beta.t", "sqlstate": "42501", "count": 1,
        "first_us": 1_700_000_000_000_000, "last_us": 1_700_000_000_000_000,
    } | values  # fmt: skip


def worker_snapshot(**values: Any) -> dict[str, Any]:
    lists: tuple[str, ...] = ("pools", "tenants", "clients", "servers", "stats", "violations")
    empty = {"counters": {}, "violations_kept": {"dropped": 0}}
    return {name: [] for name in lists} | empty | values


class FakeHub:
    """`workers` is each worker's whole snapshot; a missing one does not answer."""

    def __init__(self, workers: dict[int, dict[str, Any]]) -> None:
        self.workers = workers
        self.window = StatsWindow(0.0)
        self.pauses = Pauses()
        self.now_s = 100.0
        self.calls: list[tuple[str, str, Any]] = []
        self.reload_answer: dict[str, Any] = {"ok": True, "errors": [], "warnings": [], "generation": 2}
        self.status: dict[str, Any] = {
            "stopping": False,
            "paused": [],
            "workers": [
                {
                    "slot": s,
                    "pid": 100 + s,
                    "phase": "ready",
                    "restarts": s,
                    "last_exit": "",
                    "uptime_s": 12.3,
                }
                for s in range(2)
            ],
        }

    async def call(self, target: str, method: str, params: Any = None, timeout_s: float = 5) -> Any:
        self.calls.append((target, method, params))
        match target, method:
            case "workers", "snapshot":
                return self._answers(params["what"])
            case "workers", "reset_violations":
                return [{"worker": slot, "incarnation": slot + 1, "result": {}} for slot in self.workers]
            case "worker:1", "kill_client":
                return {"found": params["id"] == 7}
            case "worker:0", "kill_client":
                return {"found": False}
            case "supervisor", "reload":
                return self.reload_answer
            case "supervisor", "status":
                return self.status
            case "supervisor", "pause":
                answer = self.pauses.apply(params["step"], params)
                self.status["paused"] = self.pauses.names
                return answer
            case "supervisor", "stats":
                return self.window.observe(self.now_s, self._answers(["stats"]), set(), **params)
        raise HubError(f'no method "{method}"')

    def _answers(self, what: list[str]) -> list[dict[str, Any]]:
        return [
            {
                "worker": slot,
                "incarnation": slot + 1,
                # what was not asked for by name comes with what it belongs to
                "result": {kind: part for kind, part in snapshot.items() if kind.split("_")[0] in what},
            }
            for slot, snapshot in sorted(self.workers.items())
        ]


class Console:
    def __init__(self, *workers: dict[str, Any], is_admin: bool = True) -> None:
        self.hub = FakeHub(dict(enumerate(workers or (worker_snapshot(), worker_snapshot()))))
        self.is_admin = is_admin

    async def run(self, sql: str) -> AdminResult:
        registry = Registry.build(CONFIG)
        context = AdminContext(self.hub, CONFIG, registry, "root", self.is_admin)  # type: ignore[arg-type]
        return await console.run(sql, context)

    async def rows(self, sql: str) -> list[dict[str, str | None]]:
        result = await self.run(sql)
        names = [name for name, _ in result.columns]
        return [dict(zip(names, row, strict=True)) for row in result.rows]
