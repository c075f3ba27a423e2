"""The corpus of attacks: each is refused by the guard, or let through and shown to touch nothing.

Three proofs.  The guard alone says what is expected; a client of the proxy sees it, over the simple and the
extended protocol and on every major; and a superuser whom nobody guards can do it, so that it is an attack
at all.
"""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from tenant_proxy.model import Action, Verdict
from tests.guard.attacker import Attacker, answer_is_wrong, ask, is_for, lacks_xml, refusal_is_wrong, run
from tests.guard.corpus_files import Database, Entry, any_oid, attacks, by_group, filled
from tests.unit.guard.scope import judge, scope
from tests.wire_client import (
    SYNC,
    WireClient,
    bind,
    describe_statement,
    errors,
    execute,
    parse,
    query,
)

GROUPS = by_group(attacks())

pytestmark = pytest.mark.timeout(180)

each_group = pytest.mark.parametrize("group", GROUPS.values(), ids=[name[:60] for name in GROUPS])


def test_there_are_enough():
    named = {(entry.group, entry.name) for entry in attacks()}
    assert len(named) == len(attacks()) >= 1000


def nothing(wrong: Iterable[str | None]) -> None:
    """Fails with a line for each that is wrong."""
    found = [line for line in wrong if line]
    assert not found, "\n".join(found)


# --- the guard alone ----------------------------------------------------------------------------------------


def verdict_of(entry: Entry) -> Verdict:
    if entry.raw:
        return judge(entry.raw)
    text = filled(entry.sql[-1], any_oid)
    if entry.client_encoding:
        inside = scope(client_encoding=entry.client_encoding)
        return judge(text.encode(inside.codec), inside)
    return judge(text)


def unexpected(entry: Entry, verdict: Verdict) -> str | None:
    """What is wrong with a verdict; None if nothing is."""
    if entry.refuse is None:
        if verdict.action is not Action.ALLOW:
            return f"refused ({verdict.reason}: {verdict.message}): {entry}"
        return None
    if verdict.action is not Action.REJECT:
        # values of parameters are judged when they are bound
        return None if entry.params and verdict.bound else f"let through: {entry}"
    sqlstate, reason = entry.refuse
    if verdict.sqlstate != sqlstate or reason not in ("", verdict.reason):
        return f"{verdict.sqlstate} {verdict.reason} instead of {sqlstate} {reason}: {entry}"
    return None


@each_group
def test_the_verdict(group):
    wrong = [
        unexpected(entry, verdict_of(entry))
        for entry in group
        if not (entry.function or entry.startup or entry.needs)
    ]
    nothing(wrong)


# --- through the proxy --------------------------------------------------------------------------------------


@each_group
def test_refused_through_the_proxy(database, corpus_proxy, group):
    with Attacker(corpus_proxy, database) as attacker:
        nothing(refusals(group, attacker))


def refusals(group: list[Entry], attacker: Attacker) -> list[str | None]:
    wrong = []
    for entry in group:
        if entry.refuse is None or entry.needs or not is_for(entry, attacker.database):
            continue
        with_settings = entry.client_encoding or len(entry.sql) > 1
        if with_settings:
            attacker.leave()
        if entry.client_encoding:
            attacker.client = attacker.proxy.wire(
                database=attacker.database.name, client_encoding=entry.client_encoding
            )
        replies = run(entry, attacker)
        if not lacks_xml(replies):
            wrong.append(refusal_is_wrong(entry, replies))
        if entry.sql and entry.params is None and not with_settings:
            # at Parse, which takes one statement only, but is refused before the server could say so
            sent = (parse(entry.sql[-1]), describe_statement(), bind(), execute(), SYNC)
            wrong.append(refusal_is_wrong(entry, attacker.connected().ask(*sent)))
        attacker.settle()
        if with_settings:
            attacker.leave()
    return wrong


#: all that the neighbour has, as one value
NEIGHBOUR = """
SELECT pg_catalog.md5(pg_catalog.concat(
    (SELECT pg_catalog.string_agg(o::text, ',' ORDER BY id) FROM beta.orders o),
    (SELECT pg_catalog.string_agg(n::text, ',' ORDER BY id) FROM beta.notes n),
    (SELECT pg_catalog.concat(last_value, is_called) FROM beta.numbers),
    (SELECT pg_catalog.string_agg(pg_catalog.concat(relname, relowner, relacl), ',' ORDER BY relname)
       FROM pg_catalog.pg_class WHERE relnamespace = 'beta'::regnamespace)))
"""

#: relations of the neighbour's that any session but beta's own has a lock on
LOCKED = """
SELECT pg_catalog.string_agg(l.relation::regclass::text, ', ')
  FROM pg_catalog.pg_locks l JOIN pg_catalog.pg_class c ON c.oid = l.relation
  JOIN pg_catalog.pg_stat_activity a USING (pid)
 WHERE c.relnamespace = 'beta'::regnamespace AND a.usename = 'acme_app'
"""

WHO = "SELECT current_user || ' ' || session_user || ' ' || current_setting('search_path')"


@each_group
def test_what_is_let_through_touches_nothing(database, corpus_proxy, group):
    harmless = [entry for entry in group if entry.harmless and not entry.needs]
    if not harmless:
        return
    before = database.superuser.execute(NEIGHBOUR).fetchone()
    wrong = []
    with (
        database.connect("beta_app", "beta-secret") as neighbour,
        Attacker(corpus_proxy, database) as attacker,
    ):
        neighbour.execute("/* neighbour was here */ SELECT 1")
        for entry in harmless:
            replies = run(entry, attacker)
            wrong.append(answer_is_wrong(entry, replies))
            client = attacker.connected()
            if client.xact_status != "E":
                locked = database.superuser.execute(LOCKED).fetchone()
                shown = str(client.value(WHO))
                if locked != (None,) or not shown.startswith("acme_app acme_app") or "beta" in shown:
                    wrong.append(f"{locked}, {shown} after {entry}")
            attacker.leave()
    nothing(wrong)
    assert database.superuser.execute(NEIGHBOUR).fetchone() == before


# --- without the guard --------------------------------------------------------------------------------------


@pytest.mark.slow
@each_group
def test_without_the_guard_it_works(database, group):
    """By a superuser, in a transaction that is undone: else it would not be an attack, or not be SQL."""
    server = database.server
    client = WireClient.open(
        server.host,
        server.port,
        user=server.superuser,
        password=server.password,
        database=database.name,
        search_path="acme, public",
    )
    with client:
        nothing([failure(entry, client, database) for entry in group if runs_unguarded(entry, database)])


def runs_unguarded(entry: Entry, database: Database) -> bool:
    if entry.refuse is None or entry.needs or not entry.sql or entry.client_encoding:
        return False
    return entry.unguarded is None and is_for(entry, database)


def failure(entry: Entry, client: WireClient, database: Database) -> str | None:
    """What the server says against an entry."""
    statements = [filled(sql, database.oid) for sql in entry.sql]
    if not statements[0].startswith("BEGIN"):
        client.query("BEGIN")
    found: list[dict[str, str]] = []
    for sql in statements:
        if entry.params is None:
            replies = ask(client, query(sql))
        else:
            replies = client.extended(sql, *entry.params)
        if lacks_xml(replies):
            break
        found += errors(replies)
    client.query("ROLLBACK")
    client.query("DISCARD ALL")
    return f"{found[0]['M']}: {entry}" if found else None
