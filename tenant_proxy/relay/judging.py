"""Between the engine and the guard: texts that the cache does not know, and what to say of them.

The engine asks for a text's effects as a number with EFF_ALLOWED, or gets the ErrorResponse that the
client will see.  In `observe` and `off` what the guard would refuse is let through; `observe` counts
and logs it each time.
"""

from __future__ import annotations

import dataclasses
import struct
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from tenant_proxy import errors
from tenant_proxy.config.schema import Catalogs, GuardMode, Policy
from tenant_proxy.errors import ClientProtocolError, ProxyError
from tenant_proxy.guard import bound, names
from tenant_proxy.guard.cache import VerdictCache
from tenant_proxy.guard.judge import Guard
from tenant_proxy.guard.parse import ALLOWED_TEXT_BYTES
from tenant_proxy.guard.policy import Ear, GuardScope, OwnSession
from tenant_proxy.model import Action, Edit, Effect, Verdict
from tenant_proxy.obs.log import get_logger
from tenant_proxy.relay.declared_types import MAX_TYPES, DeclaredTypes, question
from tenant_proxy.relay.executed import ExecutedNames
from tenant_proxy.relay.judges import Judges
from tenant_proxy.relay.long_texts import LongTexts, digest
from tenant_proxy.relay.session import Session
from tenant_proxy.relay.violations import FUNCTION_CALL, Violations, statement_of
from tenant_proxy.settings_policy import MAX_IDENTIFIER_BYTES, canonical_name, client_encoding_codec
from tenant_proxy.tenancy.registry import TenantInfo
from tenant_proxy.wire import messages

log = get_logger("guard")

ALLOWED = 1 << 31
#: what was done with a statement that the policy refuses: label of the metric
_ACTIONS = {GuardMode.ENFORCE: "reject", GuardMode.OBSERVE: "observe", GuardMode.OFF: "off"}
#: what a statement may do that the guard could not read, and that is let through
UNKNOWN_EFFECTS = Effect.WRITES | Effect.SETTINGS | Effect.OPAQUE
MAX_CUSTOM_SETTINGS = 100
MAX_RESETS = 2_000
#: longer than at once, by so much, may take what can't be judged elsewhere
HERE_TIMES: Final = 4

UTF8: Final = "utf_8"
#: in place of a codec: for client encodings that the guard can't read
UNREADABLE: Final = ""
UNREADABLE_ENCODING: Final = Verdict(
    Action.REJECT,
    Effect.WRITES | Effect.SETTINGS | Effect.OPAQUE,
    exact=True,
    sqlstate="0A000",
    message="statements in this client_encoding can't be checked",
    hint="Set client_encoding to UTF8 in the startup packet.",
    reason="encoding",
)
#: scopes' numbers are below this many bits
CODEC_SHIFT: Final = 24

#: where an edit starts and ends in bytes of the text as it was sent, and what stands there instead
PlaceEdit = tuple[int, int, bytes]


