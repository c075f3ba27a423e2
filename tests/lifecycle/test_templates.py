"""A template makes tenants that are as it is, at once, and as it is now."""

from __future__ import annotations

import pytest

from tenant_proxy.lifecycle import inventory, ledger, rights, templates
from tenant_proxy.lifecycle.templates import Roles, TemplateError
from tests.lifecycle.test_export import dumped

TABLES = """
CREATE SCHEMA pattern; SET search_path = pattern;
CREATE TABLE kinds (id int PRIMARY KEY, name text);
INSERT INTO kinds VALUES (1, E'one; ''and''\\n--'), (2, 'pattern.kinds');
CREATE TABLE things (id bigserial PRIMARY KEY, kind int REFERENCES kinds);
"""


def roles(schema: str) -> Roles:
    return Roles(schema, f"{schema}_owner", f"{schema}_readwrite", f"{schema}_readonly")


async def provisioned(place, connection, schema: str) -> Roles:
    made = roles(schema)
    place.known(schema)
    await connection.execute("".join(f"CREATE ROLE {name} NOLOGIN;" for name in made.names()[1:]))
    await connection.execute(f"CREATE SCHEMA {schema} AUTHORIZATION {made.owner}")
    await connection.execute(";".join(rights.schema_rights(*made.names())))
    return made


@pytest.fixture
async def pattern(place, conn):
    place.sql(TABLES)
    yield Roles("pattern", "postgres")
    place.sql("DROP SCHEMA pattern CASCADE")


async def test_what_is_made_is_the_owners_with_the_usual_rights(place, conn, pattern):
    made = await provisioned(place, conn, "made_1")
    await templates.fill(conn, place.database_of(), pattern, made)
    assert place.sql("SELECT id || name FROM made_1.kinds ORDER BY id") == place.sql(
        "SELECT id || name FROM pattern.kinds ORDER BY id"
    )
    query = (
        "SELECT DISTINCT pg_get_userbyid(relowner) FROM pg_class WHERE relnamespace = 'made_1'::regnamespace"
    )
    assert place.sql(query) == made.owner
    assert place.sql(f"SELECT has_table_privilege('{made.readonly}', 'made_1.things', 'SELECT')") == "t"
    assert place.sql(f"SELECT has_table_privilege('{made.readonly}', 'made_1.things', 'INSERT')") == "f"


async def test_a_script_whose_code_was_confined_otherwise_is_made_again(conn, pattern, monkeypatch):
    before = await templates.fingerprint(conn, "pattern")
    monkeypatch.setattr(templates, "jailed", lambda sql, schema, owner, *ending: f"other {sql}")
    assert await templates.fingerprint(conn, "pattern") != before


async def test_tables_are_made_by_their_owner_and_nothing_around_it(place, conn):
    """Up to the first statement that may run code, or whose rows may."""
    place.sql(
        "CREATE SCHEMA plain; CREATE TABLE plain.a (id int PRIMARY KEY, at timestamptz DEFAULT now());"
        "CREATE TABLE plain.b (id bigserial PRIMARY KEY, a int REFERENCES plain.a);"
        "CREATE INDEX ON plain.b (a)"
    )
    try:
        script, _ = await templates.build(conn, place.database_of(), Roles("plain", "postgres"))
        assert "tp_jail" not in script
        assert f"SET LOCAL ROLE {templates.PLACES.owner}" in script
        place.sql("CREATE FUNCTION plain.f() RETURNS int LANGUAGE sql AS 'SELECT 1'")
        place.sql("CREATE TABLE plain.c (id int CHECK (id > plain.f())); INSERT INTO plain.a VALUES (1)")
        script, _ = await templates.build(conn, place.database_of(), Roles("plain", "postgres"))
        before, confined, _ = script.partition("tp_jail")
        assert confined
        assert "CREATE TABLE" in before
        assert ".c (" not in before
        assert "INSERT" not in before
    finally:
        place.sql("DROP SCHEMA plain CASCADE")


