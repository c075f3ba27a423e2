"""Every series of /metrics, in one table, and how the workers' snapshots become them.

    snapshot of a worker --flatten--> counters, gauges --Ledger--> sums --render--> text

Labels are bounded: `tenant` by metrics.max_tenants (the rest is summed under
"other"), `reason` by MAX_REASONS, `worker` and `state` by nature.  Only what
belongs to a process (memory, CPU, restarts) has a series per worker.

Names and units follow Prometheus' conventions: seconds and bytes, `_total` on
counters.  docs/operations.md has the same table; a test compares them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from prometheus_client import CollectorRegistry
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.exposition import choose_encoder

from tenant_proxy.obs.ledger import Key, Ledger, TenantLabels, Words

PREFIX = "tenant_proxy_"
#: upper bounds of the histograms in seconds; a snapshot has one number each and one more for the rest
BUCKETS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
#: different words for one `reason` label; those beyond are summed under "other"
MAX_REASONS = 60
MICROSECOND = 1e-6

Kind = Literal["counter", "gauge", "histogram", "info"]


@dataclass(frozen=True, slots=True)
class Series:
    #: without PREFIX; counters with their `_total`
    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    #: what a snapshot's integer is multiplied by
    scale: float = 1


SERIES = (
    # the whole
    Series("info", "info", "Version of the proxy.", ("version",)),
    Series("start_time_seconds", "gauge", "When the supervisor was started, in Unix time."),
    Series("config_generation", "gauge", "Number of the configuration in force; each reload adds one."),
    Series("config_reloads_total", "counter", "Reloads, by outcome (ok, failed).", ("outcome",)),
    Series("tenants", "gauge", "Tenants in the configuration."),
    Series("tenants_labelled", "gauge", "Tenants that have series of their own; the rest is under other."),
    # the catalog
    Series("catalog_connected", "gauge", "Whether the catalog can be followed."),
    Series("catalog_sync_age_seconds", "gauge", "Since all was last known to be as in the catalog."),
    Series("catalog_tenants", "gauge", "Tenants of the catalog that are served."),
    Series("catalog_logins", "gauge", "Logins of the catalog that are served."),
    Series("catalog_unusable", "gauge", "Tenants and logins of the catalog that can't be served."),
    Series("catalog_lag_seconds", "gauge", "From the last notice of a change to the last worker."),
    # processes
    Series("worker_up", "gauge", "1 if the worker answered this scrape.", ("worker",)),
    Series("worker_ready", "gauge", "1 if the worker serves clients.", ("worker",)),
    Series("worker_draining", "gauge", "1 if the worker takes no new clients.", ("worker",)),
    Series("worker_restarts_total", "counter", "Times that a worker died and was restarted.", ("worker",)),
    Series("worker_uptime_seconds", "gauge", "Time since the worker was started.", ("worker",)),
    Series("worker_resident_memory_bytes", "gauge", "Memory of the worker process.", ("worker",)),
    Series(
        "worker_cpu_seconds_total", "counter", "CPU time of the worker process.", ("worker",), MICROSECOND
    ),
    Series("worker_clients", "gauge", "Client connections that the worker holds.", ("worker",)),
    Series("control_restarts_total", "counter", "Times that the control process died and was restarted."),
    # clients
    Series("client_connections", "gauge", "Client connections, those not yet logged in included."),
    Series(
        "clients_accepted_total",
        "counter",
        "Client connections accepted; passed to another worker, one counts twice.",
    ),
    Series("clients_closed_total", "counter", "Client connections closed, by reason.", ("reason",)),
    Series("logins_total", "counter", "Logins that succeeded."),
    Series("login_failures_total", "counter", "Logins that failed, by reason.", ("reason",)),
    Series("login_seconds_total", "counter", "Time that logins took, from accept to ready.", (), MICROSECOND),
    Series("handoffs_total", "counter", "Connections passed to another worker."),
    # servers
    Series("server_connections", "gauge", "Connections to PostgreSQL."),
    Series("server_connects_total", "counter", "Connections to PostgreSQL opened."),
    Series("server_connect_failures_total", "counter", "Connections to PostgreSQL that failed to open."),
    Series("servers_closed_total", "counter", "Connections to PostgreSQL closed, by reason.", ("reason",)),
    Series("cancels_total", "counter", "Cancel requests, by outcome (forwarded, unmatched).", ("outcome",)),
    # tenants
    Series("clients", "gauge", "Clients that are logged in.", ("tenant",)),
    Series("clients_waiting", "gauge", "Clients that wait for a server connection.", ("tenant",)),
    Series("longest_wait_seconds", "gauge", "How long the first in the queue has waited.", ("tenant",)),
    Series(
        "servers",
        "gauge",
        "Server connections, by state (active, idle, used, tested, login, canceled).",
        ("tenant", "state"),
    ),
    Series("servers_max", "gauge", "Server connections that the pools may open.", ("tenant",)),
    Series("servers_pinned", "gauge", "Server connections bound to one client's session.", ("tenant",)),
    Series("pins", "gauge", "Clients that keep a server between transactions, by why.", ("tenant", "reason")),
    Series("pins_total", "counter", "Times that a client came to keep its server.", ("tenant", "reason")),
    Series("oldest_pin_seconds", "gauge", "How long one has kept its server.", ("tenant", "reason")),
    Series("listeners", "gauge", "Clients in transaction mode that the proxy listens for.", ("tenant",)),
    Series("notifications_total", "counter", "Notifications that these were told.", ("tenant",)),
    Series("listening_servers", "gauge", "Server connections that listen for them."),
    Series("switches_total", "counter", "Times that a shared server was made the tenant's.", ("tenant",)),
    Series("affinity_hits_total", "counter", "Times that a shared server was its already.", ("tenant",)),
    Series(
        "escalations_total",
        "counter",
        "Transactions with shared isolation on servers of the tenant's own, by why"
        " (statement, transaction, code, refused).",
        ("tenant", "reason"),
    ),
    Series("transactions_total", "counter", "Transactions.", ("tenant",)),
    Series("queries_total", "counter", "Queries.", ("tenant",)),
    Series("received_bytes_total", "counter", "Bytes received from clients.", ("tenant",)),
    Series("sent_bytes_total", "counter", "Bytes sent to clients.", ("tenant",)),
    Series(
        "transaction_seconds_total", "counter", "Time that clients held a server.", ("tenant",), MICROSECOND
    ),
    Series("query_seconds", "histogram", "Time that queries took.", ("tenant",), MICROSECOND),
    Series("wait_seconds", "histogram", "Time that clients waited for a server.", ("tenant",), MICROSECOND),
    Series(
        "guard_verdicts_total",
        "counter",
        "Statements that the guard did not simply let pass, by what it did and why.",
        ("tenant", "action", "reason"),
    ),
    Series(
        "errors_total",
        "counter",
        "Errors told to clients, by class of SQLSTATE and whose they are (client, server, proxy).",
        ("tenant", "sqlstate_class", "source"),
    ),
    # guard and prepared statements
    Series("guard_cache_hits_total", "counter", "Statements whose verdict was known."),
    Series("guard_cache_misses_total", "counter", "Statements that had to be parsed."),
    Series("guard_cache_evictions_total", "counter", "Verdicts pushed out of the cache."),
    Series("guard_cache_entries", "gauge", "Verdicts in the caches of all workers."),
    Series("guard_parse_seconds_total", "counter", "Time spent parsing and judging.", (), MICROSECOND),
    Series("guard_judge_processes", "gauge", "Judge processes, which check statements that take long."),
    Series("guard_judge_waiting", "gauge", "Clients that wait for a judge process."),
    Series("guard_judged_apart_total", "counter", "Statements given to a judge process."),
    Series(
        "guard_judge_failures_total", "counter", "Statements that took a judge process too long, or ended it."
    ),
    Series("prepared_hits_total", "counter", "Prepared statements that the server connection had."),
    Series("prepared_misses_total", "counter", "Prepared statements that had to be made there first."),
    Series("prepared_evictions_total", "counter", "Prepared statements closed to make room."),
)

#: gauges of which the workers' largest counts, not the sum
_LARGEST = frozenset({"longest_wait_seconds", "oldest_pin_seconds"})

_BY_NAME = {series.name: series for series in SERIES}


@dataclass(slots=True)
class Flat:
    """A worker's snapshot as numbers per key."""

    counters: dict[Key, int] = field(default_factory=dict)
    gauges: dict[Key, float] = field(default_factory=dict)

    def count(self, value: int, *key: str) -> None:
        self.counters[key] = self.counters.get(key, 0) + value

    def gauge(self, value: float, *key: str) -> None:
        self.gauges[key] = self.gauges.get(key, 0) + value


