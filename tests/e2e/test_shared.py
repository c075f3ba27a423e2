"""Backends that tenants share: each client finds its own session, and nothing of anybody else's."""

from __future__ import annotations

from contextlib import closing

import psycopg
import psycopg2
import pytest

from tests.fix_proxy import Proxy
from tests.fix_shared import backend_of, is_shared, provide, shared_config, shares_again
from tests.pg_server import Server
from tests.wire_client import (
    SYNC,
    bind,
    close_statement,
    describe_portal,
    execute,
    parse,
    query,
    rows,
    sqlstates,
    wait_until,
)


def test_two_tenants_on_one_backend(shared):
    proxy = shared()
    with proxy.wire("acme_app") as acme, proxy.wire("beta_app") as beta:
        for _ in range(3):
            assert acme.value("SELECT item FROM orders WHERE id = 1") == "anvil"
            assert beta.value("SELECT item FROM orders WHERE id = 1") == "bolt"
        assert acme.value("SELECT pg_backend_pid()") == beta.value("SELECT pg_backend_pid()")
        assert acme.value("SELECT current_user") == "acme_app"
        assert beta.value("SELECT current_user") == "beta_app"


def test_logins_with_a_role_for_the_tenant_share_from_their_first_statement_on(proxies, pg: Server):
    """As all logins of the catalog have one."""
    provide(pg)
    users = [
        {"name": f"{name}_app", "tenant": name, "roles": {name: f"{name}_app"}}
        | {"password": {"value": f"{name}-secret"}}
        for name in ("acme", "beta")
    ]
    proxy = proxies(**shared_config(pg, users=users))
    with proxy.wire("acme_app") as acme, proxy.wire("beta_app") as beta:
        assert [is_shared(pg, backend_of(client)) for client in (acme, beta)] == [True, True]
        assert acme.value("SELECT current_user") == "acme_app"


# --- a session is a session -------------------------------------------------------------


def test_large_objects_in_a_transaction_that_has_written(shared):
    """Drivers call their functions by number."""
    with closing(psycopg2.connect(shared().dsn())) as conn:
        with conn.cursor() as cursor:
            cursor.execute("INSERT INTO scratch VALUES (1, 'x')")
        made = conn.lobject(0, "wb")
        made.write(b"large")
        with conn.cursor() as cursor:
            cursor.execute("SELECT lo_get(%s)", [made.oid])
            found = cursor.fetchone()
        assert found is not None
        assert bytes(found[0]) == b"large"
        made.unlink()
        conn.rollback()


def test_settings_are_their_clients(shared):
    proxy = shared()
    with proxy.wire("acme_app") as acme, proxy.wire("acme_app") as other, proxy.wire("beta_app") as beta:
        acme.query("SET work_mem = '7MB'")
        acme.query("SET search_path = acme")
        acme.query("SELECT set_config('app.mark', 'acme', false)")
        for client in (beta, other):
            assert client.value("SHOW work_mem") != "7MB"
            assert client.value("SELECT current_setting('app.mark', true)") in (None, "")
            assert client.value("SHOW search_path") != "acme"
        assert acme.value("SHOW work_mem") == "7MB"
        assert acme.value("SHOW search_path") == "acme"
        assert acme.value("SELECT current_setting('app.mark')") == "acme"
        acme.query("BEGIN")
        acme.query("SET work_mem = '9MB'")
        acme.query("ROLLBACK")
        assert beta.value("SELECT 1") == "1"
        assert acme.value("SHOW work_mem") == "7MB"


def test_range_types_are_no_code(shared, pg):
    """The functions that make their values are in a language that the proxy can't read, and known."""
    with pg.connect() as conn:
        conn.execute("CREATE TYPE acme.spell AS RANGE (SUBTYPE = int)")
        try:
            proxy = shared(timeouts={"drain_s": 4})
            assert proxy.admin("SHOW LANES")[0]["code"] == "proven"
        finally:
            conn.execute("DROP TYPE acme.spell")


def test_a_message_that_names_no_statement_waits_for_the_switch(shared):
    """Execute and the like of a client whose settings are still on their way, on either kind of backend."""
    proxy = shared()
    with proxy.wire("acme_app") as acme, proxy.wire("acme_app") as other, proxy.wire("beta_app") as beta:
        for own in (False, True):
            acme.query("SET app.mark = 'acme'")
            if own:
                # on a backend of the tenant's own, so that this is there to be taken
                acme.query("BEGIN; CREATE TABLE passing (a int); ROLLBACK")
                other.query("BEGIN; CREATE TABLE passing (a int); ROLLBACK")
            for first in (execute("none"), describe_portal("none"), close_statement("none")):
                assert beta.value("SELECT current_user") == "beta_app"
                assert other.value("SELECT coalesce(current_setting('app.mark', true), '')") == ""
                replies = acme.ask(
                    first, parse("SELECT current_setting('app.mark')"), bind(), execute(), SYNC
                )
                assert sqlstates(replies) == ["34000"] or rows(replies) == [("acme",)]


