"""Catalogs through the proxy: tools see their tenant's schema and no other, as if it were alone."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import psycopg
import pytest
import sqlalchemy

from tests.fix_proxy import Proxies, Proxy, base_config, merged
from tests.pg_server import Server
from tests.shims.conftest import install_views

pytestmark = pytest.mark.timeout(180)

#: names of another tenant: objects, role, schema
HIDDEN = re.compile("zzz|beta")

#: what acme has beside the usual tables: one of most that a dump can hold
MORE = """
SET ROLE acme_app;
SET search_path = acme;
CREATE TABLE parts (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, order_id int REFERENCES orders,
    feeling mood DEFAULT 'good', word text CHECK (word <> 'none')) WITH (toast.autovacuum_enabled = off);
CREATE INDEX parts_word ON parts (lower(word)) WHERE word IS NOT NULL;
CREATE TABLE days (id int, at date) PARTITION BY RANGE (at);
CREATE TABLE days_2020 PARTITION OF days FOR VALUES FROM ('2020-01-01') TO ('2021-01-01');
CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$;
CREATE TRIGGER touched BEFORE INSERT ON parts FOR EACH ROW EXECUTE FUNCTION touch();
CREATE STATISTICS parts_statistics ON order_id, word FROM parts;
COMMENT ON TABLE parts IS 'what orders are made of';
COMMENT ON COLUMN parts.word IS 'said';
GRANT SELECT ON parts TO PUBLIC;
"""

OTHERS = """
CREATE TABLE beta.zzz_orders (zzz_id int PRIMARY KEY);
COMMENT ON TABLE beta.zzz_orders IS 'zzz';
CREATE FUNCTION beta.zzz() RETURNS int LANGUAGE sql RETURN 1;
CREATE DATABASE zzz;
GRANT USAGE ON SCHEMA beta TO PUBLIC;
GRANT SELECT ON beta.zzz_orders TO PUBLIC;
"""


@dataclass(frozen=True)
class Setting:
    server: Server
    proxy: Proxy
    #: what acme's schema is called through the proxy
    schema: str

    @property
    def schemas(self) -> list[str]:
        """Those that are not the system's; the policy lets the real `public` be read."""
        return ["public"] if self.schema == "public" else ["acme", "public"]


@pytest.fixture(scope="module")
def viewed() -> Iterator[Server]:
    """A server in which the views are installed."""
    server = Server()
    server.start()
    server.populate()
    install_views(server, "app")
    with server.connect() as connection:
        connection.execute(MORE)
        connection.execute("RESET ROLE")
        for sql in OTHERS.strip().splitlines():
            connection.execute(sql)
        connection.execute("REVOKE ALL ON public.countries FROM PUBLIC; DROP TABLE public.countries")
    yield server
    server.stop("immediate")
    server.close()


@pytest.fixture(params=["acme", "public"])
def setting(viewed: Server, proxy_pool: Proxies, request: pytest.FixtureRequest) -> Setting:
    policy = {"catalogs": "hide", "public_is_own": request.param == "public"}
    proxy = proxy_pool.shared(merged(base_config(viewed), {"policy": policy}))
    return Setting(viewed, proxy, request.param)


def psql(setting: Setting, *commands: str) -> str:
    options = [option for command in commands for option in ("-c", command)]
    done = setting.server.run_tool("psql", ["-X", "-v", "ON_ERROR_STOP=1", *options, setting.proxy.dsn()])
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_psql_lists_what_is_the_tenant_s(setting: Setting):
    schemas = psql(setting, r"\dn")
    assert re.findall(r"^ (\w+) +\|", schemas, re.MULTILINE) == setting.schemas
    relations = psql(setting, r"\d")
    assert re.findall(rf"^ {setting.schema} +\| (\w+)", relations, re.MULTILINE) == [
        "big_orders", "days", "days_2020", "numbers", "orders", "parts", "parts_id_seq", "promises", "scratch"
    ]  # fmt: skip
    assert "beta" not in psql(setting, r"\l")


#: psql's commands that list something
LISTS = [r"\d+", r"\dt *.*", r"\di+ *.*", r"\df+ *.*zz*", r"\du+", r"\dg", r"\l+", r"\dn+", r"\dp *.*",
         r"\dd", r"\dT+", r"\db", r"\drds", r"\ddp", r"\dC", r"\do zz*", r"\dRp", r"\dRs", r"\dx", r"\dy",
         r"\des", r"\dL", r"\dc", r"\dO", r"\dF", r"\dX", r"\d pg_class", r"\d *.zzz*"]  # fmt: skip


def test_psql_shows_nothing_of_others(setting: Setting):
    options = [option for command in LISTS for option in ("-c", command)]
    done = setting.server.run_tool("psql", ["-X", *options, setting.proxy.dsn()])
    assert "ERROR" not in done.stderr
    assert HIDDEN.findall((done.stdout + done.stderr).replace("*.zzz*", "")) == []
    assert done.stdout.count("\n(") > len(LISTS) / 2


def test_psql_describes_a_table(setting: Setting):
    shown = psql(setting, r"\d+ parts")
    for said in (
        f'Table "{setting.schema}.parts"',
        "generated always as identity",
        "'good'::mood",
        '"parts_pkey" PRIMARY KEY, btree (id)',
        "lower(word)",
        "FOREIGN KEY (order_id) REFERENCES orders(id)",
        "touched BEFORE INSERT ON parts",
        "said",
        "parts_statistics",
    ):
        assert said in shown