def flatten(snapshot: dict[str, Any], labels: TenantLabels, reasons: Words) -> Flat:
    """`snapshot` is a worker's answer to what: counters, tenants, pools."""
    flat = Flat()
    counters = snapshot.get("counters") or {}
    _flatten_counters(flat, counters, reasons)
    for row in counters.get("guard", ()):
        reason = reasons.of("guard_verdicts_total", row["reason"])
        flat.count(row["count"], "guard_verdicts_total", labels.of(row["tenant"]), row["action"], reason)
    for row in counters.get("errors", ()):
        flat.count(
            row["count"], "errors_total", labels.of(row["tenant"]), row["sqlstate_class"], row["source"]
        )
    for row in counters.get("pins", ()):
        flat.count(
            row["count"], "pins_total", labels.of(row["tenant"]), reasons.of("pins_total", row["reason"])
        )
    for tenant, number in counters.get("notifications", {}).items():
        flat.count(number, "notifications_total", labels.of(tenant))
    for tenant, number in counters.get("listeners", {}).items():
        flat.gauge(number, "listeners", labels.of(tenant))
    flat.gauge(counters.get("listening_servers", 0), "listening_servers")
    for row in snapshot.get("pins") or ():
        pin = labels.of(row["tenant"]), reasons.of("pins", row["reason"])
        flat.gauge(1, "pins", *pin)
        oldest: Key = ("oldest_pin_seconds", *pin)
        flat.gauges[oldest] = max(flat.gauges.get(oldest, 0), row["age_s"])
    for row in snapshot.get("tenants") or ():
        _flatten_tenant(flat, row, labels.of(row["tenant"]))
    for row in snapshot.get("pools") or ():
        _flatten_pool(flat, row, labels.of(row["tenant"]))
    return flat