@pytest.mark.parametrize(
    "seeding",
    [
        "SELECT setseed(0.5)",
        "SET seed = 0.5",
        "BEGIN; SET LOCAL seed = 0.5; COMMIT",
        "SELECT set_config('seed', '0.5', true)",
    ],
)
def test_nobody_decides_what_random_gives_to_others(shared, seeding: str):
    proxy = shared()
    with proxy.wire("acme_app") as acme, proxy.wire("beta_app") as beta:
        got = []
        for _ in range(2):
            assert not sqlstates(acme.query(seeding))
            got.append(beta.value("SELECT random()"))
        assert got[0] != got[1]
    with pytest.raises(psycopg.OperationalError, match="permission denied to set parameter"):
        proxy.connect("acme_app", options="-c seed=0.5")


def test_settings_of_the_startup_packet(shared):
    proxy = shared()
    options = "-c work_mem=5MB -c TimeZone=Asia/Tokyo"
    with proxy.wire("acme_app", options=options) as acme, proxy.wire("beta_app") as beta:
        assert acme.parameters["TimeZone"] == "Asia/Tokyo"
        assert acme.parameters["session_authorization"] == "acme_app"
        assert beta.parameters["TimeZone"] == "UTC"
        assert beta.parameters["session_authorization"] == "beta_app"
        assert beta.value("SHOW work_mem") != "5MB"
        assert acme.value("SHOW work_mem") == "5MB"
        acme.query("SET work_mem = '6MB'")
        assert beta.value("SHOW TimeZone") == "UTC"
        assert acme.value("SHOW work_mem") == "6MB"
        acme.query("RESET work_mem")
        assert beta.value("SELECT 1") == "1"
        assert acme.value("SHOW work_mem") == "5MB"
        acme.query("SET TimeZone = 'CET'")
        acme.query("RESET ALL")
        assert acme.value("SHOW TimeZone") == "Asia/Tokyo"


def test_a_setting_that_the_server_refuses_is_refused_as_by_a_login(shared, pg):
    proxy = shared()
    with proxy.wire("beta_app") as beta:
        before = backend_of(beta)
        with pytest.raises(psycopg.OperationalError, match="invalid value for parameter"):
            proxy.connect("acme_app", options="-c work_mem=much")
        assert backend_of(beta) == before  # nobody lost a backend by that


def test_defaults_of_the_role(shared, pg):
    proxy = shared()
    with pg.connect() as conn:
        conn.execute("ALTER ROLE beta_app SET statement_timeout = '61s'")
        try:
            proxy.admin("RELOAD")
            wait_until(lambda: shown(proxy, "beta_app") == "61s", "it is read")
            assert shown(proxy, "acme_app") == "0"
        finally:
            conn.execute("ALTER ROLE beta_app RESET statement_timeout")
            proxy.admin("RELOAD")


def shown(proxy: Proxy, user: str) -> str | None:
    """What a login finds."""
    with proxy.wire(user) as client:
        return client.value("SHOW statement_timeout")


def test_prepared_statements(shared):
    proxy = shared()
    with proxy.wire("acme_app") as acme, proxy.wire("beta_app") as beta:
        for client in (acme, beta):
            client.ask(parse("SELECT item FROM orders WHERE id = 1", "s"), SYNC)
        for _ in range(3):
            assert rows(acme.ask(bind(name="s"), execute(), SYNC)) == [("anvil",)]
            assert rows(beta.ask(bind(name="s"), execute(), SYNC)) == [("bolt",)]
        seen = beta.query("SELECT statement FROM pg_prepared_statements WHERE statement LIKE '%orders%'")
        assert len(rows(seen)) <= 1


def test_requests_sent_at_once_are_answered_in_order(shared):
    """Also where the backend becomes nobody's behind one of them, and another tenant's in between."""
    proxy = shared()
    with proxy.wire("acme_app") as acme, proxy.wire("beta_app") as beta:
        for _ in range(6):
            for client in (acme, beta):
                client.send(
                    *(query(f"SELECT current_user, {n}") for n in range(3)),
                    query("BEGIN"),
                    parse("SELECT current_user, $1", "s"),
                    *(part for n in ("3", "4") for part in (bind(n, name="s"), execute())),
                    SYNC,
                    query("COMMIT"),
                    close_statement("s"),
                    SYNC,
                )
            for client, name in ((acme, "acme"), (beta, "beta")):
                said = client.until_ready(7)
                assert sqlstates(said) == []
                assert rows(said) == [(f"{name}_app", str(n)) for n in range(5)]


