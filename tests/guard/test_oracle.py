"""An oracle that does not know the parser: what the guard allows is run, and must not have touched beta.

They come from parts of the corpora's spliced together, so that names of beta's things stand in places nobody
thought of; from attacks written otherwise or put inside of statements; from sqlsmith; and from PostgreSQL's
own regression scripts.  `oracle.py` says how touching is seen.
"""

from __future__ import annotations

import copy
import os
import random
import re
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pglast import ast, parse_sql
from pglast.parser import ParseError, split
from pglast.stream import RawStream

from tenant_proxy.devel.postgres import Server
from tenant_proxy.model import Action
from tests.guard.corpus_files import DATABASE, any_oid, attacks, filled, legitimate, read
from tests.guard.corpus_files import HERE as CORPUS
from tests.guard.mutants import nested, rewritten
from tests.guard.oracle import Oracle
from tests.unit.guard.scope import judge

HERE = Path(__file__).parent

Kinds = tuple[type, ...]

EXPRESSIONS: Kinds = (
    ast.FuncCall,
    ast.TypeCast,
    ast.A_Expr,
    ast.ColumnRef,
    ast.SubLink,
    ast.A_Const,
    ast.CaseExpr,
    ast.CoalesceExpr,
    ast.A_Indirection,
    ast.A_ArrayExpr,
    ast.RowExpr,
    ast.CollateClause,
)
SOURCES: Kinds = (ast.RangeVar, ast.RangeFunction, ast.RangeSubselect)
TYPES: Kinds = (ast.TypeName,)

#: kinds of statements that can run in a transaction and say something about names
SPLICED = (
    *("SelectStmt", "InsertStmt", "UpdateStmt", "DeleteStmt", "MergeStmt", "CreateStmt", "ViewStmt"),
    *("CreateTableAsStmt", "ExplainStmt", "CreateFunctionStmt", "DoStmt", "PrepareStmt", "DeclareCursorStmt"),
    *("IndexStmt", "AlterTableStmt", "VariableSetStmt", "CallStmt", "DropStmt", "GrantStmt", "CommentStmt"),
)


class Splicer:
    """Makes statements from parts of others."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.trees: list[Any] = []
        for name in ("allowed.yaml", "refused.yaml"):
            for group in read(HERE / name):
                self.trees += (tree for sql in group["sql"] if (tree := self.parsed(sql)) is not None)
        self.parts = {
            kinds: [place[2] for tree in self.trees for place in places(tree, kinds)]
            for kinds in (EXPRESSIONS, SOURCES, TYPES)
        }

    @staticmethod
    def parsed(sql: str) -> Any:
        try:
            tree = parse_sql(sql.replace("\0", ""))
        except ParseError:
            return None
        return tree if len(tree) == 1 and type(tree[0].stmt).__name__ in SPLICED else None

    def statement(self) -> str | None:
        tree = copy.deepcopy(self.random.choice(self.trees))
        for _ in range(self.random.randint(1, 3)):
            kinds = self.random.choice([EXPRESSIONS, EXPRESSIONS, EXPRESSIONS, SOURCES, TYPES])
            found = places(tree, kinds)
            if found:
                owner, slot, _ = self.random.choice(found)
                part = copy.deepcopy(self.random.choice(self.parts[kinds]))
                try:
                    put(owner, slot, part)
                except (TypeError, ValueError):  # a node of another kind has to stand there
                    continue
        try:
            return str(RawStream()(tree))
        except Exception:  # not every tree can be written as SQL
            return None


def places(tree: Any, kinds: Kinds) -> list[tuple[Any, Any, Any]]:
    """(node, (field, index or None), part) of all parts of these kinds."""
    found: list[tuple[Any, Any, Any]] = []
    stack = [tree[0].stmt]
    while stack:
        node = stack.pop()
        for field in node:
            value = getattr(node, field)
            items = enumerate(value) if isinstance(value, tuple) else [(None, value)]
            for index, item in items:
                if isinstance(item, kinds):
                    found.append((node, (field, index), item))
                if isinstance(item, ast.Node):
                    stack.append(item)
    return found


def put(owner: Any, slot: tuple[str, int | None], part: Any) -> None:
    field, index = slot
    if index is None:
        setattr(owner, field, part)
    else:
        items = list(getattr(owner, field))
        items[index] = part
        setattr(owner, field, tuple(items))


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """The oracle's schemas in its database, and the corpus in another; in both all is open to acme_app."""
    with Server(settings={"track_functions": "all"}) as running:
        running.psql((HERE / "oracle_setup.sql").read_text())
        running.psql(f"CREATE DATABASE {DATABASE}")
        running.psql((CORPUS / "setup.sql").read_text(), database=DATABASE)
        for kind in ("TABLES", "SEQUENCES", "FUNCTIONS", "PROCEDURES"):
            running.psql(f"GRANT ALL ON ALL {kind} IN SCHEMA beta TO acme_app", database=DATABASE)
        running.psql("GRANT ALL ON SCHEMA beta TO acme_app; GRANT beta_app TO acme_app", database=DATABASE)
        yield running