async def test_a_change_is_noticed_whatever_it_is(place, conn, pattern):
    seen = {await templates.fingerprint(conn, "pattern")}
    changes = [
        "ALTER TABLE pattern.things ADD note text",
        "CREATE INDEX ON pattern.things (note)",
        "ALTER TABLE pattern.things ALTER note SET DEFAULT 'x'",
        "ALTER TABLE pattern.things ADD CHECK (note <> 'y')",
        "COMMENT ON COLUMN pattern.things.note IS 'z'",
        "GRANT SELECT ON pattern.things TO PUBLIC",
        "INSERT INTO pattern.kinds VALUES (3, 'three')",
        "UPDATE pattern.kinds SET name = 'four' WHERE id = 3",
        "SELECT nextval('pattern.things_id_seq')",
        "CREATE FUNCTION pattern.f() RETURNS int LANGUAGE sql RETURN 1",
        "CREATE OR REPLACE FUNCTION pattern.f() RETURNS int LANGUAGE sql RETURN 2",
        "CREATE TYPE pattern.mood AS ENUM ('a')",
        "ALTER TYPE pattern.mood ADD VALUE 'b'",
        "ALTER TABLE pattern.things ENABLE ROW LEVEL SECURITY",
        "CREATE POLICY p ON pattern.things USING (true)",
        "DROP INDEX pattern.things_note_idx",
    ]
    for change in changes:
        place.sql(change)
        found = await templates.fingerprint(conn, "pattern")
        assert found not in seen, change
        seen.add(found)
    place.sql("VACUUM ANALYZE pattern.things")
    assert await templates.fingerprint(conn, "pattern") == found
    made = await provisioned(place, conn, "made_2")
    await templates.fill(conn, place.database_of(), pattern, made)
    assert "note" in dumped(place, "made_2")


async def test_the_script_is_made_once(place, conn, pattern, monkeypatch):
    await templates.fill(conn, place.database_of(), pattern, await provisioned(place, conn, "made_3"))
    monkeypatch.setattr(templates, "build", None)
    monkeypatch.setattr(templates, "_FRESH_S", -1)  # as another process
    await templates.fill(conn, place.database_of(), pattern, await provisioned(place, conn, "made_4"))


@pytest.mark.slow
async def test_a_tenant_with_everything_may_be_a_template(any_place):
    estate = any_place.with_everything()
    connection = await any_place.connect()
    try:
        golden = roles(estate.schema)
        # what default privileges would give, and this tenant does not
        any_place.sql(f"REVOKE ALL ON {estate.schema}.parent FROM {golden.readonly}")
        made = await provisioned(any_place, connection, f"{estate.schema}_too")
        await templates.fill(connection, any_place.database_of(), golden, made)
        had = await inventory.take(connection, golden.estate())
        has = await inventory.take(connection, made.estate())
        names = {(item.kind, item.name) for item in templates._things(had)}
        assert {(item.kind, item.name) for item in templates._things(has)} == names
        assert (
            any_place.sql(f"SELECT has_table_privilege('{made.readonly}', '{made.schema}.parent', 'SELECT')")
            == "f"
        )
    finally:
        await connection.close()


async def test_a_template_that_is_not_there_or_too_large(place, conn, pattern, monkeypatch):
    with pytest.raises(TemplateError, match="no schema"):
        await templates.fingerprint(conn, "nowhere")
    monkeypatch.setattr(templates, "_MAX_ROWS_BYTES", 100)
    with pytest.raises(TemplateError, match="more than 100"):
        await templates.fingerprint(conn, "pattern")


async def test_migrations_come_along(place, conn, pattern):
    await ledger.note(conn, "pattern", [{"version": 7, "name": "x", "checksum": "y"}])
    await templates.fill(conn, place.database_of(), pattern, await provisioned(place, conn, "made_5"))
    assert await ledger.migrations(conn, ["made_5"]) == {"made_5": {7: ("x", "y")}}
    await ledger.forget(conn, "made_5")
    assert await ledger.migrations(conn, ["made_5"]) == {}