def test_a_backend_that_tenants_take_in_turns_has_nothing_of_theirs_at_rest(shared, pg):
    proxy = shared()
    with proxy.wire("acme_app") as acme, proxy.wire("beta_app") as beta, pg.connect() as conn:
        pid = backend_of(acme)
        for _ in range(4):
            for client in (acme, beta):
                client.ask(parse("SELECT nextval('numbers')"), bind(), execute(), SYNC)
        wait_until(
            lambda: (
                "RESET ROLE; RESET ALL"
                in conn.execute("SELECT query FROM pg_stat_activity WHERE pid = %s", [pid]).fetchone()[0]
            ),
            "it has become nobody's",
            5,
        )
        assert sqlstates(beta.query("SELECT lastval()")) == ["55000"]


def test_sequences(shared):
    proxy = shared()
    with proxy.wire("acme_app") as acme, proxy.wire("beta_app") as beta:
        acme.query("SELECT nextval('numbers')")
        assert sqlstates(beta.query("SELECT lastval()")) == ["55000"]
        assert sqlstates(beta.query("SELECT currval('numbers')")) == ["55000"]
        beta.query("SELECT nextval('numbers')")
        assert sqlstates(acme.query("SELECT lastval()")) == ["55000"]


def test_session_state_lives_on_a_backend_of_the_tenants_own(shared, pg):
    proxy = shared()
    with proxy.wire("acme_app") as acme, proxy.wire("beta_app") as beta:
        assert is_shared(pg, backend_of(acme))
        acme.query("CREATE TEMP TABLE notes (t text)")
        acme.query("INSERT INTO notes VALUES ('acme')")
        acme.query("SELECT pg_advisory_lock(1)")
        acme.query("LISTEN news")
        own = backend_of(acme)
        assert not is_shared(pg, own)
        assert is_shared(pg, backend_of(beta))
        assert sqlstates(beta.query("SELECT * FROM notes")) == ["42P01"]
        assert acme.value("SELECT t FROM notes") == "acme"
        assert backend_of(acme) == own


def test_who_one_is(shared, pg):
    proxy = shared()
    with proxy.wire("acme_app") as acme:
        assert is_shared(pg, backend_of(acme))
        assert acme.value("SELECT session_user") == "acme_app"
        assert acme.value("SHOW session_authorization") == "acme_app"
        assert acme.value('SELECT pg_catalog."session_user"()') == "acme_app"
        if pg.major >= 16:
            assert str(acme.value("SELECT system_user")).endswith(":acme_app")
        acme.query("RESET ROLE")
        assert acme.value("SELECT current_user") == "acme_app"
        assert is_shared(pg, backend_of(acme))


def test_a_client_that_gives_no_name_has_none(shared, pg):
    proxy = shared()
    with proxy.wire("acme_app") as acme:
        assert is_shared(pg, backend_of(acme))
        assert acme.value("SHOW application_name") == ""


# --- prove or escalate ------------------------------------------------------------------


def test_in_the_middle_of_a_transaction(fresh, pg):
    with fresh.wire("acme_app") as acme:
        acme.query("BEGIN")
        assert is_shared(pg, backend_of(acme))
        assert sqlstates(acme.query("INSERT INTO scratch VALUES (77, 'written')")) == []
        assert sqlstates(acme.query("CREATE TABLE later (id int)")) == ["40001"]
        assert sqlstates(acme.query("SELECT 1")) == ["25P02"]
        acme.query("ROLLBACK")
        acme.query("BEGIN")
        assert not is_shared(pg, backend_of(acme))
        assert sqlstates(acme.query("CREATE TABLE later (id int)")) == []
        acme.query("ROLLBACK")
        # what is no transaction still runs there
        assert is_shared(pg, backend_of(acme))


def test_a_client_that_keeps_a_backend_begins_where_all_can_run_too(fresh, pg):
    with fresh.wire("acme_app") as acme:
        acme.query("BEGIN; INSERT INTO scratch VALUES (77, 'written')")
        assert sqlstates(acme.query("CREATE TABLE later (id int)")) == ["40001"]
        acme.query("ROLLBACK")
        # what is set is asked for while the client goes on
        acme.send(query("SET client_min_messages = notice") + query("BEGIN"))
        acme.until_ready()
        acme.until_ready()
        assert sqlstates(acme.query("DO $$ BEGIN RAISE NOTICE 'here'; END $$")) == []
        acme.query("ROLLBACK")


