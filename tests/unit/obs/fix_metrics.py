"""Snapshots of made-up workers for the metrics."""

from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from tenant_proxy.obs.metrics import Aggregate

COUNTERS: dict[str, Any] = {
    "clients_accepted": 10, "clients_open": 4, "clients_closed": {"client": 5, "idle": 1},
    "logins": {"ok": 8, "failed": {"auth_failed": 2}}, "login_us_sum": 2_500_000,
    "servers_open": 3, "server_connects": 6, "server_connect_failures": 1, "servers_closed": {"idle": 3},
    "cancels": {"forwarded": 2, "unmatched": 1},
    "guard": [{"tenant": "acme", "action": "reject", "reason": "cross_schema", "count": 3}],
    "guard_cache": {"hits": 90, "misses": 10, "entries": 9, "evictions": 1, "parse_us_sum": 500},
    "pins": [{"tenant": "acme", "reason": "listen", "count": 5}],
    "listeners": {"acme": 3}, "notifications": {"acme": 12}, "listening_servers": 1,
    "errors": [{"tenant": "acme", "sqlstate_class": "42", "source": "server", "count": 4}],
    "prepared": {"hits": 20, "misses": 2, "evictions": 1}, "handoffs": 7,
    "rss_bytes": 50_000_000, "cpu_us": 1_500_000, "uptime_s": 60, "draining": False,
}  # fmt: skip


def tenant(name: str, queries: int = 100, **values: Any) -> dict[str, Any]:
    return {
        "tenant": name, "clients": 2, "clients_waiting": 1, "xacts": queries, "queries": queries,
        "bytes_in": 1000, "bytes_out": 2000,
        "xact_us": 3_000_000, "query_us": 2_000_000, "wait_us": 1_000_000,
        "wait_hist": [1] * 16, "query_hist": [queries] + [0] * 15,
        "switches": 4, "kept": 9, "escalated": {"statement": 1, "transaction": 0, "code": 2, "refused": 0},
    } | values  # fmt: skip


def pool(name: str, **values: Any) -> dict[str, Any]:
    return {
        "tenant": name, "database": name, "user": f"{name}_app", "sv_active": 2, "sv_active_cancel": 0,
        "sv_being_canceled": 0, "sv_idle": 1, "sv_used": 0, "sv_tested": 0, "sv_login": 1,
        "maxwait_us": 250_000, "max": 20, "pinned": 1,
    } | values  # fmt: skip


def label_values(labels: dict[str, str]) -> list[str]:
    return [labels[name] for name in sorted(labels, key=lambda name: (name != "tenant", name))]


class Proxy:
    """Workers and a supervisor that can be scraped."""

    def __init__(self, workers: int = 2, max_tenants: int = 50, tenants: tuple[str, ...] = ("acme",)) -> None:
        self.aggregate = Aggregate("9.9", max_tenants)
        self.tenants = tenants
        self.snapshots: dict[int, dict[str, Any]] = {
            slot: {
                "counters": COUNTERS,
                "tenants": [tenant(n) for n in tenants],
                "pools": [pool(n) for n in tenants],
                "pins": [{"tenant": n, "reason": "listen", "age_s": 7} for n in tenants],
            }
            for slot in range(workers)
        }
        self.incarnations = {slot: slot + 1 for slot in range(workers)}
        self.restarts = dict.fromkeys(range(workers), 0)
        self.deaf: set[int] = set()

    def kill(self, slot: int) -> None:
        self.incarnations[slot] = max(self.incarnations.values()) + 1
        self.restarts[slot] += 1
        self.snapshots[slot] = {"counters": {}, "tenants": [], "pools": []}

    def scrape(self) -> dict[tuple[str, ...], float]:
        """(name, values of the labels …) -> value; names without the prefix, the tenant's label first."""
        self.aggregate.feed(self.status(), self.answers(), self.tenants)
        self.aggregate.feed_catalog(
            {
                "connected": True,
                "tenants": 2,
                "logins": 3,
                "unusable": 1,
                "last_lag_s": 0.1,
                "since_sync_s": 5.0,
            }
        )
        text = self.aggregate.render()[0].decode()
        return {
            (sample.name.removeprefix("tenant_proxy_"), *label_values(sample.labels)): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }

    def status(self) -> dict[str, Any]:
        return {
            "started_s": 1_700_000_000.5,
            "config_generation": 3,
            "reloads": {"ok": 2, "failed": 1},
            "control": {"restarts": 1},
            "workers": [
                {
                    "slot": slot,
                    "pid": 100 + slot,
                    "phase": "ready",
                    "incarnation": incarnation,
                    "restarts": self.restarts[slot],
                    "uptime_s": 5.5,
                }
                for slot, incarnation in self.incarnations.items()
            ],
        }

    def answers(self) -> list[dict[str, Any]]:
        return [
            {"worker": slot, "incarnation": self.incarnations[slot], "result": snapshot}
            for slot, snapshot in self.snapshots.items()
            if slot not in self.deaf
        ]