def test_foreign_keys_are_made_with_their_tables():
    """Where those they refer to are there before, and no rows come between."""
    made = [f"CREATE TABLE s.{name} (\n    id int,\n    other int\n)" for name in ("a", "b", "c", "d")]
    key = "ALTER TABLE ONLY s.{}\n    ADD CONSTRAINT {}_fk FOREIGN KEY (other) REFERENCES s.{}(id)"
    rest = ["INSERT INTO s.d (id) VALUES\n\t(1)", *(key.format(*one) for one in ("aab", "bba", "ccc", "dda"))]
    found = templates.with_references([*made, *rest])
    assert [sql.split()[2] for sql in found[:4]] == ["s.c", "s.d", "s.a", "s.b"]
    assert found[0].endswith(",\n    CONSTRAINT c_fk FOREIGN KEY (other) REFERENCES s.c(id)\n)")
    # the two that refer to each other can't both be before the other
    assert found[2] == made[0]
    assert found[3].endswith(",\n    CONSTRAINT b_fk FOREIGN KEY (other) REFERENCES s.a(id)\n)")
    assert found[1] == made[3]
    assert found[4:] == [rest[0], rest[1], rest[4]]
    # and later ones come first where that is all it takes
    later = templates.with_references([*made[:2], key.format("a", "a", "b")])
    assert [sql.split()[2] for sql in later] == ["s.b", "s.a"]
    # but not where one is made of the other's row type
    typed = [made[0], "CREATE TABLE s.b (\n    id s.a[],\n    other int\n)", key.format("a", "a", "b")]
    assert templates.with_references(typed) == typed


SEQUENCES = """
CREATE SCHEMA pattern; SET search_path = pattern;
CREATE TABLE kinds (id int GENERATED BY DEFAULT AS IDENTITY (START 7), "Odd" smallint
    GENERATED ALWAYS AS IDENTITY (START -5 INCREMENT -1), number bigserial);
CREATE SEQUENCE down INCREMENT -1 START -3; CREATE SEQUENCE small AS smallint;
CREATE SEQUENCE "Odd One"; CREATE SEQUENCE "it's";
CREATE SEQUENCE used; SELECT nextval('used');
CREATE SEQUENCE moved START 5; SELECT setval('moved', 9, false);
"""


async def test_sequences_are_set_where_they_were_used(place, conn):
    place.sql(SEQUENCES)
    pattern = Roles("pattern", "postgres")
    try:
        script, _ = await templates.build(conn, place.database_of(), pattern)
        await templates.fill(conn, place.database_of(), pattern, await provisioned(place, conn, "made_6"))
    finally:
        values: dict[str, dict[str, object]] = {}
        for schema in ("pattern", "made_6"):
            names = await conn.fetch("SELECT sequencename FROM pg_sequences WHERE schemaname = $1", schema)
            for row in names:
                query = f'SELECT last_value, is_called FROM {schema}."{row["sequencename"]}"'
                values.setdefault(schema, {})[row["sequencename"]] = tuple(await conn.fetchrow(query))
        place.sql("DROP SCHEMA pattern CASCADE")
    assert len(values["pattern"]) == 9
    assert values["made_6"] == values["pattern"]
    # names with other than letters are looked for nowhere
    sets = [line for line in script.splitlines() if "setval" in line]
    assert sorted(line.partition("tp_schema_3f0b7c51d2a94e86")[2] for line in sets) == [
        """."Odd One"', 1, false);""",
        """."it''s"', 1, false);""",
        ".moved', 9, false);",
        ".used', 1, true);",
    ]


def test_a_schema_that_was_just_made_has_the_rights_of_any_other(place):
    """There nothing is looked for on which to grant them."""
    acls = (
        "SELECT nspacl::text FROM pg_namespace WHERE nspname = 'new' UNION ALL"
        " SELECT concat(defaclobjtype, defaclacl) FROM pg_default_acl WHERE defaclrole = 'new_owner'::regrole"
        " ORDER BY 1"
    )
    names = ("new", "new_owner", "new_readwrite", "new_readonly")
    first, anew = (rights.schema_rights(*names, empty=empty) for empty in (True, False))
    made = "".join(f"CREATE ROLE {role};" for role in names[1:])
    said = place.sql(
        f"BEGIN; {made} CREATE SCHEMA new AUTHORIZATION new_owner; {';'.join(first)}; {acls};"
        f"SELECT 'then'; {';'.join(anew)}; {acls}; ROLLBACK"
    )
    before, after = ([line for line in part.split("\n") if "{" in line] for part in said.split("then"))
    assert before == after
    assert len(before) == 7
    assert not any(" ON ALL " in statement for statement in first)
