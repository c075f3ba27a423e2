"""Work of several steps that survives whoever does it.

    job = await start(context, "provision", tenant, {"…": …})     # a row, in one transaction
    job = await run(context, job)                                 # here, until it is done or undone

A *step* is a pair do/undo.  Both may be run again: whoever goes on with a job does not know whether its last
step was done or only begun.  After each the row says so, and what the catalog has to say of it (`record`) is
written in the same transaction.

A job is worked on by one process, which holds its lease and renews it; a lease that ran out is taken by
whoever comes next: the control process, or a command that waits for the tenant.  It goes on where it was.

When a step fails for good, the job is undone from there, step by step (or stays as it is, where its kind says
so, until somebody runs it again).  When a server can't be reached the job waits, and is tried again later.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from tenant_proxy.catalog.failures import Failure, not_found
from tenant_proxy.catalog.records import Job, JobState, Tenant
from tenant_proxy.catalog.store import Change
from tenant_proxy.catalog.together import NotTogether
from tenant_proxy.lifecycle import at_once
from tenant_proxy.lifecycle.at_once import LEASE_S
from tenant_proxy.lifecycle.context import Context

if TYPE_CHECKING:
    from tenant_proxy.lifecycle.context import Connection

#: a job whose server could not be reached is taken up again after this long
RETRY_S: Final = 5.0
#: progress is written at most this often
PROGRESS_S: Final = 0.5
_POLL_S: Final = 0.1

#: kind -> the module that has it, as KIND_<NAME>; imported when one is run
KINDS: Final[dict[str, str]] = {
    "provision": "tenant_proxy.lifecycle.provision",
    "erase": "tenant_proxy.lifecycle.erase",
    "export": "tenant_proxy.lifecycle.transfer",
    "import": "tenant_proxy.lifecycle.transfer",
    "clone": "tenant_proxy.lifecycle.clone",
    "move": "tenant_proxy.lifecycle.move",
    "forget": "tenant_proxy.lifecycle.move",
    "adopt": "tenant_proxy.lifecycle.adopt",
    "migrate": "tenant_proxy.lifecycle.migrating",
    "grant": "tenant_proxy.lifecycle.access",
    "revoke": "tenant_proxy.lifecycle.access",
    "rotate": "tenant_proxy.lifecycle.access",
    "retire": "tenant_proxy.lifecycle.access",
    "role": "tenant_proxy.lifecycle.access",
    "unrole": "tenant_proxy.lifecycle.access",
}

Do = Callable[["Run"], Awaitable[None]]
Record = Callable[["Run", Change], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Step:
    """`do` and `undo` work on clusters, `record` and `unrecord` on the catalog, with the job's row."""

    name: str
    do: Do | None = None
    undo: Do | None = None
    record: Record | None = None
    unrecord: Record | None = None


@dataclass(frozen=True, slots=True)
class Kind:
    name: str
    #: of the job's parameters; the same steps each time it is asked
    steps: Callable[[Run], Awaitable[Sequence[Step]]]
    #: what the catalog is told in the transaction that starts it
    begin: Record | None = None
    #: in the one that ends it, after its last step
    end: Record | None = None
    #: in the one that ends its undoing
    undone: Record | None = None
    #: false: a job that fails stays where it is, and goes on from there when it is run again
    undoes: bool = True
    #: `begin` and `end` need nothing but the tenant as it was read, mostly, and no number of the job's
    together: bool = False


class LeaseLost(Exception):
    """Somebody else is at work on the job: nothing more may be done to it here."""


@dataclass
class Run:
    """A job while this process works on it."""

    context: Context
    job: Job
    #: kept in the row with each step, for later ones and for those who go on
    data: dict[str, Any] = field(default_factory=dict)
    #: for `begin` alone, never written with the job: secrets
    transient: Mapping[str, Any] = field(default_factory=dict)
    #: what the job gives in the end
    result: dict[str, Any] = field(default_factory=dict)
    #: its tenant as it was when the job began
    known: Tenant | None = None
    #: a row that `begin` has made, where it was in this process
    made: Mapping[str, Any] | None = None
    #: the tenant as the job has left it, where that was seen
    ended: Tenant | None = None
    _progress_at: float = 0.0

    @property
    def params(self) -> Mapping[str, Any]:
        return self.job.params

    async def tenant(self) -> Tenant:
        """As it is now."""
        assert self.job.tenant is not None
        return await self.context.store.tenant_by_id(self.job.tenant)

    async def placed(self) -> Tenant:
        """As it was when the job began, or when it was first asked for: for jobs that change neither its
        names nor where it is, as no other can while they are at work.
        """
        if self.known is None:
            self.known = await self.tenant()
        return self.known

    async def progress(self, done: int, total: int, note: str = "") -> None:
        """For people who wait; written now and then."""
        now = asyncio.get_running_loop().time()
        if now - self._progress_at < PROGRESS_S and done < total:
            return
        self._progress_at = now
        async with self.context.store.read() as connection:
            await connection.execute(
                "UPDATE job SET progress = $2, updated_at = now() WHERE id = $1",
                self.job.id,
                {"done": done, "total": total, "note": note},
            )


