"""Jobs: killed anywhere they go on or are undone, and one is at work on a tenant at a time."""

from __future__ import annotations

import asyncio
import sys
from contextvars import ContextVar
from dataclasses import replace
from typing import Any

import pytest

from tenant_proxy.catalog.failures import Failure
from tenant_proxy.catalog.records import JobState
from tenant_proxy.catalog.store import Store
from tenant_proxy.config.schema import Cluster, Config
from tenant_proxy.lifecycle import at_once, jobs
from tenant_proxy.lifecycle.context import Context
from tenant_proxy.lifecycle.jobs import Kind, Run, Step
from tenant_proxy.lifecycle.upkeep import upkeep


class Killed(BaseException):
    """Stands for the end of the process: nothing runs after it."""


#: what the steps of `boxes` did to the world outside
world: list[str] = []
trouble: dict[str, Failure] = {}


def box(name: str) -> Step:
    async def do(run: Run) -> None:
        if name in trouble:
            raise trouble[name]
        if name not in world:
            world.append(name)
        run.data[name] = True

    async def undo(run: Run) -> None:
        if f"undo {name}" in trouble:
            raise trouble[f"undo {name}"]
        if name in world:
            world.remove(name)

    async def record(run: Run, change: Any) -> None:
        await change.audit(f"box.{name}", "box", name)

    async def unrecord(run: Run, change: Any) -> None:
        await change.audit(f"box.un{name}", "box", name)

    return Step(name, do, undo, record, unrecord)


async def _steps(run: Run) -> list[Step]:
    return [box(name) for name in run.params["boxes"]]


async def _ended(run: Run, change: Any) -> None:
    await change.audit("boxes.end", "box", "")


async def _was_undone(run: Run, change: Any) -> None:
    await change.audit("boxes.undone", "box", "")


KIND_BOXES = Kind("boxes", _steps, end=_ended, undone=_was_undone)
BOXES = {"boxes": ["a", "b", "c"]}


@pytest.fixture
def context(store: Store, monkeypatch) -> Context:
    monkeypatch.setitem(jobs.KINDS, "boxes", __name__)
    monkeypatch.setitem(sys.modules, __name__, sys.modules[__name__])
    world.clear()
    trouble.clear()
    config = Config(clusters=[Cluster(name="main", host="127.0.0.1", port=1, database="app")])
    return Context(config, store, "anna")


async def points_of(context: Context, **trouble_with: Failure) -> list[str]:
    """All points that a job of this kind passes."""
    seen: list[str] = []
    context.at_point = seen.append
    trouble.update(trouble_with)
    job = await jobs.start(context, "boxes", None, BOXES)
    try:
        await jobs.run(context, job.id)
    except Failure:
        pass
    return seen


def die_at(point: str):
    def at_point(reached: str) -> None:
        if reached == point:
            raise Killed(point)

    return at_point


async def log_of(context: Context, job: int) -> list[str]:
    return [entry.action for entry in reversed(await context.store.audit(limit=1000)) if entry.job == job]


async def test_a_job_killed_anywhere_goes_on(context):
    points = await points_of(context)
    assert points[0] == "boxes:begun"
    assert len(points) == 1 + 3 * 4
    for point in points[1:]:
        world.clear()
        context.at_point = die_at(point)
        job = await jobs.start(context, "boxes", None, BOXES)
        with pytest.raises(Killed):
            await jobs.run(context, job.id)
        context.at_point = lambda _: None
        ended = await jobs.run(context, job.id)
        assert (ended.state, ended.position, world) == (JobState.DONE, 3, ["a", "b", "c"]), point
        assert await log_of(context, job.id) == ["box.a", "box.b", "box.c", "boxes.end"], point


async def test_a_job_that_fails_is_undone_even_if_killed_anywhere(context):
    refusal = Failure("refused", "no more room")
    points = await points_of(context, c=refusal)
    assert "boxes:failed" in points
    assert world == []
    for point in points[points.index("boxes:a:done") :]:
        context.at_point = die_at(point)
        job = await jobs.start(context, "boxes", None, BOXES)
        with pytest.raises(Killed):
            await jobs.run(context, job.id)
        context.at_point = lambda _: None
        if point != "boxes:a:undone":  # then it is at its end, and says no more
            with pytest.raises(Failure, match="no more room"):
                await jobs.run(context, job.id)
        ended = await jobs.job(context, job.id)
        assert (ended.state, ended.position, world) == (JobState.UNDONE, 0, []), point
        said = await log_of(context, job.id)
        assert said == ["box.a", "box.b", "box.unb", "box.una", "boxes.undone"], point


