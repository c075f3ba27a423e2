"""/metrics: what is summed, what is not, bounded labels, counters that never fall, names and units."""

import copy
import re
from pathlib import Path

import pytest

from tenant_proxy.obs.metrics import BUCKETS_S, MAX_REASONS, PREFIX, SERIES

from .fix_metrics import COUNTERS, Proxy, pool, tenant

ROOT = Path(__file__).parent.parent.parent.parent


def test_workers_are_summed_in_seconds_and_bytes():
    samples = Proxy(workers=2).scrape()
    expected = {
        ("clients_accepted_total",): 20,
        ("client_connections",): 8,
        ("clients_closed_total", "idle"): 2,
        ("logins_total",): 16,
        ("login_failures_total", "auth_failed"): 4,
        ("login_seconds_total",): 5.0,
        ("server_connections",): 6,
        ("server_connect_failures_total",): 2,
        ("cancels_total", "forwarded"): 4,
        ("handoffs_total",): 14,
        ("guard_cache_hits_total",): 180,
        ("guard_cache_entries",): 18,
        ("guard_parse_seconds_total",): 0.001,
        ("prepared_misses_total",): 4,
        ("guard_verdicts_total", "acme", "reject", "cross_schema"): 6,
        ("errors_total", "acme", "server", "42"): 8,
        ("queries_total", "acme"): 200,
        ("transaction_seconds_total", "acme"): 6.0,
        ("received_bytes_total", "acme"): 2000,
        ("clients", "acme"): 4,
        ("clients_waiting", "acme"): 2,
        ("servers", "acme", "active"): 4,
        ("servers", "acme", "login"): 2,
        ("servers_pinned", "acme"): 2,
    }
    assert {key: samples[key] for key in expected} == expected


def test_the_worst_wait_is_not_summed_nor_is_the_size_of_a_pool():
    proxy = Proxy(workers=2)
    proxy.snapshots[1]["pools"] = [pool("acme", maxwait_us=2_000_000), pool("acme", user="second", max=5)]
    samples = proxy.scrape()
    assert samples["longest_wait_seconds", "acme"] == 2.0
    assert samples["servers_max", "acme"] == 25


def test_histograms_are_cumulative_and_end_with_all():
    samples = Proxy(workers=2).scrape()
    assert samples["wait_seconds_count", "acme"] == 32
    assert samples["wait_seconds_sum", "acme"] == 2.0
    assert samples["wait_seconds_bucket", "acme", "0.0005"] == 2
    assert samples["wait_seconds_bucket", "acme", "30.0"] == 30
    assert samples["wait_seconds_bucket", "acme", "+Inf"] == 32
    assert len(BUCKETS_S) == 15


def test_processes_have_series_of_their_own():
    proxy = Proxy(workers=2)
    proxy.kill(1)
    samples = proxy.scrape()
    assert samples["worker_resident_memory_bytes", "0"] == 50_000_000
    assert samples["worker_cpu_seconds_total", "0"] == 1.5
    assert samples["worker_restarts_total", "1"] == 1
    assert samples["info", "9.9"] == 1
    assert samples["start_time_seconds",] == 1_700_000_000.5
    assert samples["config_reloads_total", "failed"] == 1


def test_a_worker_that_does_not_answer_is_seen_and_keeps_its_numbers():
    proxy = Proxy(workers=2)
    before = proxy.scrape()
    proxy.deaf.add(1)
    after = proxy.scrape()
    assert (before["worker_up", "1"], after["worker_up", "1"]) == (1, 0)
    assert after["queries_total", "acme"] == before["queries_total", "acme"]
    assert after["client_connections",] == before["client_connections",]


def test_a_dead_workers_counts_stay_and_its_clients_do_not():
    proxy = Proxy(workers=2)
    proxy.scrape()
    proxy.kill(1)
    samples = proxy.scrape()
    assert samples["queries_total", "acme"] == 200
    assert samples["wait_seconds_count", "acme"] == 32
    assert samples["client_connections",] == 4


def test_tenants_beyond_the_bound_are_summed_under_other():
    names = tuple(f"t{n}" for n in range(10))
    proxy = Proxy(workers=1, max_tenants=3, tenants=names)
    proxy.snapshots[0]["tenants"] = [tenant(name, queries=n) for n, name in enumerate(names, start=1)]
    samples = proxy.scrape()
    assert {key[1] for key in samples if key[0] == "queries_total"} == {"t7", "t8", "t9", "other"}
    assert samples["queries_total", "other"] == sum(range(1, 8))
    assert samples["tenants",] == 10
    assert samples["tenants_labelled",] == 3


