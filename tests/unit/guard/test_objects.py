"""What a statement names, and what the reasons of refusals mean."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import tenant_proxy.guard
from tenant_proxy.guard.explain import explain
from tenant_proxy.guard.reasons import REASONS
from tenant_proxy.guard.source import edited
from tenant_proxy.model import Edit
from tests.unit.guard.scope import ACME


@pytest.mark.parametrize(
    ("sql", "names"),
    [
        ("SELECT * FROM acme.o JOIN x USING (a)", "relation acme.o, relation x"),
        ("WITH x AS (SELECT 1) SELECT * FROM x, acme.x", "relation acme.x"),
        ("SELECT acme.f(1), lower('a')", "function acme.f, function lower"),
        ("SELECT 'a'::acme.mood, 1::int", "type acme.mood"),
        ("SELECT nextval('acme.s')", "function nextval, relation acme.s"),
        ("SELECT 'acme.t'::regclass", "relation acme.t, type regclass"),
        ("SELECT 1 OPERATOR(acme.+) 2 COLLATE acme.c", "operator acme.+, collation acme.c"),
        ("SET search_path TO acme", "setting search_path"),
        ("SELECT set_config('app.x', '1', true)", "function set_config, setting app.x"),
        ("GRANT SELECT ON t TO acme_app", "relation t, role acme_app"),
        ("DROP TABLE acme.a, b", "relation acme.a, relation b"),
        ("DROP SCHEMA x", "schema x"),
        ("COMMENT ON FUNCTION acme.f(int) IS 'x'", "function acme.f"),
        ("COMMENT ON TABLE acme.t IS 'x'", "relation acme.t"),
        ("ALTER TABLE acme.t SET SCHEMA other", "relation acme.t, schema other"),
        ("CREATE EXTENSION x", "extension x"),
        ("LISTEN news", "channel news"),
        ("DO $$ BEGIN PERFORM 1 FROM acme.t; END $$", "relation acme.t"),
        ("PREPARE p AS SELECT * FROM acme.t", "relation acme.t"),
    ],
)
def test_objects(sql, names):
    assert ", ".join(f"{one.kind} {one.name}" for one in explain(ACME, sql).objects) == names


def test_places_are_in_characters():
    said = explain(ACME, "SELECT 'é', 1\nFROM acme.t").as_dict()
    assert said["objects"] == [{"kind": "relation", "name": "acme.t", "position": 20}]
    assert "line 2, column 6" in explain(ACME, "SELECT 'é', 1\nFROM acme.t").in_words()


def test_edits_are_places_in_bytes():
    sql = "SELECT 'é' FROM public.a, public.b"
    at = sql.encode().index(b"public.a")
    edits = (Edit(at, at + 6, "acme"), Edit(at + 10, at + 16, "acme"))
    assert edited(sql, edits) == "SELECT 'é' FROM acme.a, acme.b"


def test_every_reason_has_a_meaning():
    source = "".join(path.read_text() for path in Path(tenant_proxy.guard.__file__).parent.glob("*.py"))
    used = set(re.findall(r'(?:refuse|_refused|Refusal)\(\s*"([a-z_]+)"', source))
    used |= set(re.findall(r'\breason="([a-z_]+)"', source))
    # bits of effects have reasons of their own
    missing = used - REASONS.keys() - {"advisory_lock"}
    assert not missing
