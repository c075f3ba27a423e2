"""Functions of tp_catalog stand for those of pg_catalog: same faces, other tenants left out."""

from __future__ import annotations

import itertools
from typing import Any

import psycopg
import pytest

from tenant_proxy.shims import names
from tests.shims.conftest import OTHER, OWN, SPACES, Tenants


def oid(tenants: Tenants, sql: str) -> int:
    """As the superuser sees it."""
    with tenants.superuser() as connection:
        row = connection.execute(sql).fetchone()
        assert row is not None
        return int(row[0])


def ask(connection: psycopg.Connection, sql: str, *values: Any) -> Any:
    row = connection.execute(sql, values).fetchone()
    assert row is not None
    return row[0]


FACES = """
SELECT p.proname::text, p.pronargs::int,
       (SELECT string_agg(format_type(a, -1), ', ' ORDER BY at)
          FROM unnest(p.proargtypes) WITH ORDINALITY x (a, at)),
       format_type(p.prorettype, -1), p.proretset, p.provolatile, p.proparallel
  FROM pg_proc p WHERE p.pronamespace = to_regnamespace(%s)
   -- told who calls, by the guard
   AND p.proargnames[1] IS DISTINCT FROM 'own'
"""


def test_faces_are_the_originals(tenants: Tenants):
    """Each overload that a call with such a number of arguments could mean is there, and no other."""
    wanted = {**names.FUNCTIONS, **names.PUBLIC_FUNCTIONS, **names.CHECKED_FUNCTIONS}
    with tenants.superuser() as connection:
        originals = {
            row for row in connection.execute(FACES, ("pg_catalog",)) if row[1] in wanted.get(row[0], ())
        }
        ours = {row for row in connection.execute(FACES, ("tp_catalog",)) if row[0] in wanted}
    assert ours == originals
    since = names.load()["since"]
    later = {name for major, found in since.items() if major > tenants.server.major for name in found}
    later |= {"pg_get_acl"} if tenants.server.major < 18 else set()
    assert {row[0] for row in ours} == set(wanted) - later


# --- channels and lock keys --------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["", "_shared", "_xact", "_xact_shared"])
@pytest.mark.parametrize("key", ["7", "-1", "9223372036854775807", "7, 8", "-1, -2147483648"])
def test_lock_keys_are_the_tenant_s_own(tenants: Tenants, kind: str, key: str):
    infix = kind.replace("_shared", "")
    suffix = "_shared" if "shared" in kind else ""
    take = f"SELECT tp_catalog.pg_try_advisory{infix}_lock{suffix}({key})"
    only = f"SELECT tp_catalog.pg_try_advisory{infix}_lock({key})"
    with tenants.tenant() as first, tenants.tenant() as second, tenants.tenant(OTHER) as other:
        for connection in (first, second, other):
            connection.autocommit = False
        assert ask(first, take) is True
        assert ask(second, only) is False
        assert ask(other, only) is True
        if not infix:
            assert ask(first, f"SELECT tp_catalog.pg_advisory_unlock{suffix}({key})") is True
            assert ask(second, only) is True


def test_lock_keys_are_shown_as_they_were_given(tenants: Tenants):
    with tenants.tenant() as connection, tenants.tenant(OTHER) as other:
        other.execute("SELECT tp_catalog.pg_advisory_lock(4711), tp_catalog.pg_advisory_lock(4711, 12)")
        connection.execute("SELECT tp_catalog.pg_advisory_lock(x) FROM unnest(ARRAY[5, -6]::bigint[]) x")
        connection.execute("SELECT tp_catalog.pg_advisory_lock(7, -8)")
        rows = connection.execute(
            "SELECT CASE objsubid WHEN 1 THEN (classid::bigint << 32) | objid::bigint END,"
            " CASE objsubid WHEN 2 THEN classid::bigint::bit(32)::int END,"
            " CASE objsubid WHEN 2 THEN objid::bigint::bit(32)::int END"
            " FROM tp_catalog.pg_locks WHERE locktype = 'advisory' ORDER BY 1, 2"
        ).fetchall()
        assert rows == [(-6, None, None), (5, None, None), (None, 7, -8)]


def test_null_takes_no_lock(tenants: Tenants):
    with tenants.tenant() as connection:
        assert ask(connection, "SELECT tp_catalog.pg_try_advisory_lock(NULL::bigint)") is None


