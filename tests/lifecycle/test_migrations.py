"""Versioned SQL over many tenants: each has it once and whole, whatever happens."""

from __future__ import annotations

import asyncio
import sys

import pytest

from tenant_proxy.lifecycle import migrations
from tenant_proxy.lifecycle.fleet import Member, Options
from tenant_proxy.lifecycle.migrations import Limits, MigrationError

FILES = {
    "V001__orders.up.sql": "CREATE TABLE orders (id int PRIMARY KEY, item text);",
    "V001__orders.down.sql": "DROP TABLE orders;",
    "V001__orders.check.sql": "SELECT count(*) = 0 FROM orders; SELECT to_regclass('orders') IS NOT NULL",
    "V002__quantity.up.sql": "ALTER TABLE orders ADD quantity int NOT NULL DEFAULT 1;\n"
    "INSERT INTO orders VALUES (1, 'it''s; one')",
    "V002__quantity.down.sql": "ALTER TABLE orders DROP quantity; DELETE FROM orders",
    "3_index.sql": "-- tenant_proxy: no-transaction\n"
    "CREATE INDEX CONCURRENTLY IF NOT EXISTS o ON orders (item);",
    "3_index.down.sql": "DROP INDEX CONCURRENTLY IF EXISTS o",
}  # fmt: skip


def directory(tmp_path, **changes):
    for name, text in {**FILES, **changes}.items():
        (tmp_path / name).write_text(text)
    return migrations.read(tmp_path)


def members(place, count: int = 4, canaries: int = 0) -> list[Member]:
    result = []
    for number in range(count):
        estate = place.with_roles(f"fleet_{number}")
        result.append(
            Member(f"t{number}", place.database_of(), estate, canary=number < canaries, number=number)
        )
    return result


def tables(place, member) -> str:
    return place.sql(
        "SELECT string_agg(relname || ' ' || pg_get_userbyid(relowner), ', ' ORDER BY relname) FROM pg_class"
        f" WHERE relnamespace = '{member.estate.schema}'::regnamespace AND relkind = 'r'"
    ).strip()


async def test_up_and_down(place, tmp_path):
    all_of_them = members(place)
    found = directory(tmp_path)
    report = await migrations.up(all_of_them, found, Options(parallel=3))
    assert [one.state for one in report.outcomes] == ["done"] * 4
    assert tables(place, all_of_them[0]) == f"orders {all_of_them[0].estate.owner}"
    standings = await migrations.standings(all_of_them, found)
    assert {(one.version, one.pending) for one in standings} == {(3, ())}
    # nothing is done twice
    assert (await migrations.up(all_of_them, found, Options())).outcomes == []
    report = await migrations.down(all_of_them[:2], found, Options(), to=1)
    assert len(report.of("done")) == 2
    assert [one.version for one in await migrations.standings(all_of_them, found)] == [1, 1, 3, 3]
    await migrations.up(all_of_them, found, Options(), to=2)
    assert [one.version for one in await migrations.standings(all_of_them, found)] == [2, 2, 3, 3]


async def test_a_failure_leaves_no_half_of_a_version(place, tmp_path):
    all_of_them = members(place, 3)
    place.sql(f"CREATE TABLE {all_of_them[1].estate.schema}.extra (id int)")
    extra = {"4_extra.sql": "CREATE TABLE first_one (id int); CREATE TABLE extra (id int)"}
    found = directory(tmp_path, **extra)
    report = await migrations.up(all_of_them, found, Options(stop_at=0.9))
    assert [one.tenant for one in report.of("failed")] == ["t1"]
    assert "version 4" in report.of("failed")[0].error
    assert "first_one" not in tables(place, all_of_them[1])
    standings = await migrations.standings(all_of_them, found)
    assert [one.pending for one in standings] == [(), (4,), ()]
    # gone on with when it is mended
    place.sql(f"DROP TABLE {all_of_them[1].estate.schema}.extra")
    assert [one.tenant for one in (await migrations.up(all_of_them, found, Options())).outcomes] == ["t1"]


async def test_a_check_that_fails_undoes_it(place, tmp_path):
    found = directory(tmp_path, **{"V002__quantity.check.sql": "SELECT count(*) > 5 FROM orders"})
    report = await migrations.up(members(place, 1), found, Options())
    assert "check 1 failed" in report.of("failed")[0].error
    assert "version 2" in report.of("failed")[0].error


