"""All statements of the corpora, where names are turned: nothing opens, and no catalog is left as it was."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tenant_proxy.guard.parse import parse
from tenant_proxy.guard.policy import GuardScope
from tenant_proxy.model import Action
from tenant_proxy.shims import names
from tests.guard.corpus_files import read
from tests.unit.guard.scope import HIDING, PUBLIC, applied, judge

HERE = Path(__file__).parent


def texts(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        node = list(node.values())
    if isinstance(node, list):
        for item in node:
            yield from texts(item)
    elif isinstance(node, str):
        yield node


STATEMENTS = sorted({text for path in HERE.rglob("*.yaml") for text in texts(read(path))})


def relations(tree: Any) -> Iterator[tuple[str | None, str]]:
    """(schema, name) of each relation that is named, and (None, name) of each common table."""
    if isinstance(tree, dict):
        if "relname" in tree:
            yield tree.get("schemaname"), tree["relname"]
        tree = list(tree.values())
    if isinstance(tree, list):
        for item in tree:
            yield from relations(item)


def common_tables(tree: Any) -> Iterator[str]:
    if isinstance(tree, dict):
        if "ctename" in tree:
            yield tree["ctename"]
        tree = list(tree.values())
    if isinstance(tree, list):
        for item in tree:
            yield from common_tables(item)


@pytest.mark.parametrize("scope", [HIDING, PUBLIC], ids=["hiding", "public"])
def test_nothing_opens_and_no_catalog_is_left(scope: GuardScope):
    turned = 0
    for sql in STATEMENTS:
        shown, hidden = judge(sql), judge(sql, scope)
        if shown.action is not Action.ALLOW:
            # `public` was another's schema, and is one's own; signals are the proxy's; nobody may write to
            # its view
            assert (
                hidden.action is not Action.ALLOW
                or (scope.public_is_own and "public" in sql)
                or "tp_catalog.pg_cancel_backend" in applied(sql, hidden)
                or "tp_catalog.pg_terminate_backend" in applied(sql, hidden)
                or "tp_catalog.pg_settings" in applied(sql, hidden)
            ), sql
            continue
        if hidden.action is not Action.ALLOW:
            # a call that can't be turned, a role that must not show, or a name that is only known
            # when it runs
            assert hidden.reason in ("function", "role") or (
                scope.public_is_own and hidden.reason == "rewriting" and "||" in sql
            ), (sql, hidden)
            continue
        turned += bool(hidden.edits)
        tree = parse(applied(sql, hidden))
        own = set(common_tables(tree))
        for schema, name in relations(tree):
            if schema is None and name not in own:
                assert name not in names.RELATIONS, sql
            elif schema == "pg_catalog":
                assert name in names.PLAIN_RELATIONS, sql
            elif schema == "information_schema":
                assert name in names.INFORMATION_PLAIN, sql
            elif schema == "public":
                assert not scope.public_is_own, sql
    assert turned > 400