def test_channels_are_the_tenant_s_own(tenants: Tenants):
    with tenants.tenant() as connection, tenants.tenant(OTHER) as other:
        connection.execute(f'LISTEN "{SPACES[OWN]}.news"')
        other.execute(f'LISTEN "{SPACES[OTHER]}.news"')
        assert ask(connection, "SELECT tp_catalog.pg_listening_channels()") == "news"
        connection.execute("SELECT tp_catalog.pg_notify('news', 'hello')")
        heard = next(connection.notifies(timeout=5, stop_after=1))
        assert (heard.channel, heard.payload) == (f"{SPACES[OWN]}.news", "hello")
        assert list(other.notifies(timeout=0.1)) == []


@pytest.mark.parametrize("channel", ["NULL", "''"])
def test_a_channel_needs_a_name(tenants: Tenants, channel: str):
    with tenants.tenant() as connection:
        with pytest.raises(psycopg.errors.InvalidParameterValue, match="channel name cannot be empty"):
            connection.execute(f"SELECT tp_catalog.pg_notify({channel}, 'x')")


def test_channel_names_have_a_limit(tenants: Tenants):
    with tenants.tenant() as connection:
        connection.execute("SELECT tp_catalog.pg_notify(%s, 'x')", ("x" * 49,))
        with pytest.raises(psycopg.errors.InvalidParameterValue, match="channel name too long"):
            connection.execute("SELECT tp_catalog.pg_notify(%s, 'x')", ("x" * 50,))


# --- what is said of others' objects ------------------------------------------------------------------

RELATION = "SELECT '{0}.{0}_{1}'::regclass::oid"
ROUTINE = "SELECT '{0}.{0}_function'::regproc::oid"
STATISTICS = "SELECT oid FROM pg_statistic_ext WHERE stxname = '{0}_statistics'"
BY_OID = {
    "obj_description({}, 'pg_class')": RELATION.format("{0}", "things"),
    "obj_description({})": RELATION.format("{0}", "things"),
    "col_description({}, 2)": RELATION.format("{0}", "things"),
    "shobj_description({}, 'pg_authid')": "SELECT '{0}_app'::regrole::oid",
    "pg_describe_object('pg_class'::regclass, {}, 0)": RELATION.format("{0}", "things"),
    "pg_describe_object('pg_trigger'::regclass, {}, 0)": (
        "SELECT oid FROM pg_trigger WHERE tgname = '{0}_trigger'"
    ),
    "pg_describe_object('pg_authid'::regclass, {}, 0)": "SELECT '{0}_app'::regrole::oid",
    "pg_describe_object('pg_ts_config'::regclass, {}, 0)": "SELECT '{0}.{0}_config'::regconfig::oid",
    "pg_describe_object('pg_cast'::regclass, {}, 0)": (
        "SELECT oid FROM pg_cast WHERE casttarget = '{0}.{0}_pair'::regtype"
    ),
    "(pg_identify_object('pg_class'::regclass, {}, 0)).identity": RELATION.format("{0}", "things"),
    "(pg_identify_object_as_address('pg_class'::regclass, {}, 0)).object_names::text": RELATION.format(
        "{0}", "things"
    ),
    "pg_get_viewdef({})": RELATION.format("{0}", "view"),
    "pg_get_viewdef({}, true)": RELATION.format("{0}", "view"),
    "pg_get_viewdef({}, 80)": RELATION.format("{0}", "view"),
    "pg_get_ruledef({}, true)": "SELECT oid FROM pg_rewrite WHERE rulename = '{0}_rule'",
    "pg_get_indexdef({})": RELATION.format("{0}", "index"),
    "pg_get_indexdef({}, 1, true)": RELATION.format("{0}", "index"),
    "pg_get_constraintdef({})": "SELECT oid FROM pg_constraint WHERE conname = '{0}_check'",
    "pg_get_triggerdef({})": "SELECT oid FROM pg_trigger WHERE tgname = '{0}_trigger'",
    "pg_get_functiondef({})": ROUTINE,
    "pg_get_function_arguments({})": ROUTINE,
    "pg_get_function_identity_arguments({})": ROUTINE,
    "pg_get_function_arg_default({}, 1)": ROUTINE,
    "pg_get_function_result({})": "SELECT '{0}.{0}_pair_of'::regproc::oid",
    "pg_get_function_sqlbody({})": "SELECT '{0}.{0}_atomic'::regproc::oid",
    "pg_get_partkeydef({})": RELATION.format("{0}", "parts"),
    "pg_get_partition_constraintdef({})": RELATION.format("{0}", "part"),
    "pg_get_statisticsobjdef({})": STATISTICS,
    "pg_get_statisticsobjdef_columns({})": STATISTICS,
    "pg_get_statisticsobjdef_expressions({})::text": STATISTICS,
    "pg_get_userbyid({})": "SELECT '{0}_app'::regrole::oid",
}


