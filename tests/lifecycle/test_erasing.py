"""A tenant who has every kind of object is erased until nothing of it is left, and comes back by import."""

from __future__ import annotations

import json

import pytest

from tenant_proxy.lifecycle import certificate, erasing, export, inventory, restore
from tenant_proxy.lifecycle.certificate import CertificateError
from tests.lifecycle.test_export import dumped, taken


async def erase(place, estate) -> tuple:
    roles = estate.all_roles()
    async with place.database_of().connected() as connection:
        was = await inventory.oids(connection, estate)
        await erasing.end_sessions(connection, roles)
        await erasing.drop_schema(connection, estate.schema)
        await erasing.drop_large_objects(connection, roles)
        await erasing.drop_roles(connection, place.database_of(), roles)
        return await erasing.scan(connection, place.database_of(), estate, was)


@pytest.mark.slow
async def test_export_erase_import_gives_the_same_tenant(any_place, tmp_path):
    estate = any_place.with_everything()
    before, had = dumped(any_place, estate.schema), await taken(any_place, estate)
    await export.export(any_place.database_of(), estate, tmp_path / "a.tar", tenant="x")
    assert await erase(any_place, estate) == ()
    # once more does no harm
    assert await erase(any_place, estate) == ()
    await restore.restore(any_place.database_of(), tmp_path / "a.tar")
    assert dumped(any_place, estate.schema) == before
    assert await taken(any_place, estate) == had


async def test_what_a_role_has_in_another_database_goes_too(place):
    estate = place.with_roles("erased_far")
    place.server.psql(
        f"CREATE TABLE far_away (i int); ALTER TABLE far_away OWNER TO {estate.owner};"
        f"GRANT SELECT ON public.countries TO {estate.roles[1]};",
        database="app",
    )
    assert await erase(place, estate) == ()


async def test_sessions_of_its_logins_end(place):
    estate = place.with_roles("erased_busy")
    place.sql("ALTER ROLE erased_busy_app PASSWORD 'secret'")
    session = await place.connect(user="erased_busy_app", password="secret")
    async with place.database_of().connected() as connection:
        await erasing.end_sessions(connection, estate.all_roles())
    with pytest.raises(Exception, match=r"terminat|closed|in progress"):
        await session.fetch("SELECT 1")
    session.terminate()
    with pytest.raises(Exception, match="not permitted to log in"):
        await place.connect(user="erased_busy_app", password="secret")


async def test_what_others_made_of_its_objects_is_told(place):
    mine, other = place.with_roles("depended_on"), place.with_roles("depends")
    place.sql(
        f"CREATE TABLE {mine.schema}.t (id int PRIMARY KEY, x int[]);"
        f"CREATE TYPE {mine.schema}.r AS RANGE (subtype = int);"
        f"CREATE TABLE {mine.schema}.u (id int REFERENCES {mine.schema}.t, y {mine.schema}.r[]);"
    )
    connection = await place.connect()
    try:
        assert await erasing.dependents(connection, mine.schema) == []
        place.sql(
            f"CREATE VIEW {other.schema}.v AS SELECT id FROM {mine.schema}.t;"
            f"CREATE TABLE {other.schema}.w (id int REFERENCES {mine.schema}.t);"
        )
        found = await erasing.dependents(connection, mine.schema)
        assert [f"{other.schema}." in one or other.schema in one for one in found] == [True] * len(found)
        assert len(found) >= 2
    finally:
        await connection.close()


async def test_many_tables_go_in_pieces(place, monkeypatch):
    monkeypatch.setattr(erasing, "_PIECE", 3)
    estate = place.with_roles("erased_large")
    place.sql(
        "".join(f"CREATE TABLE {estate.schema}.t{n} (id int PRIMARY KEY);" for n in range(10))
        + f"CREATE VIEW {estate.schema}.v AS SELECT * FROM {estate.schema}.t0;"
    )
    assert await erase(place, estate) == ()


def test_a_record_is_signed_and_checked():
    private, public = certificate.new_key()
    record = {"format": certificate.FORMAT, "tenant": "acmé", "removed": {"table": 3}}
    text = json.dumps(certificate.signed(record, certificate.read_private_key(private)))
    assert certificate.verify(text, certificate.read_public_key(public)) == record
    with pytest.raises(CertificateError, match="not what was signed"):
        certificate.verify(text.replace('"table": 3', '"table": 2'))
    with pytest.raises(CertificateError, match="another key"):
        certificate.verify(text, certificate.read_public_key(certificate.new_key()[1]))
    with pytest.raises(CertificateError, match="not signed"):
        certificate.verify(json.dumps(certificate.signed(record, None)))
    for harm in ("", "[]", "{}", '{"record": {}}', '{"record": {"format": "x"}, "signature": 1}'):
        with pytest.raises(CertificateError):
            certificate.verify(harm)
