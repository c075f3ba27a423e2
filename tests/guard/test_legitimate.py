"""The corpus of what must work: it does through the proxy what it does directly.

Each entry is run twice in the same database by the same role, once past the proxy and once through it, in a
transaction that is undone or cleaning up after itself; every message of the answers must be the same.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Self, TypeGuard

import pytest

from tenant_proxy.model import Action
from tests.fix_proxy import PASSWORDS, Proxy
from tests.guard.corpus_files import DATABASE, Database, Talk, any_oid, by_group, filled, legitimate
from tests.unit.guard.scope import judge
from tests.wire_client import (
    SYNC,
    Message,
    WireClient,
    bind,
    columns,
    copy_fail,
    describe_portal,
    execute,
    fields,
    parse,
    query,
    row,
)

GROUPS = by_group(legitimate())

pytestmark = pytest.mark.timeout(180)

each_group = pytest.mark.parametrize("group", GROUPS.values(), ids=[name[:60] for name in GROUPS])


def test_there_are_enough():
    assert sum(len(talk.steps) for talk in legitimate()) >= 1000


@each_group
def test_the_verdict(group):
    refused = []
    for talk in group:
        for sql, _ in talk.steps:
            verdict = judge(filled(sql, any_oid))
            if verdict.action is not Action.ALLOW and verdict.reason != "syntax":
                refused.append(f"{verdict.message}: {sql} of {talk}")
    assert not refused, "\n".join(refused)


# --- the same answer ----------------------------------------------------------------------------------------


#: what a message says, as far as it has to be the same
Said = tuple[object, ...]


def said(reply: Message) -> Said:
    if reply.type == "T":
        # which table a column is of may differ where a catalog is a view
        return ("T", *((column.name, column.type, column.modifier) for column in columns(reply)))
    if reply.type == "D":
        return ("D", *row(reply))
    if reply.type in "EN":
        return (reply.type, *(f"{key}={value}" for key, value in fields(reply).items() if key not in "FLRW"))
    return (reply.type, reply.body)


def is_array(value: object) -> TypeGuard[bytes]:
    return isinstance(value, bytes) and value[:1] == b"{" and value[-1:] == b"}"


def in_order(sql: str, answer: list[Said]) -> list[Said]:
    """With its rows sorted, and arrays' elements, if the statement leaves open how they come."""
    if "array_agg(" in sql:
        answer = [
            (
                line[0],
                *(
                    b",".join(sorted(value[1:-1].split(b","))) if is_array(value) else value
                    for value in line[1:]
                ),
            )
            for line in answer
        ]
    if "order by" in sql.lower() or ";" in sql:
        return answer
    places = [at for at, line in enumerate(answer) if line[0] == "D"]
    for at, line in zip(places, sorted((answer[at] for at in places), key=repr), strict=True):
        answer[at] = line
    return answer


class Session:
    def __init__(self, client: WireClient) -> None:
        self.client = client

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close()

    def ask(self, sql: str, params: tuple[str | None, ...] | None) -> list[Said]:
        if params is None:
            self.client.send(query(sql))
        else:
            self.client.send(parse(sql), bind(*params), describe_portal(), execute(), SYNC)
        replies = self.client.until("ZG")
        if replies[-1].type == "G":
            self.client.send(copy_fail(), SYNC)
            replies += self.client.until_ready(2)
        # settings are told by the way, and perhaps later
        return [said(reply) for reply in replies if reply.type not in "SA"]

    def run(self, talk: Talk, database: Database) -> list[list[Said]]:
        if not talk.alone:
            self.ask("BEGIN", None)
        answers = [in_order(sql, self.ask(filled(sql, database.oid), params)) for sql, params in talk.steps]
        if not talk.alone:
            self.ask("ROLLBACK", None)
        self.ask("DISCARD ALL", None)
        return answers


@pytest.fixture
def direct(database: Database) -> Iterator[Session]:
    server = database.server
    password = PASSWORDS["acme_app"]
    client = WireClient.open(
        server.host, server.port, password=password, database=DATABASE, search_path="acme, public"
    )
    with Session(client) as session:
        yield session


def differences(talk: Talk, direct: Session, through: Session, database: Database) -> Iterator[str]:
    """What the proxy answers otherwise than the server, but for what the server does not answer twice."""
    wanted = direct.run(talk, database)
    got = through.run(talk, database)
    if wanted == got:
        return
    again = direct.run(talk, database)
    for (sql, _), *answers in zip(talk.steps, wanted, again, got, strict=True):
        first, second, third = ([masked(line) for line in answer] for answer in answers)
        if first == second != third or [line[0] for line in first] != [line[0] for line in third]:
            at = next((i for i, (a, b) in enumerate(zip(first, third, strict=False)) if a != b), -1)
            yield f"{talk}: {sql[:200]}\n  {first[at]}\n  {third[at]}"


def masked(line: Said) -> Said:
    """Without what a transaction's number, a sequence's step or EXPLAIN's clock makes different each time."""
    return tuple(
        re.sub(r"\b\d{4,}\b", "#", part)
        if isinstance(part, str)
        else re.sub(rb"(?<=Time: )[\d.]+(?= ms)|(?<=actual time=)[\d.]+", b"#", part)
        if isinstance(part, bytes)
        else part
        for part in line
    )


@each_group
def test_the_answer_is_the_same(database: Database, corpus_proxy: Proxy, direct, group):
    major = database.server.major
    talks = [talk for talk in group if talk.since <= major <= talk.until]
    with Session(corpus_proxy.wire(database=DATABASE)) as through:
        found = [line for talk in talks for line in differences(talk, direct, through, database)]
    assert not found, "\n".join(found)
