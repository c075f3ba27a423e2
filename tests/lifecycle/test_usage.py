"""What the catalog has of usage, as rows, exports and invoices."""

from __future__ import annotations

import csv
import io
import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from tenant_proxy.catalog.failures import Failure
from tenant_proxy.catalog.store import Store
from tenant_proxy.lifecycle import usage
from tenant_proxy.lifecycle.records import Every

NOON = datetime(2026, 11, 3, 12, tzinfo=UTC)
GB = 1_000_000_000


async def add(store: Store, tenant: str, hour: datetime, proxy: str = "a", **counts: int) -> None:
    names = ", ".join(counts)
    values = ", ".join(f"${number}" for number in range(4, 4 + len(counts)))
    async with store.read() as connection:
        await connection.execute(
            f"INSERT INTO usage (tenant, hour, proxy, {names}) VALUES ($1, $2, $3, {values})",
            tenant,
            hour,
            proxy,
            *counts.values(),
        )


@pytest.fixture
async def filled(store: Store) -> Store:
    hour = timedelta(hours=1)
    await add(store, "acme", NOON, transactions=10, bytes_in=5, peak_clients=2, storage_bytes=GB)
    await add(store, "acme", NOON, "b", transactions=5, bytes_in=5, peak_clients=1, storage_bytes=GB)
    await add(store, "acme", NOON + hour, transactions=1, backend_us=7_200_000_000, storage_bytes=3 * GB)
    await add(store, "acme", NOON + 24 * hour, transactions=100)
    await add(store, "beta", NOON, statements=7)
    return store


@pytest.mark.parametrize(
    ("every", "transactions"),
    [(Every.HOUR, [15, 1, 100]), (Every.DAY, [16, 100]), (Every.MONTH, [116]), (Every.ALL, [116])],
)
async def test_rows_are_summed_over_proxies_and_time(filled: Store, every: Every, transactions: list[int]):
    found = await usage.used(
        filled, NOON - timedelta(days=2), NOON + timedelta(days=2), tenants=["acme"], every=every
    )
    assert [row.transactions for row in found] == transactions
    if every is Every.ALL:
        assert (found[0].peak_clients, found[0].storage_bytes) == (3, 3 * GB)
        # both proxies have measured the same
        assert found[0].storage_byte_hours == 4 * GB
        assert found[0].since == NOON


async def test_the_end_is_not_in_it(filled: Store):
    found = await usage.used(filled, NOON, NOON + timedelta(hours=1))
    assert [(row.tenant, row.transactions, row.statements) for row in found] == [
        ("acme", 15, 0),
        ("beta", 0, 7),
    ]


async def test_exports_say_the_same(filled: Store):
    rows = await usage.used(filled, NOON, NOON + timedelta(hours=2), every=Every.HOUR)
    as_csv = list(csv.DictReader(io.StringIO(usage.to_csv(rows))))
    as_json = json.loads(usage.to_json(rows))
    events = [json.loads(line) for line in usage.to_cloudevents(rows).splitlines()]
    assert [one["transactions"] for one in as_csv] == ["15", "0", "1"]
    assert [one["transactions"] for one in as_json] == [15, 0, 1]
    assert [one["data"]["transactions"] for one in events] == [15, 0, 1]
    assert events[0] | {"data": None} == {
        "specversion": "1.0",
        "type": "tenant_proxy.usage",
        "id": "acme/2026-11-03T12",
        "source": "tenant_proxy",
        "subject": "acme",
        "time": "2026-11-03T12:00:00Z",
        "datacontenttype": "application/json",
        "data": None,
    }
    assert all(isinstance(value, int | float) for value in events[0]["data"].values())
    stripe = [json.loads(line) for line in usage.to_stripe(rows, {"acme": "cus_1"}).splitlines()]
    for event in stripe:  # those of v2's meter events, of which payloads are texts, and identifiers are short
        assert set(event) == {"event_name", "identifier", "timestamp", "payload"}
        assert set(event["payload"]) == {"stripe_customer_id", "value"}
        assert all(isinstance(value, str) for value in event["payload"].values())
        assert len(event["identifier"]) <= 100
        assert len(event["event_name"]) <= 100
    assert {event["payload"]["stripe_customer_id"] for event in stripe} == {"cus_1"}
    assert stripe[0]["event_name"] == "tenant_proxy_transactions"
    assert stripe[0]["payload"]["value"] == "15"
    assert len({event["identifier"] for event in stripe}) == len(stripe)