def kind_named(name: str) -> Kind:
    if name not in KINDS:
        not_found("kind of job", name)
    kind = getattr(import_module(KINDS[name]), f"KIND_{name.upper()}")
    assert isinstance(kind, Kind)
    return kind


# --- starting ------------------------------------------------------------------------------------


async def start(
    context: Context,
    kind: str,
    tenant: Tenant | None,
    params: Mapping[str, Any] | None = None,
    *,
    transient: Mapping[str, Any] | None = None,
    wait_s: float = 0.0,
    version: int | None = None,
) -> Job:
    """The job's row, with the lease held by this process: `run` it.

    Failure (busy) while another job is at work on the tenant, for longer than `wait_s`; (stale) if the tenant
    is not of the `version` that was read before.  A job whose process is gone is gone on with first.
    """
    deadline = asyncio.get_running_loop().time() + wait_s
    while True:
        try:
            return await _insert(
                context, kind_named(kind), tenant, dict(params or {}), transient or {}, version
            )
        except Failure as failure:
            if failure.code != "busy" or tenant is None:
                raise
            other = await open_job(context, tenant.id)
        if other is None:
            continue
        if await _is_abandoned(context, other.id):
            await run(context, other.id)
        elif asyncio.get_running_loop().time() >= deadline:
            raise Failure(
                "busy",
                f'job {other.id} ({other.kind}) is at work on tenant "{tenant.name}"',
                hint=f"wait for it: tenant-proxy job show {other.id}",
                job=other.id,
            )
        else:
            await asyncio.sleep(_POLL_S)


async def _insert(
    context: Context,
    kind: Kind,
    tenant: Tenant | None,
    params: dict[str, Any],
    transient: Mapping[str, Any],
    version: int | None,
) -> Job:
    columns: dict[str, Any] = {
        "kind": kind.name,
        "tenant": None if tenant is None else tenant.id,
        "tenant_name": "" if tenant is None else tenant.name,
        "actor": context.actor,
        "params": params,
    }
    left: at_once.Begun | None
    try:
        job, left = await at_once.begin(context, kind, tenant, columns, transient, version)
    except NotTogether:
        job, left = await _begin(context, kind, tenant, columns, transient, version)
    if left is not None:
        context.begun[job.id] = left
    context.at_point(f"{kind.name}:begun")
    context.began(job)
    return job


async def _begin(
    context: Context,
    kind: Kind,
    tenant: Tenant | None,
    columns: dict[str, Any],
    transient: Mapping[str, Any],
    version: int | None,
) -> tuple[Job, at_once.Begun | None]:
    async with context.store.change(context.actor) as change:
        if tenant is not None and version is not None:
            await change.tenant(tenant.name, version)
        row = await change.connection.fetchrow(at_once.INSERT, *at_once.inserted(columns))
        assert row is not None
        job = Job.of(row)
        change.job = job.id
        run = Run(context, job, transient=transient)
        if kind.begin is not None:
            await kind.begin(run, change)
            if run.data or run.result:
                row = await change.connection.fetchrow(
                    "UPDATE job SET data = $2, result = $3 WHERE id = $1 RETURNING *",
                    job.id,
                    run.data,
                    run.result or None,
                )
                assert row is not None
                job = Job.of(row)
        left = None if tenant is None else change.locked(tenant.id)
        return job, None if left is None else at_once.Begun(left)


async def open_job(context: Context, tenant: int) -> Job | None:
    """The one that is at work on a tenant."""
    async with context.store.read() as connection:
        row = await connection.fetchrow(
            "SELECT * FROM job WHERE tenant = $1 AND state IN ('running', 'undoing')", tenant
        )
    return None if row is None else Job.of(row)


