"""What tenants have used, as the catalog has it: rows for people and for other systems, and what it costs.

A month's invoice is made of the tenant's plan (`billing`), e.g.

    {"currency": "EUR", "base": "49.00",
     "meters": {"transactions": {"included": 1000000, "per": 100000, "price": "0.50"},
                "storage_gb": {"included": 10, "price": "0.20"}}}

`price` is of each `per` (1 if not given) above what is included, in proportion.  Nothing here charges
anybody: it is a preview, and what billing systems take.
"""

from __future__ import annotations

import calendar
import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, Final

from pydantic import Field

from tenant_proxy.catalog.failures import Failure
from tenant_proxy.catalog.records import Plan, Record, parse
from tenant_proxy.lifecycle.records import Every

if TYPE_CHECKING:
    from tenant_proxy.catalog.store import Store

GIGABYTE: Final = 1_000_000_000
CENT: Final = Decimal("0.01")
#: label of a tenant whose value is its customer's id at Stripe
STRIPE_LABEL: Final = "stripe_customer"


class Meter(StrEnum):
    """What can be charged."""

    TRANSACTIONS = "transactions"
    STATEMENTS = "statements"
    #: in and out together
    TRAFFIC_GB = "traffic_gb"
    BACKEND_HOURS = "backend_hours"
    #: the most in any hour
    PEAK_CLIENTS = "peak_clients"
    #: the mean over the whole of the time
    STORAGE_GB = "storage_gb"


class Used(Record):
    tenant: str
    since: datetime
    """The hour, day or month, or the first hour of all; in UTC."""
    transactions: int
    statements: int
    bytes_in: int
    bytes_out: int
    backend_s: float
    """Seconds for which backends were held."""
    peak_clients: int
    """Most client connections in an hour, the proxies' peaks added."""
    storage_bytes: int
    """The most that was measured."""
    storage_byte_hours: int
    """Bytes, each hour's, added up."""


class Price(Record):
    included: Annotated[Decimal, Field(ge=0)] = Decimal(0)
    per: Annotated[Decimal, Field(gt=0)] = Decimal(1)
    price: Annotated[Decimal, Field(ge=0)]


class Billing(Record):
    currency: Annotated[str, Field(pattern="^[A-Z]{3}$")] = "EUR"
    base: Annotated[Decimal, Field(ge=0)] = Decimal(0)
    meters: dict[Meter, Price] = Field(default_factory=dict)


class Line(Record):
    what: str
    used: Decimal
    included: Decimal
    over: Decimal
    amount: Decimal


class Invoice(Record):
    tenant: str
    plan: str
    month: str
    currency: str
    lines: list[Line]
    total: Decimal


# Of the proxies of a tenant each has counted its own, but measured the same storage.
_USED = """
WITH hours AS (
    SELECT tenant, hour, sum(transactions) AS transactions, sum(statements) AS statements,
           sum(bytes_in) AS bytes_in, sum(bytes_out) AS bytes_out, sum(backend_us) AS backend_us,
           sum(peak_clients) AS peak_clients, max(storage_bytes) AS storage_bytes
      FROM usage
     WHERE hour >= $1 AND hour < $2 AND ($3::text[] IS NULL OR tenant = ANY ($3))
     GROUP BY tenant, tenant_id, hour),
used AS (
SELECT tenant, {since} AS since,
       sum(transactions)::bigint AS transactions, sum(statements)::bigint AS statements,
       sum(bytes_in)::bigint AS bytes_in, sum(bytes_out)::bigint AS bytes_out,
       (sum(backend_us) / 1e6)::double precision AS backend_s,
       max(peak_clients)::bigint AS peak_clients, max(storage_bytes)::bigint AS storage_bytes,
       sum(storage_bytes)::numeric AS storage_byte_hours
  FROM hours
 GROUP BY tenant{group})
SELECT * FROM used
 WHERE $4::timestamptz IS NULL OR (since, tenant) > ($4, $5::text)
 ORDER BY since, tenant LIMIT $6
"""


async def used(
    store: Store,
    since: datetime,
    until: datetime,
    *,
    tenants: Iterable[str] | None = None,
    every: Every = Every.ALL,
    after: tuple[datetime, str] | None = None,
    limit: int | None = None,
) -> list[Used]:
    """What was used from `since` to before `until`, of these tenants or all.

    By time and tenant, behind `after`, which is one of both.
    """
    names = None if tenants is None else list(tenants)
    unit = f"date_trunc('{every.value}', hour, 'UTC')"
    query = (
        _USED.format(since="min(hour)", group="")
        if every is Every.ALL
        else _USED.format(since=unit, group=f", {unit}")
    )
    async with store.read() as connection:
        rows = await connection.fetch(query, since, until, names, *(after or (None, None)), limit)
    return [Used.of(dict(row) | {"storage_byte_hours": int(row["storage_byte_hours"])}) for row in rows]


# --- for other systems --------------------------------------------------------------------


def to_csv(rows: Iterable[Used]) -> str:
    out = io.StringIO()
    writer = csv.DictWriter(out, list(Used.model_fields), lineterminator="\n")
    writer.writeheader()
    writer.writerows(row.to_json() for row in rows)
    return out.getvalue()


def to_json(rows: Iterable[Used]) -> str:
    return json.dumps([row.to_json() for row in rows], indent=2) + "\n"


def to_cloudevents(rows: Iterable[Used], source: str = "tenant_proxy") -> str:
    """One CloudEvent 1.0 a line for each row, as OpenMeter takes them.

    The id is the tenant and the hour: what is sent again is known to be the same, so only whole hours should
    be sent.
    """
    return "".join(json.dumps(_cloudevent(row, source)) + "\n" for row in rows)