def test_the_oracle_sees_what_is_not_guarded(server):
    with Oracle(server) as oracle:
        for sql in (
            "SELECT * FROM beta.orders",
            "SELECT beta.f(1)",
            "SELECT nextval('beta.seq')",
            "SET LOCAL search_path = beta",
            "SET LOCAL ROLE beta_app",
            "SET LOCAL standard_conforming_strings = off",
            "DO $$ BEGIN EXECUTE 'TABLE be' || 'ta.orders'; END $$",
        ):
            assert oracle.touched(sql), sql
        assert not oracle.touched("SELECT * FROM acme.orders")


# --- statements spliced from parts of others ----------------------------------------------------------------


def misses(server: Server, seed: int, seconds: float) -> tuple[int, list[str]]:
    """How many statements ran, and those that touched what they must not."""
    splicer = Splicer(seed)
    found = []
    deadline = time.monotonic() + seconds
    with Oracle(server) as oracle:
        while time.monotonic() < deadline:
            sql = splicer.statement()
            if sql is None or judge(sql).action is not Action.ALLOW:
                continue
            touched = oracle.touched(sql)
            if touched:
                found.append(f"{touched}: {sql}")
    return oracle.ran, found


@pytest.mark.slow
def test_spliced_statements(server):
    ran, found = misses(server, seed=1, seconds=8)
    assert found == []
    assert ran > 50


@pytest.mark.fuzz
@pytest.mark.timeout(3600)
def test_spliced_statements_for_long(server):
    seed = random.SystemRandom().randrange(1 << 32)
    ran, found = misses(server, seed, seconds=900)
    assert found == [], f"seed {seed}, {ran} ran"


# --- the corpus, written otherwise and put inside of statements ---------------------------------------------


def attack_texts() -> list[str]:
    return [
        filled(entry.sql[-1], any_oid)
        for entry in attacks()
        if entry.sql and entry.refuse and not (entry.needs or entry.params or entry.client_encoding)
    ]


def written_otherwise(texts: list[str], choice: random.Random) -> list[str]:
    """Those whose verdict depends on how they are written."""
    found = []
    for sql in texts:
        other = rewritten(sql, choice)
        if other is not None:
            first, second = judge(sql), judge(other)
            if (first.action, first.reason) != (second.action, second.reason):
                found.append(f"{first.reason} / {second.reason}: {sql} / {other!r}")
    return found


def test_how_it_is_written_decides_nothing():
    legitimate_texts = [filled(sql, any_oid) for talk in legitimate() for sql, _ in talk.steps]
    assert written_otherwise(attack_texts() + legitimate_texts, random.Random(1)) == []


@pytest.mark.fuzz
@pytest.mark.timeout(3600)
def test_how_it_is_written_decides_nothing_for_long():
    seed = random.SystemRandom().randrange(1 << 32)
    choice = random.Random(seed)
    for _ in range(200):
        assert written_otherwise(attack_texts(), choice) == [], f"seed {seed}"


@pytest.mark.slow
def test_attacks_inside_of_statements(server):
    """Refused, or they touch nothing."""
    found, refused, allowed = [], 0, 0
    with Oracle(server, DATABASE) as oracle:
        for sql in attack_texts():
            for statements in nested(sql):
                verdicts = [judge(statement).action for statement in statements]
                if Action.REJECT in verdicts:
                    refused += 1
                    continue
                allowed += 1
                touched = oracle.touched(*statements)
                if touched:
                    found.append(f"{touched}: {statements}")
    assert found == []
    assert refused > 10 * allowed > 0


# --- sqlsmith -----------------------------------------------------------------------------------------------


