"""Verbs about whole tenants, on a real cluster whose admin is no superuser: to archives, to other names and
places, adopted, erased, and all of them migrated."""

from __future__ import annotations

import json

import psycopg
import pytest
from psycopg import errors

from tenant_proxy.catalog.failures import Failure
from tenant_proxy.catalog.records import JobState, Level, Plan, Spec
from tenant_proxy.catalog.states import State
from tenant_proxy.config.schema import Config
from tenant_proxy.lifecycle import adopting, certificate, erase, erasing
from tenant_proxy.lifecycle.context import Context
from tenant_proxy.lifecycle.records import NewAccess, NewTenant
from tenant_proxy.lifecycle.upkeep import upkeep
from tenant_proxy.lifecycle.verbs import Verbs
from tests.fix_lifecycle import ADMIN, each_major, make_town
from tests.lifecycle.test_hostile_reads import FOLD, FOLDED, HASHED
from tests.lifecycle.test_hostile_tenants import HOSTILE, TAKEN

TABLES = """
CREATE TYPE mood AS ENUM ('good', 'bad');
CREATE TABLE orders (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, item text NOT NULL, how mood);
CREATE INDEX ON orders (item);
CREATE VIEW many AS SELECT * FROM orders WHERE id > 1;
CREATE FUNCTION double(n int) RETURNS int LANGUAGE sql RETURN n * 2;
INSERT INTO orders (item, how) VALUES ('anvil', 'good'), ('rocket', 'bad');
"""


async def onboarded(verbs: Verbs, town, name: str = "acme", login: str = "alice", **new) -> str:
    """A tenant with some tables; the login's password."""
    done = await verbs.tenant_onboard(NewTenant(name=name, **new), NewAccess(login=login))
    password = done.granted.password
    assert password is not None
    with town.connect(login, password, database=new.get("database")) as conn:
        conn.execute(TABLES)
    return password


def contents(town, schema: str, table: str = "orders") -> list:
    with town.connect() as conn:
        return conn.execute(f'SELECT * FROM "{schema}"."{table}" ORDER BY 1').fetchall()


def owners(town, schema: str) -> set[str]:
    query = (
        "SELECT DISTINCT pg_get_userbyid(relowner) FROM pg_class"
        f" WHERE relnamespace = '\"{schema}\"'::regnamespace"
    )
    with town.connect() as conn:
        return {name for (name,) in conn.execute(query)}


async def test_export_erase_import(verbs, town, tmp_path):
    await onboarded(verbs, town)
    await verbs.role_put("acme", "clerk", {"orders": ["SELECT"]})
    job = await verbs.tenant_export("acme", str(tmp_path / "acme.tar"), pass_phrase="secret words")
    assert (job.result["tables"], job.result["rows"]) == (1, 2)
    assert job.progress["done"] == job.progress["total"] > 0  # to whoever looks at it later
    assert "secret words" not in json.dumps(job.to_json())
    manifest = await verbs.archive_show(str(tmp_path / "acme.tar"), pass_phrase="secret words")
    assert [one["login"] for one in manifest.access] == ["alice"]
    assert "SCRAM" not in manifest.to_bytes().decode()
    with pytest.raises(Failure, match="pass phrase"):
        await verbs.archive_show(str(tmp_path / "acme.tar"))
    with pytest.raises(Failure, match="is active"):
        await verbs.tenant_erase("acme", at_once=True)
    await verbs.tenant_delete("acme", grace_s=3600)
    with pytest.raises(Failure, match="may be restored until"):
        await verbs.tenant_erase("acme")
    job = await verbs.tenant_erase("acme", at_once=True)
    assert job.result["record"]["rows"] == {"orders": 2}
    assert (await verbs.tenant_erase("acme", at_once=True)).id == job.id
    assert town.roles() == set()
    assert town.schemas() == {"tp_lifecycle"} & town.schemas()
    with pytest.raises(Failure, match="no tenant"):
        await verbs.tenant_get("acme")
    job = await verbs.tenant_import(str(tmp_path / "acme.tar"), pass_phrase="secret words")
    assert (await verbs.tenant_import(str(tmp_path / "acme.tar"), pass_phrase="secret words")).id == job.id
    tenant = await verbs.tenant_activate("acme")
    assert tenant.state is State.ACTIVE
    assert [row[1:] for row in contents(town, "acme")] == [("anvil", "good"), ("rocket", "bad")]
    assert owners(town, "acme") == {"acme_owner"}
    assert [role.grants for role in await verbs.role_list("acme")] == [{"orders": ["SELECT"]}]
    assert town.roles() == {"acme_owner", "acme_readwrite", "acme_readonly", "acme_clerk"}
    # and its logins work on it
    password = (await verbs.access_grant("acme", NewAccess(login="bob"))).password
    with town.connect("bob", password) as conn:
        conn.execute("INSERT INTO orders (item) VALUES ('new')")
        assert conn.execute("SELECT max(id) FROM many").fetchone() == (3,)


