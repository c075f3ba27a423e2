"""The SHOW commands: PgBouncer's columns first, all workers together, no secrets."""

import pytest

from tenant_proxy.admin.context import INT4, NUMERIC, TEXT
from tenant_proxy.admin.show import violations

from .fix_admin import Console, connection, pool, tenant_row, violation, worker_snapshot

#: pgbouncer 1.25, src/admin.c and src/stats.c: names and types of each RowDescription
SOCKET = """
    type:s user:s database:s replication:s state:s addr:s port:i local_addr:s local_port:i
    connect_time:s request_time:s wait:i wait_us:i close_needed:i ptr:s link:s remote_pid:i
    tls:s application_name:s prepared_statements:i id:i
"""
PGBOUNCER = {
    "pools": """
        database:s user:s cl_active:i cl_waiting:i cl_active_cancel_req:i
        cl_waiting_cancel_req:i sv_active:i sv_active_cancel:i sv_being_canceled:i sv_idle:i
        sv_used:i sv_tested:i sv_login:i maxwait:i maxwait_us:i pool_mode:s
        load_balance_hosts:s
    """,
    "clients": SOCKET,
    "servers": SOCKET,
    "databases": """
        name:s host:s port:i database:s force_user:s pool_size:i min_pool_size:i
        reserve_pool_size:i server_lifetime:i pool_mode:s load_balance_hosts:s
        max_connections:i current_connections:i max_client_connections:i
        current_client_connections:i paused:i disabled:i
    """,
    "users": """
        name:s pool_size:s reserve_pool_size:s pool_mode:s max_user_connections:i
        current_connections:i max_user_client_connections:i current_client_connections:i
    """,
    "stats": """
        database:s total_server_assignment_count:n total_xact_count:n total_query_count:n
        total_received:n total_sent:n total_xact_time:n total_query_time:n total_wait_time:n
        total_client_parse_count:n total_server_parse_count:n total_bind_count:n
        avg_server_assignment_count:n avg_xact_count:n avg_query_count:n avg_recv:n
        avg_sent:n avg_xact_time:n avg_query_time:n avg_wait_time:n avg_client_parse_count:n
        avg_server_parse_count:n avg_bind_count:n
    """,
    "stats_totals": """
        database:s server_assignment_count:n xact_count:n query_count:n bytes_received:n
        bytes_sent:n xact_time:n query_time:n wait_time:n client_parse_count:n
        server_parse_count:n bind_count:n
    """,
    "stats_averages": """
        database:s server_assignment_count:n xact_count:n query_count:n bytes_received:n
        bytes_sent:n xact_time:n query_time:n wait_time:n avg_client_parse_count:n
        avg_server_parse_count:n avg_bind_count:n
    """,
}
#: where a tool takes this number of columns and no other
EXACT = {
    "lists": "list:s items:i",
    "config": "key:s value:s default:s changeable:s",
    "version": "version:s",
}


def columns(text):
    types = {"s": TEXT, "i": INT4, "n": NUMERIC}
    return [(name, types[kind]) for name, _, kind in (word.partition(":") for word in text.split())]


def stat(tenant, **values):
    return {"database": "app", "tenant": tenant, **values}


@pytest.mark.parametrize("name", sorted(PGBOUNCER))
async def test_pgbouncers_columns_come_first_and_in_its_order(name):
    result = await Console().run(f"SHOW {name}")
    expected = columns(PGBOUNCER[name])
    assert result.columns[: len(expected)] == expected


@pytest.mark.parametrize("name", sorted(EXACT))
async def test_where_tools_count_the_columns_there_are_no_others(name):
    assert (await Console().run(f"SHOW {name}")).columns == columns(EXACT[name])


