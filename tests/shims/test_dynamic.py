"""tp_catalog.dynamic reads SQL made at run time: by its words, as PostgreSQL's scanner tells them apart."""

from __future__ import annotations

import random

import psycopg
import pytest
from pglast.parser import ParseError, scan

from tests.shims.conftest import OWN, SPACES, Tenants

UNCHANGED = [
    "",
    "select 1",
    "truncate orders, lines restart identity",
    "create table orders_2026_11 partition of orders for values from ('2026-11-01') to ('2026-12-01')",
    "insert into t (id, role) values ($1, $2) on conflict (id) do update set role = excluded.role",
    "update t set role = $1, search_path = $2 where names = $3",
    "alter table users add user text",
    "update users u set role = 'x' from roles r where r.role = u.role",
    "select count(*), role, notify, load from pg_trgm_things group by role",
    "create trigger t before update on orders for each row execute function touch()",
    "grant execute on function f() to public",
    "alter table t set schema zqacme",
    "create index concurrently i on t (a) /* pg_class */ -- pg_proc",
    "select 'pg_class', e'it''s \\' pg_proc', $$ pg_type ' $$, $a$ $$ pg_type $a$ from t",
    "select a$pg_class$b$ from t",
    "select 'pg_class'::regclass, pg_typeof(1), pg_sleep(0), pg_depend.* from pg_depend",
    "select pg_catalog.count(*), x::pg_catalog.text from t",
    "select zqacme.pg_class, t.pg_proc from zqacme.pg_class t",
    "create function f() returns int language sql as $$ select 1 $$",
    "create function f() returns trigger language plpgsql as 'begin new.at := now(); return new; end'",
    "do $$ begin insert into t values (1) on conflict do nothing; end $$",
    "select * from crosstab('select a, b, c from t order by 1') as x (a int, b int)",
    "select * from crosstab($$ select a, b, c from t $$, $$values (1)$$) as x (a int, b int)",
    "set local search_path = zqacme, public, pg_temp",
    'set search_path to "zqacme"',
    "set search_path = ''",
    "set schema 'zqacme'",
    "reset search_path; set local work_mem = '4MB'; set myapp.role = 'x'",
    "unlisten *",
    "select 'a' || 'b' -- '\n, 'c'",
    "select 1-- pg_class\r\n",
]

TURNED = {
    "select nspname from pg_namespace": "select nspname from tp_catalog.pg_namespace",
    "select * from PG_CLASS": "select * from tp_catalog.PG_CLASS",
    'select * from "pg_class"': 'select * from tp_catalog."pg_class"',
    "table pg_class": "table tp_catalog.pg_class",
    "select * from pg_catalog . pg_class": "select * from tp_catalog . pg_class",
    'select * from "pg_catalog"/**/."pg_class" c': 'select * from tp_catalog/**/."pg_class" c',
    "select pg_class.relname, pg_catalog.pg_class.oid from pg_class": (
        "select pg_class.relname, tp_catalog.pg_class.oid from tp_catalog.pg_class"
    ),
    "select tableoid, relname from pg_class, pg_tables": (
        "select tableoid, relname from tp_catalog_sys.pg_class, tp_catalog.pg_tables"
    ),
    "select * from information_schema.tables": "select * from tp_information_schema.tables",
    "select $$'$$ from pg_class where relname = $$'$$": (
        "select $$'$$ from tp_catalog.pg_class where relname = $$'$$"
    ),
    "select $a$ $b$'$a$ from pg_class --'": "select $a$ $b$'$a$ from tp_catalog.pg_class --'",
    "select e'\\'' from pg_class --'": "select e'\\'' from tp_catalog.pg_class --'",
    "select 'x\\' from pg_class --'": "select 'x\\' from tp_catalog.pg_class --'",
    "select 1/**/from/* ' */pg_class": "select 1/**/from/* ' */tp_catalog.pg_class",
    "select 1-/*'*/1 from pg_class where true--'": "select 1-/*'*/1 from tp_catalog.pg_class where true--'",
    "select $1::int from pg_class where $2 = '$1'": (
        "select $1::int from tp_catalog.pg_class where $2 = '$1'"
    ),
    "select pg_advisory_lock(1), pg_catalog.pg_notify('a', 'b')": (
        "select tp_catalog.pg_advisory_lock(1), tp_catalog.pg_notify('a', 'b')"
    ),
    "select obj_description (1)": "select tp_catalog.obj_description (1)",
    "select pg_relation_size(1), pg_stat_get_live_tuples(1)": (
        "select tp_catalog.pg_relation_size(1), tp_catalog.pg_stat_get_live_tuples(1)"
    ),
    "select pg_input_is_valid('1', 'int')": "select tp_catalog.pg_input_is_valid('1', 'int')",
    "notify jobs, 'x'": f"notify  \"{SPACES[OWN]}.jobs\", 'x'",
    'listen "Jobs"': f'listen  "{SPACES[OWN]}.Jobs"',
    "select 1; NOTIFY Jobs": f'select 1; NOTIFY  "{SPACES[OWN]}.jobs"',
    "with é as (select 1) select é.* from é, pg_proc": (
        "with é as (select 1) select é.* from é, tp_catalog.pg_proc"
    ),
    "create view v as select * from pg_class": "create view v as select * from tp_catalog.pg_class",
}