async def test_import_under_another_name_beside_the_first(verbs, town, tmp_path):
    await onboarded(verbs, town, plan=None, labels={"team": "a"})
    path = str(tmp_path / "acme.tar")
    await verbs.tenant_export("acme", path)
    with pytest.raises(Failure, match="is active"):
        await verbs.tenant_import(path)
    await verbs.tenant_import(path, "other-one", labels={"team": None})
    tenant = await verbs.tenant_get("other-one")
    assert (tenant.state, tenant.labels, tenant.schema_) == (State.READY, {}, "other-one")
    assert contents(town, "other-one") == contents(town, "acme")
    assert owners(town, "other-one") == {"other-one_owner"}
    with pytest.raises(Failure, match="no archive"):
        (tmp_path / "junk").write_bytes(b"x" * 2000)
        await verbs.tenant_import(str(tmp_path / "junk"), "third")


async def test_an_import_that_fails_leaves_nothing(verbs, town, tmp_path):
    password = await onboarded(verbs, town)
    with town.connect("alice", password) as conn:
        conn.execute(
            "CREATE FUNCTION f() RETURNS void LANGUAGE plpgsql"
            " AS $$ BEGIN EXECUTE 'SELECT * FROM acme.orders'; END $$"
        )
    path = str(tmp_path / "acme.tar")
    await verbs.tenant_export("acme", path)
    with pytest.raises(Failure, match="can't be renamed for certain"):
        await verbs.tenant_import(path, "beta-two")
    assert (await verbs.tenant_get("beta-two")).state is State.FAILED
    assert "beta-two" not in town.schemas()
    assert not {role for role in town.roles() if role.startswith("beta-two")}
    job = await verbs.tenant_import(path, "beta-two", accept=True)
    assert [one["kind"] for one in job.result["findings"]] == ["unsure"]
    assert contents(town, "beta-two") == contents(town, "acme")


async def test_a_clone_is_the_same_and_apart(verbs, town):
    password = await onboarded(verbs, town)
    job = await verbs.tenant_clone("acme", "acme-test")
    assert job.result["rows"] == 2
    assert (await verbs.tenant_clone("acme", "acme-test")).id == job.id
    with town.connect("alice", password) as conn:
        conn.execute("INSERT INTO orders (item) VALUES ('mine alone')")
        with pytest.raises(errors.InsufficientPrivilege):
            conn.execute('SELECT * FROM "acme-test".orders')
    assert len(contents(town, "acme-test")) == 2


@pytest.mark.slow
async def test_a_tenant_with_a_database_of_its_own(verbs, town, tmp_path):
    password = await onboarded(verbs, town, database="town_acme")
    path = str(tmp_path / "acme.tar")
    await verbs.tenant_export("acme", path)
    await verbs.tenant_clone("acme", "copy", database="town_copy")
    await verbs.tenant_delete("acme", grace_s=0)
    job = await verbs.tenant_erase("acme")
    assert job.result["record"]["rows"] == {"orders": 2}
    with pytest.raises(psycopg.OperationalError):
        town.connect("alice", password, database="town_acme")
    assert town.roles() == {"copy_owner", "copy_readwrite", "copy_readonly"}
    await verbs.tenant_import(path, database="town_acme")
    with town.connect(database="town_acme") as conn, town.connect(database="town_copy") as other:
        rows = conn.execute("SELECT * FROM acme.orders ORDER BY id").fetchall()
        assert rows == other.execute("SELECT * FROM copy.orders ORDER BY id").fetchall()
        assert len(rows) == 2