def test_a_tenant_that_grows_does_not_push_another_out():
    proxy = Proxy(workers=1, max_tenants=1, tenants=("a", "b"))
    proxy.snapshots[0]["tenants"] = [tenant("a", 2), tenant("b", 1)]
    proxy.scrape()
    proxy.snapshots[0]["tenants"] = [tenant("a", 2), tenant("b", 1000)]
    samples = proxy.scrape()
    assert samples["queries_total", "a"] == 2
    assert samples["queries_total", "other"] == 1000


def test_raising_the_bound_moves_tenants_out_of_other_without_a_fall():
    proxy = Proxy(workers=1, max_tenants=1, tenants=("a", "b"))
    proxy.snapshots[0]["tenants"] = [tenant("a", 9), tenant("b", 5)]
    before = proxy.scrape()
    proxy.aggregate.labels.limit = 2
    after = proxy.scrape()
    assert after["queries_total", "b"] == 5
    assert after["queries_total", "other"] >= before["queries_total", "other"]


def test_a_removed_tenants_series_end():
    proxy = Proxy(workers=1, tenants=("a", "b"))
    proxy.scrape()
    proxy.tenants = ("b",)
    proxy.snapshots[0] |= {"tenants": [tenant("b")], "pools": [pool("b")], "counters": {}}
    samples = proxy.scrape()
    assert not [key for key in samples if "a" in key[1:]]
    assert samples["queries_total", "b"] == 100


def test_reasons_are_bounded():
    proxy = Proxy(workers=1)
    counters = copy.deepcopy(COUNTERS)
    counters["clients_closed"] = {f"reason {n}": 1 for n in range(MAX_REASONS + 50)}
    proxy.snapshots[0]["counters"] = counters
    samples = proxy.scrape()
    assert len([key for key in samples if key[0] == "clients_closed_total"]) == MAX_REASONS + 1
    assert samples["clients_closed_total", "other"] == 50


def test_a_new_control_process_goes_on_where_the_old_one_was():
    proxy = Proxy(workers=2, max_tenants=1, tenants=("acme", "beta"))
    proxy.scrape()
    proxy.kill(0)
    before = proxy.scrape()
    kept = proxy.aggregate.dump()
    successor = Proxy(workers=2, max_tenants=1, tenants=("acme", "beta"))
    successor.aggregate.load(kept)
    successor.incarnations, successor.snapshots = proxy.incarnations, proxy.snapshots
    successor.restarts = proxy.restarts
    after = successor.scrape()
    assert {key: value for key, value in after.items() if key[0].endswith("_total")} == {
        key: value for key, value in before.items() if key[0].endswith("_total")
    }


@pytest.mark.parametrize("snapshot", [{}, {"counters": {}, "tenants": [], "pools": []}, {"counters": None}])
def test_a_worker_with_nothing_to_tell_is_no_error(snapshot):
    proxy = Proxy(workers=1)
    proxy.snapshots[0] = snapshot
    assert proxy.scrape()["worker_up", "0"] == 1


def test_openmetrics_is_given_to_who_asks_for_it():
    proxy = Proxy()
    proxy.scrape()
    body, content_type = proxy.aggregate.render("application/openmetrics-text; version=1.0.0")
    assert content_type.startswith("application/openmetrics-text")
    assert body.endswith(b"# EOF\n")


# --- the table ----------------------------------------------------------------------


@pytest.mark.parametrize("series", SERIES, ids=lambda series: series.name)
def test_names_units_and_help(series):
    assert re.fullmatch(r"[a-z][a-z_]*[a-z]", series.name)
    assert series.help[0].isupper() or series.help.startswith("1 if")
    assert series.help.endswith(".")
    assert (series.kind == "counter") == series.name.endswith("_total")
    assert not re.search(r"_(us|ms|micro|milli|kb|mb|minutes)(_|$)", series.name)
    if series.scale != 1:
        assert "seconds" in series.name


def test_every_series_of_the_table_appears():
    names = {key[0] for key in Proxy().scrape()}
    for series in SERIES:
        assert series.name in names or f"{series.name}_bucket" in names, series.name


def test_the_documentation_has_the_same_table():
    text = (ROOT / "docs" / "operations.md").read_text()
    rows = re.findall(rf"^\| `{PREFIX}(\w+)` \| (\w+) \|([^|]*)\|([^|]*)\|$", text, re.MULTILINE)
    documented = [(name, kind, labels.strip(), text.strip()) for name, kind, labels, text in rows]
    assert documented == [
        (s.name, s.kind, ", ".join(f"`{label}`" for label in s.labels), s.help) for s in SERIES
    ]