def comparable(dump: str) -> list[str]:
    """Without what differs from dump to dump."""
    return [line for line in dump.splitlines() if not re.match(r"\\(un)?restrict|-- Dumped", line)]


def dump(setting: Setting, *options: str, directly: bool = False) -> str:
    server = setting.server
    dsn = (
        server.dsn(user="acme_app", password="acme-secret", database="app")
        if directly
        else setting.proxy.dsn()
    )
    done = server.run_tool("pg_dump", [*options, dsn])
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_dump_is_that_of_the_server(setting: Setting):
    through = comparable(dump(setting, f"--schema={setting.schema}"))
    direct = comparable(dump(setting, "--schema=acme", directly=True))
    if setting.schema == "acme":
        assert through == direct
    else:
        turned = [
            re.sub(r"\bacme\.", "public.", line).replace("Schema: acme", "Schema: public") for line in direct
        ]
        # a dump of `public` makes no schema
        made = {line for line in turned if "SCHEMA" in line or "Name: acme" in line}
        assert {line for line in turned if line not in made} == {
            line for line in through if "SCHEMA" not in line
        }


def test_a_dump_of_everything_is_that_of_the_tenant(setting: Setting):
    through = dump(setting, "--schema-only")
    assert HIDDEN.findall(through) == []
    assert "tp_" not in through
    assert f"CREATE TABLE {setting.schema}.parts" in through
    assert "toast.autovacuum_enabled" in through


def test_a_dump_can_be_restored(setting: Setting):
    """As `public` by psql as it is; under a name of its own but for the schema, which is the platform's."""
    before = comparable(dump(setting, f"--schema={setting.schema}", "--inserts"))
    script = dump(setting, f"--schema={setting.schema}", "--clean", "--if-exists", "--no-owner")
    script = re.sub(r"(?m)^(DROP|CREATE) SCHEMA .*;$", "", script)
    done = setting.server.run_tool(
        "psql", ["-X", "-q", "-v", "ON_ERROR_STOP=1", "-1", setting.proxy.dsn()], stdin=script
    )
    assert done.returncode == 0, done.stderr
    assert comparable(dump(setting, f"--schema={setting.schema}", "--inserts")) == before


def reflected(url: str, schema: str | None) -> dict[str, Any]:
    engine = sqlalchemy.create_engine(url, poolclass=sqlalchemy.NullPool)
    inspector: Any = sqlalchemy.inspect(engine)
    found: dict[str, Any] = {"schemas": inspector.get_schema_names()}
    for name in sorted(inspector.get_table_names(schema)):
        found[name] = [
            [(column["name"], str(column["type"]), column["nullable"]) for column in
             inspector.get_columns(name, schema)],
            inspector.get_pk_constraint(name, schema),
            sorted(inspector.get_indexes(name, schema), key=str),
            [(key["name"], key["constrained_columns"], key["referred_table"]) for key in
             inspector.get_foreign_keys(name, schema)],
            inspector.get_check_constraints(name, schema),
            inspector.get_table_comment(name, schema),
        ]  # fmt: skip
    found["views"] = inspector.get_view_names(schema)
    found["enums"] = [(enum["name"], enum["labels"]) for enum in inspector.get_enums(schema)]
    found["sequences"] = inspector.get_sequence_names(schema)
    return found


@pytest.mark.parametrize("named", [False, True], ids=["default schema", "named schema"])
def test_sqlalchemy_finds_what_is_there(setting: Setting, named: bool):
    through = reflected(setting.proxy.url(scheme="postgresql+psycopg"), setting.schema if named else None)
    direct_url = setting.server.dsn(user="acme_app", password="acme-secret", database="app").replace(
        "postgresql://", "postgresql+psycopg://"
    )
    direct = reflected(direct_url, "acme")
    assert sorted(through.pop("schemas")) == sorted(["information_schema", *setting.schemas])
    direct.pop("schemas")
    assert through == direct


def test_information_schema(setting: Setting):
    with setting.proxy.connect() as connection:
        rows = connection.execute(
            "SELECT DISTINCT table_schema::text FROM information_schema.tables ORDER BY 1"
        )
        assert [row[0] for row in rows] == sorted(["information_schema", "pg_catalog", setting.schema])
        columns = connection.execute(
            "SELECT column_name FROM information_schema.columns"
            " WHERE table_schema = %s AND table_name = 'parts' ORDER BY ordinal_position",
            (setting.schema,),
        )
        assert [row[0] for row in columns] == ["id", "order_id", "feeling", "word"]
        assert connection.execute(
            "SELECT count(*) FROM information_schema.tables WHERE table_name LIKE 'zzz%'"
        ).fetchone() == (0,)


def test_errors_do_not_say_what_names_are_turned_to(setting: Setting):
    with setting.proxy.connect() as connection:
        for sql in (
            "SELECT nothing FROM pg_class",
            "SELECT relname::int FROM pg_catalog.pg_class",
            "SELECT pg_class.nothing FROM pg_catalog.pg_class",
            "SELECT pg_advisory_lock('a')",
            "DELETE FROM pg_class",
        ):
            with pytest.raises(psycopg.Error) as caught:
                connection.execute(sql)
            said = (
                str(caught.value)
                + str(caught.value.diag.message_detail)
                + str(caught.value.diag.message_hint)
            )
            assert "tp_" not in said
            assert HIDDEN.findall(said) == []