async def test_a_template_is_what_tenants_begin_with(verbs, town):
    with town.connect() as conn:
        conn.execute("CREATE SCHEMA pattern; SET search_path = pattern;" + TABLES)
        conn.execute("GRANT USAGE ON SCHEMA pattern TO town_admin")
        conn.execute("GRANT SELECT ON ALL TABLES IN SCHEMA pattern TO town_admin")
        conn.execute("GRANT SELECT ON ALL SEQUENCES IN SCHEMA pattern TO town_admin")
    await verbs.plan_put(Plan(name="standard", spec=Spec(template="pattern")))
    for name in ("acme", "other"):
        done = await verbs.tenant_onboard(
            NewTenant(name=name, plan="standard"), NewAccess(login=f"{name}_login")
        )
        with town.connect(f"{name}_login", done.granted.password) as conn:
            assert conn.execute("SELECT item FROM many").fetchall() == [("rocket",)]
            conn.execute("INSERT INTO orders (item) VALUES ('mine')")
            conn.execute("ALTER TABLE orders ADD more int")
    assert owners(town, "acme") == {"acme_owner"}


async def test_erased_for_good_with_a_record(new_context, town, tmp_path):
    private, public = certificate.new_key()
    verbs = Verbs(await new_context(lifecycle={"signing_key": {"value": private}}))
    await onboarded(verbs, town)
    await onboarded(verbs, town, "beta", "bob")
    await verbs.access_grant("acme", NewAccess(login="bob"))
    await verbs.tenant_delete("acme", grace_s=0)
    done = await upkeep(verbs.context)
    assert "tenant acme was erased" in done
    record = await verbs.erasure_record("acme")
    checked = certificate.verify(json.dumps(record), certificate.read_public_key(public))
    assert checked["removed"]["table"] == 1
    assert checked["logins"] == ["alice", "bob"]
    # bob is another tenant's too, and has that still
    assert {"bob", "beta_owner", "beta_readwrite", "beta_readonly"} == town.roles()
    assert [access.tenant for access in await verbs.access_list(login="bob")] == ["beta"]
    assert (await verbs.audit_verify()).ok


async def test_an_erasure_takes_from_the_log_what_was_changed(verbs, town):
    """Under all its names, and of others of these names nothing; the log is whole, and tells of it."""
    await verbs.tenant_create(NewTenant(name="old", labels={"born": "1970-01-01"}))
    await verbs.tenant_rename("old", "acme")
    await verbs.tenant_create(
        NewTenant.model_validate({"name": "old", "schema": "old_2", "labels": {"of": "another"}})
    )
    await verbs.tenant_provision("acme")
    await verbs.access_grant("acme", NewAccess(login="alice", addresses=["10.1.2.3"]))
    await verbs.tenant_onboard(NewTenant(name="beta"), NewAccess(login="bob", addresses=["10.9.9.9"]))
    await verbs.access_grant("acme", NewAccess(login="bob", level=Level.READONLY))
    await verbs.tenant_set("acme", labels={"boss": "Anna"})
    await verbs.role_put("acme", "clerk", {})
    await verbs.tenant_delete("acme", grace_s=0)
    record = (await verbs.tenant_erase("acme")).result["record"]
    assert (await verbs.audit_verify()).ok
    entries = {one.id: one for one in await verbs.audit_log(limit=1000)}
    for number in record["log_blanked"]:
        assert (entries[number].before, entries[number].after) == (None, None)
    left = json.dumps([[one.before, one.after] for one in entries.values()])
    for text in ("1970-01-01", "Anna", "10.1.2.3", "clerk"):
        assert text not in left.replace("acme_clerk", ""), text  # which the record names
    assert "another" in left
    assert "10.9.9.9" in left
    said = [(one.action, one.name) for one in entries.values() if one.id in record["log_blanked"]]
    assert {("tenant.create", "old"), ("tenant.rename", "old"), ("login.create", "alice")} <= set(said)
    assert ("login.create", "bob") not in said
    # and once more, by the same name
    await verbs.tenant_create(NewTenant(name="acme", labels={"second": "x"}))
    await verbs.tenant_delete("acme", grace_s=0)
    assert (await verbs.audit_verify()).ok


