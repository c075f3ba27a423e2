"""One judgement: walks a parse tree, collects what the statement does, and ends at the first refusal.

How literals are kept out of verdicts that are cached by shape (docs/guard.md): the walk and its rules
never look at the value of a literal but through `constant` and `constants`, and these set `exact`
first.  Statements other than queries and row changes are exact from the start, as their
literals stand in many places (`effects.STATEMENTS`).  So a judgement that ends with `exact` unset has
run without knowing any literal, and would have run the same for other literals.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, NoReturn

from tenant_proxy.guard import folding
from tenant_proxy.guard import parse as parser
from tenant_proxy.guard.bound import ARRAY, is_strict
from tenant_proxy.guard.descent import ColumnRule, descend
from tenant_proxy.guard.nodes import NODES, Fields
from tenant_proxy.guard.policy import GuardScope
from tenant_proxy.guard.source import NotFound, Pending, Source, quoted_name, quoted_string
from tenant_proxy.model import Effect

#: a node's fields
Body = dict[str, Any]
#: judges a node before what is below it; true if it has dealt with that as well
Rule = Callable[["Walk", Body], bool | None]

#: a position that is not known
NOWHERE = -1

_PINS = int(Effect.PINS)
_SESSION = int(Effect.PINS | Effect.SETTINGS)

#: what the name of a type has that is no more than a name
_PLAIN_TYPE = frozenset({"names", "typemod", "location"})

#: text run as SQL inside text run as SQL …
_MAX_NESTING = 8


class Refusal(Exception):
    """Ends a judgement; what the verdict will say."""

    def __init__(
        self,
        reason: str,
        message: str,
        *,
        sqlstate: str,
        detail: str,
        hint: str,
        position: int,
        object_name: str,
        rule: str,
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.sqlstate = sqlstate
        self.detail = detail
        self.hint = hint
        self.position = position
        self.object_name = object_name
        self.rule = rule


class Walk:
    """The state of one judgement.  Locations are byte offsets into the text's UTF-8, as the parser's."""

    __slots__ = (
        "all_settings",
        "attributes",
        "binds",
        "bound",
        "deallocates",
        "depth",
        "effects",
        "exact",
        "executes",
        "filtered",
        "fixed",
        "here",
        "in_code",
        "in_view",
        "is_apart",
        "is_dynamic",
        "listens",
        "pin_reason",
        "row_functions",
        "runs_code",
        "scope",
        "sets_locally",
        "settings",
        "shadowed",
        "source",
        "stored",
        "tags",
        "taken_as_text",
        "text",
        "unnamed",
        "values",
    )

    #: node -> its fields and rule; filled by judge.py
    table: ClassVar[dict[str, tuple[Fields, Rule | ColumnRule | None]]] = {
        tag: (fields, None) for tag, fields in NODES.items()
    }

    def __init__(self, scope: GuardScope, text: str) -> None:
        self.scope = scope
        self.text = text
        #: bits of model.Effect; a plain int, which is much faster than the enum
        self.effects = 0
        self.exact = False
        #: effects of what is stored to run later, or runs as code; and whether some runs now (sharing.py)
        self.stored = 0
        self.runs_code = False
        #: whether it sets what ends with its transaction, which shows where it is all that a text does
        self.sets_locally = False
        self.pin_reason = ""
        self.deallocates: list[str] = []
        self.executes: list[str] = []
        self.settings: list[str] = []
        #: … those that code sets as well
        self.all_settings: list[str] = []
        #: location that refusals inside a nested text are told at, or NOWHERE outside of one
        self.fixed = NOWHERE
        self.depth = 0
        #: id of a column reference -> the constant that WHERE makes it (settings.py)
        self.filtered: dict[int, Mapping[str, Any]] = {}
        #: column references may be variables here
        self.in_code = False
        #: in the query of a view
        self.in_view = False
        #: names that may stand for a value of any type here, where others before a dot are rows
        self.values: frozenset[str] = frozenset()
        #: see `apart`
        self.is_apart = False
        #: in SQL that will be read once more when it runs
        self.is_dynamic = False
        #: the text that locations are in now: `text`, or one inside it
        self.here = text
        #: its tokens and edits, made when the first is needed
        self.source: Source | None = None
        #: names of catalogs that stand for something of the statement's own here
        self.shadowed: frozenset[str] = frozenset()
        #: x.f seen, by f and location, and whether some x may be no row (catalogs.attribute)
        self.attributes: list[tuple[str, int]] = []
        self.row_functions = False
        #: parameters are those of Bind here: not in code, nor in PREPARE
        self.binds = True
        #: see `Verdict.bound`
        self.bound: list[tuple[int, str]] = []
        #: names of channels that LISTEN names, on the server; and see `Verdict.tags`
        self.listens: list[str] = []
        self.tags = ""
        #: locations of function calls whose results have no name but the function's (channels.py)
        self.unnamed: set[int] = set()
        #: number and location of those of which the exact text counts
        self.taken_as_text: set[tuple[int, int]] = set()

    # --- refusing ----------------------------------------------------------------

    def refuse(
        self,
        reason: str,
        message: str,
        *,
        sqlstate: str = "42501",
        detail: str | None = None,
        hint: str = "",
        location: int = NOWHERE,
        name: str = "",
        rule: str = "",
    ) -> NoReturn:
        if detail is None:
            detail = (
                f'This connection belongs to tenant "{self.scope.tenant}".' if sqlstate == "42501" else ""
            )
        raise Refusal(
            reason,
            message,
            sqlstate=sqlstate,
            detail=detail,
            hint=hint,
            position=self.position(location),
            object_name=name,
            rule=rule or reason,
        )

    def position(self, location: int) -> int:
        """1-based character position of a byte offset, 0 for NOWHERE."""
        if self.fixed != NOWHERE:
            location = self.fixed
        if location < 0:
            return 0
        if self.text.isascii():
            return location + 1
        return len(self.text.encode()[:location].decode("utf-8", "ignore")) + 1

    def unknown(self, what: str) -> NoReturn:
        self.refuse(
            "unknown_syntax",
            "the guard does not know this syntax",
            sqlstate="0A000",
            detail=f"The parse tree has {what}.",
            hint="Write the statement differently, or report this to the operator.",
        )

    # --- schemas -----------------------------------------------------------------

    def check_schema(
        self,
        schema: str,
        location: int,
        *,
        write: bool = False,
        name: str = "",
        parts: Sequence[str] = (),
        part: int = -2,
    ) -> None:
        """`parts` is the whole name, of which the schema is `part`; `name` the object's, for the log."""
        scope = self.scope
        if schema in (scope.writable if write else scope.readable):
            return
        if schema == "public" and scope.public_is_own:
            self.rename(parts or (schema,), location, quoted_name(scope.schema), part=part if parts else 0)
            return
        full = f"{schema}.{name}" if name else schema
        if schema in scope.readable:
            self.refuse(
                "read_only_schema",
                f"permission denied for schema {schema}",
                detail=f'Tenant "{scope.tenant}" may read objects of this schema, not change them.',
                hint=f'Only objects of the tenant\'s own schema "{scope.schema}" can be changed.',
                location=location,
                name=full,
            )
        self.refuse(
            "cross_schema",
            f"permission denied for schema {schema}",
            hint=f'Use objects of the tenant\'s own schema "{scope.schema}"; an operator can open '
            "others for reading by policy.allowed_schemas.",
            location=location,
            name=full,
        )

    def check_name(self, names: list[str], location: int, *, write: bool = False) -> None:
        """[database,] [schema,] name.  A database that is not this one the server refuses itself."""
        if len(names) > 3:
            self.refuse(
                "syntax",
                "improper qualified name (too many dotted names): " + ".".join(names),
                sqlstate="42601",
                location=location,
            )
        if len(names) > 1:
            self.check_schema(names[-2], location, write=write, name=names[-1], parts=names)

    # --- edits ---------------------------------------------------------------------

    @property
    def tokens(self) -> Source:
        """The text that locations are in now."""
        if self.source is None:
            self.source = Source(self.here)
        return self.source

    def edit(self, start: int, end: int, text: str) -> None:
        """Puts `text` in place of the bytes from `start` to `end` of the text that locations are in now."""
        source = self.tokens
        source.edit(source.character(start), source.character(end), text)

    def rename(
        self, parts: Sequence[str], location: int, text: str, *, part: int = 0, keyword: str = ""
    ) -> None:
        """Puts `text` in place of one part of a name; `location` is its first token's, or just before."""
        source = self.tokens
        if location != NOWHERE:
            found = source.name_at(source.character(location), parts, ahead=4)
            if found is not None:
                source.replace_token(found[part], text)
                return
        source.pending.append(Pending(tuple(parts), part, text, keyword))

    @contextlib.contextmanager
    def inside(self, text: str, *, literal: int = NOWHERE, offset: int | None = None) -> Iterator[None]:
        """Locations are in `text` meanwhile, and edits made in it are made where it stands.

        That is the value of the literal at character `literal`, or the same characters from `offset` on (with
        something put before them it may be negative).  If it is neither, there can be no edits.
        """
        outer = (self.here, self.source, self.shadowed, self.binds)
        inner: Source | None = None
        self.here, self.source, self.shadowed, self.binds = text, inner, frozenset(), False
        try:
            yield
            inner = self._made()
        finally:
            self.here, self.source, self.shadowed, self.binds = outer
        if inner is None:
            return
        if inner.pending or inner.relations:
            raise NotFound
        if not inner.edits:
            return
        if literal != NOWHERE:
            self.tokens.replace_string(literal, inner)
        elif offset is not None:
            for start, (end, replacement) in inner.edits.items():
                self.tokens.edit(offset + start, offset + end, replacement)
        else:
            raise NotFound

    def _made(self) -> Source | None:
        return self.source

    def replace_string(self, node: Mapping[str, Any], value: str) -> None:
        """Gives a literal, perhaps in casts, another value."""
        at = self.literal(node)
        if at == NOWHERE:
            raise NotFound
        self.tokens.replace_token(self.tokens.string_at(at), quoted_string(value))

    def literal(self, node: Mapping[str, Any] | None) -> int:
        """The character that a literal begins at, perhaps in casts; NOWHERE if the expression is more."""
        while node and "TypeCast" in node:
            node = node["TypeCast"].get("arg")
        if not node or "A_Const" not in node:
            return NOWHERE
        return self.tokens.character(node["A_Const"].get("location", 0))

    # --- literals: whoever looks at one makes the verdict exact -----------------------

    def constant(self, node: Mapping[str, Any] | None, *, strict: str = "") -> str | None:
        """The text of a constant string expression: a literal, cast or joined by ||; None if it is more.

        `strict` is the type that takes it: then only literals and casts that leave them as they are (`keeps`)
        count, as operators and types may be the tenant's own, and do other than they seem.
        """
        pieces: list[str] = []
        stack = [node]
        while stack:
            node = stack.pop()
            if not node:
                return None
            ((tag, body),) = node.items()
            if tag == "A_Const" and "sval" in body:
                self.exact = True
                pieces.append(body["sval"].get("sval", ""))
            elif tag == "TypeCast" and (not strict or self.keeps(body["typeName"], strict)):
                stack.append(body.get("arg"))
            elif tag == "A_Expr" and not strict and "lexpr" in body and strings(body["name"])[-1] == "||":
                stack += (body["rexpr"], body["lexpr"])
            elif tag == "CollateClause" and not strict:
                stack.append(body.get("arg"))
            else:
                return None
        return "".join(pieces)

    def keeps(self, type_name: Body, kind: str = "text") -> bool:
        """Whether a cast to this type hands a text on as it is, to what takes `kind`.

        PostgreSQL's own text and varchar do, without a length, which would cut it.  A name without a schema
        may be a type of the tenant's own, which pg_temp or search_path put first: it gets its schema.
        """
        if not _PLAIN_TYPE.issuperset(type_name):
            return False
        names = strings(type_name["names"])
        if names[:-1] == ["pg_catalog"]:
            return names[-1] in ("text", "varchar", kind)
        if len(names) != 1 or names[0] not in ("text", kind):
            return False
        self.rename(names, type_name.get("location", 0), f"pg_catalog.{names[0]}")
        return True

    def constants(
        self, node: Mapping[str, Any] | None, bound: str = "", *, array: bool = False
    ) -> Iterator[tuple[str, Mapping[str, Any], bool]]:
        """The constant strings that an expression may be: arms of CASE, elements of ARRAY …

        With each its expression, and whether it is an element of ARRAY[…].  Parameters that it may be are
        noted as `bound`, if the expression is an `array` as arrays of it.
        """
        stack = [(node, False)]
        while stack:
            node, element = stack.pop()
            if not node:
                continue
            ((tag, body),) = node.items()
            below: list[Any] = []
            if tag in ("A_Const", "A_Expr"):
                text = self.constant(node)
                if text is not None:
                    yield text, node, element
                elif tag == "A_Expr" and body["kind"] == "AEXPR_NULLIF":
                    below = [body.get("lexpr")]
                elif tag == "A_Expr":
                    yield from self._folded(node, element)
            elif tag in ("FuncCall", "SubLink"):
                yield from self._folded(node, element)
            elif tag == "ParamRef" and bound:
                self.bind(body, f"{bound}{ARRAY}" if array and not element else bound)
            elif tag in ("TypeCast", "CollateClause", "NamedArgExpr"):
                below = [body.get("arg")]
            elif tag in ("CoalesceExpr", "MinMaxExpr"):
                below = body.get("args", [])
            elif tag == "A_ArrayExpr":
                below, element = body.get("elements", []), True
            elif tag == "CaseExpr":
                below = [when["CaseWhen"].get("result") for when in body.get("args", ())]
                below.append(body.get("defresult"))
            stack += ((item, element) for item in below)

    def _folded(
        self, node: Mapping[str, Any], element: bool
    ) -> Iterator[tuple[str, Mapping[str, Any], bool]]:
        """What functions of constants make."""
        if folding.is_made_of_constants(node):
            self.exact = True
            for text in folding.texts(node):
                yield text, node, element

    def bind(self, parameter: Body, kind: str) -> bool:
        """Has the value of a ParamRef judged at Bind; false where parameters are not bound by the client."""
        number = parameter.get("number", 0)
        if not self.binds or self.in_code or number < 1:
            return False
        if is_strict(kind):
            self.taken_as_text.add((number, parameter.get("location", 0)))
        if (number, kind) not in self.bound:
            self.bound.append((number, kind))
        return True

    def check_parameters(self) -> None:
        """Refuses parameters that have another use besides one that hangs on their exact text.

        Where they stand first decides their type, and that could be one of the tenant's own.
        """
        text = self.text
        places = Counter(  # $01 is $1
            int(text[token.start + 1 : token.end]) for token in self.tokens.tokens if token.kind == "PARAM"
        )
        for number, uses in Counter(number for number, _ in self.taken_as_text).items():
            if places[number] != uses:
                self.refuse(
                    "parameter_type",
                    f"the value of parameter ${number} can't be checked",
                    detail="It is used in other places of the statement as well, which decide what it is.",
                    hint="Give these a parameter of their own.",
                )

    # --- effects -----------------------------------------------------------------

    def pin(self, reason: str) -> None:
        self.effects |= _PINS
        self.pin_reason = self.pin_reason or reason

    def set(self, names: Iterable[str]) -> None:
        self.effects |= int(Effect.SETTINGS)
        self.stored |= int(Effect.SETTINGS)
        for name in names:
            if name not in self.settings:
                self.settings.append(name)
                self.all_settings.append(name)

    # --- walking -----------------------------------------------------------------

    def walk(self, tag: str, body: Body) -> None:
        """A node and all below it."""
        descend(self, self.table, tag, body)

    def walk_node(self, node: Mapping[str, Any] | None) -> None:
        """`walk` for a node with its tag; None and {} are nothing."""
        if node:
            for tag, body in node.items():
                self.walk(tag, body)

    def walk_later(self, node: Mapping[str, Any] | None) -> int:
        """Walks what is only stored now and runs later (a view's query); returns the effects it will have."""
        effects, pin_reason, settings = self.effects, self.pin_reason, self.settings
        self.effects, self.settings = 0, []
        try:
            self.walk_node(node)
            return self.effects
        finally:
            self.stored |= self.effects
            self.effects, self.pin_reason, self.settings = effects, pin_reason, settings

    def nested(
        self,
        text: str,
        location: int,
        what: str,
        *,
        literal: int = NOWHERE,
        offset: int | None = None,
    ) -> int:
        """Judges text that the server will run as SQL; refusals are told at `location`.

        Returns the effects of its statements, which are not added to this judgement's.  For `literal` and
        `offset` see `inside`.
        """
        outer = (self.fixed, self.effects, self.pin_reason, self.settings, self.deallocates)
        if self.fixed == NOWHERE:
            self.fixed = max(location, 0)
        self.effects, self.settings, self.deallocates = 0, [], []
        try:
            with self.deeper(), self.inside(text, literal=literal, offset=offset):
                self.statements(self._nested_tree(text, what))
            return self.effects
        finally:
            self.stored |= self.effects
            self.fixed, self.effects, self.pin_reason, self.settings, self.deallocates = outer

    def apart(self, text: str) -> Walk:
        """A judgement of another text, of which nothing but a refusal is wanted; it makes no further one."""
        other = type(self)(self.scope, text)
        other.is_apart = True
        return other

    def _nested_tree(self, text: str, what: str) -> parser.Tree:
        try:
            return parser.parse(text, self.scope.folding)
        except parser.Unreadable as error:
            self.refuse(
                error.reason,
                error.message,
                sqlstate=error.sqlstate,
                detail=f"This is in {what}.",
                hint="The proxy reads SQL as PostgreSQL 18 does.",
            )

    @contextlib.contextmanager
    def deeper(self) -> Iterator[None]:
        """Around what rules walk themselves, as far as a text may nest it."""
        if self.depth >= _MAX_NESTING:
            self.refuse(
                "too_complex", "statement is nested too deeply to be checked", sqlstate="54001", detail=""
            )
        self.depth += 1
        try:
            yield
        finally:
            self.depth -= 1

    def statements(self, tree: parser.Tree) -> None:
        for statement in tree:
            self.statement(statement["stmt"])
            if self.source is not None:
                self.settle(statement)

    def settle(self, statement: Mapping[str, Any]) -> None:
        """Finds what the rules could not yet place in the text of a statement; judge.py knows what."""
        raise NotImplementedError

    def statement(self, node: Mapping[str, Any]) -> None:
        """A whole statement; judge.py has the list of those that are known."""
        raise NotImplementedError


# --- helpers of the rules ---------------------------------------------------------------


def strings(nodes: Iterable[Mapping[str, Any]]) -> list[str]:
    """The texts of a list of String nodes."""
    return [node["String"].get("sval", "") if "String" in node else "*" for node in nodes]


def location_of(node: Mapping[str, Any]) -> int:
    """The least location in the expression's spine; NOWHERE if it has none."""
    while True:
        ((tag, body),) = node.items()
        if tag == "A_Expr" and "lexpr" in body:
            node = body["lexpr"]
        elif tag in ("TypeCast", "CollateClause") and body.get("arg"):
            node = body["arg"]
        else:
            return int(body.get("location", 0))