def test_stripe_is_told_whole_numbers():
    row = usage.Used(
        tenant="acme",
        since=NOON,
        transactions=1000,
        statements=0,
        bytes_in=1_500,
        bytes_out=1_500,
        backend_s=0.0126,
        peak_clients=20,
        storage_bytes=10**13,
        storage_byte_hours=10**13,
    )
    events = [json.loads(line) for line in usage.to_stripe([row], {"acme": "cus_1"}).splitlines()]
    assert {event["event_name"]: event["payload"]["value"] for event in events} == {
        "tenant_proxy_transactions": "1000",
        "tenant_proxy_traffic_bytes": "3000",
        "tenant_proxy_backend_ms": "13",
        "tenant_proxy_peak_clients": "20",
        "tenant_proxy_storage_byte_hours": "10000000000000",
    }


BILLING: dict[str, Any] = {
    "currency": "EUR",
    "base": "49.00",
    "meters": {
        "transactions": {"included": 100, "per": 10, "price": "0.50"},
        "backend_hours": {"included": 1, "price": "0.333"},
        "storage_gb": {"price": "720"},
    },
}


async def plan(store: Store, billing: dict[str, Any]) -> None:
    async with store.read() as connection:
        await connection.execute("INSERT INTO plan (name, billing) VALUES ('gold', $1)", billing)
        for name in ("acme", "idle"):
            await connection.execute(
                "INSERT INTO tenant (name, plan, cluster, schema, owner_role, readwrite_role, readonly_role,"
                " created_at) VALUES ($1, 'gold', 'main', $2, $3, $4, $5, $6)",
                name,
                *(f"{name}{end}" for end in ("", "_o", "_rw", "_ro")),
                NOON - timedelta(days=30),
            )
            for state in ("provisioning", "ready", "active"):
                await connection.execute(
                    "UPDATE tenant SET state = $2, provisioned_at = now(), activated_at = now()"
                    " WHERE name = $1",
                    name,
                    state,
                )


async def test_an_invoice_is_the_base_and_what_goes_over(filled: Store):
    await plan(filled, BILLING)
    acme, idle = await usage.invoices(filled, "2026-11")
    amounts = {line.what: line.amount for line in acme.lines}
    assert amounts == {
        "base": Decimal("49.00"),
        # 16 over, 10 for 0.50
        "transactions": Decimal("0.80"),
        "backend_hours": Decimal("0.33"),
        # 4 GB for an hour, of the 720 of November
        "storage_gb": Decimal("4.00"),
    }
    assert acme.total == Decimal("54.13")
    assert (idle.tenant, idle.total) == ("idle", Decimal("49.00"))
    assert [one.tenant for one in await usage.invoices(filled, "2026-11", ["idle"])] == ["idle"]


async def test_prices_that_cannot_be_read(filled: Store):
    await plan(filled, {"meters": {"transactions": {"price": "-1"}}})
    with pytest.raises(Failure, match="price"):
        await usage.invoices(filled, "2026-11")


@pytest.mark.parametrize("text", ["2026", "2026-13", "november"])
def test_a_month_is_a_year_and_a_number(text: str):
    with pytest.raises(Failure, match="is no month"):
        usage.month_of(text)


def test_an_hour_is_whole_when_nobody_adds_to_it_any_more():
    assert usage.whole_hours(NOON + timedelta(seconds=90)) == NOON - timedelta(hours=1)
    assert usage.whole_hours(NOON + timedelta(minutes=3)) == NOON
