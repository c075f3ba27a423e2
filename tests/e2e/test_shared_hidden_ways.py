"""What a tenant could leave on a shared backend for another, or become there, by what no statement shows."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest

from tests.fix_proxy import Proxy
from tests.fix_shared import backend_of, is_shared, provide, shared_config, shares_again
from tests.pg_server import Server
from tests.wire_client import ConnectionEnded, query, rows, sqlstates, wait_until


@pytest.fixture
def shared(proxies: Callable[..., Proxy], pg: Server) -> Callable[[], Proxy]:
    """Call for a proxy with one shared backend."""
    provide(pg)
    return lambda: proxies(**shared_config(pg))


@pytest.fixture
def evil(pg: Server) -> Iterator[None]:
    """Removes what a test has made."""
    yield
    with pg.connect() as conn:
        conn.execute("DROP FUNCTION IF EXISTS acme.evil() CASCADE; DROP VIEW IF EXISTS acme.sly")
        conn.execute("DROP FUNCTION IF EXISTS acme.evil(text)")


@pytest.mark.parametrize("setting", ["role", "session_authorization", "search_path"])
@pytest.mark.parametrize("local", ["true", "false"])
@pytest.mark.parametrize(
    "how",
    [
        "SELECT {call}, current_user, current_schema()",
        "SELECT current_user, current_user, current_schema() FROM (SELECT {call} OFFSET 0) x",
        "SELECT evil(), current_user, current_schema()",
    ],
)
def test_what_resets_a_setting_leads_to_nobody_else(shared, pg, evil, setting, local, how):
    """A shared backend's own role is the service's, which sees what statements of all tenants say."""
    proxy = shared()
    call = f"set_config('{setting}', NULL, {local})"
    with proxy.wire("acme_app") as acme:
        shares_again(pg, acme)
        if "evil" in how:
            body = f"BEGIN RETURN {call}; END"
            acme.query(f"CREATE FUNCTION evil() RETURNS text LANGUAGE plpgsql AS $$ {body} $$")
            # so that its code has been read again
            time.sleep(2)
        for _ in range(3):
            ((_, user, schema),) = rows(acme.query(how.format(call=call)))
            assert (user, schema) == ("acme_app", "acme")


@pytest.mark.parametrize(
    "code",
    [
        "RETURN QUERY {query}",
        "FOR r IN {query} LOOP RETURN NEXT r; END LOOP",
        "OPEN c FOR {query}; FETCH c INTO r",
        "OPEN d; FETCH d INTO r",
    ],
)
def test_a_query_in_code_makes_no_table_on_a_shared_backend(shared, pg, evil, code):
    """INTO names variables in statements alone, elsewhere a new table, which others would find first."""
    proxy = shared()
    sly = "EXPLAIN ANALYZE SELECT id, item INTO TEMP orders FROM acme.orders"
    body = f"DECLARE r text; c refcursor; d CURSOR FOR {sly}; BEGIN {code.format(query=sly)}; END"
    with proxy.wire("acme_app") as acme, proxy.wire("beta_app") as beta:
        shares_again(pg, acme)
        acme.query(f"CREATE FUNCTION evil() RETURNS SETOF text LANGUAGE plpgsql AS $$ {body} $$")
        time.sleep(2)
        for statement in ("BEGIN", "SELECT evil()", "COMMIT"):
            acme.query(statement)
        assert beta.value("SELECT item FROM orders WHERE id = 1") == "bolt"
        # it is where temporary tables may be
        assert acme.value("SELECT item FROM pg_temp.orders WHERE id = 1") == "anvil"
        assert not is_shared(pg, backend_of(acme))


@pytest.mark.parametrize(
    "target", ["blk.r.item.ts_stat", "r.item.item.ts_stat", "r.item, blk.r.item.ts_stat"]
)
def test_no_name_behind_into_is_called(shared, pg, evil, target):
    """PL/pgSQL takes three names there, and leaves a fourth to SQL: here SELECT (q).ts_stat, which runs q."""
    proxy = shared()
    body = f"<<blk>> DECLARE r acme.orders; BEGIN SELECT (q) INTO {target}; RETURN r.item; END"
    becomes = "SELECT to_tsvector(''simple'', set_config(''role'', ''beta_app'', true))"
    with proxy.wire("acme_app") as acme:
        shares_again(pg, acme)
        made = acme.query(f"CREATE FUNCTION evil(q text = '') RETURNS text LANGUAGE plpgsql AS $$ {body} $$")
        time.sleep(2)
        called = acme.query(f"SELECT evil('{becomes}'), current_user")
        assert [user for _, user in rows(called) if user != "acme_app"] == []
        assert sqlstates(made) == ["42601"]


@pytest.mark.parametrize("setting", ["role", '"Role"'])
@pytest.mark.parametrize(
    "sql",
    [
        "CREATE FUNCTION evil() RETURNS text LANGUAGE sql SET {} FROM CURRENT AS 'SELECT current_user'",
        "CREATE FUNCTION evil() RETURNS text LANGUAGE sql RETURN current_user;"
        " ALTER FUNCTION evil() SET {} FROM CURRENT",
    ],
)
def test_who_one_is_is_no_setting_of_a_function(shared, pg, evil, sql, setting):
    """Made where the tenant's login is the role, it would make a shared backend the service's."""
    proxy = shared()
    with proxy.wire("acme_app") as acme:
        shares_again(pg, acme)
        made = acme.query(sql.format(setting))
        assert rows(acme.query("SELECT evil()")) in ([], [("acme_app",)])
        assert sqlstates(made) == ["42501"]


def test_a_view_of_the_settings_changes_them(shared, pg, evil):
    """As if by set_config(), which no statement shows: the server would then read text otherwise."""
    proxy = shared()
    view = "CREATE VIEW acme.sly AS SELECT * FROM pg_settings"
    becomes = r"SELECT '\' || '; SET ROLE beta_app; UPDATE beta.orders SET item = $$ACME$$; --'"
    with proxy.wire("acme_app") as acme:
        assert sqlstates(acme.query(view)) == ["42501"]
        shares_again(pg, acme)
        # in SQL that nobody sees before it runs, or before the tenant came to the proxy
        acme.query(
            f"DO $do$ DECLARE t text := overlay('{view}' PLACING '' FROM 1 FOR 0); BEGIN EXECUTE t; END $do$"
        )
        for _ in range(20):
            assert not is_shared(pg, backend_of(acme))
        acme.send(
            query("UPDATE sly SET setting = 'off' WHERE name = 'standard_conforming_strings'")
            + query(becomes)
        )
        with pytest.raises(ConnectionEnded):
            for _ in range(4):
                acme.until_ready()
    with pg.connect() as conn:
        assert conn.execute("SELECT DISTINCT item FROM beta.orders WHERE item = 'ACME'").fetchall() == []
        # one of the operator's
        conn.execute("DROP VIEW acme.sly; CREATE VIEW acme.sly AS SELECT * FROM pg_settings")
        conn.execute("GRANT SELECT ON acme.sly TO acme_app")
    proxy.admin("RELOAD")
    with proxy.wire("acme_app") as acme:
        shares_again(pg, acme)


def test_what_an_extension_keeps_in_its_session_is_no_other_tenant_s(shared, pg, evil):
    """isn takes wrong check digits once it has been told to, until the session ends."""
    wrong = "SELECT '978-0-11-000533-5'::ean13"
    with pg.connect() as conn:
        conn.execute("CREATE EXTENSION isn SCHEMA public")
        try:
            proxy = shared()
            with proxy.wire("acme_app") as acme, proxy.wire("beta_app") as beta:
                shares_again(pg, acme)
                assert acme.value("SELECT isn_weak(true)") == "t"
                assert not is_shared(pg, backend_of(acme))
                assert is_shared(pg, backend_of(beta))
                assert sqlstates(beta.query(wrong)) == ["22P02"]
                assert sqlstates(acme.query(wrong)) == []
            conn.execute("CREATE VIEW acme.sly AS SELECT isn_weak(true)")
            proxy.admin("RELOAD")
            with proxy.wire("acme_app") as acme:
                wait_until(lambda: not is_shared(pg, backend_of(acme)), "it is read")
        finally:
            conn.execute("DROP EXTENSION isn CASCADE")


@pytest.fixture
def everybodys(pg: Server) -> Iterator[Callable[[str], None]]:
    """Call for a function of the operator's, or of an extension, that all find: how it is made."""
    body = "BEGIN EXECUTE q; RETURN 1; END"

    def make(how: str) -> None:
        with pg.connect() as conn:
            conn.execute("CREATE SCHEMA elsewhere; GRANT USAGE ON SCHEMA elsewhere TO PUBLIC")
            schema = "pg_catalog" if not how else "elsewhere"
            conn.execute(
                f"CREATE FUNCTION {schema}.run_text(q text) RETURNS int2 LANGUAGE plpgsql AS $${body}$$;{how}"
            )

    yield make
    with pg.connect() as conn:
        conn.execute("DROP SCHEMA elsewhere CASCADE; DROP FUNCTION IF EXISTS pg_catalog.run_text(text)")


