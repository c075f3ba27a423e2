"""tenant-proxy plan …"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tenant_proxy.catalog.failures import Failure
from tenant_proxy.catalog.records import Plan, Spec, Tenant, parse
from tenant_proxy.cli.output import print_json
from tenant_proxy.cli.town import (
    DryRunOption,
    JsonOption,
    PlaceOption,
    SetOption,
    YesOption,
    ask,
    compact,
    complete_plan,
    confirm,
    finished,
    pairs,
    print_table,
    say,
    spec,
    table,
)

if TYPE_CHECKING:
    from tenant_proxy.lifecycle.door import Door

plan_app = typer.Typer(
    name="plan", help="Plans: what tenants have who have nothing of their own.", no_args_is_help=True
)
PlanArgument = Annotated[
    str, typer.Argument(metavar="PLAN", autocompletion=complete_plan, show_default=False)
]


@plan_app.command("set")
def set_(
    config: PlaceOption,
    plan: PlanArgument,
    description: Annotated[str | None, typer.Option("--description", help="For people.")] = None,
    values: SetOption = None,
    unset: Annotated[
        list[str] | None, typer.Option("--unset", metavar="KEY", help="Takes a value away.")
    ] = None,
    billing: Annotated[
        list[str] | None,
        typer.Option(
            "--billing",
            metavar="KEY=VALUE",
            help="Prices: base=49, meters.transactions.price=0.5 …; KEY= takes one away. May be given again.",
        ),
    ] = None,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Makes a plan, or changes the values that are given.  Its tenants have them at once."""
    from tenant_proxy.lifecycle.tenants import patched_spec

    async def verb(verbs: Door) -> Plan:
        try:
            found = await verbs.plan_get(plan)
        except Failure as failure:
            if failure.code != "not_found":
                raise
            found = None
        wanted = patched_spec(found.spec if found else Spec(), spec(values, unset))
        text = description if description is not None else found.description if found else ""
        priced = _priced(found.billing if found else {}, pairs(billing, "--billing"))
        given = {"name": plan, "description": text, "spec": wanted, "billing": priced}
        return await verbs.plan_put(parse(Plan, given), version=found.version if found else None)

    made = ask(config, verb, as_json=as_json, dry_run=dry_run)
    if as_json:
        print_json(made.to_json())
    else:
        say(f"plan {made.name} is set")


def _priced(billing: Mapping[str, Any], given: Mapping[str, str]) -> dict[str, Any]:
    """With what is given under its dotted names; what is empty is taken away."""
    made = deepcopy(dict(billing))
    for name, value in given.items():
        *outer, last = name.split(".")
        inside = made
        for part in outer:
            inside = inside.setdefault(part, {})
            if not isinstance(inside, dict):
                raise typer.BadParameter(f"--billing {name}: {part} is a value, with nothing in it")
        if value:
            inside[last] = value
        else:
            inside.pop(last, None)
    return made


@plan_app.command("list")
def list_(config: PlaceOption, as_json: JsonOption = False) -> None:
    """All plans."""
    plans = ask(config, lambda verbs: verbs.plan_list(), as_json=as_json)
    if as_json:
        print_json([plan.to_json() for plan in plans])
        return
    made = table("plan", "description", "values")
    for plan in plans:
        values = ", ".join(f"{key}={compact(value)}" for key, value in plan.spec.given().items())
        made.add_row(plan.name, plan.description, values)
    print_table(made, "there are no plans; make one: tenant-proxy plan set NAME --set max_clients=50")


@plan_app.command()
def show(config: PlaceOption, plan: PlanArgument, as_json: JsonOption = False) -> None:
    """One plan, and how many tenants have it."""

    async def verb(verbs: Door) -> tuple[Plan, list[Tenant]]:
        return await verbs.plan_get(plan), await verbs.tenant_list(plan=plan)

    found, tenants = ask(config, verb, as_json=as_json)
    if as_json:
        print_json({**found.to_json(), "tenants": len(tenants)})
        return
    made = table("key", "value")
    for key, value in found.spec.given().items():
        made.add_row(key, compact(value))
    for key, value in found.billing.items():
        made.add_row(f"billing.{key}", compact(value))
    say(f"{found.name}{': ' if found.description else ''}{found.description} ({len(tenants)} tenants)")
    print_table(made, "it says nothing: its tenants have the defaults")


@plan_app.command()
def delete(
    config: PlaceOption,
    plan: PlanArgument,
    yes: YesOption = False,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Deletes a plan that no tenant has."""
    confirm(f"Delete the plan {plan}?", yes or dry_run)
    ask(config, lambda verbs: verbs.plan_delete(plan), as_json=as_json, dry_run=dry_run)
    finished(f"plan {plan} is deleted", {"plan": plan}, as_json)