def _cloudevent(row: Used, source: str) -> dict[str, Any]:
    data = row.to_json()
    del data["tenant"], data["since"]
    return {
        "specversion": "1.0",
        "type": "tenant_proxy.usage",
        "id": f"{row.tenant}/{row.since:%Y-%m-%dT%H}",
        "source": source,
        "subject": row.tenant,
        "time": f"{row.since.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}",
        "datacontenttype": "application/json",
        "data": data,
    }


def to_stripe(rows: Iterable[Used], customers: Mapping[str, str]) -> str:
    """One meter event a line for each row and meter, as Stripe's billing takes them (POST
    /v2/billing/meter_events); tenants without a customer's id are left out.

    Values are whole numbers, as no others are taken: so units are the smallest there are.
    """
    return "".join(
        json.dumps(event) + "\n"
        for row in rows
        if row.tenant in customers
        for event in _stripe(row, customers[row.tenant])
    )


def _stripe(row: Used, customer: str) -> Iterator[dict[str, Any]]:
    counts = {
        "transactions": row.transactions,
        "statements": row.statements,
        "traffic_bytes": row.bytes_in + row.bytes_out,
        "backend_ms": round(row.backend_s * 1000),
        "peak_clients": row.peak_clients,
        "storage_byte_hours": row.storage_byte_hours,
    }
    for meter, count in counts.items():
        if count:
            yield {
                "event_name": f"tenant_proxy_{meter}",
                "identifier": f"{row.tenant}/{row.since:%Y-%m-%dT%H}/{meter}",
                "timestamp": f"{row.since.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}",
                "payload": {"stripe_customer_id": customer, "value": str(count)},
            }


async def customers(store: Store) -> dict[str, str]:
    """Tenant -> what its label says is its customer's id."""
    async with store.read() as connection:
        rows = await connection.fetch(
            "SELECT name, labels ->> $1 AS customer FROM tenant WHERE labels ? $1 ORDER BY id", STRIPE_LABEL
        )
    return {row["name"]: row["customer"] for row in rows}


def whole_hours(now: datetime) -> datetime:
    """The end of the last hour that nothing is added to any more: proxies write a minute later."""
    return (now - timedelta(minutes=2)).replace(minute=0, second=0, microsecond=0)


# --- what it costs --------------------------------------------------------------------------


def amounts(row: Used, hours: int) -> dict[Meter, Decimal]:
    """What a row comes to in the meters; `hours` are those of its time."""
    return {
        Meter.TRANSACTIONS: Decimal(row.transactions),
        Meter.STATEMENTS: Decimal(row.statements),
        Meter.TRAFFIC_GB: Decimal(row.bytes_in + row.bytes_out) / GIGABYTE,
        Meter.BACKEND_HOURS: Decimal(str(row.backend_s)) / 3600,
        Meter.PEAK_CLIENTS: Decimal(row.peak_clients),
        Meter.STORAGE_GB: Decimal(row.storage_byte_hours) / GIGABYTE / hours,
    }


def month_of(text: str) -> tuple[datetime, datetime]:
    """The beginning and the end of a month, "2026-11"."""
    try:
        since = datetime.strptime(text, "%Y-%m").replace(tzinfo=UTC)
    except ValueError:
        raise Failure("invalid", f'"{text}" is no month', hint="2026-11, for example") from None
    days = calendar.monthrange(since.year, since.month)[1]
    return since, since + timedelta(days=days)


def billing_of(plan: Plan) -> Billing:
    """Failure where the plan's billing can't be read."""
    return parse(Billing, plan.billing)


def invoice(plan: Plan, row: Used, month: str, hours: int) -> Invoice:
    """What a tenant's month comes to by its plan."""
    billing = billing_of(plan)
    lines = []
    if billing.base:
        one = Decimal(1)
        lines.append(Line(what="base", used=one, included=Decimal(0), over=one, amount=_cents(billing.base)))
    found = amounts(row, hours)
    for meter, price in billing.meters.items():
        over = max(Decimal(0), found[meter] - price.included)
        lines.append(
            Line(
                what=meter.value,
                used=found[meter],
                included=price.included,
                over=over,
                amount=_cents(over / price.per * price.price),
            )
        )
    total = sum((line.amount for line in lines), Decimal(0))
    return Invoice(
        tenant=row.tenant, plan=plan.name, month=month, currency=billing.currency, lines=lines, total=total
    )


async def invoices(store: Store, month: str, tenants: Iterable[str] | None = None) -> list[Invoice]:
    """Of all tenants with a plan that has prices; one that has used nothing pays its base."""
    since, until = month_of(month)
    names = None if tenants is None else list(tenants)
    rows = {row.tenant: row for row in await used(store, since, until, tenants=names)}
    async with store.read() as connection:
        found = await connection.fetch(
            "SELECT t.name, to_jsonb(p) AS plan FROM tenant t JOIN plan p ON p.name = t.plan"
            " WHERE p.billing <> '{}' AND t.created_at < $2"
            " AND (t.state NOT IN ('draft', 'provisioning', 'ready') OR t.activated_at IS NOT NULL)"
            " AND (t.erased_at IS NULL OR t.erased_at >= $1) AND ($3::text[] IS NULL OR t.name = ANY ($3))"
            " ORDER BY t.name",
            since,
            until,
            names,
        )
    hours = int((until - since).total_seconds()) // 3600
    return [
        invoice(parse(Plan, one["plan"]), rows.get(one["name"]) or _nothing(one["name"], since), month, hours)
        for one in found
    ]


def _nothing(tenant: str, since: datetime) -> Used:
    counts = {name: 0 for name in Used.model_fields if name not in ("tenant", "since")}
    return Used.of({"tenant": tenant, "since": since, **counts})


def _cents(amount: Decimal) -> Decimal:
    return amount.quantize(CENT, ROUND_HALF_UP)
