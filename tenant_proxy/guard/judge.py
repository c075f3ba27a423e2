"""The judge: one statement text in one scope to one verdict.

Pure: no I/O, no state between calls.  Whatever it does not know it refuses.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import logging
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from tenant_proxy.guard import (
    catalogs,
    channels,
    definitions,
    expressions,
    own_public,
    own_session,
    provided,
    sharing,
    statements,
)
from tenant_proxy.guard.bound import is_strict
from tenant_proxy.guard.descent import ColumnRule
from tenant_proxy.guard.effects import REFUSED, SERVER_SAYS, STATEMENTS
from tenant_proxy.guard.functions import FUNCTIONS, LARGE_OBJECTS, OIDS
from tenant_proxy.guard.nodes import NODES
from tenant_proxy.guard.parse import ALLOWED_TEXT_BYTES, Costly, Unreadable, parse, within_allowance
from tenant_proxy.guard.policy import GuardScope
from tenant_proxy.guard.source import NotFound
from tenant_proxy.guard.standin import LONG_TEXT_BYTES, cut, stand_in
from tenant_proxy.guard.values import values_judged
from tenant_proxy.guard.walk import Body, Refusal, Rule, Walk
from tenant_proxy.model import Action, Effect, Verdict

_log = logging.getLogger(__name__)

_RULES: Final[Mapping[str, Rule | ColumnRule]] = {
    **expressions.RULES,
    **statements.RULES,
    **definitions.RULES,
    **catalogs.RULES,
    **channels.RULES,
    **sharing.RULES,
}
#: refused statements of which some forms do nothing but say that it is there
_PROVIDED: Final[Mapping[str, Callable[[Walk, Body], bool]]] = {
    "CreateSchemaStmt": lambda w, body: own_public.create_schema(w, body) or provided.create_schema(w, body),
    "CreateExtensionStmt": provided.create_extension,
}
_MULTI: Final = int(Effect.MULTI)
_KEEPS: Final = int(Effect.KEEPS)
_RESETS: Final = int(Effect.RESETS)
#: see `judge_values`
VALUES_TIMES: Final = 4
_ALONE: Final = int(Effect.BEGINS | Effect.STARTS | Effect.COMMITS | Effect.ROLLS_BACK)


class Judgement(Walk):
    __slots__ = ()
    table = {tag: (fields, _RULES.get(tag)) for tag, fields in NODES.items()}  # noqa: RUF012

    def statement(self, node: Mapping[str, Any]) -> None:
        ((tag, body),) = node.items()
        known = STATEMENTS.get(tag)
        sharing.note(self, tag, body)
        if known is None:
            stands = _PROVIDED.get(tag)
            if stands is not None and stands(self, body):
                return
            what, why = REFUSED.get(tag, (tag.removesuffix("Stmt"), "the guard does not know this statement"))
            self.refuse(
                "statement",
                _worded(tag, body, what),
                detail=f'{why[0].upper()}{why[1:]}; this connection belongs to tenant "{self.scope.tenant}".',
                hint="Ask the operator, or connect to the server directly.",
                name=what,
                rule=f"statement:{tag}",
            )
        effects, exact = known
        self.effects |= effects
        if exact:
            self.exact = True
        self.walk(tag, body)

    def settle(self, statement: Mapping[str, Any]) -> None:
        source = self.tokens
        if not (source.relations or source.pending or source.instead or source.own):
            return
        location = statement.get("stmt_location", 0)
        start, end = source.character(location), len(source.text)
        if "stmt_len" in statement:
            end = source.character(location + statement["stmt_len"])
        if source.instead:
            source.replace_statement(start, end)
            return
        if source.own:
            own_session.settle(self, source, statement)
        catalogs.settle(source, start, end)
        source.settle(start, end)


class Guard:
    """Judges statements.  One instance serves all scopes and threads."""

    def __init__(self, judgement: Callable[[GuardScope, str], Walk] = Judgement) -> None:
        #: makes one judgement; that of `explain` takes notes
        self._judgement = judgement

    def judge(self, scope: GuardScope, sql: str | bytes) -> Verdict:
        """The verdict of a simple Query's or a Parse's text; never raises.

        `sql` as bytes is in the scope's client_encoding.  A verdict that is ALLOW and not `exact` holds for
        every text of the same shape (`shape.shape`).
        """
        try:
            if isinstance(sql, bytes):
                sql = sql.decode(scope.codec)
            if len(sql) <= LONG_TEXT_BYTES:
                return self._judge(scope, sql)
            with _COLLECTOR.paused():
                return self._judge_long(scope, sql)
        except Costly:
            raise
        except MemoryError:
            return _refused("too_large", "54000", "statement is too large to be checked")
        except UnicodeDecodeError as error:
            return _refused("encoding", "22021", _invalid_byte(error))
        except Exception as error:
            # our own mistake must not become a hole; the text stays out of the log
            _log.exception("guard failed", extra={"tenant": scope.tenant, "error": type(error).__name__})
            return _FAILED

    def judge_at_once(self, scope: GuardScope, sql: str | bytes, times: int = 1) -> Verdict | None:
        """The verdict if it takes no longer than a millisecond or two (`parse.ALLOWANCE`), else None.

        `times`: or so many times as long.
        """
        if len(sql) > ALLOWED_TEXT_BYTES * times:
            return None
        return within_allowance(functools.partial(self.judge, scope, sql), times)

    def _judge_long(self, scope: GuardScope, sql: str) -> Verdict:
        encoded = sql.encode("utf-8", "surrogatepass")
        short = stand_in(encoded)
        if short is not None:
            verdict = self._judge(scope, short)
            if verdict.action is Action.ALLOW and not verdict.exact:
                # offsets of edits are those of the short text
                placed = self._judge_cut(scope, encoded) if verdict.edits else verdict
                if placed is not None:
                    return placed
        return self._judge(scope, sql)

    def _judge_cut(self, scope: GuardScope, encoded: bytes) -> Verdict | None:
        """The verdict of a text that may be judged by its stand-in, with edits of its own."""
        shorter = cut(encoded)
        if shorter is None:
            return None
        verdict = self._judge(scope, shorter.text)
        if verdict.action is not Action.ALLOW or verdict.exact:
            return None
        return replace(verdict, edits=shorter.placed(verdict.edits))

    def _judge(self, scope: GuardScope, sql: str) -> Verdict:
        w = self._judgement(scope, sql)
        try:
            tree = parse(sql, scope.folding)
            w.statements(tree)
            if w.attributes and w.row_functions:
                catalogs.refuse_attribute(w, *w.attributes[0])
            if w.taken_as_text:
                w.check_parameters()
            edits = () if w.source is None else w.source.byte_edits()
        except NotFound:
            return _NOT_FOUND
        except Unreadable as error:
            return _refused(
                error.reason,
                error.sqlstate,
                error.message,
                detail=_READS_AS if error.reason == "syntax" and _NEW_WORDS.search(sql) else "",
                hint="Put it in double quotes, as the server knows it." if error.reason == "folding" else "",
                position=error.index + 1,
            )
        except Refusal as refusal:
            return _rejected(refusal, Effect(w.effects))
        if len(tree) > 1:
            w.effects = w.effects & ~_ALONE | _MULTI | (_KEEPS if w.sets_locally else 0)
        if w.stored or w.bound:
            sharing.settle(w)
        if w.effects & _RESETS:
            sharing.settle_reset(w, tree)
        if not (w.deallocates or w.executes or w.settings or w.pin_reason or edits or w.bound or w.listens):
            return _allowed(w.effects, w.exact)
        return Verdict(
            Action.ALLOW,
            Effect(w.effects),
            exact=w.exact,
            deallocates=tuple(w.deallocates),
            executes=tuple(w.executes),
            settings=tuple(w.settings),
            pin_reason=w.pin_reason or ("listen" if w.listens else ""),
            edits=edits,
            bound=tuple(w.bound),
            listens=tuple(w.listens),
            tags=w.tags,
        )

    def judge_values(
        self, scope: GuardScope, kinds: Iterable[tuple[int, str]], values: Mapping[int, str | None]
    ) -> tuple[Verdict, dict[int, str]]:
        """The verdict of the values that Bind gives to the parameters in `Verdict.bound`; never raises.

        `values` are texts by number from 1, None for NULL.  With ALLOW come those that others replace.

        All clients wait meanwhile, so it takes no longer than VALUES_TIMES as long as a statement at once.
        """
        judged = within_allowance(functools.partial(self._judge_values, scope, kinds, values), VALUES_TIMES)
        return judged or (_TOO_MANY_VALUES, {})

    def _judge_values(
        self, scope: GuardScope, kinds: Iterable[tuple[int, str]], values: Mapping[int, str | None]
    ) -> tuple[Verdict, dict[int, str]]:
        try:
            return _ALLOWED_VALUES, values_judged(
                lambda text: self._judgement(scope, text),
                lambda text: self._judge_value(scope, text),
                kinds,
                values,
            )
        except Refusal as refusal:
            return _rejected(refusal, Effect(0)), {}
        except NotFound:
            return _NOT_FOUND, {}
        except Costly:
            raise
        except Exception as error:
            _log.exception("guard failed", extra={"tenant": scope.tenant, "error": type(error).__name__})
            return _FAILED, {}

    def _judge_value(self, scope: GuardScope, text: str) -> Verdict:
        if len(text) > VALUES_TIMES * ALLOWED_TEXT_BYTES:
            raise Costly
        return self.judge(scope, text)

    def judge_types(self, kinds: Iterable[tuple[int, str]], types: Sequence[int]) -> Verdict:
        """The verdict of the types, as OIDs, that a Parse declares its parameters to be of.

        One of the tenant's own could be turned to another text by a cast of the tenant's own.
        """
        for number, kind in kinds:
            if is_strict(kind) and number <= len(types) and types[number - 1] not in _TEXT_TYPES:
                return _refused(
                    "parameter_type",
                    "42501",
                    f"the value of parameter ${number} can't be checked",
                    detail="The type that it is declared to be of is not text.",
                    hint="Declare it as text, or not at all.",
                )
        return _ALLOWED_VALUES

    def foreign_type(self) -> Verdict:
        """The verdict of a Parse that declares a parameter to be of a type of another schema."""
        return _refused(
            "parameter_type",
            "42501",
            "permission denied for the type of a parameter",
            detail="The number that it is declared by is that of a type outside the tenant.",
            hint="Declare types of the tenant's own, or none.",
        )

    def too_many_types(self, most: int) -> Verdict:
        return _refused(
            "parameter_type",
            "54000",
            f"parameters of more than {most} types that do not come with PostgreSQL",
            detail="The proxy asks the server whose each of them is.",
            hint="Leave the types of some open, and cast them in the statement.",
        )

    def unknown_type(self) -> Verdict:
        """… of which the server has not said whose it is."""
        return _refused(
            "parameter_type",
            "55000",
            "the type of a parameter can't be checked",
            detail="The server was asked whose it is, and has not answered.",
            hint="Try again; statement_timeout may be too short.",
        )

    def unreadable_value(self, number: int) -> Verdict:
        """The verdict of a value whose text would have to be judged and that the scope's codec can't read."""
        return _refused(
            "encoding",
            "22021",
            f"the value of parameter ${number} can't be checked",
            detail="It has a character that the proxy can't read in this client_encoding.",
            hint="Set client_encoding to UTF8 in the startup packet.",
        )

    def too_large_here(self) -> Verdict:
        """The verdict of a text that is to be judged once more, by the session that it is sent in."""
        return _refused(
            "too_large",
            "54000",
            "statement is too large for what it asks of its session",
            detail="What listens, executes, resets or asks for the session's own id has another text in each"
            " session, and a large one can't be made anew each time.",
            hint="Send that in a message of its own.",
        )

    def forgotten(self) -> Verdict:
        """The verdict of a Bind of a large statement of which it is not known any more what it binds."""
        return _refused(
            "too_large",
            "54000",
            "the values of this statement can't be checked any more",
            detail="The tenant has prepared too many large statements whose values are checked.",
            hint="Prepare it again.",
        )

    def executes_bound(self, name: bytes) -> Verdict:
        """The verdict of EXECUTE of a statement that Parse has made and Bind gives values that are judged."""
        text = name.decode("utf-8", "replace")
        return _refused(
            "dynamic_query",
            "42501",
            f'permission denied for prepared statement "{text}"',
            detail="Its parameters name objects or settings, or are SQL, and are checked at Bind.",
            hint="Bind its values in the extended protocol, or write the statement with constants.",
            name=text,
        )

    def binds_by(self, name: str) -> Verdict:
        """The verdict of a Parse of such a statement by a name that is other bytes in another encoding."""
        return _refused(
            "dynamic_query",
            "42501",
            f'permission denied for prepared statement "{name}"',
            detail="Its parameters name objects or settings, or are SQL, and are found by its name at Bind.",
            hint="Give it a name of ASCII letters.",
            name=name,
        )

    def judge_function(self, scope: GuardScope, oid: int) -> Verdict:
        """The verdict of a FunctionCall message, which names a function by OID and is not SQL.

        Let through are functions of pg_catalog that need no look at their arguments; libpq uses it for
        large objects.
        """
        names = OIDS.get(oid, ())
        effects, pin_reason = Effect.READS, ""
        if LARGE_OBJECTS.isdisjoint(names):
            # what others do is not followed
            effects |= Effect.ESCALATES
        for name in names:
            fact = FUNCTIONS.get(name)
            if name in scope.denied_functions or (
                fact is not None
                and (fact.refused or (fact.turned and scope.hides) or fact.names or fact.queries or fact.sets)
                and name not in scope.allowed_functions
            ):
                break
            if fact is not None:
                effects |= fact.effects
                pin_reason = fact.pin_reason
        else:
            if names:
                return Verdict(Action.ALLOW, effects, exact=True, pin_reason=pin_reason)
        name = names[0] if names else str(oid)
        return _refused(
            "function",
            "42501",
            f"permission denied for function {name}",
            detail="It can't be called by OID.",
            hint="Call it in a SELECT.",
            name=name,
        )


def _worded(tag: str, body: Mapping[str, Any], what: str) -> str:
    """A refused statement's error, as the server would word it to a role without the right."""
    template, field = SERVER_SAYS.get(tag, ("", ""))
    if not template:
        return f"permission denied for {what}"
    return template.format(body.get(field, "")) if field else template