async def test_texts_of_others_that_name_it_are_in_the_record(verbs, town):
    """By its name as a word, in this database, and by its roles' in all; they stop nothing."""
    await onboarded(verbs, town)
    with town.connect() as conn:
        conn.execute(
            "CREATE SCHEMA reports; CREATE TABLE reports.t (id int);"
            "COMMENT ON TABLE reports.t IS 'all but acme';"
            "COMMENT ON COLUMN reports.t.id IS 'of acmeish and acme_x';"
            "CREATE FUNCTION reports.f(a int) RETURNS bigint LANGUAGE plpgsql AS"
            " $$DECLARE n bigint; BEGIN EXECUTE 'SELECT count(*) FROM acme.orders' INTO n; RETURN n; END$$;"
            "CREATE FUNCTION reports.g() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';"
            "CREATE TRIGGER w BEFORE INSERT ON reports.t FOR EACH ROW"
            " EXECUTE FUNCTION reports.g('acme_owner')"
        )
    with town.connect(database="postgres") as conn:
        conn.execute(
            "CREATE FUNCTION who() RETURNS text LANGUAGE sql AS $$SELECT 'acme_readonly' || 'acme'$$;"
            "CREATE FUNCTION not_it() RETURNS text LANGUAGE sql AS $$SELECT 'acme'$$"
        )
    try:
        await verbs.tenant_delete("acme", grace_s=0)
        record = (await verbs.tenant_erase("acme")).result["record"]
    finally:
        with town.connect(database="postgres") as conn:
            conn.execute("DROP FUNCTION who, not_it")
    assert record["mentions"] == [
        "comment table reports.t",
        "function postgres: public.who()",
        "function reports.f(a integer)",
        "trigger w on reports.t",
    ]
    assert record["mentioned"] == 4


async def test_words_of_the_servers_own_texts_are_no_mentions(verbs, town):
    """There are comments on its functions with copy in them, and in what plpgsql has made with PL."""
    await verbs.tenant_onboard(NewTenant(name="copy"), NewAccess(login="carol"))
    await verbs.tenant_delete("copy", grace_s=0)
    assert (await verbs.tenant_erase("copy")).result["record"]["mentions"] == []


async def test_an_erasure_that_fails_is_not_begun_again_at_every_upkeep(verbs, town):
    await onboarded(verbs, town)
    with town.connect() as conn:
        conn.execute("CREATE SCHEMA reports; CREATE VIEW reports.v AS SELECT * FROM acme.orders")
    await verbs.tenant_delete("acme", grace_s=0)
    for _ in range(3):
        await upkeep(verbs.context)
    assert len([job for job in await verbs.job_list() if job.kind == "erase"]) == 1


async def test_what_others_made_of_it_stops_an_erasure(verbs, town):
    await onboarded(verbs, town)
    with town.connect() as conn:
        conn.execute("CREATE SCHEMA reports; CREATE VIEW reports.v AS SELECT * FROM acme.orders")
    await verbs.tenant_delete("acme", grace_s=0)
    with pytest.raises(Failure, match="objects of others"):
        await verbs.tenant_erase("acme")
    # nothing is gone yet
    assert (await verbs.tenant_restore("acme")).state is State.SUSPENDED
    await verbs.tenant_delete("acme", grace_s=0)
    with town.connect() as conn:
        conn.execute("DROP SCHEMA reports CASCADE")
    job = await verbs.tenant_erase("acme")
    assert job.state is JobState.DONE


