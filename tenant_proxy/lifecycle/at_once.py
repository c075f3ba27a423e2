"""A job's row: how it is written, and its beginning and its end by one statement each, where that can be.

So most jobs take two statements of the catalog rather than two transactions of five, and the log of changes,
which all wait for, is locked for one statement.
"""

from __future__ import annotations

import os
import socket
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from tenant_proxy.catalog.failures import Failure
from tenant_proxy.catalog.records import Job, JobState, Tenant
from tenant_proxy.catalog.together import NotTogether, Together

if TYPE_CHECKING:
    from tenant_proxy.lifecycle.context import Context
    from tenant_proxy.lifecycle.jobs import Kind, Record, Run

LEASE_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class Begun:
    """What the process that begins a job knows of it without looking again."""

    #: as it was left
    tenant: Tenant
    #: a row that was made, where that is one
    made: Mapping[str, Any] | None = None


INSERT: Final = """
INSERT INTO job (kind, tenant, tenant_name, actor, params, attempts, lease_owner, lease_until, data, result)
VALUES ($1, $2, $3, $4, $5, 1, $6, now() + make_interval(secs => $7), $8, $9) RETURNING *"""

#: nothing where somebody else has the job
WRITE: Final = """
UPDATE job SET state = $2, position = $3, steps = $4, data = $5, result = $6, error = $7,
       updated_at = now(), finished_at = CASE WHEN $8 THEN now() END,
       lease_owner = CASE WHEN NOT $8 THEN lease_owner END,
       lease_until = CASE WHEN NOT $8 THEN now() + make_interval(secs => $9) END
 WHERE id = $1 AND lease_owner = $10 RETURNING *"""


def me() -> str:
    """Who holds leases: this process, and no later one with its pid."""
    return f"{socket.gethostname()}:{os.getpid()}:{_BOOT}"


_BOOT: Final = uuid.uuid4().hex[:8]


def inserted(columns: Mapping[str, Any], run: Run | None = None) -> list[Any]:
    """`columns`: kind, tenant, tenant_name, actor, params."""
    kept = ({}, None) if run is None else (run.data, run.result or None)
    return [*columns.values(), me(), LEASE_S, *kept]


def written(
    run: Run, state: JobState, position: int, steps: Sequence[str], error: Mapping[str, Any] | None
) -> list[Any]:
    return [
        run.job.id,
        state.value,
        position,
        list(steps),
        run.data,
        run.result or None,
        None if error is None else dict(error),
        state in (JobState.DONE, JobState.UNDONE, JobState.FAILED),
        LEASE_S,
        me(),
    ]


async def begin(
    context: Context,
    kind: Kind,
    tenant: Tenant | None,
    columns: dict[str, Any],
    transient: Mapping[str, Any],
    version: int | None,
) -> tuple[Job, Begun]:
    from tenant_proxy.lifecycle.jobs import Run

    if not kind.together or tenant is None or context.rehearsal is not None:
        raise NotTogether
    change = Together(context.actor, tenant)
    await change.tenant(tenant.name, version)
    run = Run(context, Job.model_construct(**columns, state=JobState.RUNNING), transient=transient)
    if kind.begin is not None:
        await _told(kind.begin, run, change)
    change.item("begun", INSERT, inserted(columns, run))
    wanted = ["begun", *change.tenant_now, *([change.made] if change.made else [])]
    async with context.store.read() as connection:
        rows = await change.make(connection, wanted)
    now = rows.get("tenant_now")
    left = Begun(tenant if now is None else Tenant.of(now), rows.get(change.made or ""))
    return Job.of(rows["begun"]), left


async def end(kind: Kind, run: Run, names: Sequence[str], point: str) -> None:
    """What `end` and the job's row say behind its last step."""
    context, job = run.context, run.job
    tenant = run.known
    if not kind.together or tenant is None or context.rehearsal is not None:
        raise NotTogether
    change = Together(job.actor, tenant, job.id)
    kept = dict(run.data), dict(run.result)
    try:
        if kind.end is not None:
            await _told(kind.end, run, change)
        change.item("written", WRITE, written(run, JobState.DONE, len(names), names, None))
        context.at_point(f"{point}:recorded")
        async with context.store.read() as connection:
            rows = await change.make(connection, ["written", *change.tenant_now])
    except NotTogether:
        run.data, run.result = kept
        raise
    run.job = Job.of(rows["written"])
    now = rows.get("tenant_now")
    run.ended = tenant if now is None else Tenant.of(now)


async def _told(record: Record, run: Run, change: Together) -> None:
    """What does not go with the tenant as it was read is tried with the tenant as it is."""
    try:
        await record(run, change)
    except Failure:
        raise NotTogether from None