async def test_pools_of_all_workers_are_one_row_per_tenant_and_login():
    console = Console(
        worker_snapshot(
            pools=[
                pool("acme", "acme_app", cl_active=3, sv_active=2, maxwait_us=2_500_000, max=7),
                pool("beta", "beta_app", cl_waiting=1),
            ]
        ),
        worker_snapshot(
            pools=[pool("acme", "acme_app", cl_active=4, sv_idle=1, maxwait_us=10, max=7, pinned=1)]
        ),
    )
    acme, beta = await console.rows("SHOW POOLS")
    assert (acme["database"], acme["user"], acme["tenant"]) == ("acme", "acme_app", "acme")
    assert (acme["cl_active"], acme["sv_active"], acme["sv_idle"]) == ("7", "2", "1")
    assert (acme["maxwait"], acme["maxwait_us"]) == ("2", "500000")
    assert (acme["pool_size"], acme["sv_pinned"]) == ("7", "1")
    assert acme["server_database"] == "app"
    assert beta["cl_waiting"] == "1"


async def test_a_login_of_several_tenants_has_a_pool_row_for_each():
    """An exporter that labels by database and user must find every pair once."""
    console = Console(
        worker_snapshot(pools=[pool("acme", "shared"), pool("beta", "shared")]),
        worker_snapshot(pools=[pool("beta", "shared")]),
    )
    rows = await console.rows("SHOW POOLS")
    assert [(row["database"], row["user"]) for row in rows] == [("acme", "shared"), ("beta", "shared")]


async def test_clients_and_servers_of_all_workers_point_at_each_other():
    console = Console(
        worker_snapshot(clients=[connection(5, "acme", "acme_app", link=9, wait_us=3_000_001)]),
        worker_snapshot(servers=[connection(9, "acme", "acme_app", link=5, close_needed=True)]),
    )
    (client,) = await console.rows("SHOW CLIENTS")
    assert (client["type"], client["ptr"], client["link"]) == ("C", "c0.5", "s0.9")
    assert (client["wait"], client["wait_us"]) == ("3", "1")
    assert (client["connect_time"], client["request_time"]) == (
        "2023-11-14 22:13:20 UTC",
        "2023-11-14 22:14:21 UTC",
    )
    assert (client["database"], client["client_database"]) == ("acme", "anything")
    assert client["worker"] == "0"
    (server,) = await console.rows("SHOW SERVERS")
    assert (server["type"], server["ptr"], server["link"]) == ("S", "s1.9", "c1.5")
    assert server["close_needed"] == "1"


async def test_a_worker_that_does_not_answer_is_told():
    console = Console(worker_snapshot(), worker_snapshot())
    del console.hub.workers[1]
    result = await console.run("SHOW CLIENTS")
    assert result.notices == ["worker 1 did not answer, what it has is missing"]


async def test_tenants_that_nobody_used_yet_are_listed_too():
    console = Console(
        worker_snapshot(tenants=[tenant_row("acme", clients=2, queries=10)]),
        worker_snapshot(tenants=[tenant_row("acme", clients=1, queries=5, rejected=4)]),
    )
    acme, beta = await console.rows("SHOW TENANTS")
    assert (acme["tenant"], acme["clients"], acme["total_query_count"], acme["total_rejected"]) == (
        "acme", "3", "15", "4",
    )  # fmt: skip
    assert (beta["tenant"], beta["schema"], beta["guard_mode"], beta["clients"]) == (
        "beta", "beta", "observe", "0",
    )  # fmt: skip


async def test_databases_are_tenants():
    console = Console(worker_snapshot(tenants=[tenant_row("acme", clients=2, servers=1)]), worker_snapshot())
    acme, beta = await console.rows("SHOW DATABASES")
    assert (acme["name"], acme["host"], acme["port"], acme["database"]) == (
        "acme",
        "db.example",
        "5432",
        "app",
    )
    assert (acme["pool_size"], acme["pool_mode"], acme["schema"]) == ("7", "transaction", "acme_schema")
    assert (acme["current_connections"], acme["current_client_connections"]) == ("1", "2")
    assert (beta["max_client_connections"], beta["pool_mode"]) == ("50", "session")