def smith_s_statements(server: Server, role: str, seed: int, count: int) -> list[str]:
    """Random queries over everything that the role may see."""
    program = shutil.which("sqlsmith")
    if program is None:
        pytest.skip("sqlsmith is not installed")
    target = f"host={server.host} port={server.port} dbname={DATABASE} user={role} password=secret"
    done = subprocess.run(
        [program, f"--target={target}", "--dry-run", f"--max-queries={count}", f"--seed={seed}"],
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    statements = [part.strip() for part in done.stdout.split(";\n") if part.strip()]
    assert len(statements) > count // 2, done.stderr[-2000:]
    return statements


def smith_s_misses(server: Server, seed: int, count: int) -> tuple[int, int, list[str]]:
    """How many of sqlsmith's statements ran and how many were refused; and what is wrong.

    Queries that name both schemas show misses; those that name the tenant's own are legitimate, but for the
    functions that it calls.
    """
    found: list[str] = []
    refused = 0
    with Oracle(server, DATABASE) as oracle:
        for role in ("acme_app", "acme_only"):
            for sql in smith_s_statements(server, role, seed, count):
                verdict = judge(sql)
                if verdict.action is Action.ALLOW:
                    touched = oracle.touched(sql)
                    found += [f"{touched}: {sql}"] if touched else []
                    continue
                refused += 1
                if "beta." not in sql and verdict.reason not in SMITH_MAY_NOT:
                    found.append(f"refused ({verdict.reason}: {verdict.message}): {sql}")
    return oracle.ran, refused, found


#: what sqlsmith does and no tenant may: it calls every function, and reads and writes whatever there is
SMITH_MAY_NOT = frozenset({"function", "catalog", "read_only_schema", "dynamic_query", "setting_dynamic"})


@pytest.fixture(scope="module")
def smith(server: Server) -> Server:
    server.psql("CREATE ROLE acme_only LOGIN PASSWORD 'secret'")
    for what in ("SCHEMA acme", "ALL TABLES IN SCHEMA acme"):
        server.psql(f"GRANT ALL ON {what} TO acme_only", database=DATABASE)
    return server


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_sqlsmith(smith):
    ran, refused, found = smith_s_misses(smith, seed=1, count=100)
    assert found == []
    assert ran > 20
    assert refused > 20


@pytest.mark.fuzz
@pytest.mark.timeout(3600)
def test_sqlsmith_for_long(smith):
    seed = random.SystemRandom().randrange(1 << 31)
    for step in range(20):
        _, _, found = smith_s_misses(smith, seed + step, count=1000)
        assert found == [], f"seed {seed + step}"


# --- PostgreSQL's own regression scripts --------------------------------------------------------------------

#: a directory with the .sql files of src/test/regress/sql
SCRIPTS = os.environ.get("TENANT_PROXY_REGRESS_SQL", "")

#: reasons for which statements of theirs are rightly refused: they are about roles, schemas, the server …
SCRIPTS_MAY_NOT = frozenset(
    {
        *(
            "statement",
            "cross_schema",
            "setting_refused",
            "setting_name",
            "search_path",
            "shared_object",
            "role",
        ),
        *(
            "function",
            "catalog",
            "read_only_schema",
            "language",
            "two_phase",
            "whole_database",
            "server_file",
        ),
    }
)


@pytest.mark.skipif(not SCRIPTS, reason="TENANT_PROXY_REGRESS_SQL names no directory with regression scripts")
@pytest.mark.timeout(3600)
def test_regression_scripts(server):
    """What they may is run, in acme; what they may not is refused for a reason that is known."""
    reasons: Counter[str] = Counter()
    found = []
    with Oracle(server, DATABASE) as oracle:
        for path in sorted(Path(SCRIPTS).glob("*.sql")):
            for sql in statements_of(path.read_text(errors="replace")):
                verdict = judge(sql)
                reasons[verdict.reason] += 1
                if verdict.action is not Action.ALLOW:
                    if verdict.reason not in SCRIPTS_MAY_NOT and not oracle.calls_it_syntax(sql):
                        found.append(f"refused ({verdict.message}): {sql}")
                elif "$" not in sql and (touched := oracle.touched(sql)):
                    found.append(f"{touched}: {sql}")
    print(f"{reasons.total()} statements, {oracle.ran} ran, refused: {reasons}")
    assert found == []


def statements_of(script: str) -> list[str]:
    """Without the data of COPY and psql's own commands."""
    script = re.sub(r"(?msi)^(COPY [^;]*FROM stdin[^;]*;)\n.*?^\\\.$", r"\1", script)
    script = re.sub(r"(?m)^\\.*$", "", script)
    script = re.sub(r"\\g\w*[^\n]*", ";", script)
    try:
        return list(split(script, with_parser=False))
    except ParseError:
        return [part for part in script.split(";\n") if part.strip()]