REFUSED = [
    'select * from U&"p\\0067_class"',
    "select U&'pg_class'",
    "do u&'\\0065xecute'",
    "select * from pg_class /* /* */ */",
    "select 'a'\n'b' from pg_class",
    "set role zqbeta",
    'set local "ROLE" = zqbeta',
    "select 1; set session role zqbeta",
    "set session authorization zqbeta",
    "reset role",
    "/**/ reset session authorization",
    "set local session authorization default",
    "set session session authorization zqbeta",
    "alter role zqacme_app password 'x'",
    "alter/**/user current_user set work_mem = '1MB'",
    "do $$ begin alter user current_user password 'x'; end $$",
    "set search_path = zqbeta",
    "set search_path = zqacme, information_schema",
    'set "Search_Path" = zqbeta',
    "set schema 'zqbeta'",
    "set names 'sjis'",
    "set standard_conforming_strings = off",
    "set tenant_proxy.space = 'x'",
    "set \"tenant_proxy.space\" = 'x'",
    "alter function f() set role = zqbeta",
    "create function f() returns int language sql set search_path = zqbeta return 1",
    "select set_config('role', 'x', false)",
    "select pg_catalog.set_config('role', 'x', false)",
    "select query_to_xml('select 1', true, true, '')",
    "select table_to_xml('pg_class', true, true, '')",
    "select pg_lock_status()",
    "select pg_read_file('x')",
    "select lo_import('x')",
    "select * from x.dblink_connect('x')",
    "select * from pg_authid",
    "select * from pg_catalog.pg_statistic",
    "select x.pg_get_userbyid from generate_series(1, 2) x",
    "select q.crosstab2 from unnest(array['select 1']) q",
    "select ('dbname=x'::text).dblink_connect",
    "select (x.satisfies_hash_partition)",
    "select x.pg_relation_size from unnest(array[1::regclass]) x",
    "create aggregate a (int) (sfunc = pg_advisory_lock, stype = int)",
    "select * from tp_catalog.pg_class",
    "select tp_catalog.dynamic('x')",
    "do $$ begin execute 'select 1'; end $$",
    "do $$ begin perform 1 from pg_class; end $$",
    "do e'begin perform 1 from p\\x67_class; end'",
    "do 'begin perform 1 from p'\n'g_class; end'",
    "create or replace procedure f() language plpgsql as 'begin set role x; end'",
    "create function f() returns void language sql as 'notify x'",
    "create function f() returns void language sql as 'do/**/e''x'''",
    "create rule r as on insert to t do also notify x",
    "select * from crosstab($1) as x (a int)",
    "select * from crosstab('select * from p' || 'g_class') as x (a int)",
    "select * from crosstab('select * from pg_class') as x (a int)",
    "load 'x'",
    "select $a$ from pg_class",
    "select ' from pg_class",
]


@pytest.fixture(scope="module")
def own(tenants: Tenants):
    with tenants.tenant() as connection:
        connection.autocommit = True
        yield connection


def dynamic(connection: psycopg.Connection, text: str) -> str:
    row = connection.execute("SELECT tp_catalog.dynamic(%s)", (text,)).fetchone()
    assert row is not None
    return row[0]


AS_PUBLIC = {
    "select * from public.orders": f"select * from {OWN}.orders",
    'insert into "public" . t select public.f(1)': f"insert into {OWN} . t select {OWN}.f(1)",
    "select * from catalogs.public.t": f"select * from catalogs.{OWN}.t",
    "grant usage on schema public to public": f"grant usage on schema {OWN} to public",
    "alter table t set schema public": f"alter table t set schema {OWN}",
    "set local search_path = public, pg_temp": f"set local search_path = {OWN}, pg_temp",
    "set search_path to 'public'": f"set search_path to {OWN}",
    "set schema 'public'": f"set schema '{OWN}'",
    "select 'public.t', public from t -- public.t": "select 'public.t', public from t -- public.t",
}


@pytest.mark.parametrize("text", AS_PUBLIC)
def test_public_is_ones_own_schema(tenants: Tenants, text: str):
    with tenants.tenant(public=True) as connection:
        assert dynamic(connection, text) == AS_PUBLIC[text]
    with tenants.tenant() as connection:
        assert dynamic(connection, text) == text


