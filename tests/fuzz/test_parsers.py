"""Every parser of ours on mutated input: it answers or refuses, in the ways that its callers know.

A part of a second each in `make test`; `make fuzz SECONDS=3600` gives each as long as that.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from pglast.parser import ParseError, scan

from tenant_proxy.auth.scram import parse_verifier
from tenant_proxy.auth.secret import Secret
from tenant_proxy.config.load import load_text
from tenant_proxy.config.problems import ConfigError
from tenant_proxy.errors import ClientProtocolError, ProxyError, ServerProtocolError
from tenant_proxy.guard.cache import VerdictCache
from tenant_proxy.guard.judge import Guard
from tenant_proxy.guard.names import split_qualified
from tenant_proxy.guard.shape import literal_spans, readable, scan_cost, shape
from tenant_proxy.guard.standin import stand_in
from tenant_proxy.judge_process import dump, load
from tenant_proxy.model import Action
from tenant_proxy.settings_policy import join_identifiers, split_identifiers
from tenant_proxy.tenancy.startup import parse_options
from tenant_proxy.wire import messages
from tests.fuzz import mutation
from tests.guard.corpus_files import read
from tests.protocol import wire
from tests.protocol.stage import Stage
from tests.unit.guard.scope import ACME, judge

ROOT = Path(__file__).parent.parent.parent
GUARD = Guard()

STATEMENTS = [
    sql.encode()
    for name in ("allowed.yaml", "refused.yaml")
    for group in read(ROOT / "tests" / "guard" / name)
    for sql in group["sql"]
    if len(sql) < 1000
]
BODIES = [
    b"BEGIN RETURN; END",
    b"DECLARE a int := 1; b beta.t%ROWTYPE; c CURSOR (x int) FOR SELECT x; BEGIN NULL; END",
    b"BEGIN FOR i IN 1..10 LOOP PERFORM f(i); EXIT WHEN i > 5; END LOOP; END",
    b"BEGIN FOR r IN EXECUTE 'SELECT 1' USING 2 LOOP RAISE NOTICE 'a %', r; END LOOP; END",
    b"<<l>> BEGIN IF a THEN b := 1; ELSIF c THEN NULL; ELSE RETURN QUERY SELECT 1; END IF; END l",
    b"BEGIN EXECUTE format('SELECT %I', a) INTO STRICT b USING c; GET DIAGNOSTICS n = ROW_COUNT; END",
    b"BEGIN OPEN c FOR SELECT 1; FETCH NEXT FROM c INTO a, b; MOVE 2 FROM c; CLOSE c; END",
    b"BEGIN CASE a WHEN 1 THEN NULL; ELSE ASSERT false, 'x'; END CASE; EXCEPTION WHEN others THEN RAISE; END",
    b"BEGIN FOREACH x SLICE 1 IN ARRAY a LOOP a[1] := x.y; END LOOP; END",
    b"BEGIN INSERT INTO t VALUES (1) RETURNING a INTO b; END",
    b"BEGIN RAISE ",
]
SQL_WORDS = [
    *(
        b"'",
        b"''",
        b'"',
        b"$$",
        b"$a$",
        b"E'",
        b"U&'",
        b'U&"',
        b"--",
        b"/*",
        b"*/",
        b"\\",
        b"\n",
        b";",
        b"\xc3\xa9",
    ),
    *(
        b"::",
        b"beta.",
        b"public.",
        b"pg_catalog.",
        b"(",
        b")",
        b"[",
        b"]",
        b",",
        b".",
        b"..",
        b" 1 ",
        b"1e5",
        b"$1",
    ),
    *(
        b" SELECT ",
        b" FROM ",
        b" AS ",
        b" INTO ",
        b" SET ",
        b" END ",
        b" LOOP ",
        b" IF ",
        b" EXECUTE ",
        b":=",
        b"%TYPE",
    ),
    *(
        b"regclass",
        b"set_config",
        b"nextval",
        b" ROLE ",
        b" search_path ",
        b" IN ",
        b" VALUES ",
        b" DO ",
        b"\xe2\x82",
    ),
]


class Target(NamedTuple):
    act: Callable[[bytes, random.Random], None]
    seeds: list[bytes]
    words: list[bytes]


def on_shape(data: bytes, chance: random.Random) -> None:
    found = shape(data)
    spans = literal_spans(data)
    assert (found is None) == (spans is None)
    assert (readable(data) is None) == (found is None)
    scan_cost(data)
    if found is None or spans is None:
        return
    assert len(found) <= len(data)
    end = 0
    for start, stop, _ in spans:
        assert end <= start < stop <= len(data)
        end = stop
    try:
        text = data.decode()
        tokens = [token for token in scan(text) if token.name in ("ICONST", "FCONST", "SCONST")]
    except (UnicodeDecodeError, ParseError):
        return
    if "\0" not in text:
        assert [kind for _, _, kind in spans] == [token.name for token in tokens]


def on_cache(data: bytes, chance: random.Random) -> None:
    """What is found was stored for a text of the same shape, or for this very text."""
    cache = VerdictCache(8, 4096)
    stored: list[tuple[bytes, bool]] = []
    for _ in range(12):
        text = mutation.mutated([data], SQL_WORDS, chance, 400)
        if cache.find(1, text):
            same = shape(text)
            assert any(
                text == other or (not exact and same is not None and shape(other) == same)
                for other, exact in stored
            )
        assert not cache.find(2, text)
        exact = chance.random() < 0.5
        cache.store(1, text, 1, exact)
        stored.append((text, exact))
        assert cache.stats()["entries"] <= 8
        assert cache.stats()["bytes"] <= 4096
    cache.clear()


def on_judge(data: bytes, chance: random.Random) -> None:
    verdict = GUARD.judge_at_once(ACME, data)
    if verdict is not None:
        assert verdict.reason not in ("internal", "unknown_syntax"), verdict
        assert load(dump(verdict)) == verdict


def on_body(data: bytes, chance: random.Random) -> None:
    on_judge(b"DO $fuzz$" + data + b"$fuzz$", chance)


def on_stand_in(data: bytes, chance: random.Random) -> None:
    short = stand_in(data)
    if short is None:
        return
    verdict = judge(short)
    if verdict.action is Action.ALLOW and not verdict.exact and not verdict.edits:
        whole = judge(data)
        if whole.sqlstate not in ("22021", "54000", "54001"):
            assert (whole.action, whole.effects) == (Action.ALLOW, verdict.effects), short


def on_startup(data: bytes, chance: random.Random) -> None:
    try:
        packet = messages.read_startup(data)
    except ClientProtocolError:
        return
    for value in packet.parameters.values():
        on_options(value.encode("utf-8", "surrogateescape"), chance)


def on_options(data: bytes, chance: random.Random) -> None:
    try:
        parse_options(data.decode("utf-8", "surrogateescape"))
    except ProxyError as error:
        error.to_message()


def on_server_bodies(data: bytes, chance: random.Random) -> None:
    messages.error_fields(data)
    try:
        messages.data_row(data)
    except ServerProtocolError:
        pass


def on_verifier(data: bytes, chance: random.Random) -> None:
    text = data.decode("utf-8", "replace")
    for parse in (parse_verifier, Secret.parse):
        try:
            parse(text)
        except ValueError:
            pass


def on_identifiers(data: bytes, chance: random.Random) -> None:
    text = data.decode("utf-8", "replace")
    names = split_identifiers(text)
    if names is not None:
        assert split_identifiers(join_identifiers(names)) == names
    split_qualified(text)


def on_configuration(data: bytes, chance: random.Random) -> None:
    try:
        load_text(data.decode("utf-8", "replace"), environ={})
    except ConfigError as error:
        str(error)


def on_verdict(data: bytes, chance: random.Random) -> None:
    """What a judge process says: the worker takes it, or takes the process for failed."""
    try:
        load(data)
    except (ValueError, TypeError):
        pass


CLIENT_SAYS = [
    wire.query("SELECT 1") + wire.query("BEGIN") + wire.query("COMMIT"),
    wire.parse("a", "SELECT $1", 23) + wire.bind("a", b"1") + wire.describe("a") + wire.execute() + wire.SYNC,
    wire.parse("", "SELECT long")
    + wire.bind("", None)
    + wire.describe_portal()
    + wire.close("a")
    + wire.SYNC,
    wire.query("COPY t FROM STDIN") + wire.copy_data(b"1\n") + wire.COPY_DONE,
    wire.query("SELECT forbidden") + wire.query("DEALLOCATE ALL") + wire.query("DISCARD ALL"),
    wire.function_call(177, b"1") + wire.FLUSH + wire.SYNC,
    wire.query("SET a = 1") + wire.query("LISTEN a") + wire.copy_fail("no") + wire.TERMINATE,
]
SERVER_SAYS = [
    wire.result("1"),
    wire.PARSED + wire.BOUND + wire.NO_DATA + wire.row("1", None) + wire.complete("SELECT 1") + wire.IDLE,
    wire.error("42601") + wire.FAILED,
    wire.fatal("57P01"),
    wire.COPY_IN + wire.complete("COPY 1") + wire.IDLE,
    wire.COPY_OUT + wire.copy_data(b"1\n") + wire.COPY_DONE + wire.complete("COPY 1") + wire.IDLE,
    wire.parameter("TimeZone", "UTC")
    + wire.notice("hm")
    + wire.notification(1, "a")
    + wire.complete("BEGIN")
    + wire.OPEN,
    wire.columns("a") + wire.parameter_types(23) + wire.SUSPENDED + wire.EMPTY + wire.CLOSED + wire.IDLE,
    wire.function_result(b"1") + wire.IDLE,
]
WIRE_WORDS = [
    bytes([code]) + b"\0\0\0" + bytes([size]) for code in b"QPBDECSHFdcfXpZRT123InstGW" for size in (4, 5, 9)
]


def on_wire(data: bytes, chance: random.Random) -> None:
    """A client and a server that say anything, in any pieces; the engine forgets both when they have gone."""
    stage = Stage()
    try:
        client, other = stage.client(), stage.client()
        client_bytes = mutation.mutated([data, *CLIENT_SAYS], WIRE_WORDS, chance)
        at = 0
        while at < len(client_bytes) and not client.ended:
            size = chance.choice((1, 3, 7, 50, 5000))
            client >> client_bytes[at : at + size]
            at += size
            for server in list(stage._servers.values()):
                server.take()
                if not server.ended and chance.random() < 0.7:
                    server >> mutation.mutated(SERVER_SAYS, WIRE_WORDS, chance)
            if stage.hooks.waiting and chance.random() < 0.5:
                stage.hooks.verdicts[client.id] = None
                stage.engine.client_judged(client.id)
                stage.engine.poke()
            client.take()
        if chance.random() < 0.3:
            stage.sweep()
        assert not other.ended
    finally:
        stage.log.lines.clear()
        # what a server says of settings is the hooks' to read, and they believe it
        stage.bugs[:] = [bug for bug in stage.bugs if "on_ask_row" not in bug]
        bugs = list(stage.bugs)
        stage.bugs.clear()
        stage.close()
    assert not bugs, bugs[0]


TARGETS = {
    "shape": Target(on_shape, STATEMENTS, SQL_WORDS),
    "cache": Target(on_cache, STATEMENTS, SQL_WORDS),
    "judge": Target(on_judge, STATEMENTS, SQL_WORDS),
    "body": Target(on_body, BODIES, SQL_WORDS),
    "stand_in": Target(
        on_stand_in,
        [
            *STATEMENTS,
            b"INSERT INTO a VALUES (1, 'x', NULL), (2, -3.5, DEFAULT)",
            b"SELECT a IN (1, 2), ARRAY[1, 2]",
        ],
        SQL_WORDS,
    ),
    "startup": Target(
        on_startup,
        [
            messages.startup_message(
                {"user": "a", "database": "b", "options": "-c tenant=a --x=1 -e", "_pq_.a": "b"}
            ),
            messages.ssl_request(),
            messages.cancel_request(1, b"abcd"),
            messages.cancel_request(1, bytes(32)),
        ],
        [b"options\0", b"user\0", b"\0\3\0\2", b"-c", b"\\ ", b"replication\0true\0", b"_pq_.x\0"],
    ),
    "options": Target(
        on_options,
        [b"-c search_path=a,b -ctenant=x --role=y", b"-c a=\\ b\\\\ -B 5 -d 3 -f s", b"-W 1 -E -- x"],
        [b"-c", b"--", b"=", b" ", b"\\", b"-", b"\t", b"search_path"],
    ),
    "server_bodies": Target(
        on_server_bodies,
        [wire.row("a", None, "b")[5:], wire.error("42601")[5:], b""],
        [b"\0\1", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"C42601\0"],
    ),
    "verifier": Target(
        on_verifier,
        [
            b"SCRAM-SHA-256$4096:c2FsdA==$" + b"A" * 43 + b"=:" + b"B" * 43 + b"=",
            b"md5" + b"a" * 32,
            b"secret",
        ],
        [b"$", b":", b"=", b"4096", b"SCRAM-SHA-256", b"-1", b"99999999999"],
    ),
    "identifiers": Target(
        on_identifiers,
        [b'a, "B c", "d""e"', b'"$user", public', b"a.b.c", b'"a"."b"'],
        [b'"', b'""', b",", b".", b" ", b"\xc3\xa9", b"$"],
    ),
    "configuration": Target(
        on_configuration,
        [
            b"clusters: [{name: main, host: h, database: d}]\ntenants: [{name: acme}]\n"
            b"users: [{name: a, tenant: acme, password: {value: x}}]\n",
            b"a: &x {b: [1, 2]}\nc: *x\n<<: *x\n",
            b"policy: {mode: observe, allowed_schemas: [x]}\npool:\n  mode: transaction\n  max: 5\n",
        ],
        [
            b": ",
            b"- ",
            b"\n  ",
            b"&a ",
            b"*a",
            b"!!python/object:a",
            b"{",
            b"}",
            b"[",
            b"]",
            b"'",
            b'"',
            b"|\n",
            b"\t",
            b"---\n",
        ],
    ),
    "verdict": Target(
        on_verdict,
        [dump(judge(text)) for text in STATEMENTS[:40]],
        [b"[", b"]", b"null", b'"allow"', b"1", b",", b"{}", json.dumps("é").encode()],
    ),
    "wire": Target(on_wire, CLIENT_SAYS, WIRE_WORDS),
}


@pytest.mark.parametrize("name", TARGETS)
def test_for_a_moment(name):
    target = TARGETS[name]
    assert mutation.run(target.act, target.seeds, target.words, 0.4) > 0


@pytest.mark.fuzz
@pytest.mark.timeout(100_000)
@pytest.mark.parametrize("name", TARGETS)
def test_for_long(name):
    target = TARGETS[name]
    count = mutation.run(target.act, target.seeds, target.words, mutation.seconds(60))
    print(f"{name}: {count:,} inputs")
