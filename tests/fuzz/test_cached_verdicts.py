"""The guard's cache as the relay uses it: what it answers is what a judge says who has seen nothing yet.

Statements and their twins (other names, literals, quoting, comments, types and values of parameters) come
from several tenants, under several policies and client encodings, through one small cache; policies change
and come back meanwhile, as reloads have them do.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any, Final, cast

import pytest

from tenant_proxy.config.schema import GuardMode, Policy
from tenant_proxy.guard.judge import Guard
from tenant_proxy.guard.policy import GuardScope
from tenant_proxy.guard.shape import shape
from tenant_proxy.model import Action, Effect, Verdict
from tenant_proxy.relay.judging import ALLOWED, UNKNOWN_EFFECTS, UNREADABLE, Judging, encoded
from tenant_proxy.relay.session import Session
from tenant_proxy.settings_policy import client_encoding_codec
from tenant_proxy.tenancy.records import TenantInfo
from tenant_proxy.wire.messages import bind_values, with_values
from tests.fuzz import mutation
from tests.property.test_guard_keys import TEXTS, twin_of
from tests.property.test_guard_shape import reworded

NOBODY = cast("Session", None)

#: what is stored is soon pushed out by others, and comes again
ENTRIES: Final = 200

TENANTS: Final = ("acme", "beta", "gamma")
CLUSTER: Final = SimpleNamespace(name="main", host="localhost", port=5432, database="app")
ENCODINGS: Final = ("UTF8", "UTF8", "LATIN1", "WIN1252", "EUC_JP", "SQL_ASCII", "SJIS")
POLICIES: Final[tuple[Mapping[str, Any], ...]] = (
    {},
    {"public_is_own": True, "catalogs": "hide"},
    {"allowed_schemas": ["beta"]},
    {"allowed_functions": ["set_config", "pg_read_file"]},
    {"denied_functions": ["lower", "acme.f"], "denied_settings": ["work_mem"]},
    {"mode": "observe"},
    {"mode": "off", "catalogs": "show"},
)

#: beside those of the corpora: what is judged at Bind, turned, or told by a name alone
STATEMENTS: Final = (
    "SELECT $1::regclass, nextval($2), pg_has_role($3, 'USAGE')",
    "SELECT set_config($1, $2, false)",
    "SELECT set_config('search_path', $1, true)",
    "SELECT query_to_xml($1, true, true, '')",
    "SELECT nextval('orders'), nextval(16400), pg_relation_size(oid) FROM pg_class WHERE relname = 'orders'",
    "SELECT relname FROM pg_class WHERE relname = 'orders' AND relkind = 'r'",
    "SELECT c.relname FROM pg_class c, pg_namespace n WHERE nspname = 'public' AND c.oid = '7'::regclass",
    "SELECT * FROM public.orders WHERE id = 1 AND note = 'x'",
    "SELECT 'public.orders'::regclass, has_schema_privilege('public', 'USAGE')",
    "SELECT pg_notify('a', 'b'), pg_advisory_lock(1), pg_advisory_xact_lock(1, 2)",
    "LISTEN jobs",
    "NOTIFY jobs, 'x'",
    "INSERT INTO orders VALUES (1, 'a'), (2, 'b'), (3, 'c')",
    "SELECT * FROM information_schema.tables WHERE table_schema = 'public'",
    "DO $$ BEGIN EXECUTE 'SELECT 1 FROM ' || x; PERFORM nextval(x); END $$",
    "SET search_path = public, acme",
    "SET LOCAL work_mem = '5MB'; SELECT 1",
    "SELECT 'é', U&'\\00e9', E'\\'', $$é$$ FROM \"é\" -- é",
)

#: what is bound to parameters, as text
VALUES: Final = (
    *("orders", "beta.orders", "acme.orders", "public.orders", "{orders,beta.orders}", "search_path", "role"),
    *("beta", "acme", "beta_app", "acme_app", "SELECT 1", "SELECT * FROM beta.orders", "16400", "", "é", "t"),
)
MAX_PARAMETERS: Final = 100
TYPES: Final = (0, 23, 25, 705, 1043, 2205, 16400)


class Quiet(Judging):
    """Says nothing of what it refuses."""

    def _note(self, *_: object) -> None:
        pass


class World:
    """A worker's judging, and what its tenants are configured to be at the moment."""

    def __init__(self) -> None:
        self.judging = Quiet(ENTRIES, lambda client: None)
        self.fresh = Guard()
        self.rules = dict.fromkeys(TENANTS, 0)
        self.hides = dict.fromkeys(TENANTS, False)
        #: how often the cache has answered, and how often it could not
        self.hits = self.misses = 0

    def reload(self, chance: random.Random) -> None:
        tenant = chance.choice(TENANTS)
        self.rules[tenant] = chance.randrange(len(POLICIES))
        self.hides[tenant] = chance.random() < 0.7

    def scopes(self, tenant: str, encoding: str) -> tuple[int, GuardScope | None]:
        """The number that the relay has for it, and the same made by hand; None: its text can't be read."""
        policy = Policy.model_validate(POLICIES[self.rules[tenant]])
        space = f"{tenant:x<13}"
        info = SimpleNamespace(name=tenant, schema=tenant, role=None, space=space, cluster=CLUSTER)
        login, roles = f"{tenant}_app", frozenset({f"{tenant}_two"})
        hides = self.hides[tenant]
        number = self.judging.scope_of(cast("TenantInfo", info), policy, login, roles, installed=hides)
        number |= self.judging.codec_bits(encoding)
        if client_encoding_codec(encoding) is None:
            return number, None
        return number, GuardScope.build(
            id=number,
            tenant=tenant,
            schema=tenant,
            policy=policy,
            login=login,
            roles=roles,
            client_encoding=encoding,
            hides=hides and policy.catalogs.value != "show",
            hide_missing=not hides and policy.catalogs.value == "hide",
            space=space,
        )

    # --- a statement ------------------------------------------------------------------

    def act(self, data: bytes, chance: random.Random) -> None:
        if chance.random() < 0.02:
            self.reload(chance)
        if chance.random() < 0.05:
            # how many settings of its own a tenant has decides, too
            self.judging._custom.clear()
        number, scope = self.scopes(chance.choice(TENANTS), chance.choice(ENCODINGS))
        for text in (data, self.twin(data, chance), data):
            self.check(text, number, scope, chance)

    @staticmethod
    def twin(data: bytes, chance: random.Random) -> bytes:
        try:
            found = shape(data)
            if found is not None and chance.random() < 0.5:
                return reworded(found, chance).encode()
            return twin_of(data.decode(), chance).encode()
        except UnicodeDecodeError:
            return data

    def check(self, sql: bytes, number: int, scope: GuardScope | None, chance: random.Random) -> None:
        if b"\0" in sql or not sql:
            return
        truth = self.fresh.judge_at_once(scope, sql) if scope is not None else None
        if truth is None and scope is not None:
            # it takes a process, and no cache
            return
        cache = self.judging.cache
        held = cache.find(number, sql)
        self.hits += held != 0
        self.misses += held == 0
        said = held or self.judging.judge(NOBODY, number, sql, 1)
        assert said is not None
        context = (sql, scope, truth)
        if scope is None or truth is None:
            assert not held, context
            self.unreadable(said, number)
            return
        edits: list[tuple[int, int, bytes]] = []
        try:
            if truth.action is not Action.REJECT:
                edits = encoded(truth.edits, sql, scope.codec)
        except UnicodeError:
            truth = Verdict(Action.REJECT, UNKNOWN_EFFECTS, exact=True, reason="encoding", sqlstate="0A000")
        if truth.action is Action.REJECT:
            if held and truth.sqlstate == "22021":
                # in a literal, in which any bytes have the same tokens around them; the server refuses it
                return
            assert not held, context
            if scope.policy.mode is GuardMode.ENFORCE:
                assert isinstance(said, bytes), context
                assert truth.sqlstate.encode() in said, context
            else:
                assert said == int(truth.effects or UNKNOWN_EFFECTS) | ALLOWED, context
            return
        expected = int(truth.effects) | ALLOWED
        expected |= int(Effect.REWRITES) * bool(edits) | int(Effect.BOUND) * bool(truth.bound)
        assert said == expected, (*context, Effect(int(said) & ~ALLOWED))
        self.check_edits(sql, number, edits, context)
        if truth.bound:
            self.check_values(sql, number, scope, truth, chance)

    def unreadable(self, said: int | bytes, number: int) -> None:
        assert self.judging.codec(number) == UNREADABLE
        assert isinstance(said, bytes) or said & ALLOWED

    def check_edits(
        self, sql: bytes, number: int, edits: list[tuple[int, int, bytes]], context: object
    ) -> None:
        meant, done = b"", 0
        for start, end, new in edits:
            meant += sql[done:start] + new
            done = end
        meant += sql[done:]
        kept = self.judging.cache.rewritten(number, sql)
        if kept is not None:
            assert kept == meant, context
        if edits:
            # of what the cache does not hold, or holds without a place for them
            assert self.judging.edits(number, sql, 1) == edits, context

    # --- its parameters ------------------------------------------------------------------

    def check_values(
        self, sql: bytes, number: int, scope: GuardScope, truth: Verdict, chance: random.Random
    ) -> None:
        types = [chance.choice(TYPES) for _ in range(chance.randrange(4))]
        declared = self.judging.parameter_types(
            NOBODY, number, sql, b"".join(struct.pack("!I", oid) for oid in types), 1
        )
        judged = self.fresh.judge_types(truth.bound, types)
        refused = judged.action is Action.REJECT and scope.policy.mode is GuardMode.ENFORCE
        assert (declared is not None) == refused, (sql, types, judged)
        count = max(number for number, _ in truth.bound)
        if count > MAX_PARAMETERS:
            return
        values = [None if chance.random() < 0.1 else chance.choice(VALUES) for _ in range(count)]
        message = bound(values, scope.codec)
        result = self.judging.bind(NOBODY, number, sql, message)
        given = {at: value for at, value in enumerate(values, 1) if at in dict(truth.bound)}
        verdict, replaced = self.fresh.judge_values(scope, truth.bound, given)
        if verdict.action is Action.REJECT and scope.policy.mode is GuardMode.ENFORCE:
            assert result is not None, (sql, values, verdict)
            assert result[0], (sql, values, verdict)
        elif replaced:
            new = {at: text.encode(scope.codec) for at, text in replaced.items()}
            assert result == (False, with_values(message, new)), (sql, values)
        else:
            assert result is None, (sql, values, result)


