"""An oracle that does not know the parser: what the guard allows is run, and must not have touched beta.

Statements are spliced from parts of the corpora's, so that names of beta's things come to stand in places
nobody thought of.  The role that runs them may do everything in both schemas.  Touching is seen in pg_locks,
in the counters of calls, and in who and where the session is afterwards.
"""

from __future__ import annotations

import copy
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import yaml
from pglast import ast, parse_sql
from pglast.parser import ParseError
from pglast.stream import RawStream

from tenant_proxy.devel.postgres import Server
from tenant_proxy.model import Action
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

TOUCHED = """
SELECT (SELECT string_agg(c.relname, ',') FROM pg_catalog.pg_locks l
          JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) l.relation
          JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
         WHERE l.pid OPERATOR(pg_catalog.=) pg_catalog.pg_backend_pid() AND n.nspname = 'beta'),
       (SELECT string_agg(funcname, ',') FROM pg_catalog.pg_stat_xact_user_functions
         WHERE schemaname = 'beta'),
       current_user, pg_catalog.current_setting('search_path')
"""


class Splicer:
    """Makes statements from parts of others."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.trees: list[Any] = []
        for name in ("allowed.yaml", "refused.yaml"):
            for group in yaml.safe_load((HERE / name).read_text()):
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
    with Server(settings={"track_functions": "all"}) as running:
        running.psql((HERE / "oracle_setup.sql").read_text())
        yield running


def connected(server: Server) -> psycopg.Connection:
    options = "-c search_path=acme,public -c statement_timeout=500 -c lock_timeout=200"
    return psycopg.connect(server.dsn(user="acme_app", password="secret"), autocommit=True, options=options)


def misses(server: Server, seed: int, seconds: float) -> tuple[int, list[str]]:
    """How many statements ran, and those that touched what they must not."""
    splicer = Splicer(seed)
    connection = connected(server)
    ran, found = 0, []
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        sql = splicer.statement()
        if sql is None or judge(sql).action is not Action.ALLOW:
            continue
        try:
            connection.execute("BEGIN")
            connection.execute(sql.encode())
            touched = connection.execute(TOUCHED).fetchone()
            ran += 1
            if touched != (None, None, "acme_app", touched and touched[3]) or "beta" in str(touched[3]):
                found.append(f"{touched}: {sql}")
            connection.execute("ROLLBACK")
        except psycopg.Error:
            connection.close()
            connection = connected(server)
    connection.close()
    return ran, found


def test_the_oracle_sees_what_is_not_guarded(server):
    with connected(server) as connection:
        for sql in ("SELECT * FROM beta.orders", "SELECT beta.f(1)", "SELECT nextval('beta.seq')"):
            connection.execute("BEGIN")
            connection.execute(sql.encode())
            touched = connection.execute(TOUCHED).fetchone()
            connection.execute("ROLLBACK")
            assert touched is not None
            assert touched[0] or touched[1], sql
            assert judge(sql).action is Action.REJECT


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