def _flatten_counters(flat: Flat, counters: dict[str, Any], reasons: Words) -> None:
    for name, source in (
        ("clients_accepted_total", "clients_accepted"),
        ("login_seconds_total", "login_us_sum"),
        ("handoffs_total", "handoffs"),
        ("server_connects_total", "server_connects"),
        ("server_connect_failures_total", "server_connect_failures"),
    ):
        flat.count(counters.get(source, 0), name)
    flat.gauge(counters.get("clients_open", 0), "client_connections")
    flat.gauge(counters.get("servers_open", 0), "server_connections")
    logins = counters.get("logins") or {}
    flat.count(logins.get("ok", 0), "logins_total")
    for name, by_word in (
        ("login_failures_total", logins.get("failed")),
        ("clients_closed_total", counters.get("clients_closed")),
        ("servers_closed_total", counters.get("servers_closed")),
        ("cancels_total", counters.get("cancels")),
    ):
        for word, count in (by_word or {}).items():
            flat.count(count, name, reasons.of(name, word))
    cache = counters.get("guard_cache") or {}
    prepared = counters.get("prepared") or {}
    for word in ("hits", "misses", "evictions"):
        flat.count(cache.get(word, 0), f"guard_cache_{word}_total")
        flat.count(prepared.get(word, 0), f"prepared_{word}_total")
    flat.count(cache.get("parse_us_sum", 0), "guard_parse_seconds_total")
    flat.gauge(cache.get("entries", 0), "guard_cache_entries")
    judges = counters.get("judges") or {}
    flat.gauge(judges.get("processes", 0), "guard_judge_processes")
    flat.gauge(judges.get("waiting", 0), "guard_judge_waiting")
    flat.count(judges.get("judged", 0), "guard_judged_apart_total")
    flat.count(judges.get("failed", 0), "guard_judge_failures_total")


def _flatten_tenant(flat: Flat, row: dict[str, Any], tenant: str) -> None:
    for name, source in (
        ("transactions_total", "xacts"),
        ("queries_total", "queries"),
        ("received_bytes_total", "bytes_in"),
        ("sent_bytes_total", "bytes_out"),
        ("transaction_seconds_total", "xact_us"),
        ("switches_total", "switches"),
        ("affinity_hits_total", "kept"),
    ):
        flat.count(row.get(source, 0), name, tenant)
    for reason, count in (row.get("escalated") or {}).items():
        flat.count(count, "escalations_total", tenant, reason)
    for name, sum_us, hist in (
        ("query_seconds", "query_us", "query_hist"),
        ("wait_seconds", "wait_us", "wait_hist"),
    ):
        flat.count(row.get(sum_us, 0), name, tenant, "sum")
        for index, count in enumerate(row.get(hist) or ()):
            flat.count(count, name, tenant, str(index))
    flat.gauge(row.get("clients", 0), "clients", tenant)
    flat.gauge(row.get("clients_waiting", 0), "clients_waiting", tenant)


