"""tenant-proxy usage …"""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated

import typer
from rich.text import Text

from tenant_proxy.cli.output import print_json
from tenant_proxy.cli.town import JsonOption, PlaceOption, ask, checked, moment, print_table, say, table
from tenant_proxy.lifecycle import usage
from tenant_proxy.lifecycle.records import Every

usage_app = typer.Typer(
    name="usage", help="What tenants have used, for people, other systems and invoices.", no_args_is_help=True
)

TenantsOption = Annotated[
    list[str] | None, typer.Option("--tenant", "-t", metavar="TENANT", help="May be given again.")
]
SinceOption = Annotated[
    str | None,
    typer.Option("--since", metavar="DATE", help="2026-11-01; the month's first day if none."),
]
UntilOption = Annotated[
    str | None, typer.Option("--until", metavar="DATE", help="That is not in it any more; now if none.")
]
EveryOption = Annotated[Every, typer.Option("--every", help="What rows are summed over.")]


class Format(StrEnum):
    CSV = "csv"
    JSON = "json"
    CLOUDEVENTS = "cloudevents"
    STRIPE = "stripe"


@usage_app.command()
def show(
    config: PlaceOption,
    tenant: TenantsOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    every: EveryOption = Every.ALL,
    as_json: JsonOption = False,
) -> None:
    """What tenants have used, of the month so far or the time given (UTC)."""
    begin, end = _time(since, until)
    rows = ask(
        config, lambda verbs: verbs.usage_show(begin, end, tenants=tenant, every=every), as_json=as_json
    )
    if as_json:
        print_json([row.to_json() for row in rows])
        return
    made = table(
        "tenant", "since", "transactions", "statements", "in", "out", "backend time", "peak", "storage"
    )
    for column in made.columns[2:]:
        column.justify = "right"
    for row in rows:
        made.add_row(
            row.tenant,
            f"{row.since.astimezone(UTC):%Y-%m-%d %H:%M}",
            f"{row.transactions:,}",
            f"{row.statements:,}",
            size(row.bytes_in),
            size(row.bytes_out),
            duration(row.backend_s),
            f"{row.peak_clients:,}",
            size(row.storage_bytes),
        )
    print_table(made, "nothing was used")


@usage_app.command()
def export(
    config: PlaceOption,
    form: Annotated[Format, typer.Option("--format", "-f", help="cloudevents is OpenMeter's.")] = Format.CSV,
    tenant: TenantsOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    every: EveryOption = Every.HOUR,
) -> None:
    """Writes rows for other systems; events are of whole hours alone, so that none is sent twice with other
    numbers."""
    begin, end = _time(since, until)
    if form in (Format.CLOUDEVENTS, Format.STRIPE):
        end = min(end, usage.whole_hours(datetime.now(UTC)))
        every = Every.HOUR
    rows = ask(config, lambda verbs: verbs.usage_show(begin, end, tenants=tenant, every=every))
    match form:
        case Format.CSV:
            text = usage.to_csv(rows)
        case Format.JSON:
            text = usage.to_json(rows)
        case Format.CLOUDEVENTS:
            text = usage.to_cloudevents(rows)
        case Format.STRIPE:
            text = usage.to_stripe(rows, ask(config, lambda verbs: verbs.usage_customers()))
    typer.echo(text, nl=False)


@usage_app.command()
def invoice(
    config: PlaceOption,
    month: Annotated[
        str | None, typer.Argument(metavar="MONTH", help="2026-11; the running one if not given.")
    ] = None,
    tenant: TenantsOption = None,
    as_json: JsonOption = False,
) -> None:
    """What a month comes to by the tenants' plans: a preview, nobody is charged."""
    wanted = month or f"{datetime.now(UTC):%Y-%m}"
    checked(lambda: usage.month_of(wanted), as_json)
    found = ask(config, lambda verbs: verbs.usage_invoices(wanted, tenant), as_json=as_json)
    if as_json:
        print_json([one.to_json() for one in found])
        return
    for one in found:
        say(Text.assemble((one.tenant, "bold"), f" · {one.plan} · {one.month}"))
        made = table("what", "used", "included", "over", one.currency)
        for column in made.columns[1:]:
            column.justify = "right"
        for line in one.lines:
            made.add_row(
                line.what.replace("_", " "),
                f"{line.used:,.3f}".rstrip("0").rstrip("."),
                f"{line.included:,f}",
                f"{line.over:,.3f}".rstrip("0").rstrip("."),
                f"{line.amount:,.2f}",
            )
        made.add_row("", "", "", Text("total", "bold"), Text(f"{one.total:,.2f}", "bold"))
        print_table(made, "")
    if not found:
        say(Text("no tenant has a plan with prices", "dim"))


def _time(since: str | None, until: str | None) -> tuple[datetime, datetime]:
    now = datetime.now(UTC)
    begin = moment(since) or now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    return begin, moment(until) or now


def size(count: int) -> str:
    """1.5 GB …"""
    amount = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 1000:
            return f"{amount:,.0f} {unit}" if unit == "B" else f"{amount:,.1f} {unit}"
        amount /= 1000
    return f"{amount:,.1f} TB"


def duration(seconds: float) -> str:
    """1.5 s, 2:03:04 …"""
    if seconds < 60:
        return f"{seconds:.1f} s"
    hours, rest = divmod(round(seconds), 3600)
    return f"{hours}:{rest // 60:02}:{rest % 60:02}"