@pytest.mark.parametrize(
    ("how", "call"),
    [
        ("", "run_text({})"),
        ("", "({}::text).run_text"),
        ("CREATE CAST (text AS int2) WITH FUNCTION elsewhere.run_text(text)", "{}::text::int2"),
        (
            "CREATE OPERATOR pg_catalog.@@@@ (RIGHTARG = text, FUNCTION = elsewhere.run_text)",
            "@@@@ {}::text",
        ),
    ],
)
def test_what_is_added_to_pg_catalog_is_code_like_any_other(shared, pg, everybodys, how, call):
    everybodys(how)
    proxy = shared()
    proxy.admin("RELOAD")
    with proxy.wire("acme_app") as acme:
        acme.query("SELECT 1")
        time.sleep(2)
        acme.query("SELECT " + call.format("'RESET ROLE'"))
        assert acme.value("SELECT current_user") == "acme_app"
        assert not is_shared(pg, backend_of(acme))
    lanes = next(one for one in proxy.admin("SHOW LANES") if one["user"] == "acme_app")
    assert lanes["code"].endswith(".run_text is not proven")


@pytest.fixture
def altered(pg: Server, proxies: Callable[..., Proxy]) -> Iterator[Callable[[str], Proxy]]:
    """Call for a proxy where the tenant has altered its role so, by SQL that nobody reads."""
    provide(pg)
    proxy = proxies(**shared_config(pg))

    def alter(change: str) -> Proxy:
        with proxy.wire("acme_app") as acme:
            acme.query("CREATE TABLE changes (change text)")
            acme.query(f"INSERT INTO changes VALUES ($$ALTER ROLE acme_app SET {change}$$)")
            assert sqlstates(acme.query("DO 'BEGIN EXECUTE (SELECT change FROM changes); END'")) == []
        proxy.admin("RELOAD")
        time.sleep(2)
        return proxy

    yield alter
    with pg.connect() as conn:
        conn.execute("ALTER ROLE acme_app RESET ALL; DROP TABLE IF EXISTS acme.changes")