async def _is_abandoned(context: Context, job: int) -> bool:
    async with context.store.read() as connection:
        return bool(
            await connection.fetchval(
                "SELECT lease_until < now() FROM job WHERE id = $1 AND state IN ('running', 'undoing')", job
            )
        )


async def finish(context: Context, number: int, wait_s: float) -> Job:
    """Waits until a job ends, and goes on with it when whoever did it is gone; the ended job.

    Failure (busy) when it takes longer than `wait_s`.
    """
    deadline = asyncio.get_running_loop().time() + wait_s
    while True:
        found = await job(context, number)
        if not found.is_open:
            return found
        if await _is_abandoned(context, number):
            return await run(context, number)
        if asyncio.get_running_loop().time() >= deadline:
            raise _taken(number, found.lease_owner or "another process")
        await asyncio.sleep(_POLL_S)


# --- running -------------------------------------------------------------------------------------


async def run(context: Context, given: int | Job, *, undo: bool = False) -> Job:
    """Works on a job until it ends; the ended job.

    One that `start` has just given, with the lease that this process holds, need not be taken first.  With
    `undo` it is undone, even if nothing is wrong with it.  Failure where it failed (`job` tells which), or
    where somebody else is at work on it.
    """
    return (await through(context, given, undo=undo)).job


async def through(context: Context, given: int | Job, *, undo: bool = False) -> Run:
    """`run`, and all that was seen of it."""
    number = given if isinstance(given, int) else given.id
    if number in context.running:
        raise _taken(number, "this process")
    context.running.add(number)
    try:
        job = await _take(context, number, undo=undo) if isinstance(given, int) else given
        current = Run(context.acting_as(job.actor), job, dict(job.data), result=dict(job.result or {}))
        if job.is_open:
            current.job = await _run(context, current)
        return current
    finally:
        context.running.discard(number)


async def _run(context: Context, current: Run) -> Job:
    job = current.job
    kind = kind_named(job.kind)
    begun = context.begun.pop(job.id, None)
    if begun is not None:
        current.known, current.made = begun.tenant, begun.made
    work = asyncio.ensure_future(_work(kind, current))
    lease = asyncio.ensure_future(_keep_lease(current))
    try:
        await asyncio.wait((work, lease), return_when=asyncio.FIRST_COMPLETED)
        if not work.done():
            work.cancel()
            with suppress(asyncio.CancelledError):
                await work
            lease.result()
        return work.result()
    except LeaseLost:
        raise _taken(job.id, "another process") from None
    finally:
        for task in (work, lease):
            task.cancel()
        await asyncio.gather(work, lease, return_exceptions=True)


async def undo(context: Context, number: int) -> Job:
    """Undoes a job that has not come to its end; the ended job."""
    try:
        return await run(context, number, undo=True)
    except Failure:
        ended = await job(context, number)
        if ended.state is not JobState.UNDONE:
            raise
        return ended


def _taken(number: int, who: str) -> Failure:
    hint = f"wait for it: tenant-proxy job show {number}"
    return Failure("busy", f"job {number} is being worked on by {who}", hint=hint, job=number)


async def _take(context: Context, number: int, *, undo: bool) -> Job:
    """The job with its lease; ended ones as they are, but failed ones, which are opened again."""
    async with context.store.change(context.actor, number) as change:
        row = await change.connection.fetchrow("SELECT * FROM job WHERE id = $1 FOR UPDATE", number)
        if row is None:
            not_found("job", number)
        job = Job.of(row)
        if job.state in (JobState.DONE, JobState.UNDONE):
            if undo and job.state is JobState.DONE:
                raise Failure("conflict", f"job {number} is done", hint="there is a verb for the contrary")
            return job
        free = await change.connection.fetchval(
            "SELECT $1::timestamptz IS NULL OR $1 < now() OR $2::text = $3",
            job.lease_until,
            job.lease_owner,
            at_once.me(),
        )
        if job.is_open and not free:
            raise _taken(number, job.lease_owner or "")
        undoing = undo or (job.state is JobState.UNDOING)
        if job.state is JobState.FAILED and not undo:
            undoing = bool((job.error or {}).get("undoing"))
        row = await change.connection.fetchrow(
            """UPDATE job SET state = $2, lease_owner = $3, lease_until = now() + make_interval(secs => $4),
                      attempts = attempts + 1, finished_at = NULL, updated_at = now()
                WHERE id = $1 RETURNING *""",
            number,
            (JobState.UNDOING if undoing else JobState.RUNNING).value,
            at_once.me(),
            LEASE_S,
        )
        assert row is not None
        if undo or job.state is JobState.FAILED:
            action = "job.undo" if undoing else "job.resume"
            await change.audit(action, "job", str(number), {"state": job.state.value}, None)
        return Job.of(row)