def bound(values: list[str | None], codec: str) -> bytes:
    """A Bind's values, and what stands around them, all as text."""
    body = b""
    for value in values:
        data = None if value is None else value.encode(codec, "replace")
        body += struct.pack("!i", -1) if data is None else struct.pack("!i", len(data)) + data
    message = struct.pack("!hh", 0, len(values)) + body + struct.pack("!h", 0)
    assert len(bind_values(message)) == len(values)
    return message


SEEDS: Final = [text.encode() for text in (*STATEMENTS, *TEXTS) if 0 < len(text) < 600 and "\0" not in text]
WORDS: Final = [
    *(b"'", b"''", b"$1", b"$2", b"::regclass", b"beta.", b"acme.", b"public.", b'"', b"E'", b"U&'", b"$$"),
    *(b" /* ' */ ", b"-- '\n", b"1", b"2147483648", b"1.5", b"N'", b"\\", b"\xc3\xa9", b"\xe9", b"\x81\\"),
    *(b"pg_class", b"nextval(", b"set_config(", b" FROM ", b"; SELECT 1", b"BETA", b"NULL", b"true"),
]


def run(for_s: float) -> World:
    world = World()
    # a third of what is tried comes from the few that have most to them
    few = [text.encode() for text in STATEMENTS]
    seeds = [*SEEDS, *few * (len(SEEDS) // (2 * len(few)))]
    mutation.run(lambda data, chance: world.act(chosen(data, seeds, chance), chance), few, WORDS, for_s)
    assert world.judging.cache.stats()["conflicts"] == 0
    return world


def chosen(data: bytes, seeds: list[bytes], chance: random.Random) -> bytes:
    """What was mutated of a few seeds, or of any."""
    if chance.random() < 0.3:
        return chance.choice(seeds)
    return mutation.mutated(seeds, WORDS, chance, 1000) if chance.random() < 0.8 else data


@pytest.mark.timeout(60)
def test_for_a_moment():
    world = run(2.0)
    assert world.hits > 50
    assert world.misses > 50


@pytest.mark.fuzz
@pytest.mark.timeout(100_000)
def test_for_long():
    world = run(mutation.seconds(60))
    print(f"{world.hits + world.misses:,} statements, {world.hits:,} answered by the cache")