@pytest.mark.parametrize("call", BY_OID)
def test_what_is_said_of_an_oid(tenants: Tenants, call: str):
    own, other = (oid(tenants, BY_OID[call].format(name)) for name in (OWN, OTHER))
    prefix = "(tp_catalog." if call.startswith("(") else "tp_catalog."
    with tenants.tenant() as connection:
        ours = ask(connection, f"SELECT {prefix}{call.lstrip('(').format(own)}")
        assert OWN in ours
        assert ours == ask(connection, f"SELECT {call.format(own)}")
        hidden = ask(connection, f"SELECT {prefix}{call.lstrip('(').format(other)}")
        assert hidden == (f"unknown (OID={other})" if "userbyid" in call else None)
        null = ask(connection, f"SELECT {prefix}{call.lstrip('(').format('NULL')}")
        assert null is None or "userbyid" in call


def test_system_objects_are_described(tenants: Tenants):
    with tenants.tenant() as connection:
        assert ask(connection, "SELECT tp_catalog.obj_description('pg_catalog.int4pl'::regproc, 'pg_proc')")
        assert ask(connection, "SELECT tp_catalog.pg_get_userbyid(10)") == "postgres"
        shadow = ask(connection, "SELECT tp_catalog.pg_get_viewdef('pg_catalog.pg_user'::regclass)")
        assert "pg_shadow" in shadow


def test_definitions_do_not_say_what_they_were_turned_to(tenants: Tenants):
    """A tenant's view of the catalogs is stored with the views that stand for them."""
    with tenants.tenant() as connection:
        connection.autocommit = False
        connection.execute(
            "CREATE VIEW mine AS SELECT relname, tp_catalog.obj_description(oid) FROM tp_catalog.pg_class"
        )
        connection.execute("CREATE VIEW more AS SELECT table_name FROM tp_information_schema.tables")
        connection.execute(
            "CREATE FUNCTION tell() RETURNS void LANGUAGE plpgsql"
            " AS $$ BEGIN PERFORM tp_catalog.pg_notify('news', 'x'); END $$"
        )
        shown = [
            ask(connection, "SELECT tp_catalog.pg_get_viewdef('mine'::regclass)"),
            ask(connection, "SELECT definition FROM tp_catalog.pg_views WHERE viewname = 'mine'"),
            ask(connection, "SELECT tp_catalog.pg_get_functiondef('tell'::regproc)"),
            ask(connection, "SELECT prosrc FROM tp_catalog.pg_proc WHERE proname = 'tell'"),
        ]
        wanted = ["FROM pg_class", "FROM pg_class", "PERFORM pg_notify(", "PERFORM pg_notify("]
        for text, expected in zip(shown, wanted, strict=True):
            assert expected in text
            assert "tp_catalog" not in text
        more = ask(
            connection, "SELECT view_definition FROM tp_information_schema.views WHERE table_name = 'more'"
        )
        assert "FROM information_schema.tables" in more
        connection.rollback()


# --- databases, sequences and figures ----------------------------------------------------------------


@pytest.mark.parametrize(
    "call",
    [
        "nextval({})",
        "setval({}, 7)",
        "setval({}, 8, true)",
        "currval({})",
        "(tp_catalog.pg_sequence_parameters({})).start_value",
    ],
)
def test_sequences_are_the_tenant_s_own_whatever_is_granted(tenants: Tenants, call: str):
    own, other = (oid(tenants, f"SELECT '{name}.{name}_sequence'::regclass::oid") for name in (OWN, OTHER))
    call = call if "tp_catalog" in call else f"tp_catalog.{call}"
    with tenants.superuser() as connection:
        connection.execute(f"GRANT ALL ON SEQUENCE {OTHER}.{OTHER}_sequence TO PUBLIC")
    try:
        with tenants.tenant() as connection:
            ask(connection, f"SELECT tp_catalog.nextval({own})")
            assert ask(connection, f"SELECT {call.format(own)}") > 0
            with pytest.raises(psycopg.errors.InsufficientPrivilege, match="permission denied for sequence"):
                connection.execute(f"SELECT {call.format(other)}")
            assert ask(connection, f"SELECT {call.format('NULL')}") is None
    finally:
        with tenants.superuser() as connection:
            connection.execute(f"REVOKE ALL ON SEQUENCE {OTHER}.{OTHER}_sequence FROM PUBLIC")