async def test_a_second_try_to_erase_still_knows_what_there_was(verbs, town, monkeypatch):
    await onboarded(verbs, town)
    await verbs.tenant_delete("acme", grace_s=0)

    async def refuse(*_: object, **__: object) -> None:
        raise Failure("refused", "not now")

    with monkeypatch.context() as patched:
        patched.setattr(erasing, "drop_roles", refuse)
        with pytest.raises(Failure, match="not now"):
            await verbs.tenant_erase("acme")
    assert "acme" not in town.schemas()
    with pytest.raises(Failure, match="it is too late"):
        await verbs.tenant_restore("acme")
    job = await verbs.tenant_erase("acme")
    assert job.result["record"]["rows"] == {"orders": 2}
    assert job.result["record"]["logins"] == ["alice"]
    assert town.roles() == set()


async def test_a_look_that_failed_is_taken_anew(verbs, town, monkeypatch):
    await onboarded(verbs, town)
    await verbs.tenant_delete("acme", grace_s=0)

    async def refuse(*_: object, **__: object) -> None:
        raise Failure("refused", "not now")

    with monkeypatch.context() as patched:
        patched.setattr(erase, "read_tables", refuse)
        with pytest.raises(Failure, match="not now"):
            await verbs.tenant_erase("acme")
    await verbs.tenant_restore("acme")
    with town.connect() as conn:
        conn.execute("INSERT INTO acme.orders (item) VALUES ('third')")
    await verbs.tenant_delete("acme", grace_s=0)
    job = await verbs.tenant_erase("acme")
    assert job.result["record"]["rows"] == {"orders": 3}


class Killed(BaseException):
    """Stands for the end of the process: nothing runs after it."""


def kill_at(verbs: Verbs, number: int) -> None:
    """At the `number`-th of the points between steps."""
    points: list[str] = []

    def at_point(point: str) -> None:
        points.append(point)
        if len(points) == number:
            raise Killed

    verbs.context.at_point = at_point


async def gone_on_with(context: Context) -> Verbs:
    """Somebody else finds what was left behind."""
    other = Verbs(context)
    async with other.context.store.read() as connection:
        await connection.execute(
            "UPDATE job SET lease_until = now() - interval '1 second', lease_owner = 'gone'"
            " WHERE lease_until IS NOT NULL"
        )
    await upkeep(other.context)
    return other


@pytest.mark.slow
@pytest.mark.parametrize("point", [3, 10, 14, 20, 21])
async def test_an_erasure_goes_on_where_it_was_killed(new_context, town, point):
    verbs = Verbs(await new_context())
    await onboarded(verbs, town)
    await verbs.tenant_delete("acme", grace_s=0)
    kill_at(verbs, point)
    with pytest.raises(Killed):
        await verbs.tenant_erase("acme")
    other = await gone_on_with(await new_context())
    assert town.roles() == set()
    record = await other.erasure_record("acme")
    assert record["record"]["rows"] == {"orders": 2}


@pytest.mark.slow
@pytest.mark.parametrize("point", [3, 7, 10, 12])
async def test_a_clone_goes_on_where_it_was_killed(new_context, town, point):
    verbs = Verbs(await new_context())
    await onboarded(verbs, town)
    kill_at(verbs, point)
    with pytest.raises(Killed):
        await verbs.tenant_clone("acme", "copy")
    other = await gone_on_with(await new_context())
    assert (await other.tenant_get("copy")).state is State.READY
    assert contents(town, "copy") == contents(town, "acme")