async def _keep_lease(current: Run) -> None:
    if current.context.rehearsal is not None:  # nobody else sees the job
        await asyncio.Event().wait()
    while True:
        await asyncio.sleep(LEASE_S / 3)
        async with current.context.store.read() as connection:
            kept = await connection.fetchval(
                """UPDATE job SET lease_until = now() + make_interval(secs => $3)
                    WHERE id = $1 AND lease_owner = $2 RETURNING true""",
                current.job.id,
                at_once.me(),
                LEASE_S,
            )
        if not kept:
            raise LeaseLost


async def _work(kind: Kind, current: Run) -> Job:
    try:
        steps = await kind.steps(current)
        if current.job.state is JobState.RUNNING:
            try:
                return await _forward(kind, current, steps)
            except Failure as failure:
                if failure.code == "unavailable":
                    raise
                await _failed(kind, current, failure)
                if not kind.undoes:
                    raise _with_job(failure, current.job.id) from None
            except (LeaseLost, asyncio.CancelledError):
                raise
            except Exception as error:  # a bug, ours or a plug-in's: undone like a refusal
                await _failed(kind, current, _bug(error))
                if not kind.undoes:
                    raise
        first = current.job.error
        await _backward(kind, current, steps)
        raise _undone(current.job, first)
    except Failure as failure:
        if failure.code == "unavailable":
            await _later(current, failure)
            raise Failure(
                failure.code,
                failure.message,
                detail=failure.detail,
                hint=f"it is gone on with later, or by: tenant-proxy job resume {current.job.id}",
                job=current.job.id,
            ) from None
        raise


async def _forward(kind: Kind, current: Run, steps: Sequence[Step]) -> Job:
    names = [step.name for step in steps]
    for index, step in enumerate(steps):
        if index < current.job.position:
            continue
        point = f"{kind.name}:{step.name}"
        current.context.at_point(f"{point}:before")
        if step.do is not None:
            await step.do(current)
        current.context.at_point(f"{point}:done")
        last = index == len(steps) - 1
        if step.record is None and not last:  # a statement alone
            async with current.context.store.read() as connection:
                await _write(current, connection, JobState.RUNNING, index + 1, names, error=None)
            current.context.at_point(f"{point}:recorded")
            current.context.at_point(f"{point}:after")
            continue
        try:
            if not last or step.record is not None:
                raise NotTogether
            await at_once.end(kind, current, names, point)
        except NotTogether:
            async with _written(current) as change:
                if step.record is not None:
                    await step.record(current, change)
                if last and kind.end is not None:
                    await kind.end(current, change)
                state = JobState.DONE if last else JobState.RUNNING
                await _write(current, change.connection, state, index + 1, names, error=None)
                current.context.at_point(f"{point}:recorded")
        current.context.at_point(f"{point}:after")
    return current.job


async def _backward(kind: Kind, current: Run, steps: Sequence[Step]) -> None:
    names = [step.name for step in steps]
    # the step that failed may have been half done
    for index in range(min(current.job.position, len(steps) - 1), -1, -1):
        step = steps[index]
        point = f"{kind.name}:{step.name}"
        current.context.at_point(f"{point}:undo")
        try:
            if step.undo is not None:
                await step.undo(current)
        except Failure as failure:
            if failure.code == "unavailable":
                raise
            await _stuck(current, names, index, failure)
            raise
        except (LeaseLost, asyncio.CancelledError):
            raise
        except Exception as error:
            await _stuck(current, names, index, _bug(error))
            raise
        done = index < current.job.position
        async with _written(current) as change:
            if step.unrecord is not None and done:
                await step.unrecord(current, change)
            if index == 0 and kind.undone is not None:
                await kind.undone(current, change)
            state = JobState.UNDONE if index == 0 else JobState.UNDOING
            await _write(current, change.connection, state, index, names, error=current.job.error)
        current.context.at_point(f"{point}:undone")