class Judging:
    """The guard of a worker."""

    def __init__(self, cache_entries: int, wake: Callable[[int], None]) -> None:
        """`wake` has the engine offer a client's statement again (`judges`)."""
        self.cache = VerdictCache(cache_entries)
        self._guard = Guard()
        self.judges = Judges(wake)
        self.long_texts = LongTexts()
        #: client -> digest of the text that a judge process has of it
        self._offered: dict[int, bytes] = {}
        self.executed_names = ExecutedNames()
        self.declared_types = DeclaredTypes()
        #: by their numbers; those of other client encodings have the codec's number in the upper byte
        self._scopes: dict[int, GuardScope] = {}
        #: by the same: the database that they are for
        self._places: dict[int, object] = {}
        self._codecs: list[str] = [UTF8]
        #: the last verdict with edits: asked for once more where the text is too long for the cache
        self._last: tuple[int, bytes, list[PlaceEdit]] | None = None
        self._ids: dict[object, int] = {}
        #: tenant -> settings of unknown extensions (app.user) that its statements change.  Not per session: a
        #: verdict that the cache has is not asked here again
        self._custom: dict[str, frozenset[str]] = {}
        #: drivers say few texts when a connection goes back to their pool
        self._resets: dict[tuple[int, bytes], list[PlaceEdit]] = {}
        #: (tenant, action, reason) -> statements
        self.counts: Counter[tuple[str, str, str]] = Counter()
        self.violations = Violations()

    def scope_of(
        self,
        tenant: TenantInfo,
        policy: Policy,
        login: str,
        roles: frozenset[str],
        *,
        installed: bool = False,
        locked: frozenset[str] = frozenset(),
        folding: str = "",
    ) -> int:
        """The number of the rules for a server login of a tenant; `roles` are the tenant's other logins.
        `installed`: the schemas that hide other tenants are in the tenant's database.  `locked` are settings
        that its statements may not change, `folding` the letters that its server folds to ASCII.

        Another policy is another scope, so no verdict outlives its rule.
        """
        hides = installed and policy.catalogs is not Catalogs.SHOW
        missing = not installed and policy.catalogs is Catalogs.HIDE
        rules = (policy.model_dump_json(), hides, missing, tenant.space, folding)
        cluster = tenant.cluster
        place = (cluster.name, cluster.host, cluster.port, cluster.database)
        key = (tenant.name, tenant.schema, tenant.role, login, roles, locked, rules, place)
        number = self._ids.get(key)
        if number is None:
            number = len(self._ids) + 1
            self._ids[key] = number
            self._places[number] = place
            self._scopes[number] = GuardScope.build(
                id=number,
                tenant=tenant.name,
                schema=tenant.schema,
                policy=policy,
                login=login,
                role=tenant.role,
                roles=roles,
                hides=hides,
                hide_missing=missing,
                space=tenant.space,
                locked=locked,
                folding=folding,
            )
        return number

    def codec_bits(self, client_encoding: str) -> int:
        """What is added to a scope's number for texts in this client_encoding."""
        codec = client_encoding_codec(client_encoding) or UNREADABLE
        if codec not in self._codecs:
            self._codecs.append(codec)
        return self._codecs.index(codec) << CODEC_SHIFT

    def is_elsewhere(self, before: int, now: int) -> bool:
        """Whether a scope is of another database than one before it."""
        base = (1 << CODEC_SHIFT) - 1
        return self._places.get(before & base) != self._places.get(now & base)

    def codec(self, scope_id: int) -> str:
        return self._codecs[scope_id >> CODEC_SHIFT]

    def _scope(self, scope_id: int) -> GuardScope:
        scope = self._scopes.get(scope_id)
        if scope is None:
            base = self._scopes.get(scope_id & ((1 << CODEC_SHIFT) - 1))
            if base is None:
                raise LookupError("a statement before it is known what its cluster has installed")
            scope = dataclasses.replace(base, id=scope_id, codec=self.codec(scope_id))
            self._scopes[scope_id] = scope
        return scope

    def judge(self, session: Session, scope_id: int, sql: bytes | None, client: int) -> int | bytes | None:
        """Effects with ALLOWED, or an ErrorResponse; None: the client has to wait for its verdict.

        `sql` is None for a text that is too long to be copied for nothing: None then also means that it must
        be given after all.
        """
        scope = self._scope(scope_id)
        verdict = self.judges.answer(client, scope_id) if sql is None else self._verdict(scope, sql, client)
        if verdict is None and sql is not None:
            verdict = self.judges.submit(client, scope, sql)
            self._offered[client] = digest(sql)
        if verdict is None:
            return None
        if client in self._offered and verdict.action is not Action.REJECT:
            self.long_texts.keep(scope.tenant, scope_id, self._offered[client], verdict)
        effects = int(verdict.effects)
        if verdict.settings and not self._notes_settings(scope.tenant, verdict.settings):
            effects |= Effect.PINS
        if verdict.action is not Action.REJECT:
            if sql is None:
                # its edits are asked for with the text (`edits`)
                effects |= Effect.REWRITES if verdict.edits else 0
                return effects | (Effect.BOUND if verdict.bound else 0) | ALLOWED
            try:
                edits = encoded(verdict.edits, sql, scope.codec)
            except UnicodeError:
                verdict = UNREADABLE_ENCODING
            else:
                if edits:
                    effects |= Effect.REWRITES
                    self._last = scope_id, sql, edits
                if verdict.bound:
                    effects |= Effect.BOUND
                # what its values name is asked for at each Bind
                kept = verdict if verdict.bound else None
                self.cache.store(scope_id, sql, effects, verdict.exact, kept, edits)
                return effects | ALLOWED
        mode = scope.policy.mode
        self.counts[scope.tenant, _ACTIONS[mode], verdict.reason] += 1
        statement = statement_of(sql)
        if mode is GuardMode.ENFORCE:
            self._note("statement refused", session, scope, verdict, statement)
            return refusal(verdict).to_message()
        if mode is GuardMode.OBSERVE:
            self._note("statement would be refused", session, scope, verdict, statement)
        return int(effects or UNKNOWN_EFFECTS) | ALLOWED

    def bind(self, session: Session, scope_id: int, sql: bytes, values: bytes) -> tuple[bool, bytes] | None:
        """Judges the values that a Bind gives to the parameters of a statement that was let through.

        None: they may go as they are; (True, ErrorResponse): refused; (False, what goes in their place).
        `values` is the message behind the statement's name.
        """
        scope = self._scope(scope_id)
        verdict = self.cache.verdict(scope_id, sql)
        if verdict is None:
            verdict = self._known(scope, sql, 0)
        if verdict is None:
            return True, refusal(self._guard.forgotten()).to_message()
        assert isinstance(verdict, Verdict)
        try:
            given = messages.bind_values(values)
        except ClientProtocolError as error:
            return True, errors.malformed_values(str(error)).to_message()
        texts = {number: _text(given.get(number), scope.codec) for number, _ in verdict.bound}
        known = {number: text for number, text in texts.items() if text is not _NO_TEXT}
        kinds = [(number, kind) for number, kind in verdict.bound if number in known]
        kinds += _binary_arrays(verdict.bound, given, known, scope.codec)
        judged, replaced = self._guard.judge_values(scope, kinds, known)
        for number, kind in verdict.bound:
            if number not in known and bound.is_strict(kind):
                # the server may read it all the same
                judged = self._guard.unreadable_value(number)
        if judged.action is Action.REJECT:
            mode = scope.policy.mode
            self.counts[scope.tenant, _ACTIONS[mode], judged.reason] += 1
            if mode is GuardMode.ENFORCE:
                self._note("values refused", session, scope, judged, statement_of(sql))
                return True, refusal(judged).to_message()
            if mode is GuardMode.OBSERVE:
                self._note("values would be refused", session, scope, judged, statement_of(sql))
        # set_config, and its name is a value
        set_now = [text for number, kind in kinds if kind == bound.SETTING and (text := known.get(number))]
        if set_now and not self._notes_settings(scope.tenant, map(canonical_name, set_now)):
            return True, errors.too_many_settings(MAX_CUSTOM_SETTINGS).to_message()
        if not replaced:
            return None
        new = {number: text.encode(scope.codec) for number, text in replaced.items()}
        return False, messages.with_values(values, new)

    def parameter_types(
        self, session: Session, scope_id: int, sql: bytes, types: bytes, client: int
    ) -> bytes | None:
        """The refusal of a Parse that declares parameters, whose text counts, to be other than text."""
        scope = self._scope(scope_id)
        verdict = self.cache.verdict(scope_id, sql) or self._verdict_now(scope, sql, client)
        assert isinstance(verdict, Verdict)
        judged = self._guard.judge_types(verdict.bound, [oid for (oid,) in struct.iter_unpack("!I", types)])
        return None if judged.action is not Action.REJECT else self._refused(session, scope, judged, sql)

    def declared(
        self, session: Session, scope_id: int, types: bytes, client: int
    ) -> tuple[bool, bytes] | None:
        """None: a Parse may declare these types; (True, ErrorResponse); (False, what its server is asked)."""
        known = self.declared_types
        oids = known.unknown(scope_id, types)
        if not oids:
            return None
        scope = self._scope(scope_id)
        if len(types) > 4 * MAX_TYPES:
            judged = self._guard.too_many_types(MAX_TYPES)
        elif known.is_refused(client):
            judged = self._guard.foreign_type()
        elif known.is_hopeless(client):
            judged = self._guard.unknown_type()
        else:
            known.asked(client, scope_id, oids)
            return False, question(scope, oids).encode(scope.codec)
        return True, self._refused(session, scope, judged, b"") or b""

    def judged(self, client: int) -> None:
        """A statement that its client has waited with is dealt with."""
        self.judges.forget(client)
        self._offered.pop(client, None)

    def forget(self, client: int) -> None:
        self.judged(client)
        self.executed_names.forget(client)
        self.declared_types.forget(client)

    def executed(
        self,
        session: Session,
        scope_id: int,
        sql: bytes,
        effects: int,
        client: int,
        *,
        name: bytes | None,
        tracked: bool,
    ) -> bytes | None:
        """The refusal of a text by which EXECUTE would give a statement values that nobody judges.

        `name` is that of the statement that a Parse makes of it, None for a Query; `tracked`: the relay finds
        statements by it, not the server.
        """
        scope = self._scope(scope_id)
        if effects & Effect.EXECUTES:
            executes = [one.encode() for one in self._verdict_now(scope, sql, client).executes]
            found = self.executed_names.executes(client, executes, prepared=name is not None)
            if found is not None:
                return self._refused(session, scope, self._guard.executes_bound(found), sql)
        if effects & Effect.BOUND and name:
            # what is not ASCII EXECUTE could write otherwise in another encoding, and so could Bind where
            # the server finds it
            if not (name[:MAX_IDENTIFIER_BYTES].isascii() or (tracked and scope.codec == UTF8)):
                judged = self._guard.binds_by(name.decode(scope.codec, "replace"))
                return self._refused(session, scope, judged, sql)
            if not self.executed_names.binds(client, name):
                return self._refused(session, scope, self._guard.executes_bound(name), sql)
        return None

    def _refused(self, session: Session, scope: GuardScope, judged: Verdict, sql: bytes) -> bytes | None:
        """Counts and logs what is refused of a Parse or Query that was let through; the ErrorResponse."""
        mode = scope.policy.mode
        self.counts[scope.tenant, _ACTIONS[mode], judged.reason] += 1
        if mode is GuardMode.ENFORCE:
            self._note("statement refused", session, scope, judged, statement_of(sql))
            return refusal(judged).to_message()
        if mode is GuardMode.OBSERVE:
            self._note("statement would be refused", session, scope, judged, statement_of(sql))
        return None

    def edits(self, scope_id: int, sql: bytes, client: int) -> list[PlaceEdit]:
        """The edits of a text that is let through with some."""
        if self._last is not None and self._last[:2] == (scope_id, sql):
            return self._last[2]
        scope = self._scope(scope_id)
        verdict = self._verdict(scope, sql, client) or self._judge_here(scope, sql)
        return encoded(verdict.edits, sql, scope.codec)

    def executes(self, scope_id: int, sql: bytes, client: int) -> tuple[str, ...]:
        """The prepared statements that a text which is let through names in EXECUTE."""
        return self._verdict_now(self._scope(scope_id), sql, client).executes

    def execute_edits(self, scope_id: int, sql: bytes, names: Mapping[str, str]) -> list[PlaceEdit]:
        """The edits of such a text, where servers know statements by other names."""
        scope = dataclasses.replace(self._scope(scope_id), statements=names)
        return encoded(self._judge_here(scope, sql).edits, sql, scope.codec)

    def listens(self, scope_id: int, sql: bytes, client: int) -> tuple[str, ...]:
        """The channels that a text which is let through names in LISTEN, as they are on the server."""
        return self._verdict_now(self._scope(scope_id), sql, client).listens

    def names_channels(self, scope_id: int, sql: bytes, client: int) -> bool:
        """Whether a text that is let through has LISTEN, UNLISTEN or pg_listening_channels()."""
        effects = self._verdict_now(self._scope(scope_id), sql, client).effects
        return bool(effects & (Effect.LISTENS | Effect.CHANNELS))

    def own_edits(
        self, scope_id: int, sql: bytes, ear: Ear | None, session: OwnSession, *, resets: bool
    ) -> tuple[list[PlaceEdit], bytes]:
        """The edits of a text for the ear of its client and with what its session is, and `Verdict.tags`."""
        scope = dataclasses.replace(self._scope(scope_id), ear=ear, session=session, resets=resets)
        verdict = self._judge_here(scope, sql)
        return encoded(verdict.edits, sql, scope.codec), verdict.tags.encode()

    def reset_edits(self, scope_id: int, sql: bytes) -> list[PlaceEdit]:
        """The edits of a text with Effect.RESETS that make it reset nothing."""
        key = scope_id, sql
        found = self._resets.get(key)
        if found is None:
            scope = dataclasses.replace(self._scope(scope_id), resets=False)
            found = encoded(self._judge_here(scope, sql).edits, sql, scope.codec)
            if len(self._resets) >= MAX_RESETS:
                self._resets.clear()
            if len(sql) <= ALLOWED_TEXT_BYTES:
                self._resets[key] = found
        return found

    def judge_function(self, session: Session, scope_id: int, oid: int) -> int | bytes:
        """A FunctionCall by its function's OID."""
        scope = self._scope(scope_id)
        verdict = self._guard.judge_function(scope, oid)
        mode = scope.policy.mode
        if verdict.action is Action.REJECT:
            self.counts[scope.tenant, _ACTIONS[mode], verdict.reason] += 1
        if verdict.action is Action.REJECT and mode is GuardMode.ENFORCE:
            self._note("function call refused", session, scope, verdict, FUNCTION_CALL)
            return refusal(verdict).to_message()
        if verdict.action is Action.REJECT and mode is GuardMode.OBSERVE:
            self._note("function call would be refused", session, scope, verdict, FUNCTION_CALL)
        effects = verdict.effects or UNKNOWN_EFFECTS
        return int(effects if verdict.action is Action.ALLOW else effects | Effect.ESCALATES) | ALLOWED

    def _verdict(self, scope: GuardScope, sql: bytes, client: int) -> Verdict | None:
        """The verdict if it is known, or soon made."""
        if scope.codec == UNREADABLE:
            return UNREADABLE_ENCODING
        return self.judges.answer(client, scope.id) or (
            self._guard.judge_at_once(scope, sql) if len(sql) <= ALLOWED_TEXT_BYTES else None
        )

    def _known(self, scope: GuardScope, sql: bytes, client: int) -> Verdict | None:
        """The verdict on a text that was let through, perhaps without its edits; None if it is forgotten."""
        return self._verdict(scope, sql, client) or self.long_texts.of(scope.tenant, scope.id, sql)

    def _verdict_now(self, scope: GuardScope, sql: bytes, client: int) -> Verdict:
        """The same, where none is an error."""
        verdict = self._known(scope, sql, client)
        if verdict is None:
            raise refusal(self._guard.too_large_here())
        return verdict

    def _judge_here(self, scope: GuardScope, sql: bytes) -> Verdict:
        """The verdict of a text that was let through, by what its session is."""
        verdict = self._guard.judge_at_once(scope, sql, HERE_TIMES)
        if verdict is None:
            raise refusal(self._guard.too_large_here())
        return verdict

    def deallocates(self, scope_id: int, sql: bytes, client: int) -> Verdict:
        """The verdict on the client's statement, whose effects say DEALLOCATES."""
        return self._verdict_now(self._scope(scope_id), sql, client)

    def pin_reason(self, scope_id: int, sql: bytes) -> str:
        verdict = self._guard.judge_at_once(self._scope(scope_id), sql.split(b"\0")[0])
        return (verdict.pin_reason if verdict is not None else "") or "unknown"

    def custom_settings(self, tenant: str) -> frozenset[str]:
        return self._custom.get(tenant, frozenset())

    def _note(
        self, event: str, session: Session | None, scope: GuardScope, verdict: Verdict, statement: str
    ) -> None:
        """A refusal, for the table of violations and, unless the tenant floods it, the log."""
        user = session.user if session is not None else ""
        self.violations.record(scope.tenant, user, _ACTIONS[scope.policy.mode], verdict, statement)
        unsaid = self.violations.line(scope.tenant)
        if unsaid is None:
            return
        fields: dict[str, object] = {
            "tenant": scope.tenant,
            "user": user or None,
            "sqlstate": verdict.sqlstate,
            "reason": verdict.reason,
            "object": verdict.object_name,
            "rule": verdict.rule,
            "statement": statement,
        }
        if unsaid:
            fields["unlogged"] = unsaid
        if scope.policy.mode is GuardMode.ENFORCE:
            log.info(event, **fields)
        else:
            log.warning(event, **fields)

    def _notes_settings(self, tenant: str, names: Iterable[str]) -> bool:
        """False: too many to ask for, so the client has to keep its server."""
        known = self.custom_settings(tenant)
        custom = known.union(name for name in names if "." in name)
        if len(custom) > MAX_CUSTOM_SETTINGS:
            return False
        self._custom[tenant] = custom
        return True