async def test_an_existing_schema_is_adopted(verbs, town):
    with town.connect() as conn:
        conn.execute("CREATE SCHEMA legacy; SET search_path = legacy;" + TABLES)
        conn.execute("GRANT USAGE ON SCHEMA legacy TO PUBLIC; GRANT SELECT ON legacy.orders TO PUBLIC")
        conn.execute("ALTER ROLE town_admin SUPERUSER")
    try:
        await verbs.tenant_create(NewTenant(name="legacy"))
        with pytest.raises(Failure, match="there is a schema"):
            await verbs.tenant_provision("legacy")
        found = await verbs.tenant_scan("legacy")
        assert {"grant_to_public", "owned_by_others"} <= {one.kind for one in found}
        job = await verbs.tenant_adopt("legacy")
        await verbs.tenant_activate("legacy")
        assert (await verbs.tenant_adopt("legacy")).id == job.id
        assert owners(town, "legacy") == {"legacy_owner"}
        assert not [one for one in await verbs.tenant_scan("legacy") if one.weight == "breaks"]
        password = (await verbs.access_grant("legacy", NewAccess(login="lee"))).password
        with town.connect("lee", password) as conn:
            conn.execute("ALTER TABLE orders ADD more int")
    finally:
        with town.connect() as conn:
            conn.execute("ALTER ROLE town_admin NOSUPERUSER")


@each_major
async def test_what_belongs_to_somebody_else_is_not_adopted_but_told(verbs, town):
    """It was a refusal of the server, 502 in the API."""
    with town.connect() as conn:
        conn.execute("CREATE ROLE legacy_app NOLOGIN; CREATE SCHEMA legacy")
        conn.execute("SET search_path = legacy;" + TABLES)
        conn.execute("GRANT USAGE, CREATE ON SCHEMA legacy TO legacy_app")
        conn.execute("ALTER TABLE orders OWNER TO legacy_app")
    try:
        await verbs.tenant_create(NewTenant(name="legacy"))
        with pytest.raises(Failure, match=f'belongs to "legacy_app", "{town.pg.superuser}"') as failed:
            await verbs.tenant_adopt("legacy")
        assert failed.value.code == "conflict"
        assert "tenant scan legacy --sql" in failed.value.hint
        assert "GRANT" not in failed.value.hint  # postgres to the admin
        # what the scan prints runs as it is, and leaves the adoption nothing that it may not do
        printed = adopting.script(await verbs.tenant_scan("legacy"))
        with town.connect() as conn:
            conn.execute(printed)
        await verbs.tenant_adopt("legacy")
        assert owners(town, "legacy") == {"legacy_owner"}
    finally:
        with town.connect() as conn:
            conn.execute("DROP SCHEMA legacy CASCADE; DROP OWNED BY legacy_app; DROP ROLE legacy_app")


@each_major
async def test_an_owner_whose_rights_the_admin_gets_is_no_stranger(verbs, town):
    with town.connect() as conn:
        conn.execute(
            f"CREATE ROLE legacy_app NOLOGIN; GRANT CREATE ON DATABASE {town.database} TO legacy_app;"
            "SET ROLE legacy_app; CREATE SCHEMA legacy; SET search_path = legacy;" + TABLES
        )
    try:
        await verbs.tenant_create(NewTenant(name="legacy"))
        with pytest.raises(Failure) as failed:
            await verbs.tenant_adopt("legacy")
        assert f'GRANT "legacy_app" TO "{ADMIN}"' in failed.value.hint
        with town.connect() as conn:
            conn.execute(f"GRANT legacy_app TO {ADMIN}")
        await verbs.tenant_adopt("legacy")
        assert owners(town, "legacy") == {"legacy_owner"}
    finally:
        with town.connect() as conn:
            conn.execute("DROP SCHEMA legacy CASCADE; DROP OWNED BY legacy_app; DROP ROLE legacy_app")


# --- a second cluster ---------------------------------------------------------------------------------


@pytest.fixture
async def two(pg_servers, pg, town, catalog_dsn):
    """The verbs with a second cluster, of another major where there is one."""
    from tests.pg_server import majors

    other_major = next((major for major in majors() if major != pg.major), None)
    server = pg_servers.get(other_major) if other_major else pg
    second = make_town(server, catalog_dsn)
    config = town.config()
    config["clusters"][0]["labels"] = {"region": "eu"}
    config["clusters"].append(second.config()["clusters"][0] | {"name": "second", "labels": {"region": "us"}})
    context = await Context.open(Config.model_validate(config), "anna")
    yield Verbs(context), second
    await context.close()
    second.clear()