@pytest.mark.parametrize(
    "change",
    [
        "role = 'beta_app'",
        'ROLE = "beta_app"',
        "search_path = beta",
        "exit_on_error = off",
        "standard_conforming_strings = off",
        "backslash_quote = on",
        "client_encoding = 'SJIS'",
    ],
)
def test_what_a_role_has_made_its_defaults_is_no_way_out(altered, pg, change):
    """On a shared backend the proxy sets them, as a login of the role would have them."""
    proxy = altered(change)
    with proxy.wire("acme_app") as acme:
        shares_again(pg, acme)
        for _ in range(3):
            assert acme.value("SELECT current_user") == "acme_app"
            assert acme.value("SELECT current_schemas(false)") == "{acme,public}"
            assert acme.value("SELECT item FROM orders WHERE id = 1") == "anvil"
            assert acme.value(r"SELECT '\\'") == r"\\"
            assert sqlstates(acme.query(r"SELECT '\', current_user, '")) != []
            assert sqlstates(acme.query("SELECT 1/0")) == ["22012"]


def test_other_defaults_of_a_role_count(altered, pg):
    proxy = altered("work_mem = '3MB'")
    with proxy.wire("acme_app") as acme:
        shares_again(pg, acme)
        assert acme.value("SHOW work_mem") == "3MB"