# --- the row -------------------------------------------------------------------------------------


def _written(current: Run) -> AbstractAsyncContextManager[Change]:
    """A transaction that ends with `_write`: it is undone where somebody else has the job."""
    return current.context.store.change(current.job.actor, current.job.id)


async def _write(
    current: Run,
    connection: Connection,
    state: JobState,
    position: int,
    steps: Sequence[str],
    error: Mapping[str, Any] | None,
) -> None:
    row = await connection.fetchrow(at_once.WRITE, *at_once.written(current, state, position, steps, error))
    if row is None:
        raise LeaseLost
    current.job = Job.of(row)


async def _failed(kind: Kind, current: Run, failure: Failure) -> None:
    async with _written(current) as change:
        state = JobState.UNDOING if kind.undoes else JobState.FAILED
        position, steps = current.job.position, current.job.steps
        await _write(current, change.connection, state, position, steps, failure.to_json())
        if not kind.undoes and kind.undone is not None:
            await kind.undone(current, change)
    current.context.at_point(f"{kind.name}:failed")


async def _stuck(current: Run, steps: Sequence[str], index: int, failure: Failure) -> None:
    """Undoing failed too: somebody has to look."""
    error = {**(current.job.error or {}), "undoing": {"step": steps[index], **failure.to_json()}}
    async with _written(current) as change:
        position = current.job.position
        await _write(current, change.connection, JobState.FAILED, position, steps, error)


async def _later(current: Run, failure: Failure) -> None:
    """Gives the lease back, so that whoever comes after a while goes on."""
    with suppress(Failure):  # the catalog itself may be what can't be reached
        async with current.context.store.read() as connection:
            await connection.execute(
                """UPDATE job SET lease_until = now() + make_interval(secs => $3), updated_at = now(),
                          error = coalesce(error, '{}') || jsonb_build_object('waiting', $4::jsonb)
                    WHERE id = $1 AND lease_owner = $2""",
                current.job.id,
                at_once.me(),
                RETRY_S,
                failure.to_json(),
            )


def _bug(error: Exception) -> Failure:
    """What nobody foresaw; the text stays away, as it may hold anything."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    place = f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}" if trace is not None else "?"
    return Failure("refused", f"internal error ({type(error).__name__} at {place})")


def _undone(job: Job, error: Mapping[str, Any] | None) -> Failure:
    if error is None:
        return Failure("refused", f"job {job.id} was undone", job=job.id)
    text = "what had been done was undone"
    return Failure(
        str(error.get("code", "refused")),
        str(error.get("message", "it failed")),
        detail=f"{error['detail']} ({text})" if error.get("detail") else text,
        hint=str(error.get("hint", "")),
        job=job.id,
    )


def _with_job(failure: Failure, job: int) -> Failure:
    return Failure(
        failure.code,
        failure.message,
        detail=failure.detail,
        hint=failure.hint or f"go on with it: tenant-proxy job resume {job}",
        job=job,
    )


# --- those left behind ---------------------------------------------------------------------------


async def abandoned(context: Context, limit: int = 100) -> list[Job]:
    """Open jobs that nobody works on, the oldest first."""
    async with context.store.read() as connection:
        rows = await connection.fetch(
            """SELECT * FROM job WHERE state IN ('running', 'undoing')
                  AND (lease_until IS NULL OR lease_until < now()) ORDER BY id LIMIT $1""",
            limit,
        )
    return [Job.of(row) for row in rows]


async def job(context: Context, number: int) -> Job:
    async with context.store.read() as connection:
        row = await connection.fetchrow("SELECT * FROM job WHERE id = $1", number)
    return Job.of(row) if row is not None else not_found("job", number)


async def jobs(
    context: Context,
    *,
    tenant: str | None = None,
    state: JobState | None = None,
    before: int | None = None,
    limit: int = 50,
) -> list[Job]:
    """The newest first."""
    async with context.store.read() as connection:
        rows = await connection.fetch(
            """SELECT * FROM job WHERE ($1::text IS NULL OR tenant_name = $1)
                  AND ($2::text IS NULL OR state = $2) AND ($3::bigint IS NULL OR id < $3)
                ORDER BY id DESC LIMIT $4""",
            tenant,
            None if state is None else state.value,
            before,
            limit,
        )
    return [Job.of(row) for row in rows]
