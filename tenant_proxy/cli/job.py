"""tenant-proxy job …"""

from __future__ import annotations

from typing import Annotated

import typer

from tenant_proxy.catalog.records import Job, JobState
from tenant_proxy.cli.output import ConfigOption, print_json
from tenant_proxy.cli.town import (
    DryRunOption,
    JsonOption,
    PlaceOption,
    ask,
    call,
    compact,
    complete_tenant,
    print_table,
    say,
    state,
    table,
    when,
)

job_app = typer.Typer(name="job", help="What is being done to tenants, and what was.", no_args_is_help=True)
JobArgument = Annotated[int, typer.Argument(metavar="JOB", show_default=False)]


@job_app.command("list")
def list_(
    config: PlaceOption,
    tenant: Annotated[
        str | None, typer.Option("--tenant", metavar="TENANT", autocompletion=complete_tenant)
    ] = None,
    state_: Annotated[JobState | None, typer.Option("--state", help="Only those in it.")] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=10_000)] = 50,
    as_json: JsonOption = False,
) -> None:
    """The newest first."""
    jobs = ask(
        config, lambda verbs: verbs.job_list(tenant=tenant, state=state_, limit=limit), as_json=as_json
    )
    if as_json:
        print_json([job.to_json() for job in jobs])
        return
    made = table("job", "kind", "tenant", "state", "steps", "who", "begun", "error")
    for job in jobs:
        error = str((job.error or {}).get("message", ""))
        steps = f"{job.position}/{len(job.steps)}" if job.steps else ""
        made.add_row(
            str(job.id),
            job.kind,
            job.tenant_name,
            state(job.state.value),
            steps,
            job.actor,
            when(job.created_at),
            error,
        )
    print_table(made, "there are no jobs")


@job_app.command()
def show(config: PlaceOption, job: JobArgument, as_json: JsonOption = False) -> None:
    """One job: its steps, and what became of it."""
    _print(ask(config, lambda verbs: verbs.job_show(job), as_json=as_json), as_json)


@job_app.command()
def resume(
    config: PlaceOption, job: JobArgument, dry_run: DryRunOption = False, as_json: JsonOption = False
) -> None:
    """Goes on with a job that failed, or that was left behind."""
    _print(ask(config, lambda verbs: verbs.job_resume(job), as_json=as_json, dry_run=dry_run), as_json)


@job_app.command()
def undo(
    config: PlaceOption, job: JobArgument, dry_run: DryRunOption = False, as_json: JsonOption = False
) -> None:
    """Undoes what a job that did not come to its end has done."""
    _print(ask(config, lambda verbs: verbs.job_undo(job), as_json=as_json, dry_run=dry_run), as_json)


@job_app.command()
def upkeep(config: ConfigOption, dry_run: DryRunOption = False, as_json: JsonOption = False) -> None:
    """Goes on with jobs that were left behind, and takes away what has expired.

    A proxy that follows the catalog does so by itself.
    """
    from tenant_proxy.lifecycle.upkeep import upkeep as run

    done = call(config, lambda verbs: run(verbs.context), as_json=as_json, dry_run=dry_run)
    if as_json:
        print_json(done)
    else:
        say("\n".join(done) or "there was nothing to do")


def _print(job: Job, as_json: bool) -> None:
    if as_json:
        print_json(job.to_json())
        return
    made = table("job", str(job.id))
    made.add_row("kind", job.kind)
    made.add_row("tenant", job.tenant_name)
    made.add_row("state", state(job.state.value))
    made.add_row("who", job.actor)
    made.add_row("begun", when(job.created_at))
    made.add_row("ended", when(job.finished_at))
    for number, step in enumerate(job.steps):
        made.add_row(f"step {number + 1}", f"{step}{' ✓' if number < job.position else ''}")
    for key, value in {**job.progress, **(job.result or {}), **(job.error or {})}.items():
        made.add_row(key, compact(value))
    print_table(made, "")