async def test_a_server_that_is_away_is_waited_for(context):
    trouble["b"] = Failure("unavailable", "the cluster is away")
    job = await jobs.start(context, "boxes", None, BOXES)
    with pytest.raises(Failure, match="away") as failed:
        await jobs.run(context, job.id)
    assert failed.value.job == job.id
    assert "job resume" in failed.value.hint
    left = await jobs.job(context, job.id)
    assert (left.state, left.position, world) == (JobState.RUNNING, 1, ["a"])
    trouble.clear()
    async with context.store.read() as connection:
        await connection.execute("UPDATE job SET lease_until = now()")
    assert await upkeep(context) == [f"job {job.id} (boxes) was gone on with"]
    assert (await jobs.job(context, job.id)).state is JobState.DONE


async def test_what_cant_be_undone_stays_until_somebody_comes(context):
    trouble["c"] = Failure("refused", "no more room")
    trouble["undo a"] = Failure("refused", "nailed down")
    job = await jobs.start(context, "boxes", None, BOXES)
    with pytest.raises(Failure, match="nailed down"):
        await jobs.run(context, job.id)
    stuck = await jobs.job(context, job.id)
    assert (stuck.state, world) == (JobState.FAILED, ["a"])
    assert stuck.error is not None
    assert stuck.error["undoing"]["step"] == "a"
    trouble.clear()
    with pytest.raises(Failure, match="no more room"):
        await jobs.run(context, job.id)  # goes on undoing, and says why it is
    assert (await jobs.job(context, job.id)).state is JobState.UNDONE
    assert world == []


async def test_one_job_is_at_work_on_a_tenant(context, store):
    async with store.change("anna") as change:
        tenant = await change.insert_tenant(
            name="acme",
            cluster="main",
            schema="acme",
            owner_role="a",
            readwrite_role="b",
            readonly_role="c",
        )
    first = await jobs.start(context, "boxes", tenant, BOXES)
    with pytest.raises(Failure) as failed:
        await jobs.start(context, "boxes", tenant, BOXES)
    assert (failed.value.code, failed.value.job) == ("busy", first.id)
    waits = asyncio.create_task(jobs.start(context, "boxes", tenant, BOXES, wait_s=20))
    await jobs.run(context, first.id)
    second = await waits
    assert second.id != first.id
    # the process that held it is gone: whoever comes next finishes it first
    async with store.read() as connection:
        await connection.execute("UPDATE job SET lease_until = now() WHERE id = $1", second.id)
    third = await jobs.start(context, "boxes", tenant, BOXES)
    assert (await jobs.job(context, second.id)).state is JobState.DONE
    assert third.is_open


async def test_a_lost_lease_stops_whoever_lost_it(context, store, monkeypatch):
    async def robbed(point: str) -> None:
        async with store.read() as connection:
            await connection.execute("UPDATE job SET lease_owner = 'other'")

    job = await jobs.start(context, "boxes", None, BOXES)
    real = box("a").do

    async def slow(run: Run) -> None:
        assert real is not None
        await real(run)
        await robbed("")

    async def steps(run: Run) -> list[Step]:
        return [Step("a", slow), box("b")]

    monkeypatch.setattr(sys.modules[__name__], "KIND_BOXES", Kind("boxes", steps))
    with pytest.raises(Failure, match="worked on by another process"):
        await jobs.run(context, job.id)
    assert world == ["a"]
    assert (await jobs.job(context, job.id)).lease_owner == "other"


async def test_what_one_records_of_a_job_that_another_has_meanwhile_is_undone(context, store, monkeypatch):
    """The lease is looked at by the last statement of a transaction: what stands before it must not stay."""
    owner = ContextVar("owner", default="first")
    monkeypatch.setattr(at_once, "me", owner.get)
    job = await jobs.start(context, "boxes", None, BOXES)

    async def by_another() -> None:
        owner.set("second")
        await jobs.run(Context(context.config, store, "bert"), job.id)

    async def record(run: Run, change: Any) -> None:
        if owner.get() == "first":
            async with store.read() as connection:
                await connection.execute("UPDATE job SET lease_until = now() - interval '1 second'")
            await asyncio.create_task(by_another())
        await change.audit("box.a", "box", "a")

    async def steps(run: Run) -> list[Step]:
        return [replace(box("a"), record=record), box("b")]

    monkeypatch.setattr(sys.modules[__name__], "KIND_BOXES", Kind("boxes", steps, end=_ended))
    with pytest.raises(Failure, match="worked on by another process"):
        await jobs.run(context, job)
    ended = await jobs.job(context, job.id)
    assert (ended.state, ended.lease_owner, ended.attempts) == (JobState.DONE, None, 2)
    assert await log_of(context, job.id) == ["box.a", "box.b", "boxes.end"]


async def test_two_runs_of_one_job_in_a_process_are_one_too_many(context):
    job = await jobs.start(context, "boxes", None, BOXES)
    done = await asyncio.gather(*(jobs.run(context, job.id) for _ in range(2)), return_exceptions=True)
    assert sorted(type(one).__name__ for one in done) == ["Failure", "Job"]
    assert world == ["a", "b", "c"]