def test_other_types_than_text(own):
    row = own.execute(
        "SELECT tp_catalog.dynamic('pg_class'::regclass), tp_catalog.dynamic(NULL::json),"
        " tp_catalog.dynamic('select 1'::varchar), tp_catalog.dynamic('select 1'::name),"
        " tp_catalog.dynamic(7)"
    ).fetchone()
    assert row == ("tp_catalog.pg_class", None, "select 1", "select 1", "7")


@pytest.mark.parametrize("text", UNCHANGED)
def test_what_names_no_catalog_stays(own: psycopg.Connection, text: str):
    assert dynamic(own, text) == text


@pytest.mark.parametrize("text", TURNED)
def test_names_are_turned(own: psycopg.Connection, text: str):
    assert dynamic(own, text) == TURNED[text]


@pytest.mark.parametrize("text", REFUSED)
def test_what_might_be_more_is_refused(own: psycopg.Connection, text: str):
    with pytest.raises(psycopg.errors.InsufficientPrivilege) as refused:
        dynamic(own, text)
    assert refused.value.diag.message_hint


@pytest.mark.parametrize("text", ["explain execute by_parse('x')", 'EXECUTE "by_parse"(1)'])
def test_what_was_prepared_by_parse_is_not_executed(tenants: Tenants, text: str):
    with tenants.tenant() as connection:
        assert dynamic(connection, text) == text
        connection.pgconn.prepare(b"by_parse", b"SELECT $1::text")
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="prepared statement by_parse"):
            dynamic(connection, text)


def test_null_is_left_to_execute(own: psycopg.Connection):
    assert own.execute("SELECT tp_catalog.dynamic(NULL)").fetchone() == (None,)


def test_channels_have_room_for_the_prefix(own: psycopg.Connection):
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="channel name too long"):
        dynamic(own, f"notify {'x' * 50}")


def test_operators_of_the_tenant_decide_nothing(own: psycopg.Connection):
    own.execute(
        "CREATE FUNCTION pg_temp.no(text, text) RETURNS boolean LANGUAGE sql RETURN false;"
        "CREATE OPERATOR zqacme.~* (FUNCTION = pg_temp.no, LEFTARG = text, RIGHTARG = text);"
        "SET search_path = zqacme, pg_catalog"
    )
    assert dynamic(own, "table pg_class") == "table tp_catalog.pg_class"
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        dynamic(own, "set role x")
    own.execute("DROP FUNCTION pg_temp.no CASCADE; SET search_path = zqacme")


PIECES = [
    *("'", "''", '"', '""', "$$", "$a$", "$b$", "$1", "$", "--", "/*", "*/", "\n", "\r", " ", " ", ";", "."),
    *("e'", "E'", "\\", "\\'", "a", "é", "x'", "n'", "1", "1e", "-", "/", "*", "+", "@", "(", ")", ",", "::"),
    *(
        " pg_class ",
        " pg_class",
        "pg_class",
        "pg_catalog.pg_class",
        '"pg_class"',
        "select",
        "from ",
        "\f",
        "\v",
    ),
]


def test_no_spelling_hides_a_name(own: psycopg.Connection):
    """What comes back, as PostgreSQL's own scanner reads it: no name is left, and no literal was touched."""
    own.execute(
        "CREATE OR REPLACE FUNCTION pg_temp.tried(text) RETURNS text LANGUAGE plpgsql AS $$"
        " BEGIN RETURN tp_catalog.dynamic($1); EXCEPTION WHEN insufficient_privilege THEN RETURN NULL; END $$"
    )
    pick = random.Random(4)
    texts = ["".join(pick.choices(PIECES, k=pick.randint(1, 14))) for _ in range(3000)]
    rows = own.execute("SELECT t, pg_temp.tried(t) FROM unnest(%s::text[]) t", (texts,)).fetchall()
    read = 0
    for before, after in rows:
        if after is None:
            continue
        try:
            tokens, originals = spelled(after), spelled(before)
        except ParseError:
            continue  # the server can't read it either
        read += 1
        for at, (kind, token) in enumerate(tokens):
            name = token[1:-1].replace('""', '"') if token[0] == '"' else token.lower()
            if kind == "IDENT" and name == "pg_class":
                around = [text for _, text in tokens[max(at - 2, 0) : at]]
                qualified = around[-1:] == ["."]
                follows = tokens[at + 1][1] if at + 1 < len(tokens) else ""
                assert (qualified and around[0] != "pg_catalog") or (not qualified and follows == "."), before
        assert [one for one in tokens if one[0] == "SCONST"] == [
            one for one in originals if one[0] == "SCONST"
        ]
    assert read > 300


def spelled(text: str) -> list[tuple[str, str]]:
    found = [(token.name, text[token.start : token.end + 1]) for token in scan(text)]
    return [token for token in found if token[0] not in ("SQL_COMMENT", "C_COMMENT")]