class _Collector:
    """Python's garbage collector, paused while large trees are made: they have no cycles, and looking for
    them while a tree grows takes most of the time.

    Several threads may judge: it runs again when the last of them is done.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pausing = 0
        self._was_enabled = False

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        with self._lock:
            if self._pausing == 0:
                self._was_enabled = gc.isenabled()
                gc.disable()
            self._pausing += 1
        try:
            yield
        finally:
            with self._lock:
                self._pausing -= 1
                if self._pausing == 0 and self._was_enabled:
                    gc.enable()


_COLLECTOR: Final = _Collector()


@functools.lru_cache(maxsize=256)
def _allowed(effects: int, exact: bool) -> Verdict:
    """One object for all verdicts that say no more than this: making one takes longer than the walk."""
    return Verdict(Action.ALLOW, Effect(effects), exact=exact)


#: what a refused statement may do besides what was seen of it, should it be let through all the same
_UNSEEN: Final = Effect.WRITES | Effect.SETTINGS | Effect.OPAQUE

_READS_AS: Final = "The proxy reads SQL as PostgreSQL 18 does."
#: names to servers before that, so that they may take what the proxy does not
_NEW_WORDS: Final = re.compile(
    r"\b(?:json(?:_(?:arrayagg|exists|objectagg|query|scalar|serialize|table|value))?|system_user)\b",
    re.IGNORECASE,
)


def _refused(
    reason: str,
    sqlstate: str,
    message: str,
    *,
    detail: str = "",
    hint: str = "",
    position: int = 0,
    name: str = "",
) -> Verdict:
    return Verdict(
        Action.REJECT,
        _UNSEEN,
        exact=True,
        sqlstate=sqlstate,
        message=message,
        detail=detail,
        hint=hint,
        position=position,
        reason=reason,
        object_name=name,
        rule=reason,
    )


def _rejected(refusal: Refusal, effects: Effect) -> Verdict:
    return Verdict(
        Action.REJECT,
        effects | _UNSEEN,
        exact=True,
        sqlstate=refusal.sqlstate,
        message=refusal.message,
        detail=refusal.detail,
        hint=refusal.hint,
        position=refusal.position,
        reason=refusal.reason,
        object_name=refusal.object_name,
        rule=refusal.rule,
    )


_FAILED: Final = _refused(
    "internal", "0A000", "the guard can't check this statement", hint="Report this to the operator."
)

_NOT_FOUND: Final = _refused(
    "rewriting",
    "0A000",
    "the statement can't be rewritten",
    detail="The proxy can't tell where the names that it has to change stand in it.",
    hint="Write each name as one constant or identifier, or split the statement.",
)

#: OIDs of types that a value keeps its text in: none given, text, unknown, varchar
_TEXT_TYPES: Final = frozenset({0, 25, 705, 1043})

_ALLOWED_VALUES: Final = Verdict(Action.ALLOW, exact=True)

_TOO_MANY_VALUES: Final = _refused(
    "too_large",
    "54000",
    "values that name objects or settings, or are SQL, are too many or too large to be checked",
    detail="They are checked while all clients of the proxy wait.",
    hint="Bind fewer at a time, or write them as constants.",
)


def _invalid_byte(error: UnicodeDecodeError) -> str:
    wrong = error.object[error.start : error.start + 1].hex()
    return f'invalid byte sequence for encoding "UTF8": 0x{wrong}'