def _flatten_pool(flat: Flat, row: dict[str, Any], tenant: str) -> None:
    for state, sources in (
        ("active", ("sv_active", "sv_active_cancel")),
        ("idle", ("sv_idle",)),
        ("used", ("sv_used",)),
        ("tested", ("sv_tested",)),
        ("login", ("sv_login",)),
        ("canceled", ("sv_being_canceled",)),
    ):
        flat.gauge(sum(row.get(source, 0) for source in sources), "servers", tenant, state)
    flat.gauge(row.get("pinned", 0), "servers_pinned", tenant)
    key = ("longest_wait_seconds", tenant)
    flat.gauges[key] = max(flat.gauges.get(key, 0), row.get("maxwait_us", 0) * MICROSECOND)


class Aggregate:
    """What /metrics shows: fed with the workers' answers at each scrape, then rendered."""

    def __init__(self, version: str, max_tenants: int) -> None:
        self.version = version
        self.labels = TenantLabels(max_tenants)
        self.reasons = Words(MAX_REASONS)
        self.ledger = Ledger()
        #: last gauges of each living incarnation; one that is too busy to answer keeps its own
        self._gauges: dict[int, dict[Key, float]] = {}
        #: samples that belong to a process, or to the supervisor
        self._single: dict[Key, float] = {}

    def feed(self, status: dict[str, Any], answers: list[dict[str, Any]], tenants: Iterable[str]) -> None:
        """`status` of the supervisor, `answers` of the workers to `snapshot` (with "worker" and
        "incarnation"), `tenants` of the configuration."""
        configured = set(tenants)
        self._single = {}
        living = {w["incarnation"] for w in status["workers"] if w["pid"] is not None}
        living |= {a["incarnation"] for a in answers}
        self.ledger.retire(living)
        for gone in self._gauges.keys() - living:
            del self._gauges[gone]
        self._choose_labels(answers, configured, all_answered=len(answers) == len(living))
        for answer in answers:
            flat = flatten(answer["result"], self.labels, self.reasons)
            self.ledger.update(answer["incarnation"], flat.counters)
            self._gauges[answer["incarnation"]] = flat.gauges
        self._set_pool_sizes(answers)
        self._feed_processes(status, answers)
        self._set(len(configured), "tenants")
        self._set(len(self.labels), "tenants_labelled")

    def feed_catalog(self, shown: dict[str, Any]) -> None:
        """What `control.follow` says of itself."""
        self._set(shown["connected"], "catalog_connected")
        self._set(shown["tenants"], "catalog_tenants")
        self._set(shown["logins"], "catalog_logins")
        self._set(shown["unusable"], "catalog_unusable")
        self._set(shown["last_lag_s"], "catalog_lag_seconds")
        if shown["since_sync_s"] is not None:
            self._set(shown["since_sync_s"], "catalog_sync_age_seconds")

    def _choose_labels(
        self, answers: list[dict[str, Any]], configured: set[str], *, all_answered: bool
    ) -> None:
        activity: dict[str, int] = {}
        for answer in answers:
            for row in answer["result"].get("tenants") or ():
                # a tenant of which everything is refused has something to show too
                busy = sum(row.get(figure, 0) for figure in ("xacts", "queries", "clients", "rejected"))
                activity[row["tenant"]] = activity.get(row["tenant"], 0) + busy
            counters = answer["result"].get("counters") or {}
            for row in (*counters.get("guard", ()), *counters.get("errors", ())):
                activity.setdefault(row["tenant"], 0)
        if all_answered:
            gone = self.labels.release(lambda tenant: tenant in configured or tenant in activity)
            if gone:
                self.ledger.forget(
                    lambda key: "tenant" in _BY_NAME[key[0]].labels and len(key) > 1 and key[1] in gone
                )
        self.labels.admit(activity)

    def _set_pool_sizes(self, answers: list[dict[str, Any]]) -> None:
        # A pool's maximum is over all workers: each names the same, so it must not be added up.
        sizes: dict[tuple[str, str, str], int] = {}
        for answer in answers:
            for row in answer["result"].get("pools") or ():
                sizes[row["tenant"], row["database"], row["user"]] = row.get("max", 0)
        for (tenant, _, _), size in sizes.items():
            key = ("servers_max", self.labels.of(tenant))
            self._single[key] = self._single.get(key, 0) + size

    def _feed_processes(self, status: dict[str, Any], answers: list[dict[str, Any]]) -> None:
        self._set(status["started_s"], "start_time_seconds")
        self._set(status["config_generation"], "config_generation")
        for outcome, count in status["reloads"].items():
            self._set(count, "config_reloads_total", outcome)
        self._set((status["control"] or {}).get("restarts", 0), "control_restarts_total")
        by_slot = {a["worker"]: a["result"].get("counters") or {} for a in answers}
        for worker in status["workers"]:
            name = str(worker["slot"])
            self._set(worker["slot"] in by_slot, "worker_up", name)
            self._set(worker["phase"] == "ready", "worker_ready", name)
            self._set(worker["restarts"], "worker_restarts_total", name)
            self._set(worker["uptime_s"], "worker_uptime_seconds", name)
            counters = by_slot.get(worker["slot"])
            if counters is not None:
                self._set(counters.get("draining", False), "worker_draining", name)
                self._set(counters.get("rss_bytes", 0), "worker_resident_memory_bytes", name)
                self._set(counters.get("cpu_us", 0), "worker_cpu_seconds_total", name)
                self._set(counters.get("clients_open", 0), "worker_clients", name)

    def _set(self, value: float, *key: str) -> None:
        self._single[key] = float(value)

    # --- keeping it over a restart of this process ---------------------------

    @property
    def dirty(self) -> bool:
        return self.ledger.dirty or self.labels.dirty or self.reasons.dirty

    def dump(self) -> dict[str, Any]:
        return {"tenants": self.labels.dump(), "reasons": self.reasons.dump(), "base": self.ledger.dump()}

    def load(self, kept: dict[str, Any] | None) -> None:
        if kept:
            self.labels.load(kept["tenants"])
            self.reasons.load(kept["reasons"])
            self.ledger.load([row for row in kept["base"] if row[0] in _BY_NAME])

    # --- text ------------------------------------------------------------------

    def collect(self) -> Iterator[Metric]:
        """For prometheus_client's registry."""
        samples: dict[str, dict[Key, float]] = {series.name: {} for series in SERIES}
        for key, value in self._all_samples():
            samples[key[0]][key[1:]] = value
        for series in SERIES:
            yield self._family(series, samples[series.name])

    def render(self, accept: str = "") -> tuple[bytes, str]:
        """The exposition and its content type, in the format that `accept` (a header) asks for."""
        registry = CollectorRegistry()
        registry.register(self)
        encode, content_type = choose_encoder(accept)
        return encode(registry), content_type

    def describe(self) -> Iterable[Metric]:
        """Nothing: else the registry would collect once just to learn the names."""
        return ()

    def _all_samples(self) -> Iterator[tuple[Key, float]]:
        yield from self.ledger.totals().items()
        gauges: dict[Key, float] = {}
        for worker in self._gauges.values():
            for key, value in worker.items():
                if key[0] in _LARGEST:
                    gauges[key] = max(gauges.get(key, 0), value)
                else:
                    gauges[key] = gauges.get(key, 0) + value
        yield from gauges.items()
        yield from self._single.items()

    def _family(self, series: Series, samples: dict[Key, float]) -> Metric:
        name = PREFIX + series.name
        if series.kind == "info":
            info = InfoMetricFamily(name.removesuffix("_info"), series.help)
            info.add_metric([], {"version": self.version})
            return info
        if series.kind == "histogram":
            return _histogram(name, series, samples)
        family = (CounterMetricFamily if series.kind == "counter" else GaugeMetricFamily)(
            name, series.help, labels=series.labels
        )
        for labels, value in samples.items():
            family.add_metric(labels, value * series.scale)
        return family


def _histogram(name: str, series: Series, samples: dict[Key, float]) -> Metric:
    family = HistogramMetricFamily(name, series.help, labels=series.labels)
    for labels in dict.fromkeys(key[:-1] for key in samples):
        cumulative = 0.0
        buckets = []
        for index, bound in enumerate([*BUCKETS_S, float("inf")]):
            cumulative += samples.get((*labels, str(index)), 0)
            buckets.append(("+Inf" if bound == float("inf") else repr(float(bound)), cumulative))
        family.add_metric(labels, buckets, samples.get((*labels, "sum"), 0) * series.scale)
    return family