async def test_a_tenant_moves_to_another_cluster(two, town):
    verbs, second = two
    if second.pg.major < town.pg.major:
        town, second = second, town
        here, there = "second", "main"
    else:
        here, there = "main", "second"
    done = await verbs.tenant_onboard(NewTenant(name="acme", cluster=here), NewAccess(login="alice"))
    password = done.granted.password
    with town.connect("alice", password) as conn:
        conn.execute(TABLES)
    await verbs.role_put("acme", "clerk", {"orders": ["SELECT"]})
    job = await verbs.tenant_move("acme", there)
    assert (job.state, job.result["rows"]) == (JobState.DONE, 2)
    tenant = await verbs.tenant_get("acme")
    assert (tenant.cluster, tenant.state) == (there, State.ACTIVE)
    with second.connect("alice", password) as conn:
        conn.execute("INSERT INTO orders (item) VALUES ('there')")
    with pytest.raises(psycopg.OperationalError):
        town.connect("alice", password)
    assert any(name.startswith("acme__moved") for name in town.schemas())
    # asked again, it is there
    assert (await verbs.tenant_move("acme", there)).id == job.id
    assert (await verbs.tenant_move_confirm("acme")).state is JobState.DONE
    assert not {name for name in town.schemas() if name.startswith("acme")}
    assert not {role for role in town.roles() if role.startswith("acme")}
    assert {"acme_owner", "acme_clerk"} <= second.roles()


@pytest.mark.slow
@pytest.mark.parametrize("point", [3, 9, 11, 12, 15])
async def test_a_move_goes_on_where_it_was_killed(two, town, point):
    verbs, second = two
    here, there, source, target = "main", "second", town, second
    if second.pg.major < town.pg.major:
        here, there, source, target = "second", "main", second, town
    done = await verbs.tenant_onboard(NewTenant(name="acme", cluster=here), NewAccess(login="alice"))
    password = done.granted.password
    with source.connect("alice", password) as conn:
        conn.execute(TABLES)
    kill_at(verbs, point)
    with pytest.raises(Killed):
        await verbs.tenant_move("acme", there)
    verbs.context.at_point = lambda point: None
    await gone_on_with(verbs.context)
    tenant = await verbs.tenant_get("acme")
    assert (tenant.cluster, tenant.state) == (there, State.ACTIVE)
    with target.connect("alice", password) as conn:
        conn.execute("INSERT INTO orders (item) VALUES ('there')")
        assert conn.execute("SELECT count(*) FROM orders").fetchone() == (3,)


async def test_a_tenant_stays_in_its_region(two, town, tmp_path):
    verbs, _ = two
    await onboarded(verbs, town, labels={"region": "eu"})
    with pytest.raises(Failure, match="must stay in region eu"):
        await verbs.tenant_move("acme", "second")
    assert (await verbs.tenant_get("acme")).state is State.ACTIVE
    with pytest.raises(Failure, match="must stay in region eu"):
        await verbs.tenant_clone("acme", "copy", cluster="second")
    await verbs.tenant_export("acme", str(tmp_path / "a.tar"))
    with pytest.raises(Failure, match="must stay in region eu"):
        await verbs.tenant_import(str(tmp_path / "a.tar"), "copy", cluster="second")
    # nor does another label make it another region's
    for labels in ({"region": "us"}, {"region": None}):
        with pytest.raises(Failure, match="copy of what must stay in region eu"):
            await verbs.tenant_clone("acme", "copy", cluster="second", labels=labels)
        with pytest.raises(Failure, match="copy of what must stay in region eu"):
            await verbs.tenant_import(str(tmp_path / "a.tar"), "copy", cluster="second", labels=labels)


async def test_a_move_that_fails_leaves_all_as_it_was(two, town):
    verbs, second = two
    password = await onboarded(verbs, town, cluster="main")
    with second.connect() as conn:
        conn.execute("CREATE ROLE acme_readonly NOLOGIN")
    try:
        with pytest.raises(Failure, match="there is a role"):
            await verbs.tenant_move("acme", "second")
    finally:
        with second.connect() as conn:
            conn.execute("DROP ROLE acme_readonly")
    tenant = await verbs.tenant_get("acme")
    assert (tenant.cluster, tenant.state) == ("main", State.ACTIVE)
    assert "acme" not in second.schemas()
    with town.connect("alice", password) as conn:
        conn.execute("INSERT INTO orders (item) VALUES ('here')")