def test_a_dump_begins_where_it_can_go_on(fresh, pg):
    """As pg_dump has it: one snapshot, and then what takes a backend of its own."""
    with fresh.wire("acme_app") as acme:
        for sql in (
            "SELECT pg_catalog.set_config('search_path', '', false)",
            "BEGIN",
            "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY",
            "SELECT count(*) FROM acme.orders",
            "PREPARE getDomainConstraints (oid) AS SELECT conname FROM pg_constraint WHERE contypid = $1",
            "EXECUTE getDomainConstraints (1)",
        ):
            assert sqlstates(acme.query(sql)) == [], sql
        assert not is_shared(pg, backend_of(acme))


ATTACK = "RESET ROLE; SET ROLE beta_app"


def test_dynamic_sql_reaches_nobody_else(shared, pg):
    proxy = shared()
    with proxy.wire("acme_app") as acme, proxy.wire("beta_app") as beta:
        shares_again(pg, acme)
        said = acme.query(f"DO $$ BEGIN EXECUTE '{ATTACK}'; END $$")
        assert sqlstates(said) == ["42501"]
        said = acme.query(f"DO $$ DECLARE t text := '{ATTACK}'; BEGIN EXECUTE t; END $$")
        assert sqlstates(said) == ["42501"]
        assert acme.value("SELECT current_user") == "acme_app"
        assert beta.value("SELECT current_user") == "beta_app"


@pytest.fixture
def evil(pg):
    """Removes what a test has made."""
    yield
    with pg.connect() as conn:
        conn.execute("DROP FUNCTION IF EXISTS acme.evil() CASCADE")
        conn.execute("DROP FUNCTION IF EXISTS acme.on_scratch() CASCADE")
        conn.execute("DROP VIEW IF EXISTS acme.sly")


DYNAMIC = """CREATE OR REPLACE FUNCTION evil() RETURNS text LANGUAGE plpgsql AS $$
DECLARE t text := overlay('RESET ROLE; SET ROLE beta_app' PLACING '' FROM 1 FOR 0);
BEGIN EXECUTE t; RETURN current_user; END $$"""


def test_a_tenant_with_code_that_is_not_proven_has_backends_of_its_own(shared, pg, evil):
    proxy = shared()
    with proxy.wire("acme_app") as acme, proxy.wire("beta_app") as beta:
        shares_again(pg, acme)
        assert sqlstates(acme.query(DYNAMIC)) == []
        for _ in range(3):
            assert sqlstates(acme.query("SELECT evil()")) == ["42501"]
            assert not is_shared(pg, backend_of(acme))
            assert is_shared(pg, backend_of(beta))
        acme.query("DROP FUNCTION evil()")
        shares_again(pg, acme)


def test_code_made_by_dynamic_sql_is_found(shared, pg, evil):
    proxy = shared()
    with proxy.wire("acme_app") as acme:
        shares_again(pg, acme)
        escaped = DYNAMIC.replace("'", "''")
        acme.query(f"DO $do$ DECLARE t text := '{escaped}'; BEGIN EXECUTE t; END $do$")
        for _ in range(20):
            assert sqlstates(acme.query("SELECT evil()")) == ["42501"]
            assert not is_shared(pg, backend_of(acme))


def test_a_trigger_and_a_view_are_code_too(shared, pg, evil):
    proxy = shared()
    with pg.connect() as conn:
        conn.execute(
            "SET search_path = acme; SET ROLE acme_app;"
            "CREATE FUNCTION on_scratch() RETURNS trigger LANGUAGE plpgsql AS $$"
            " BEGIN EXECUTE format('SELECT %L', NEW.body); RETURN NEW; END $$;"
            "CREATE TRIGGER sly BEFORE INSERT ON scratch FOR EACH ROW EXECUTE FUNCTION on_scratch()"
        )
        proxy.admin("RELOAD")
        with proxy.wire("acme_app") as acme:
            wait_until(lambda: not is_shared(pg, backend_of(acme)), "it is read")
        conn.execute("DROP FUNCTION acme.on_scratch() CASCADE")
        conn.execute("CREATE VIEW acme.sly AS SELECT set_config('role', 'beta_app', false)")
        proxy.admin("RELOAD")
        with proxy.wire("acme_app") as acme:
            wait_until(lambda: not is_shared(pg, backend_of(acme)), "it is read")
        conn.execute("DROP VIEW acme.sly")
        proxy.admin("RELOAD")
        with proxy.wire("acme_app") as acme:
            shares_again(pg, acme)