@pytest.mark.parametrize(
    "call",
    [
        "pg_database_size({})",
        "has_database_privilege({}, 'CONNECT')",
        "has_database_privilege({1}, {0}, 'CONNECT')",
    ],
)
@pytest.mark.parametrize("role", ["current_user", "10::oid"])
def test_there_is_no_database_but_one_s_own(tenants: Tenants, call: str, role: str):
    call = f"SELECT tp_catalog.{call}".replace("{}", "{0}")
    number = oid(tenants, f"SELECT oid FROM pg_database WHERE datname = '{OTHER}_db'")
    with tenants.tenant() as connection:
        assert ask(connection, call.format("current_database()", role))
        own = "(SELECT oid FROM pg_database WHERE datname = current_database())"
        assert ask(connection, call.format(own, role))
        assert ask(connection, call.format(f"{number}::oid", role)) is None
        for name in (f"{OTHER}_db", "nowhere"):
            with pytest.raises(psycopg.errors.InvalidCatalogName, match=f'database "{name}" does not exist'):
                connection.execute(call.format(f"'{name}'", role))


@pytest.mark.parametrize("name", sorted(names.CHECKED_FUNCTIONS))
def test_figures_of_others_are_not_told(tenants: Tenants, name: str):
    if name in ("nextval", "setval", "currval", "pg_sequence_parameters", "pg_get_sequence_data"):
        pytest.skip("these are refused")
    if "_db_" in name or 1 not in names.CHECKED_FUNCTIONS[name] or name.startswith(("brin_", "gin_")):
        pytest.skip("below")
    what = "function" if "_function_" in name else "sequence" if "sequence" in name else "parts"
    of = "regproc" if what == "function" else "regclass"
    call = f"SELECT tp_catalog.{name}" + "('{0}.{0}_" + what + "'::" + of + ")::text"
    with tenants.superuser() as connection:
        found = connection.execute(
            "SELECT 1 FROM pg_proc WHERE proname = %s AND pronamespace = 'tp_catalog'::regnamespace", [name]
        ).fetchone()
        if found is None:
            pytest.skip("of a later major")
        number = connection.execute(f"SELECT '{OTHER}.{OTHER}_{what}'::{of}::oid").fetchone()
    assert number is not None
    with tenants.tenant() as connection:
        said = connection.execute(call.format(OWN)).fetchall()
        assert said == connection.execute(call.format(OWN).replace("tp_catalog.", "pg_catalog.")).fetchall()
        assert connection.execute(f"SELECT tp_catalog.{name}({number[0]})").fetchall() in ([], [(None,)])


@pytest.mark.parametrize("name", sorted(name for name in names.CHECKED_FUNCTIONS if "_db_" in name))
def test_figures_of_other_databases_are_not_told(tenants: Tenants, name: str):
    number = oid(tenants, f"SELECT oid FROM pg_database WHERE datname = '{OTHER}_db'")
    if tenants.server.major < next((m for m, found in names.load()["since"].items() if name in found), 0):
        pytest.skip("of a later major")
    call = f"SELECT tp_catalog.{name}("
    with tenants.tenant() as connection:
        own = "(SELECT oid FROM pg_database WHERE datname = current_database())"
        assert ask(connection, f"{call}{own}) IS NOT DISTINCT FROM pg_catalog.{name}({own})") is True
        assert ask(connection, f"{call}{number})") is None


def test_what_others_types_take_is_not_told(tenants: Tenants):
    if tenants.server.major < 16:
        pytest.skip("of a later major")
    with tenants.tenant() as connection:
        errors = "SELECT * FROM {}.pg_input_error_info('?', '{}')"
        for own in (f"{OWN}_mood", f"{OWN}.{OWN}_mood", "numeric(3, 1)", "pg_catalog.int4[]"):
            assert ask(connection, f"SELECT tp_catalog.pg_input_is_valid('?', '{own}')") is False
            found = connection.execute(errors.format("tp_catalog", own)).fetchall()
            assert found == connection.execute(errors.format("pg_catalog", own)).fetchall()
        for value, other in ((f"{OTHER}_sad", f"{OTHER}_mood"), (f"{OTHER} forbidden", f"{OTHER}_domain")):
            call = f"('{value}', '{OTHER}.{other}')"
            assert ask(connection, f"SELECT tp_catalog.pg_input_is_valid{call}") is None
            told = connection.execute(f"SELECT * FROM tp_catalog.pg_input_error_info{call}").fetchone()
            assert told in (None, (None, None, None, None))


