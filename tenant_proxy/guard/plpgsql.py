"""Reads PL/pgSQL far enough to judge the SQL in it.

The language is little more than SQL between keywords, so a reader of tokens suffices, which knows where each
piece stands.  Every token of a body belongs to a
construct that is known here or to SQL that is judged; anything else refuses the body.  Rules follow
src/pl/plpgsql/src/pl_gram.y: expressions end at the first keyword that may end them outside parentheses.
What it has judged is compared with what PostgreSQL's own reader finds (`second_reading`).

EXECUTE of a constant is judged like SQL in the body.  Other dynamic SQL is read when it runs, by
tp_catalog.dynamic, where that is installed.  Where it is not, it is let through: it runs on a backend that
is the tenant's own, where PostgreSQL's grants hold, and calls are marked Effect.OPAQUE anyway.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable
from typing import Any, Final

from tenant_proxy.guard import expressions, names, second_reading, sharing
from tenant_proxy.guard.executed import Executed
from tenant_proxy.guard.parse import Unreadable, parse
from tenant_proxy.guard.plpgsql_tokens import Token, Tokens
from tenant_proxy.guard.plpgsql_words import (
    CLOSING_BRACKETS,
    COPIED_TYPE,
    CURSORS,
    DIRECTIONS,
    ENDS,
    LEVELS,
    OPENING_BRACKETS,
    QUERIES,
    RESERVED,
)
from tenant_proxy.guard.second_reading import (
    ASSIGNMENT,
    DYNAMIC,
    EXPRESSION,
    STATEMENT,
    Around,
    Reading,
    Type,
)
from tenant_proxy.guard.source import NotFound
from tenant_proxy.guard.walk import Walk
from tenant_proxy.shims.names import CATALOG

#: SQL that may run what was prepared
_PREPARED: Final = re.compile(r"(?i)\bexecute\b")

#: makes an expression a statement
_SELECT: Final = "SELECT "

#: what is put around dynamic SQL, known to the views of the shims (data/helpers.sql)
OPENING: Final = f" {CATALOG}.dynamic("
CLOSING: Final = f"/*{CATALOG}*/)"

#: what the tree of SELECT and an expression alone has
_EXPRESSION: Final = frozenset({"targetList", "limitOption", "op"})

#: deepest nesting of blocks and loops
_MAX_DEPTH: Final = 200


def judge(w: Walk, text: str, location: int, around: Around) -> None:
    """A body; refusals are told at `location` of the statement."""
    outer = w.fixed
    if w.fixed < 0:
        w.fixed = max(location, 0)
    try:
        reader = _Reader(w, text)
        reader.body()
        second_reading.compare(w, text, around, reader.reading)
    finally:
        w.fixed = outer


class _Reader(Tokens):
    def __init__(self, w: Walk, text: str) -> None:
        super().__init__(w, text)
        self.depth = 0
        self.executed = Executed()
        self.reading = Reading()
        following = self.tokens[1:]
        self.reading.dotted = {
            self.name_of(token)
            for token, dot in zip(self.tokens, following, strict=False)
            if dot.word == "." and token.is_name
        }

    # --- judging ---------------------------------------------------------------------

    def sql(self, text: str, offset: int) -> None:
        self.w.nested(text, self.w.fixed, "a body in PL/pgSQL", offset=offset)

    def expression(self, span: tuple[int, int]) -> None:
        """An expression that is run as it stands."""
        self.judged(span)
        self.reading.saw(EXPRESSION, self.slice(span))

    def judged(self, span: tuple[int, int]) -> None:
        text = self.slice(span)
        if not text:
            self.unexpected()
        # an expression may go on with FROM, WHERE …, as after SELECT
        self.sql(f"{_SELECT}{text}", self.offset(span) - len(_SELECT))

    def dynamic(self, span: tuple[int, int]) -> None:
        """The text of an EXECUTE."""
        self.judged(span)
        self.reading.saw(DYNAMIC, self.slice(span))
        text, w = f"{_SELECT}{self.slice(span)}", self.w
        try:
            tree = parse(text)[0]["stmt"]["SelectStmt"]
            targets = tree["targetList"]
        except (Unreadable, KeyError, IndexError):
            self.unexpected()
        if len(targets) != 1:
            self.unexpected()
        value = targets[0]["ResTarget"]["val"]
        constant = w.constant(value)
        # no cast, as its type may be one of the tenant's own, and make another text of it; and what a session
        # has prepared is known when it runs
        fixed = constant is not None and "A_Const" in value and not _PREPARED.search(constant)
        if not fixed:
            # of what operators make of it nothing is known
            sharing.dynamic(w)
            if w.scope.hides:
                self._read_at_run_time(span, tree)
        if constant is None:
            self.executed.runs(value)
            return
        w.is_dynamic = not fixed
        if fixed or not w.scope.hides:
            with w.inside(text, offset=self.offset(span) - len(_SELECT)):
                w.nested(constant, w.fixed, "a body in PL/pgSQL", literal=w.literal(value))
        else:
            # refused early if it would be late; what would be turned is, then
            with contextlib.suppress(NotFound):
                w.nested(constant, w.fixed, "a body in PL/pgSQL")
        w.is_dynamic = False

    def gives(self, variable: str, span: tuple[int, int]) -> None:
        """A variable is given an expression's value."""
        self.executed.assigned(variable, f"{_SELECT}{self.slice(span)}")

    def _read_at_run_time(self, span: tuple[int, int], tree: dict[str, Any]) -> None:
        """Lets tp_catalog.dynamic read the text; tp_catalog.written takes out what is put in here."""
        if not _EXPRESSION.issuperset(tree) or "name" in tree["targetList"][0]["ResTarget"]:
            self.fail("EXECUTE takes an expression here", "0A000")
        # at the tokens around it, as edits of the expression may begin where that does
        before, after = self.tokens[span[0] - 1], self.tokens[span[1]]
        source = self.w.tokens
        source.edit(before.start, before.end, f"{self.text[before.start : before.end]}{OPENING}")
        source.edit(after.start, after.end, f"{CLOSING}{self.text[after.start : after.end]}")

    def query(self, span: tuple[int, int]) -> None:
        """An SQL statement whose rows go elsewhere than into variables: INTO makes a table there."""
        if span[0] == span[1]:
            self.unexpected()
        self.sql(self.slice(span), self.offset(span))
        self.reading.saw(STATEMENT, self.slice(span))

    def sql_statement(self) -> None:
        """An SQL statement of its own, perhaps with INTO variables, which are taken out."""
        span = start, end = self.until(";")
        at = start
        while at < end:
            if self.tokens[at].word == "into" and not self._is_clause(at - 1, start):
                after = self._skip_targets(at + 1, end)
                cut_from, cut_to = self.tokens[at].start, self.tokens[after - 1].end
                text = self.slice(span)
                offset = self.tokens[start].start
                blank = " " * (cut_to - cut_from)
                text = text[: cut_from - offset] + blank + text[cut_to - offset :]
                self.sql(text, offset)
                self.saw_without(span, at, after)
                self.executed.assigned(self.variable((at + 1, after)), text)
                break
            at += 1
        else:
            self.query(span)
        self.expect(";")

    def _is_clause(self, at: int, start: int) -> bool:
        """Whether a token makes of INTO behind it a part of SQL: INSERT or MERGE, a word by itself.

        PL/pgSQL takes names with dots three at a time, as one word.
        """
        if at < start or self.tokens[at].word not in ("insert", "merge"):
            return False
        names_there = 1
        while at - 2 >= start and self.tokens[at - 1].word == "." and self._is_part(self.tokens[at - 2]):
            names_there += 1
            at -= 2
        return names_there % 3 == 1

    def _is_part(self, token: Token) -> bool:
        """Of a name with dots."""
        return self._is_variable(token) or token.word.startswith("$")

    def saw_without(self, span: tuple[int, int], into: int, after: int) -> None:
        """PL/pgSQL blanks INTO and what is behind it, up to the next token, byte by byte."""
        end = self.tokens[after].start if after < span[1] else self.tokens[after - 1].end
        text, start = self.text, self.tokens[into].start
        blank = " " * len(text[start:end].encode())
        rest = text[end : self.tokens[span[1] - 1].end]
        self.reading.saw(STATEMENT, f"{text[self.offset(span) : start]}{blank}{rest}".rstrip())

    def _skip_targets(self, at: int, end: int) -> int:
        """[STRICT] name[.name[.name]] [, …] behind INTO; returns the token behind them.

        PL/pgSQL takes three; SQL would call a fourth, or a word of its own, with what stands before INTO.
        """
        if at < end and self.tokens[at].word == "strict":
            at += 1
        targets = []
        while True:
            targets.append(at)
            names_left = 3
            while names_left and at < end and self._is_variable(self.tokens[at]):
                names_left -= 1
                at += 1
                if at >= end or self.tokens[at].word != ".":
                    break
                at += 1
            else:
                self.at = at
                self.unexpected()
            if at < end and self.tokens[at].word == ",":
                at += 1
                continue
            if len(targets) > 1:
                self.are_scalars(targets)
            return at

    def are_scalars(self, targets: Iterable[int]) -> None:
        """Variables that are assigned to with others, or to a number, at these tokens."""
        for at in targets:
            if self.tokens[at].is_name and self.tokens[at + 1 : at + 2] and self.tokens[at + 1].word != ".":
                self.reading.scalars.add(self.name_of(self.tokens[at]))

    def _is_variable(self, token: Token) -> bool:
        return token.is_name and token.word not in RESERVED

    def list_of_expressions(self, *stops: str) -> None:
        while True:
            self.expression(self.until(",", *stops))
            if not self.accept(","):
                return

    # --- structure -------------------------------------------------------------------

    def body(self) -> None:
        while self.peek().startswith("#"):  # #variable_conflict use_column …
            self.at += 1
            self.name()
            self.name()
            self.reading.options = self.tokens[self.at - 1].end
        self.label()
        self.block()
        self.accept(";")
        if not self.ended:
            self.unexpected()
        self.executed.judge(self.w)

    def label(self) -> None:
        if self.accept("<<"):
            self.name()
            self.expect(">>")

    def block(self) -> None:
        self.depth += 1
        if self.depth > _MAX_DEPTH:
            self.fail("statement is nested too deeply to be checked", "54001")
        if self.accept("declare"):
            while self.peek() != "begin":
                if not self.accept("declare"):
                    self.declaration()
        self.expect("begin")
        self.statements()
        if self.accept("exception"):
            while self.accept("when"):
                self.conditions()
                self.statements()
        self.end_of("")
        self.depth -= 1

    def end_of(self, word: str) -> None:
        self.expect("end")
        if word:
            self.expect(word)
        if not self.ended and self.peek() != ";":
            self.name()  # the label again

    def conditions(self) -> None:
        """WHEN name OR SQLSTATE '…' THEN."""
        while True:
            if self.name().word == "sqlstate":
                self.at += 1
            if self.accept("then"):
                return
            self.expect("or")

    def declaration(self) -> None:
        self.label()  # allowed, and without meaning
        variable = self.name()
        if self.accept("alias"):
            self.expect("for")
            self.at += 1
            self.expect(";")
            return
        if self.accept("no"):
            self.expect("scroll")
        else:
            self.accept("scroll")
        if self.accept("cursor"):
            if self.accept("("):
                while not self.accept(")"):
                    argument = self.name()
                    self.declared(argument, self.until(",", ")"))
                    self.accept(",")
            if not self.accept("for", "is"):
                self.unexpected()
            self.query(self.until(";"))
            self.expect(";")
            return
        self.accept("constant")
        span = self.until(";", ":=", "=", "default", "not", "collate")
        self.declared(variable, span)
        if self.accept("collate"):
            collation = self.until(";", ":=", "=", "default", "not")
            self.qualified(collation)
            self.reading.types[-1] = self.reading.types[-1]._replace(end=self.tokens[self.at - 1].end)
        if self.accept("not"):
            self.expect("null")
        if self.accept(":=", "=", "default"):
            span = self.until(";")
            self.expression(span)
            self.gives(self.name_of(variable), span)
        self.expect(";")

    def declared(self, variable: Token, span: tuple[int, int]) -> None:
        self.type_name(span)
        if span[0] == span[1]:
            self.unexpected()
        text, start = self.slice(span), self.offset(span)
        is_cursor = CURSORS.fullmatch(text) is not None
        self.reading.types.append(Type(start, start + len(text), self.name_of(variable), is_cursor))

    def qualified(self, span: tuple[int, int]) -> None:
        parts = names.split_qualified(self.slice(span))
        if parts is None:
            self.unexpected()
        self.check_name(parts, span)

    def check_name(self, parts: list[str], span: tuple[int, int]) -> None:
        """A name that stands at the beginning of `span`."""
        self.w.check_name(parts, len(self.text[: self.offset(span)].encode()))

    def type_name(self, span: tuple[int, int]) -> None:
        text = self.slice(span)
        reference = COPIED_TYPE.fullmatch(text)
        if reference is None:
            with self.w.inside(text, offset=self.offset(span) if text else None):
                expressions.judge_name(self.w, text, "type", -1)
            return
        parts = names.split_qualified(reference[1])
        if parts is None:
            self.unexpected()
        # of a%TYPE's parts the last is a column, if it is not all a variable
        if reference[2].lower() == "type":
            parts = parts[:-1]
        self.check_name(parts, span)

    # --- statements ------------------------------------------------------------------

    def statements(self) -> None:
        while not self.ended and self.peek() not in ENDS:
            self.statement()

    def statement(self) -> None:
        self.label()
        word = self.peek()
        following = self.peek(1)
        if word in ("begin", "declare"):
            self.block()
            self.expect(";")
        elif self._is_assignment(word, following):
            self.assignment()
        elif word in _STATEMENTS:
            _STATEMENTS[word](self)
        else:
            self.sql_statement()

    def _is_assignment(self, word: str, following: str) -> bool:
        if self.ended or not (self.tokens[self.at].is_name or self.tokens[self.at].word.startswith("$")):
            return False
        return word not in RESERVED and following in (":=", "=", "[", ".")

    def assignment(self) -> None:
        target = self.until(":=", "=", ";")
        if not self.accept(":=", "="):
            self.unexpected()
        self.judged(target)
        span = self.until(";")
        self.judged(span)
        self.reading.saw(ASSIGNMENT, self.slice((target[0], span[1])))
        self.gives(self.variable(target), span)
        self.expect(";")

    def if_(self) -> None:
        self.expect("if")
        self.expression(self.until("then"))
        self.expect("then")
        self._nested_statements()
        while self.accept("elsif", "elseif"):
            self.expression(self.until("then"))
            self.expect("then")
            self._nested_statements()
        if self.accept("else"):
            self._nested_statements()
        self.end_of("if")
        self.expect(";")

    def case(self) -> None:
        self.expect("case")
        if self.peek() != "when":
            self.expression(self.until("when"))
        while self.accept("when"):
            self.expression(self.until("then"))
            self.expect("then")
            self._nested_statements()
        if self.accept("else"):
            self._nested_statements()
        self.end_of("case")
        self.expect(";")

    def _nested_statements(self) -> None:
        self.depth += 1
        if self.depth > _MAX_DEPTH:
            self.fail("statement is nested too deeply to be checked", "54001")
        self.statements()
        self.depth -= 1

    def loop(self) -> None:
        self.expect("loop")
        self._nested_statements()
        self.end_of("loop")
        self.expect(";")

    def while_(self) -> None:
        self.expect("while")
        self.expression(self.until("loop"))
        self.loop()

    def for_(self) -> None:
        self.expect("for")
        target = self.until("in")
        self.expect("in")
        commas = [at + 1 for at in range(*target) if self.tokens[at].word == ","]
        if commas:
            self.are_scalars([target[0], *commas])
        if self.accept("execute"):
            self.dynamic(self.until("using", "loop"))
            if self.accept("using"):
                self.list_of_expressions("loop")
            self.loop()
            return
        span = self.until("loop")
        back, self.at = self.at, span[0]
        first = self.peek()
        if first in QUERIES and not self._is_range(span):
            self.query(span)
            self.executed.assigned(self.variable(target), self.slice(span))
        elif self._is_range(span):
            self.accept("reverse")
            self.expression(self.until(".."))
            self.expect("..")
            self.expression(self.until("by", "loop"))
            if self.accept("by"):
                self.expression(self.until("loop"))
        else:
            self.cursor_arguments()
            if self.at != back:
                self.unexpected()
        self.at = back
        self.loop()

    def _is_range(self, span: tuple[int, int]) -> bool:
        level = 0
        for token in self.tokens[span[0] : span[1]]:
            if token.word in OPENING_BRACKETS:
                level += 1
            elif token.word in CLOSING_BRACKETS:
                level -= 1
            elif token.word == ".." and level == 0:
                return True
        return False

    def cursor_arguments(self) -> None:
        """cursor [ ( [name :=] expression, … ) ]"""
        self.name()
        if self.accept("("):
            given: list[str] = []
            while not self.accept(")"):
                if self.peek(1) in (":=", "=>"):
                    self.at += 2
                span = self.until(",", ")")
                self.argument(span)
                given.append(self.slice(span))
                self.accept(",")
            self.reading.gave(given)

    def argument(self, span: tuple[int, int]) -> None:
        """An expression alone: PL/pgSQL makes one query of all, in which FROM goes on with the next."""
        self.judged(span)
        if not _EXPRESSION.issuperset(parse(f"{_SELECT}{self.slice(span)}")[0]["stmt"]["SelectStmt"]):
            self.fail("a cursor's argument is an expression here", "0A000")

    def foreach(self) -> None:
        self.expect("foreach")
        target = self.until("in", "slice")
        if self.accept("slice"):
            self.at += 1
        self.expect("in")
        self.expect("array")
        span = self.until("loop")
        self.expression(span)
        self.gives(self.variable(target), span)
        self.loop()

    def exit(self) -> None:
        self.at += 1
        if self.peek() not in (";", "when"):
            self.name()
        if self.accept("when"):
            self.expression(self.until(";"))
        self.expect(";")

    def return_(self) -> None:
        self.expect("return")
        if self.accept("query"):
            if self.accept("execute"):
                self.dynamic(self.until("using", ";"))
                if self.accept("using"):
                    self.list_of_expressions(";")
            else:
                self.query(self.until(";"))
        else:
            self.accept("next")
            if self.peek() != ";":
                self.expression(self.until(";"))
        self.expect(";")

    def raise_(self) -> None:
        self.expect("raise")
        if self.peek() in LEVELS:
            self.at += 1
        if self.peek() not in (";", "using"):
            if self.ended:
                self.unexpected()
            if self.accept("sqlstate") or not self.tokens[self.at].is_name:
                self.at += 1  # the format, or a SQLSTATE
            else:
                self.name()
            if self.accept(","):
                self.list_of_expressions("using", ";")
        if self.accept("using"):
            while True:
                self.name()
                if not self.accept("=", ":="):
                    self.unexpected()
                self.expression(self.until(",", ";"))
                if not self.accept(","):
                    break
        self.expect(";")

    def assert_(self) -> None:
        self.expect("assert")
        self.expression(self.until(",", ";"))
        if self.accept(","):
            # one, whatever commas are in it
            self.expression(self.until(";"))
        self.expect(";")

    def execute(self) -> None:
        self.expect("execute")
        self.dynamic(self.until("into", "using", ";"))
        while not self.accept(";"):
            if self.accept("into"):
                self.at = self._skip_targets(self.at, len(self.tokens))
            elif self.accept("using"):
                self.list_of_expressions("into", ";")
            else:
                self.unexpected()

    def perform(self) -> None:
        self.expect("perform")
        start = self.tokens[self.at - 1].end
        span = self.until(";")
        self.judged(span)
        self.reading.saw(STATEMENT, f"SELECT{self.text[start : self.tokens[self.at - 1].end]}")
        self.expect(";")

    def skip(self) -> None:
        """GET DIAGNOSTICS, CLOSE, NULL, COMMIT, ROLLBACK: names alone."""
        span = self.until(";")
        for token in self.tokens[slice(*span)]:
            if not token.is_name and token.word not in (":=", "=", ",", ".", "[", "]"):
                self.unexpected()
        self.are_scalars(at - 1 for at in range(*span) if self.tokens[at].word in (":=", "="))
        self.expect(";")

    def open(self) -> None:
        self.expect("open")
        if self.peek(1) in ("for", "scroll", "no"):
            self.name()
            if self.accept("no"):
                self.expect("scroll")
            else:
                self.accept("scroll")
            self.expect("for")
            if self.accept("execute"):
                self.dynamic(self.until("using", ";"))
                if self.accept("using"):
                    self.list_of_expressions(";")
            else:
                self.query(self.until(";"))
        else:
            self.cursor_arguments()
        self.expect(";")

    def fetch(self) -> None:
        """FETCH [direction [count] FROM | IN] cursor [INTO targets]"""
        self.at += 1
        span = self.until("into", ";")
        back, self.at = self.at, span[0]
        if any(token.word in ("from", "in") for token in self.tokens[slice(*span)]):
            if self.accept("forward", "backward"):
                self.accept("all")
            else:
                self.accept(*DIRECTIONS)
            count = self.until("from", "in")
            if count[0] != count[1]:
                self.expression(count)
            self.at += 1
        else:
            while self.peek() in DIRECTIONS and self.at + 1 < back:
                self.at += 1
        self.name()
        if self.at != back:
            self.unexpected()
        if self.accept("into"):
            self.at = self._skip_targets(self.at, len(self.tokens))
        self.expect(";")


_STATEMENTS: Final = {
    "if": _Reader.if_,
    "case": _Reader.case,
    "loop": _Reader.loop,
    "while": _Reader.while_,
    "for": _Reader.for_,
    "foreach": _Reader.foreach,
    "exit": _Reader.exit,
    "continue": _Reader.exit,
    "return": _Reader.return_,
    "raise": _Reader.raise_,
    "assert": _Reader.assert_,
    "execute": _Reader.execute,
    "perform": _Reader.perform,
    "get": _Reader.skip,
    "close": _Reader.skip,
    "null": _Reader.skip,
    "commit": _Reader.skip,
    "rollback": _Reader.skip,
    "open": _Reader.open,
    "fetch": _Reader.fetch,
    "move": _Reader.fetch,
}
