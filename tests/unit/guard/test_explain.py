"""Verdicts in words and as JSON."""

from __future__ import annotations

import json

from tenant_proxy.guard.explain import as_dict, in_words
from tests.unit.guard.scope import judge


def test_a_refusal_points_at_its_place():
    sql = "SELECT *\n  FROM beta.orders"
    assert in_words(judge(sql), sql).splitlines()[:3] == [
        "refused: ERROR 42501: permission denied for schema beta",
        "LINE 2:   FROM beta.orders",
        "               ^",
    ]


def test_an_allowed_statement_says_what_it_does():
    said = in_words(judge("CREATE TEMP TABLE x (a int)"))
    assert said == (
        "allowed: writes, pins, ddl, escalates\n"
        "pins the client to its backend: temp_table\n"
        "holds for this text only"
    )
    assert in_words(judge("")).startswith("allowed: nothing to note")
    assert "work_mem" in in_words(judge("SET work_mem = 5"))


def test_json():
    sql = "SELECT set_config('app.user', 'secret', false), 7"
    said = as_dict(judge(sql), sql)
    assert json.loads(json.dumps(said)) == {
        "action": "allow",
        "effects": ["READS", "SETTINGS"],
        "exact": True,
        "settings": ["app.user"],
        "shape": "SELECT set_config(?, ?, false), ?",
    }
    assert as_dict(judge("SELECT * FROM beta.t"))["object"] == "beta.t"
