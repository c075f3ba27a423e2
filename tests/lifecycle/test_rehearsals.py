"""What `--dry-run` prints is what a run then executes, and nothing else changes by it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tenant_proxy.config.schema import Config
from tenant_proxy.lifecycle.context import Context
from tenant_proxy.lifecycle.records import NewAccess, NewTenant
from tenant_proxy.lifecycle.verbs import Verbs
from tests.fix_lifecycle import ADMIN, Town, make_town
from tests.pg_server import majors

_ENTRY = re.compile(r"^(?=\d{4}-\d\d-\d\d \S+ UTC \[\d+\] )", re.MULTILINE)
_TOLD = re.compile(r".* LOG:  (?:statement|execute [^:]*): ")


@contextmanager
def logged(*towns: Town) -> Iterator[Callable[[], list[str]]]:
    """What the admin tells the servers meanwhile by connections that are opened meanwhile, as they log it."""
    servers = {town.pg.port: town.pg for town in towns}.values()
    before = {server.log_path: server.log_path.stat().st_size for server in servers}
    for server in servers:
        server.psql(f"ALTER ROLE {ADMIN} SET log_statement = 'all'", database="postgres")
    try:
        yield lambda: [one for path, size in before.items() for one in _statements(path, size)]
    finally:
        for server in servers:
            server.psql(f"ALTER ROLE {ADMIN} RESET log_statement", database="postgres")


def _statements(path: Path, size: int) -> list[str]:
    found: list[str] = []
    for entry in _ENTRY.split(path.read_bytes()[size:].decode(errors="replace")):
        told = _TOLD.match(entry)
        if told is not None:
            # the log's further lines begin with a tab
            found.append(entry[told.end() :].replace("\n\t", "\n"))
        elif found and (parameters := re.search(r"DETAIL:  [Pp]arameters: (.*)", entry, re.DOTALL)):
            found[-1] = _bound(found[-1], parameters[1])
    apart = [one for message in found for one in _apart(message)]
    return [one for one in map(_copied, map(_plain, apart)) if "TEMPORARY TABLE tp_rows" not in one]


def _apart(message: str) -> list[str]:
    """A transaction whose first and last statement came with what stands beside them."""
    text = message.rstrip().rstrip(";")
    if text.startswith("BEGIN; SELECT pg_catalog.pg_advisory_xact_lock"):
        return ["BEGIN", text.removeprefix("BEGIN; ")]
    if text.endswith("COMMIT") and not text.startswith(("BEGIN", "COMMIT")):
        return [text.removesuffix("COMMIT"), "COMMIT"]
    return [message]


def _copied(sql: str) -> str:
    """Rows of a table that may run code come by way of another.  Which do is known when the table is there,
    so a rehearsal shows that they are copied.
    """
    found = re.search(r"\$tp_jail\$INSERT INTO (\S+) (\([^)]*\)) OVERRIDING .* pg_temp\.tp_rows\b", sql)
    return sql if found is None else f"COPY {found[1]}{found[2]} FROM STDIN"


def _bound(statement: str, parameters: str) -> str:
    values = dict(re.findall(r"\$(\d+) = ('(?:[^']|'')*'|NULL)", parameters))
    return re.sub(r"\$(\d+)(?:::text)?", lambda found: values.get(found[1], found[0]), statement)


def _plain(sql: str) -> str:
    """White space apart; and lists as they are logged."""
    text = " ".join(sql.split()).rstrip("; ")
    # one message, which is a transaction by itself
    text = re.sub(r"^BEGIN; (.*); COMMIT$", r"\1", re.sub(r"'(\d+)'", r"\1", text)).rstrip("; ")
    # the number that a new tenant gets, and when
    text = re.sub(r"'tenant_proxy:\d+:\d+'", "'tenant_proxy:NUMBER:TIME'", text)
    text = re.sub(r"__moved_\d+", "__moved_NUMBER", text)
    # one that is taken is chosen anew
    text = re.sub(r"(LARGE OBJECT|lo_create\(|lo_put\() ?\d+", r"\1 NUMBER", text)
    return re.sub(
        r"ARRAY\[([^\]]*)\]", lambda found: "'{" + found[1].replace("'", "").replace(", ", ",") + "}'", text
    )


def shown(context: Context) -> list[str]:
    """For clusters, one after the other."""
    assert context.rehearsal is not None
    places: dict[str, list[str]] = {}
    here: list[str] = []
    for one in context.rehearsal.shown():
        if one.startswith("-- cluster "):
            here = places.setdefault(one.split()[2], [])
        elif not one.startswith("--"):
            here.append(_plain(one))
    return [one for name in sorted(places) for one in places[name]]


async def state(town: Town, verbs: Verbs) -> object:
    entries = await verbs.audit_log(limit=1000)
    jobs = [(job.id, job.state) for job in await verbs.job_list(limit=1000)]
    tenants = [tenant.to_json() for tenant in await verbs.tenant_list()]
    return entries, jobs, tenants, town.roles(), town.schemas()


async def same(verbs: Verbs, town: Town, verb: Callable[[Verbs], Any], *others: Town) -> list[str]:
    """Rehearses, and then does it: all that was shown was told the servers, in that order, and nothing was
    changed before.  What is told of it with a password or a number of its own is left out by the caller.
    """
    before = await state(town, verbs)
    async with verbs.context.rehearsing() as rehearsal:
        await verb(Verbs(rehearsal))
    wanted = shown(rehearsal)
    assert await state(town, verbs) == before
    with logged(town, *others) as said:
        async with await Context.open(verbs.context.config, "anna") as context:
            await verb(Verbs(context))
        return _missing(wanted, said())


def _missing(wanted: list[str], told: list[str]) -> list[str]:
    left = list(told)
    missing = []
    for one in wanted:
        if one in left:
            del left[: left.index(one) + 1]
        else:
            missing.append(one)
    # and what was told beyond it changes nothing
    changes = re.compile(
        r"(?:CREATE|ALTER|DROP|GRANT|REVOKE|COMMENT|INSERT|UPDATE|DELETE|REASSIGN|LOCK)\b"
        # of large objects a rehearsed copy tells how many there are; what tables are read by is taken back
        r"(?!.* IN ACCESS SHARE MODE| LARGE OBJECT|.*\.tp_read_)"
    )
    return missing + [f"unsaid: {one}" for one in told if changes.match(one) and one not in wanted]


FILL = """
SET ROLE acme_owner; SET search_path = acme;
CREATE TABLE orders (id serial PRIMARY KEY, item text, twice int GENERATED ALWAYS AS (2) STORED);
INSERT INTO orders (item) VALUES ('anvil'), ('rocket');
CREATE VIEW items AS SELECT item FROM orders;
CREATE INDEX orders_item ON orders (item);
SELECT lo_create(0);
"""


@pytest.fixture
async def acme(verbs: Verbs, town: Town) -> Verbs:
    await verbs.tenant_onboard(NewTenant(name="acme"), NewAccess(login="alice"))
    with town.connect() as conn:
        conn.execute(FILL)
    return verbs


async def test_what_is_not_to_be_run_by_hand_says_so(acme, town):
    """A login, and a tenant, that is new has another number when it is made; else all is as shown."""
    async with acme.context.rehearsing() as rehearsal:
        await Verbs(rehearsal).access_grant("acme", NewAccess(login="bob"))
    assert rehearsal.rehearsal is not None
    assert "not to be run: the login" in rehearsal.rehearsal.shown()[0]
    await acme.tenant_create(NewTenant(name="beta"))
    async with acme.context.rehearsing() as rehearsal:
        await Verbs(rehearsal).tenant_provision("beta")
    assert rehearsal.rehearsal is not None
    with town.connect() as conn:
        conn.execute(f"SET SESSION AUTHORIZATION {ADMIN}")
        for one in rehearsal.rehearsal.shown():
            assert "not to be run" not in one
            conn.execute(one)
    assert (await acme.tenant_provision("beta")).state.value == "ready"


async def test_an_erasure(acme, town):
    await acme.tenant_delete("acme")
    assert await same(acme, town, lambda verbs: verbs.tenant_erase("acme", at_once=True)) == []


async def test_a_provisioning_and_a_revocation(verbs, town):
    await verbs.tenant_create(NewTenant(name="acme"))
    assert await same(verbs, town, lambda verbs: verbs.tenant_provision("acme")) == []
    await verbs.access_grant("acme", NewAccess(login="alice"))
    assert await same(verbs, town, lambda verbs: verbs.access_revoke("acme", "alice")) == []


async def test_a_clone(acme, town):
    assert await same(acme, town, lambda verbs: verbs.tenant_clone("acme", "beta")) == []


async def test_an_adoption(verbs, town):
    with town.connect() as conn:
        conn.execute(f"CREATE SCHEMA old AUTHORIZATION {ADMIN}; CREATE TABLE old.t (id int)")
        conn.execute(f"ALTER TABLE old.t OWNER TO {ADMIN}; GRANT SELECT ON old.t TO PUBLIC")
    await verbs.tenant_create(NewTenant.model_validate({"name": "acme", "schema": "old"}))
    assert await same(verbs, town, lambda verbs: verbs.tenant_adopt("acme")) == []


async def test_migrations(acme, town, tmp_path):
    (tmp_path / "V1__more.up.sql").write_text("CREATE TABLE more (id int);\n")
    (tmp_path / "V1__more.down.sql").write_text("DROP TABLE more;\n")
    given: dict[str, Any] = {"directory": str(tmp_path)}
    assert await same(acme, town, lambda verbs: verbs.migrate("up", **given)) == []
    assert await same(acme, town, lambda verbs: verbs.migrate("down", to=0, **given)) == []
    async with acme.context.rehearsing() as rehearsal:
        await Verbs(rehearsal).migrate("exec", command=["touch", str(tmp_path / "done")])
    (told,) = rehearsal.rehearsal.shown()
    assert told.endswith(f"TENANT=acme TENANT_SCHEMA=acme TENANT_OWNER=acme_owner touch {tmp_path}/done")
    assert "town-secret" not in told
    assert not (tmp_path / "done").exists()


async def test_an_import(acme, town, tmp_path):
    path = str(tmp_path / "acme.tar")
    await acme.tenant_export("acme", path)
    missing = await same(acme, town, lambda verbs: verbs.tenant_import(path, "gamma"))
    assert missing == []


async def test_what_only_the_catalog_is_told(acme, town):
    async with acme.context.rehearsing() as rehearsal:
        await Verbs(rehearsal).tenant_suspend("acme", "unpaid")
    title, told = rehearsal.rehearsal.shown()
    assert title == "-- the catalog"
    assert "UPDATE tenant SET" in told
    assert "'suspended'" in told
    assert "'unpaid'" in told
    number = (await acme.tenant_get("acme")).id
    assert f"WHERE id = {number}" in told
    for verb in (
        lambda verbs: verbs.tenant_rename("acme", "anvil"),
        lambda verbs: verbs.tenant_delete("acme"),
        lambda verbs: verbs.tenant_set("acme", labels={"a": "b"}),
        lambda verbs: verbs.tenant_create(NewTenant(name="beta")),
    ):
        before = await state(town, acme)
        async with acme.context.rehearsing() as rehearsal:
            await verb(Verbs(rehearsal))
        assert len(rehearsal.rehearsal.shown()) > 1
        assert await state(town, acme) == before
    async with acme.context.rehearsing() as rehearsal:
        await Verbs(rehearsal).tenant_activate("acme")  # it is
    assert rehearsal.rehearsal.shown() == []


async def test_a_move(acme, town, pg_servers, catalog_dsn):
    majors_ = [major for major in majors() if major != town.pg.major]
    if not majors_:
        pytest.skip("one server: nowhere to move to")
    other = make_town(pg_servers.get(majors_[0]), catalog_dsn)
    try:
        clusters = [
            {**one.config()["clusters"][0], "name": name} for name, one in (("main", town), ("second", other))
        ]
        config = Config.model_validate({**town.config(), "clusters": clusters})
        async with await Context.open(config, "anna") as context:
            verbs = Verbs(context)
            assert await same(verbs, town, lambda verbs: verbs.tenant_move("acme", "second"), other) == []
            assert await same(verbs, town, lambda verbs: verbs.tenant_move_confirm("acme"), other) == []
    finally:
        other.clear()