async def test_users_have_their_rights_and_connections():
    console = Console(
        worker_snapshot(pools=[pool("acme", "acme_app", cl_active=2, sv_idle=1)]), worker_snapshot()
    )
    rows = {row["name"]: row for row in await console.rows("SHOW USERS")}
    assert (rows["acme_app"]["tenants"], rows["acme_app"]["current_client_connections"]) == ("acme", "2")
    assert (rows["root"]["rights"], rows["watcher"]["rights"]) == ("admin", "stats")


async def test_lists_count():
    console = Console(
        worker_snapshot(
            counters={"clients_open": 5, "servers_open": 2}, pools=[pool("acme", "a", cl_active=3)]
        ),
        worker_snapshot(counters={"clients_open": 1, "servers_open": 0}),
    )
    items = {row["list"]: row["items"] for row in await console.rows("SHOW LISTS")}
    assert (items["databases"], items["users"], items["pools"]) == ("2", "3", "1")
    assert (items["used_clients"], items["login_clients"], items["used_servers"]) == ("6", "3", "2")


async def test_config_has_values_defaults_and_what_can_be_changed():
    rows = {row["key"]: row for row in await Console().rows("SHOW CONFIG")}
    limit = rows["limits.max_clients"]
    assert (limit["value"], limit["default"], limit["changeable"]) == ("1234", "20000", "yes")
    assert rows["workers"]["changeable"] == rows["listen.port"]["changeable"] == "no"
    assert rows["max_client_conn"]["value"] == "1234"
    assert rows["max_user_connections"]["value"] == "0"
    keys = [str(key) for key in rows]
    assert keys == sorted(keys)


@pytest.mark.parametrize("name", ["CONFIG", "USERS", "DATABASES", "TENANTS", "LISTS"])
async def test_no_secret_is_shown(name):
    assert "s3cret" not in str((await Console().run(f"SHOW {name}")).rows)


async def test_workers_and_state_come_from_the_supervisor():
    console = Console(worker_snapshot(counters={"clients_open": 3, "draining": True}), worker_snapshot())
    zero, one = await console.rows("SHOW WORKERS")
    assert (zero["pid"], zero["state"], zero["clients"]) == ("100", "draining", "3")
    assert (one["state"], one["restarts"]) == ("ready", "1")
    assert {row["key"]: row["value"] for row in await console.rows("SHOW STATE")}["active"] == "yes"


# --- pgbouncer_exporter (prometheus-community, collector.go) --------------------------

#: what it reads: labels, and columns that it makes numbers of
EXPORTER = {
    "databases": (
        "name host port database force_user pool_mode",
        "pool_size reserve_pool_size max_connections current_connections paused disabled",
    ),
    "stats_totals": (
        "database",
        "query_count query_time bytes_received bytes_sent wait_time xact_count xact_time client_parse_count"
        " server_parse_count bind_count server_assignment_count",
    ),
    "pools": (
        "database user",
        "cl_active cl_active_cancel_req cl_waiting cl_waiting_cancel_req sv_active sv_active_cancel"
        " sv_being_canceled sv_idle sv_used sv_tested sv_login maxwait",
    ),
}


@pytest.mark.parametrize("name", sorted(EXPORTER))
async def test_the_exporter_finds_numbers_under_labels_that_occur_once(name):
    labels, numbers = (words.split() for words in EXPORTER[name])
    console = Console(
        *(
            worker_snapshot(
                pools=[pool("acme", "shared"), pool("acme", "acme_app"), pool("beta", "shared")],
                tenants=[tenant_row("acme"), tenant_row("beta")],
                stats=[stat("acme", total_query_count=3), stat("acme"), stat("beta")],
            )
            for _ in range(2)
        )
    )
    rows = await console.rows(f"SHOW {name}")
    assert rows
    seen = [tuple(row[label] for label in labels) for row in rows]
    assert len(set(seen)) == len(seen)
    for row in rows:
        for column in numbers:
            float(row[column] or "nan")


async def test_the_exporter_finds_the_two_settings_and_the_lists_that_it_knows():
    rows = {row["key"]: row["value"] for row in await Console().rows("SHOW CONFIG")}
    assert all(str(rows[key]).isdecimal() for key in ("max_client_conn", "max_user_connections"))
    assert all(str(row["items"]).isdecimal() for row in await Console().rows("SHOW LISTS"))