async def test_canaries_go_first_and_alone(place, tmp_path):
    all_of_them = members(place, 4, canaries=2)
    place.sql(f"CREATE TABLE {all_of_them[1].estate.schema}.orders (id int)")
    report = await migrations.up(all_of_them, directory(tmp_path), Options(stop_at=1.0))
    assert {one.tenant for one in report.outcomes} == {"t0", "t1"}
    assert (report.stopped, report.left) == ("a canary failed", ["t2", "t3"])


async def test_it_stops_when_too_many_fail(place, tmp_path):
    all_of_them = members(place, 6)
    for member in all_of_them:
        place.sql(f"CREATE TABLE {member.estate.schema}.orders (id int)")
    report = await migrations.up(all_of_them, directory(tmp_path), Options(parallel=1, stop_at=0.1))
    # two in twenty may fail
    assert (len(report.of("failed")), len(report.left)) == (3, 3)


async def test_a_lock_is_waited_for_shortly_and_tried_again(place, tmp_path):
    (member,) = members(place, 1)
    found = directory(tmp_path)
    await migrations.up([member], found, Options(), to=1)
    holder = await place.connect()
    held = holder.transaction()
    await held.start()
    await holder.execute(f"LOCK TABLE {member.estate.schema}.orders")
    limits = Limits(lock_timeout_ms=50)
    report = await migrations.up([member], found, Options(retries=1), limits, to=2)
    assert "tried 2 times" in report.of("failed")[0].error
    going = asyncio.create_task(migrations.up([member], found, Options(retries=8), limits, to=2))
    await asyncio.sleep(0.3)
    await held.rollback()
    await holder.close()
    assert (await going).of("done")[0].retries > 0


async def test_two_at_once_do_it_once(place, tmp_path):
    all_of_them = members(place, 4)
    found = directory(
        tmp_path, **{"V001__orders.up.sql": FILES["V001__orders.up.sql"] + "SELECT pg_sleep(0.05)"}
    )
    reports = await asyncio.gather(*(migrations.up(all_of_them, found, Options(), to=2) for _ in range(3)))
    assert not [one for report in reports for one in report.of("failed")]
    assert {one.version for one in await migrations.standings(all_of_them, found)} == {2}


async def test_any_tool_finds_the_tenant_by_its_environment(place, tmp_path):
    all_of_them = members(place, 2)
    code = (
        "import os, psycopg\n"
        "with psycopg.connect(os.environ['DATABASE_URL']) as conn:\n"
        "    assert os.environ['TENANT'] in ('t0', 't1')\n"
        "    conn.execute('CREATE TABLE made (who text DEFAULT current_user)')\n"
        "    conn.execute('INSERT INTO made DEFAULT VALUES')\n"
    )
    report = await migrations.execute(all_of_them, [sys.executable, "-c", code], Options())
    assert len(report.of("done")) == 2
    for member in all_of_them:
        assert place.sql(f"SELECT who FROM {member.estate.schema}.made").strip() == member.estate.owner
    report = await migrations.execute(all_of_them, [sys.executable, "-c", "print('no'); exit(3)"], Options())
    assert "status 3: no" in report.of("failed")[0].error


@pytest.mark.parametrize(
    ("files", "problem"),
    [
        ({"x.sql": "SELECT 1"}, "not VERSION_name"),
        ({"1_b.sql": "SELECT 1"}, "version 1 is there twice"),
        ({"5_x.down.sql": "SELECT 1"}, "version 5 has no .up.sql"),
        ({"5_x.sql": "SELEC 1"}, "5_x.sql: syntax error"),
        ({"5_x.sql": "SELECT 1; COMMIT"}, "may not begin or end one"),
    ],
)
def test_a_directory_that_is_not_in_order_is_refused(tmp_path, files, problem):
    with pytest.raises(MigrationError, match=problem):
        directory(tmp_path, **files)


async def test_a_changed_file_is_refused(place, tmp_path):
    (member,) = members(place, 1)
    await migrations.up([member], directory(tmp_path), Options())
    changed = directory(tmp_path, **{"V001__orders.up.sql": "CREATE TABLE orders (id bigint PRIMARY KEY)"})
    with pytest.raises(MigrationError, match="version 1 was changed after t0"):
        await migrations.up([member], changed, Options())
    with pytest.raises(MigrationError, match=r"version 3 has no .down.sql"):
        await migrations.down([member], [one for one in changed if one.version < 3], Options(), to=1)