#: of a value that can't be text, such as an OID in binary
_NO_TEXT: Final = "\0"


def _text(value: bytes | None, codec: str) -> str | None:
    """A parameter's value; text is the same bytes in both formats."""
    if value is None:
        return None
    try:
        text = value.decode(codec)
    except UnicodeDecodeError:
        return _NO_TEXT
    return _NO_TEXT if "\0" in text else text


def _binary_arrays(
    kinds: Iterable[tuple[int, str]],
    given: Mapping[int, bytes | None],
    known: dict[int, str | None],
    codec: str,
) -> list[tuple[int, str]]:
    """Kinds of the values that are arrays of names in binary, whose texts are put among the `known`."""
    found = []
    for number, kind in kinds:
        value = given.get(number)
        if number in known or not value or bound.is_strict(kind):
            continue
        elements = names.binary_array_elements(value)
        if elements is not None:
            texts = (_text(element, codec) for element in elements)
            known[number] = names.array_literal(text for text in texts if text and text is not _NO_TEXT)
            found.append((number, kind.removesuffix(bound.UNSURE).removesuffix(bound.ARRAY) + bound.ARRAY))
    return found


def encoded(edits: Iterable[Edit], sql: bytes, codec: str) -> list[PlaceEdit]:
    """Edits with offsets into `sql` as it was sent; UnicodeError where its encoding can't hold them."""
    if codec == UTF8 or sql.isascii():
        return [(start, end, text.encode(codec)) for start, end, text in edits]
    text = sql.decode(codec)
    if text.encode(codec) != sql:
        raise UnicodeError(f"bytes that {codec} does not write as it reads them")
    utf8 = text.encode()

    def offset(at: int) -> int:
        return len(utf8[:at].decode().encode(codec))

    return [(offset(start), offset(end), new.encode(codec)) for start, end, new in edits]


def refusal(verdict: Verdict) -> ProxyError:
    detail = verdict.detail
    named = verdict.object_name
    if detail and named and not verdict.message.endswith((f" {named}", f'"{named}"')):
        detail = f'{detail} The statement names "{named}".'
    return ProxyError(
        verdict.sqlstate,
        verdict.message,
        detail=detail or None,
        hint=verdict.hint or None,
        position=verdict.position or None,
        reason=verdict.reason,
    )


def deallocate_tag(names: tuple[str, ...]) -> bytes:
    return messages.command_complete("DEALLOCATE ALL" if names == ("*",) else "DEALLOCATE")
