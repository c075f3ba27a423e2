"""One judgement: walks a parse tree, collects what the statement does, and ends at the first refusal.

How literals are kept out of verdicts that are cached by shape (docs/guard.md): the walk and its rules
never look at the value of a literal but through `constant` and `constants`, and these set `exact`
first.  Statements other than queries and row changes are exact from the start, as their
literals stand in many places (`effects.STATEMENTS`).  So a judgement that ends with `exact` unset has
run without knowing any literal, and would have run the same for other literals.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NoReturn

from tenant_proxy.guard import parse as parser
from tenant_proxy.guard.nodes import LEAVES, LIST, NODE, NODES, Fields
from tenant_proxy.guard.policy import GuardScope
from tenant_proxy.model import Effect

#: a node's fields
Body = dict[str, Any]
#: judges a node before what is below it; true if it has dealt with that as well
Rule = Callable[["Walk", Body], bool | None]

#: a position that is not known
NOWHERE = -1

_PINS = int(Effect.PINS)
_SESSION = int(Effect.PINS | Effect.SETTINGS)

#: types that leave a literal as it is
_TEXTS = frozenset({"text", "varchar", "name"})

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
        "deallocates",
        "depth",
        "effects",
        "exact",
        "filtered",
        "fixed",
        "in_code",
        "pin_reason",
        "scope",
        "settings",
        "text",
    )

    #: node -> its fields and rule; filled by judge.py
    table: Mapping[str, tuple[Fields, Rule | None]] = {tag: (fields, None) for tag, fields in NODES.items()}

    def __init__(self, scope: GuardScope, text: str) -> None:
        self.scope = scope
        self.text = text
        #: bits of model.Effect; a plain int, which is much faster than the enum
        self.effects = 0
        self.exact = False
        self.pin_reason = ""
        self.deallocates: list[str] = []
        self.settings: list[str] = []
        #: location that refusals inside a nested text are told at, or NOWHERE outside of one
        self.fixed = NOWHERE
        self.depth = 0
        #: id of a column reference -> the constant that WHERE makes it (settings.py)
        self.filtered: dict[int, Mapping[str, Any]] = {}
        #: column references may be variables here
        self.in_code = False

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

    def check_schema(self, schema: str, location: int, *, write: bool = False, name: str = "") -> None:
        """`name` is the object's, for the log."""
        scope = self.scope
        if schema in (scope.writable if write else scope.readable):
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
            self.check_schema(names[-2], location, write=write, name=names[-1])

    # --- literals: whoever looks at one makes the verdict exact -----------------------

    def constant(self, node: Mapping[str, Any] | None, *, strict: bool = False) -> str | None:
        """The text of a constant string expression: a literal, cast or joined by ||; None if it is more.

        `strict` takes literals and casts to text only: operators and types may be the tenant's own, and do
        other than they seem.
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
            elif tag == "TypeCast" and (not strict or strings(body["typeName"]["names"])[-1] in _TEXTS):
                stack.append(body.get("arg"))
            elif tag == "A_Expr" and not strict and "lexpr" in body and strings(body["name"])[-1] == "||":
                stack += (body["rexpr"], body["lexpr"])
            elif tag == "CollateClause" and not strict:
                stack.append(body.get("arg"))
            else:
                return None
        return "".join(pieces)

    def constants(self, node: Mapping[str, Any] | None) -> Iterator[tuple[str, int, bool]]:
        """The constant strings that an expression may be: arms of CASE, elements of ARRAY …

        With each its location, and whether it is an element of ARRAY[…].
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
                    yield text, location_of(node), element
                elif tag == "A_Expr" and body["kind"] == "AEXPR_NULLIF":
                    below = [body.get("lexpr")]
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

    # --- effects -----------------------------------------------------------------

    def pin(self, reason: str) -> None:
        self.effects |= _PINS
        self.pin_reason = self.pin_reason or reason

    def set(self, names: Iterable[str]) -> None:
        self.effects |= int(Effect.SETTINGS)
        self.settings += (name for name in names if name not in self.settings)

    # --- walking -----------------------------------------------------------------

    def walk(self, tag: str, body: Body) -> None:
        """A node and all below it."""
        table = self.table
        stack: list[tuple[str, Body]] = [(tag, body)]
        while stack:
            tag, body = stack.pop()
            entry = table.get(tag)
            if entry is None:
                if tag in LEAVES:
                    continue
                self.unknown(f"node {tag}")
            fields, rule = entry
            if rule is not None and rule(self, body):
                continue
            for key, value in body.items():
                kind = fields.get(key)
                if not kind:
                    if kind is None:
                        self.unknown(f"field {tag}.{key}")
                elif kind == NODE:
                    stack += value.items()
                elif kind == LIST:
                    for element in value:
                        stack += element.items()
                else:
                    stack.append((kind, value))  # type: ignore[arg-type]

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
            self.effects, self.pin_reason, self.settings = effects, pin_reason, settings

    def nested(self, text: str, location: int, what: str) -> int:
        """Judges text that the server will run as SQL; refusals are told at `location`.

        Returns the effects of its statements, which are not added to this judgement's.
        """
        if self.depth >= _MAX_NESTING:
            self.refuse(
                "too_complex", "statement is nested too deeply to be checked", sqlstate="54001", detail=""
            )
        outer = (self.fixed, self.effects, self.pin_reason, self.settings, self.deallocates)
        if self.fixed == NOWHERE:
            self.fixed = max(location, 0)
        self.depth += 1
        self.effects, self.settings, self.deallocates = 0, [], []
        try:
            for statement in self._nested_tree(text, what):
                self.statement(statement["stmt"])
            return self.effects
        finally:
            self.depth -= 1
            self.fixed, self.effects, self.pin_reason, self.settings, self.deallocates = outer

    def _nested_tree(self, text: str, what: str) -> parser.Tree:
        try:
            return parser.parse(text)
        except parser.Unreadable as error:
            self.refuse(
                error.reason,
                error.message,
                sqlstate=error.sqlstate,
                detail=f"This is in {what}.",
                hint="The proxy reads SQL as PostgreSQL 18 does.",
            )

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
