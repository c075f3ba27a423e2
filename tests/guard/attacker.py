"""Sends entries of the corpus of attacks through a proxy, and looks at what comes back."""

from __future__ import annotations

from typing import Self

from tests.fix_proxy import Proxy
from tests.guard.corpus_files import Database, Entry, filled
from tests.unit.guard.scope import scope
from tests.wire_client import (
    SYNC,
    LoginFailed,
    Message,
    WireClient,
    bind,
    copy_fail,
    errors,
    execute,
    function_call,
    message,
    parse,
    query,
    rows,
)


class Attacker:
    """A client that is connected again when its session may not be as it was."""

    def __init__(self, proxy: Proxy, database: Database) -> None:
        self.proxy = proxy
        self.database = database
        self.client: WireClient | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.leave()

    def connect(self, **settings: str) -> WireClient:
        self.client = self.proxy.wire(database=self.database.name, **settings)
        return self.client

    def connected(self) -> WireClient:
        return self.client or self.connect()

    def leave(self) -> None:
        if self.client is not None:
            self.client.close()
            self.client = None

    def settle(self) -> None:
        """After an entry: the next one starts from rest."""
        if self.client is not None and self.client.xact_status != "I":
            self.client.query("ROLLBACK")


def ask(client: WireClient, *messages: bytes) -> list[Message]:
    """`WireClient.ask` for statements that may want data: they get none."""
    client.send(*messages)
    replies = client.until("ZG")
    if replies[-1].type == "G":
        client.send(copy_fail(), SYNC)
        replies += client.until_ready()
        if messages[-1] is SYNC:
            replies += client.until_ready()
    return replies


def run(entry: Entry, attacker: Attacker) -> list[Message]:
    """Sends an entry in the protocol that it names; the replies to its last statement."""
    if entry.startup:
        try:
            attacker.proxy.wire(database=attacker.database.name, **entry.startup).close()
        except LoginFailed as failed:
            return failed.replies
        return []
    client = attacker.connected()
    oid = attacker.database.oid
    if entry.raw:
        return client.ask(message("Q", entry.raw + b"\0"))
    if entry.function:
        number = oid("regprocedure", entry.function)
        args = [None if value is None else value.encode() for value in entry.args]
        return client.ask(function_call(number, *args, arg_format=0, result_format=0))
    texts = [filled(sql, oid) for sql in entry.sql]
    for text in texts[:-1]:
        replies = client.query(text)
        if lacks_xml(replies):
            return replies
        assert not errors(replies), (str(entry), replies)
    if entry.params is None:
        codec = scope(client_encoding=entry.client_encoding or "UTF8").codec
        return ask(client, query(texts[-1].encode(codec)))
    name = entry.statement_name
    return client.ask(parse(texts[-1], name), bind(*entry.params, name=name), execute(), SYNC)


def is_for(entry: Entry, database: Database) -> bool:
    return entry.since <= database.server.major <= entry.until


def lacks_xml(replies: list[Message]) -> bool:
    """Whether the server was built without libxml."""
    return any(error["M"] == "unsupported XML feature" for error in errors(replies))


def refusal_is_wrong(entry: Entry, replies: list[Message]) -> str | None:
    """Whether the error is not the one that is expected, and not the guard's own."""
    assert entry.refuse is not None
    found = errors(replies)
    if entry.raw and len(found) == 1:
        return None  # the server's own error is as good: it has run nothing
    if len(found) != 1:
        return f"{[m.type for m in replies]} for {entry}"
    error = found[0]
    if error["C"] != entry.refuse[0]:
        return f"{error} for {entry}"
    if "R" in error:  # only the server knows routines
        return f"the server's own error {error} for {entry}"
    return None


def answer_is_wrong(entry: Entry, replies: list[Message]) -> str | None:
    found = rows(replies)
    if entry.gives == "none" and (found or errors(replies)):
        return f"{found} {errors(replies)} for {entry}"
    if entry.gives not in (None, "none") and (not found or found[0][0] != entry.gives):
        return f"{found} {errors(replies)} for {entry}"
    said = b"".join(m.body for m in replies if m.type in "DdEN")
    if entry.lacks and entry.lacks.encode() in said:
        return f"{entry.lacks} in the answer of {entry}"
    return None