def test_code_is_not_changed_under_what_runs(shared, pg, evil):
    """A statement on a shared backend can't come to call what was not there when it was judged."""
    proxy = shared(backends=2)
    with proxy.wire("acme_app") as acme, proxy.wire("acme_app") as other:
        harmless = "CREATE OR REPLACE FUNCTION evil() RETURNS text LANGUAGE sql AS $$ SELECT 'good'::text $$"
        acme.query(harmless)
        shares_again(pg, acme)
        assert acme.value("SELECT evil()") == "good"
        assert is_shared(pg, backend_of(acme))
        acme.send(query("SELECT pg_sleep(0.5); SELECT evil()"))
        wait_until(lambda: sleeping(pg), "it runs")
        other.send(query(DYNAMIC))
        assert rows(acme.until_ready()) == [("",), ("good",)]
        assert sqlstates(other.until_ready()) == []
        assert sqlstates(acme.query("SELECT evil()")) == ["42501"]


@pytest.mark.parametrize(
    ("backends", "end", "refused"),
    # numbers of their own, so that each has a proxy of its own: once refused, transactions begin elsewhere
    [(11, "ROLLBACK", True), (4, "COMMIT", True), (5, "extended", True), (6, "COMMIT", False)],
)
def test_a_transaction_under_which_code_changes_can_end(shared, pg, evil, backends, end, refused):
    """What else it says is refused: the end must not be, or the session would be lost."""
    proxy = shared(backends=backends)
    with proxy.wire("acme_app") as acme, proxy.wire("acme_app") as other:
        acme.query("CREATE OR REPLACE FUNCTION evil() RETURNS text LANGUAGE sql AS $$ SELECT 'good'::text $$")
        shares_again(pg, acme)
        acme.query("BEGIN")
        assert is_shared(pg, backend_of(acme))
        # one that has only read would move
        assert sqlstates(acme.query("UPDATE orders SET item = item WHERE id = 1")) == []
        other.send(query(DYNAMIC))
        if refused:
            wait_until(lambda: sqlstates(acme.query("SELECT 1")) == ["40001"], "the change is seen")
        if end == "extended":
            acme.send(parse("ROLLBACK") + bind() + execute() + SYNC)
            replies = acme.until_ready()
        else:
            replies = acme.query(end)
        assert sqlstates(replies) == []
        assert replies[-1].body == b"I"
        assert sqlstates(other.until_ready()) == []


def test_a_reload_is_noticed_by_no_transaction(shared, pg):
    """What was read of the tenant's code by the same configuration holds."""
    proxy = shared(backends=7)
    with proxy.wire("acme_app") as acme:
        for _ in range(5):
            acme.query("BEGIN")
            assert is_shared(pg, backend_of(acme))
            proxy.admin("RELOAD")
            assert sqlstates(acme.query("SELECT item FROM orders")) == []
            assert sqlstates(acme.query("COMMIT")) == []


def test_a_reload_reads_again_what_was_changed_past_the_proxy(shared, pg, evil):
    proxy = shared(backends=8)
    with proxy.wire("acme_app") as acme, pg.connect() as conn:
        conn.execute(DYNAMIC.replace("evil()", "acme.evil()"))
        proxy.admin("RELOAD")
        wait_until(lambda: not is_shared(pg, backend_of(acme)), "it is found")
        conn.execute("DROP FUNCTION acme.evil()")
        shares_again(pg, acme)


def sleeping(server: Server) -> bool:
    with server.connect() as conn:
        found = conn.execute("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'").fetchone()
    return found is not None and found[0] > 0


def test_what_is_shown(shared):
    proxy = shared(backends=2, log={"level": "debug"})
    with proxy.wire("acme_app") as acme, proxy.wire("beta_app") as beta:
        for _ in range(3):
            acme.query("SELECT 1")
            beta.query("SELECT 1")
        acme.query("CREATE TEMP TABLE t ()")
        acme.query("BEGIN")
        lanes = {row["tenant"]: row for row in proxy.admin("SHOW LANES")}
        assert lanes["acme"]["code"] == lanes["beta"]["code"] == "proven"
        assert (lanes["acme"]["pinned"], lanes["beta"]["pinned"]) == (1, 0)
        assert lanes["acme"]["escalated_statement"] >= 1
        assert lanes["beta"]["escalated_statement"] == 0
        assert lanes["beta"]["switches"] + lanes["beta"]["kept"] >= 3
        assert {row["tenant"] for row in proxy.admin("SHOW TENANTS")} <= {"acme", "beta"}
        assert "tenant_proxy_service" in {row["user"] for row in proxy.admin("SHOW POOLS")}
