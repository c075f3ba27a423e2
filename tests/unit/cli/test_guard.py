"""guard explain and guard scan: what they say and their exit status."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pytest

from tenant_proxy.cli import guard_scan, main

CONFIG = """
clusters: [{name: main, host: localhost, database: app}]
tenants:
  - {name: acme, schema: acme_data}
  - {name: beta, policy: {mode: observe, allowed_schemas: [shared]}}
users:
  - {name: acme_app, tenant: acme, password: {value: s}}
  - {name: acme_ro, tenant: acme, password: {value: s}}
"""


@pytest.fixture
def config(tmp_path: Path) -> str:
    path = tmp_path / "tp.yaml"
    path.write_text(CONFIG)
    path.chmod(0o600)
    return str(path)


@pytest.fixture(autouse=True)
def no_config_around(monkeypatch):
    monkeypatch.delenv("TENANT_PROXY_CONFIG", raising=False)


# --- explain ---------------------------------------------------------------------


def test_a_refusal_is_shown_as_psql_would(capsys):
    assert main(["guard", "explain", "SELECT 1,\n x FROM beta.orders"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[:3] == [
        "refused: ERROR 42501: permission denied for schema beta",
        "LINE 2:  x FROM beta.orders",
        "                ^",
    ]
    assert "OBJECT: beta.orders" in lines
    assert "  relation  beta.orders  line 2, column 9" in lines


def test_what_is_allowed(capsys):
    assert main(["guard", "explain", "SELECT set_config('work_mem', '1', false) FROM orders"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("allowed: reads, settings\nchanges settings: work_mem\n")
    assert "  setting   work_mem" in said


def test_explained_as_json(capsys):
    assert main(["guard", "explain", "--json", "DO $$ BEGIN PERFORM f() FROM beta.t; END $$"]) == 1
    said = json.loads(capsys.readouterr().out)
    assert (said["action"], said["reason"], said["object"]) == ("reject", "cross_schema", "beta.t")
    # what code names is told at the code
    assert {"kind": "function", "name": "f", "position": 4} in said["objects"]


def test_text_of_others_can_not_move_a_terminal(tmp_path, capsys):
    (tmp_path / "x.sql").write_text('TABLE "\x1b[31m".x')
    main(["guard", "explain", "--file", str(tmp_path / "x.sql")])
    main(["guard", "scan", str(tmp_path)])
    assert "\x1b" not in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [["-"], ["--file", "-"]])
def test_text_from_stdin(arguments, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", io.StringIO("TABLE orders"))
    assert main(["guard", "explain", *arguments]) == 0


def test_text_from_a_file(tmp_path, capsys):
    path = tmp_path / "x.sql"
    path.write_text("SELECT 1; CREATE ROLE x")
    assert main(["guard", "explain", "-f", str(path)]) == 1
    assert "permission denied to create role" in capsys.readouterr().out


def test_tenants_of_a_configuration(config, capsys):
    assert main(["guard", "explain", "-c", config, "-t", "acme", "SELECT * FROM acme_data.x, acme.x"]) == 1
    assert '"acme_data"' in capsys.readouterr().out
    assert main(["guard", "explain", "-c", config, "-t", "acme", "GRANT SELECT ON x TO acme_ro"]) == 0
    assert main(["guard", "explain", "-c", config, "-t", "beta", "SELECT * FROM shared.x"]) == 0
    capsys.readouterr()
    assert main(["guard", "explain", "-c", config, "-t", "beta", "SELECT * FROM acme.x"]) == 1
    assert 'mode is "observe": it is let through' in capsys.readouterr().out


def test_policies_of_files(tmp_path, capsys):
    policy = tmp_path / "p.yaml"
    policy.write_text("allowed_schemas: [beta]\n")
    assert main(["guard", "explain", "--policy", str(policy), "SELECT * FROM beta.orders"]) == 0
    policy.write_text("allowed_schema: [beta]\n")
    assert main(["guard", "explain", "--policy", str(policy), "SELECT 1"]) == 2
    assert f'{policy}:1:1: error: allowed_schema: unknown key "allowed_schema"' in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["explain"], "give the SQL"),
        (["explain", "SELECT 1", "--file", "x"], "give the SQL"),
        (["explain", "--file", "/no/such"], "No such file"),
        (["explain", "SELECT 1", "-c", "CONFIG"], "has 2 tenants"),
        (["explain", "SELECT 1", "-c", "CONFIG", "-t", "acm"], 'did you mean "acme"?'),
        (["explain", "SELECT 1", "-c", "CONFIG", "-t", "acme", "--schema", "x"], "without a configuration"),
        (["explain", "SELECT 1", "-c", "/no/such"], "cannot read the file"),
        (["scan", "/no/such"], "No such file"),
    ],
)
def test_wrong_usage(arguments, says, config, capsys):
    assert main(["guard", *(config if one == "CONFIG" else one for one in arguments)]) == 2
    assert says in capsys.readouterr().err


# --- scan ------------------------------------------------------------------------


@pytest.fixture
def migrations(tmp_path: Path) -> Path:
    root = tmp_path / "migrations"
    (root / "sub").mkdir(parents=True)
    (root / ".git").mkdir()
    (root / ".git" / "x.sql").write_text("DROP SCHEMA x")
    (root / "001.sql").write_text(
        "\\set x 1\nCREATE TABLE t (a int);\nSELECT *\n  FROM\n beta.orders;\n"
        "COPY t FROM stdin;\nbeta.x;\n\\.\n"
    )
    (root / "sub" / "002.sql").write_text("SELECT * FROM ${schema}.t;\nCREATE EXTENSION x; TABLE beta.x")
    (root / "0003.py").write_text("op.execute('DROP SCHEMA beta')")
    return root


def test_a_directory_of_migrations(migrations, capsys):
    assert main(["guard", "scan", str(migrations)]) == 1
    said = capsys.readouterr().out.splitlines()
    assert said == [
        "would be refused: cross_schema, an object of a schema that the tenant may not name (2)",
        f"  {migrations}/001.sql:5: permission denied for schema beta (beta.orders)",
        f"  {migrations}/sub/002.sql:2: permission denied for schema beta (beta.x)",
        "would be refused: statement:CreateExtensionStmt, a kind of statement that is the platform's (1)",
        f'  {migrations}/sub/002.sql:2: permission denied to create extension "x" (CREATE EXTENSION)',
        "can't be read: syntax, text that the parser can't read (1)",
        f'  {migrations}/sub/002.sql:1: syntax error at or near "$"; "${{" looks like a place that a tool'
        " fills in",
        f"not parsed: 1 Python file; {guard_scan.PROGRAMS_HINT}",
        "6 statements in 2 files: 2 allowed, 3 refused, 1 unreadable",
    ]


def test_scanned_as_json(migrations, capsys):
    assert main(["guard", "scan", "--json", "--limit", "1", str(migrations)]) == 1
    said = json.loads(capsys.readouterr().out)
    assert (said["ok"], said["tenant"], said["files"]) == (False, "acme", 2)
    assert said["statements"] == {"allowed": 2, "refused": 3, "unsure": 0, "unreadable": 1}
    assert said["skipped"] == {"Python": 1}
    group = said["refused"][0]
    assert (group["rule"], group["count"], len(group["places"])) == ("cross_schema", 2, 1)
    assert group["places"][0]["line"] == 5


def test_nothing_to_refuse(tmp_path, capsys):
    (tmp_path / "x.sql").write_text("SELECT 1;")
    assert main(["guard", "scan", str(tmp_path)]) == 0
    assert capsys.readouterr().out == "1 statement in 1 file: 1 allowed, 0 refused\n"


def test_a_script_from_stdin(monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", io.StringIO("SELECT 1;\nTABLE beta.x;"))
    assert main(["guard", "scan", "-"]) == 1
    assert "<stdin>:2: " in capsys.readouterr().out


DUMP = [
    ("SELECT *\nFROM beta.orders WHERE a = $1", "refused"),
    ("SELECT a FROM orders WHERE b IN ($1 /*, ... */)", "allowed"),
    ("SELECT interval $1", "allowed"),
    ("SET work_mem = $1", "allowed"),
    ("SET role = $1", "unsure"),
    ("SET search_path = $1", "unsure"),
    ("SELECT set_config($1, $2, $3)", "unsure"),
    ("SAVEPOINT $1", "allowed"),
    ("FETCH $1 IN c", "allowed"),
    ("SELECT a FROM orders WHERE b = $1 AND (c", "unreadable"),
    ("<insufficient privilege>", "unreadable"),
    ("INSERT INTO orders VALUES ($1, $2)", "allowed"),
    ("ALTER SYSTEM SET x = $1", "refused"),
]


@pytest.mark.parametrize("form", ["csv", "json", "jsonl"])
def test_a_dump_of_pg_stat_statements(form, tmp_path, capsys):
    path = tmp_path / f"statements.{form}"
    if form == "csv":
        rows = [f'1,"{query}",{number}' for number, (query, _) in enumerate(DUMP)]
        path.write_text("\n".join(["userid,query,calls", *rows]) + "\n")
    else:
        rows = [json.dumps({"query": query, "calls": number}) for number, (query, _) in enumerate(DUMP)]
        path.write_text(f"[{', '.join(rows)}]" if form == "json" else "\n".join(rows))
    assert main(["guard", "scan", "--json", str(path)]) == 1
    said = json.loads(capsys.readouterr().out)
    kinds = [kind for _, kind in DUMP]
    assert said["statements"] == {kind: kinds.count(kind) for kind in said["statements"]}
    assert said["refused"][0]["places"][0]["line"] == {"csv": 3, "json": 1, "jsonl": 1}[form]


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("x.csv", "a,b\n1,2\n", 'no column "query"'),
        ("x.json", "[1", "not JSON"),
        ("x.json", "[1]", 'no object with a key "query"'),
        ("x.jsonl", '{"query": "SELECT 1"}\n{', "x.jsonl:2: not JSON"),
        ("x.py", "x", "Python is not parsed"),
        ("x.sql", b"SELECT '\xe9'", "not UTF-8"),
    ],
)
def test_files_that_are_not_what_they_should_be(name, text, says, tmp_path, capsys):
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    assert main(["guard", "scan", str(path)]) == 2
    assert says in capsys.readouterr().err


def test_a_line_without_end_is_not_read_into_memory(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(guard_scan, "MAX_LINE", 1000)
    (tmp_path / "x.sql").write_text("SELECT '" + "x" * 2000 + "'")
    assert main(["guard", "scan", str(tmp_path)]) == 2
    assert "a line is longer than 1000 characters" in capsys.readouterr().err