def test_what_others_tables_hold_is_not_touched(tenants: Tenants):
    """Though all may do all to them (setup.sql)."""
    with tenants.tenant() as connection:
        assert ask(connection, f"SELECT tp_catalog.currtid2('{OTHER}.{OTHER}_things', '(0,1)')") is None
        assert ask(connection, f"SELECT tp_catalog.currtid2('{OWN}.{OWN}_things', '(0,1)')") is not None
        for call in (
            "gin_clean_pending_list({})",
            "brin_summarize_new_values({})",
            "brin_summarize_range({}, 0)",
        ):
            of = call.format(f"'{OTHER}.{OTHER}_things'::regclass")
            assert ask(connection, f"SELECT tp_catalog.{of}") is None
            with pytest.raises(psycopg.errors.WrongObjectType):
                connection.execute(f"SELECT pg_catalog.{of}")


# --- the tenant's schema as `public` --------------------------------------------------------------


def test_public_is_the_tenant_s_schema(tenants: Tenants):
    with tenants.tenant(public=True) as connection:
        assert ask(connection, "SELECT tp_catalog.current_schema()") == "public"
        assert ask(connection, "SELECT tp_catalog.current_schemas(false)") == ["public"]
        schemas = [row[0] for row in connection.execute("SELECT nspname FROM tp_catalog.pg_namespace")]
        assert sorted(schemas) == ["information_schema", "pg_catalog", "pg_public", "pg_toast", "public"]
        # of what is really `public` it sees types, which extensions may have made, and no relations
        assert ask(
            connection,
            "SELECT n.nspname FROM tp_catalog.pg_type t JOIN tp_catalog.pg_namespace n"
            " ON n.oid = t.typnamespace WHERE t.typname = 'shared'",
        ) == "pg_public"  # fmt: skip
        for catalog in ("pg_class", "pg_tables", "pg_statio_user_tables"):
            rows = f"SELECT count(*) FROM tp_catalog.{catalog} o WHERE o::text ~ 'shared'"
            assert ask(connection, rows) == 0
        assert ask(
            connection, "SELECT schemaname FROM tp_catalog.pg_tables WHERE tablename = %s", f"{OWN}_things"
        ) == "public"  # fmt: skip
        assert ask(
            connection,
            "SELECT table_schema FROM tp_information_schema.columns WHERE table_name = %s LIMIT 1",
            f"{OWN}_things",
        ) == "public"  # fmt: skip
        connection.execute("SET search_path = ''")
        kind = ask(connection, f"SELECT tp_catalog.format_type('{OWN}.{OWN}_mood'::regtype, NULL)")
        assert kind == f"public.{OWN}_mood"
        view = ask(connection, f"SELECT tp_catalog.pg_get_viewdef('{OWN}.{OWN}_view'::regclass)")
        assert f"FROM public.{OWN}_things" in view
        index = ask(connection, f"SELECT tp_catalog.pg_get_indexdef('{OWN}.{OWN}_index'::regclass)")
        assert f" ON public.{OWN}_things " in index


@pytest.mark.parametrize("schema", ["Odd-one", 'with"quote', "a.b", "plain$"])
def test_any_schema_s_name_is_turned_to_public(tenants: Tenants, schema: str):
    quoted = psycopg.sql.Identifier(schema).as_string()
    with tenants.superuser() as connection:
        connection.autocommit = False
        connection.execute(f"CREATE SCHEMA {quoted}")
        connection.execute(f"CREATE TABLE {quoted}.t (id int)")
        connection.execute(f"CREATE TABLE {quoted}.plain (id int)")
        connection.execute(
            f"CREATE VIEW {quoted}.v AS SELECT t.id, plain.id AS d FROM {quoted}.t, {quoted}.plain"
        )
        connection.execute("SELECT set_config('tenant_proxy.schema', %s, true)", (schema,))
        connection.execute("SET LOCAL tenant_proxy.public = 'on'")
        connection.execute("SET LOCAL search_path = ''")
        shown = ask(connection, "SELECT definition FROM tp_catalog.pg_views WHERE viewname = 'v'")
        assert " ".join(shown.split()) == "SELECT t.id, plain.id AS d FROM public.t, public.plain;"
        connection.rollback()


def test_two_tenants_keys_never_meet_by_chance(tenants: Tenants):
    """Small keys of a thousand tenants: no two are the same on the server."""
    with tenants.tenant() as connection:
        masks = []
        for number in itertools.chain(range(1000)):
            connection.execute("SELECT set_config('tenant_proxy.space', %s, false)", (f"tenant{number:07}",))
            masks.append(ask(connection, "SELECT tp_catalog.lock_mask()"))
        assert len({mask >> 20 for mask in masks}) == 1000