# --- statistics -------------------------------------------------------------------


async def test_stats_are_totals_of_all_workers_and_averages_since_an_earlier_look():
    first = worker_snapshot(stats=[stat("acme", total_xact_count=100, total_xact_time=50_000)])
    second = worker_snapshot(stats=[stat("acme", total_xact_count=100, total_received=1000)])
    console = Console(first, second)
    (row,) = await console.rows("SHOW STATS")
    assert (row["database"], row["total_xact_count"], row["total_received"]) == ("acme", "200", "1000")
    # since the start, 100 s ago: 200 transactions
    assert (row["avg_xact_count"], row["avg_xact_time"], row["avg_period_s"]) == ("2", "250", "100")
    console.hub.now_s = 120.0
    first["stats"] = [stat("acme", total_xact_count=500, total_xact_time=90_000)]
    (row,) = await console.rows("SHOW STATS")
    assert (row["avg_xact_count"], row["avg_xact_time"], row["avg_period_s"]) == ("20", "100", "20")
    console.hub.now_s = 121.0  # too soon for a window of its own
    (row,) = await console.rows("SHOW STATS")
    assert row["avg_period_s"] == "21"


async def test_totals_do_not_fall_when_a_worker_dies():
    console = Console(
        worker_snapshot(stats=[stat("acme", total_query_count=10)]),
        worker_snapshot(stats=[stat("acme", total_query_count=5)]),
    )
    await console.rows("SHOW STATS_TOTALS")
    del console.hub.workers[1]
    (row,) = await console.rows("SHOW STATS_TOTALS")
    assert row["query_count"] == "15"


async def test_totals_is_one_row_per_number():
    console = Console(
        worker_snapshot(stats=[stat("acme", total_query_count=10), stat("beta", total_query_count=1)])
    )
    rows = {row["name"]: row["value"] for row in await console.rows("SHOW TOTALS")}
    assert rows["total_query_count"] == "11"


# --- violations ------------------------------------------------------------------


async def test_violations_of_all_workers_together():
    console = Console(
        worker_snapshot(
            violations=[
                violation("acme", count=2, last_us=1_700_000_060_000_000, user="first"),
                violation("beta", action="observe"),
            ]
        ),
        worker_snapshot(
            violations=[
                violation("acme", count=3, first_us=1_600_000_000_000_000, last_us=1_700_000_120_000_000)
            ],
            violations_kept={"dropped": 4},
        ),
    )
    result = await console.run("SHOW VIOLATIONS")
    assert result.notices == ["4 statements that were not seen for longest were dropped"]
    acme, beta = await console.rows("SHOW VIOLATIONS")
    assert acme == {
        "tenant": "acme",
        "user": "acme_app",
        "action": "reject",
        "count": "5",
        "reason": "cross_schema",
        "object": "beta.t",
        "rule": "cross_schema",
        "sqlstate": "42501",
        "first_seen": "2020-09-13 12:26:40 UTC",
        "last_seen": "2023-11-14 22:15:20 UTC",
        "statement": "SELECT ? FROM beta.t",
    }
    assert (beta["tenant"], beta["action"], beta["count"]) == ("beta", "observe", "1")


async def test_the_latest_violations_are_shown(monkeypatch):
    monkeypatch.setattr(violations, "MAX_SHOWN", 2)
    rows = [violation("acme", statement=f"s{number}", last_us=number + 1) for number in range(5)]
    console = Console(worker_snapshot(violations=rows))
    assert [row["statement"] for row in await console.rows("SHOW VIOLATIONS")] == ["s4", "s3"]
    assert "the latest 2 of 5 are shown" in (await console.run("SHOW VIOLATIONS")).notices


async def test_violations_are_reset():
    console = Console()
    assert (await console.run("RESET VIOLATIONS")).tag == "RESET"
    assert ("workers", "reset_violations", None) in console.hub.calls
    # what drivers send is still what it was
    assert (await console.run("RESET ALL")).tag == "RESET"