async def test_a_move_within_one_server_is_refused(new_context, town):
    cluster = town.config()["clusters"][0]
    verbs = Verbs(await new_context(clusters=[cluster, cluster | {"name": "twin", "database": "postgres"}]))
    await verbs.tenant_onboard(NewTenant(name="acme", cluster="main"), NewAccess(login="alice"))
    with pytest.raises(Failure, match="are the same server"):
        await verbs.tenant_move("acme", "twin")
    assert (await verbs.tenant_get("acme")).state is State.ACTIVE


async def test_migrations_of_all_tenants(verbs, town, tmp_path):
    (tmp_path / "1_notes.sql").write_text("CREATE TABLE notes (id int PRIMARY KEY)")
    for name in ("acme", "beta", "gamma"):
        await verbs.tenant_onboard(NewTenant(name=name), NewAccess(login=f"{name}_login"))
    job = await verbs.migrate("up", directory=str(tmp_path))
    assert (job.result["done"], job.result["failed"]) == (3, [])
    standings, _ = await verbs.migrate_status(str(tmp_path))
    assert {(one.tenant, one.version) for one in standings} == {("acme", 1), ("beta", 1), ("gamma", 1)}
    async with verbs.context.store.read() as connection:
        assert await connection.fetchval("SELECT count(*) FROM tenant_migration WHERE version = '1'") == 3
    assert owners(town, "beta") == {"beta_owner"}
    # a clone is where its original is
    await verbs.tenant_clone("acme", "delta")
    standings, _ = await verbs.migrate_status(str(tmp_path), ["delta"])
    assert [one.version for one in standings] == [1]
    (tmp_path / "2_bad.sql").write_text("SELECT 1 / 0")
    with pytest.raises(Failure) as caught:
        await verbs.migrate("up", directory=str(tmp_path), canaries=["beta"])
    assert caught.value.message == "1 tenant failed and 3 tenants were not tried: a canary failed"
    with pytest.raises(Failure) as caught:
        await verbs.migrate("up", directory=str(tmp_path), stop_at=1.0)
    assert caught.value.message == "4 tenants failed"
    assert sorted(line.partition(":")[0] for line in caught.value.detail.splitlines()) == [
        "acme", "beta", "delta", "gamma",
    ]  # fmt: skip


async def test_a_move_runs_nothing_of_the_tenants_as_the_admin(two, town):
    """Superusers on both sides, who alone read tables that hide rows from their owner."""
    verbs, second = two
    is_newer = second.pg.major >= town.pg.major
    here, there = (town, second) if is_newer else (second, town)
    source, target = ("main", "second") if is_newer else ("second", "main")
    await verbs.tenant_onboard(NewTenant(name="acme", cluster=source), NewAccess(login="alice"))
    made = FOLD + "".join(FOLDED.values()).replace("INDEX folded", "INDEX") + HASHED.split("END $$;", 1)[1]
    made += (
        "CREATE TABLE hidden (id int); INSERT INTO hidden VALUES (1);"
        "ALTER TABLE hidden ENABLE ROW LEVEL SECURITY; ALTER TABLE hidden FORCE ROW LEVEL SECURITY;"
    )
    made = "CREATE TYPE mood AS ENUM ('good', 'bad');" + made
    with here.connect() as conn:
        conn.execute((HOSTILE + made + TAKEN).format(schema="acme"))
    for one in (here, there):
        one.pg.psql(f"ALTER ROLE {ADMIN} SUPERUSER", database="postgres")
    try:
        job = await verbs.tenant_move("acme", target)
    finally:
        for one in (here, there):
            one.pg.psql(f"ALTER ROLE {ADMIN} NOSUPERUSER", database="postgres")
    assert job.result["rows"] == 5
