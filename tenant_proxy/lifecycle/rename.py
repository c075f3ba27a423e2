"""SQL of one tenant written anew for another: the schema's name and the roles' names changed, nothing else.

What pg_dump writes names the schema everywhere, and a schema can't be restored under another name beside the
one it came from.  A name is edited where PostgreSQL's own scanner finds it as a word in front of a dot (or
behind SCHEMA), unless the parse tree says that it is a column's or an alias there.  Then the edited text is
parsed too: its tree must be the old one with the schema's name changed *in fields that hold a schema's name*.
Where the two ways to tell disagree, the statement is `NotRenamed`: it would be done to whom it came from.

Texts in the text: bodies in SQL are treated alike; in PL/pgSQL, for which there is no such tree, a word is
the schema's name only if the body has it nowhere but in front of a dot.  What can't be told in a body is left
and reported as unsure.  Constants that PostgreSQL reads as names (`'acme.orders'::regclass`, `search_path`)
are edited.  All others are left as they are, and those in which the name stands are reported: what a program
puts together at run time nobody can know.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import orjson
from pglast import keywords, split
from pglast.parser import ParseError, parse_sql_json

from tenant_proxy.guard.source import NotFound, Source, Token, quoted_string


class NotRenamed(Exception):
    """A statement in which the schema's name can't be told from other words."""


class Finding(NamedTuple):
    #: "unsure": the text was left as it is and may be wrong now; "literal": a constant has the name in it
    kind: str
    #: the statement's beginning
    where: str
    what: str


@dataclass(slots=True)
class Renaming:
    """From one tenant's names to another's; collects what could not be told."""

    old_schema: str
    new_schema: str
    roles: Mapping[str, str] = field(default_factory=dict)
    #: roles that are not there: what they may is left out
    dropped: frozenset[str] = frozenset()
    findings: list[Finding] = field(default_factory=list)

    def is_needed(self) -> bool:
        changed = any(old != new for old, new in self.roles.items())
        return self.old_schema != self.new_schema or changed or bool(self.dropped)

    def script(self, text: str) -> str:
        """A script without data (of COPY) and without psql's own commands."""
        if not self.is_needed():
            return text
        return "".join(f"{self.statement(one)};\n" for one in statements(text))

    def statement(self, sql: str) -> str:
        """One statement; "" if it is only about roles that are left out."""
        if not self._mentions(sql):
            return sql
        if self.dropped and self._is_dropped(sql):
            return ""
        where = _beginning(sql)
        edited = self._edited(sql, where)
        if edited is None:
            raise NotRenamed(f"which words are the schema's name can't be told: {where}")
        return edited

    # --- inside ------------------------------------------------------------------

    def _mentions(self, text: str) -> bool:
        folded = text.lower()
        return any(name.lower() in folded for name in (self.old_schema, *self.roles, *self.dropped))

    def _is_dropped(self, sql: str) -> bool:
        """A grant to a role that is left out, or its default privileges, or a policy for it alone."""
        if not any(name in sql for name in self.dropped):
            return False
        (statement,) = _parsed(sql)
        ((tag, body),) = statement["stmt"].items()
        named = [name for name in _role_names(statement) if name in self.dropped]
        if tag == "AlterDefaultPrivilegesStmt" and named:
            return True
        subjects = _role_names(
            {"GrantStmt": body.get("grantees"), "CreatePolicyStmt": body.get("roles")}.get(tag)
        )
        if subjects and all(name in self.dropped for name in subjects):
            return True
        if named:
            raise NotRenamed(f'role "{named[0]}" does not come along: {_beginning(sql)}')
        return False

    def _edited(self, sql: str, where: str) -> str | None:
        """None if it can't be told."""
        source = Source(sql)
        try:
            tree = _parsed(sql)
            self._collect(source, tree, where)
            edited = source.edited()
            if edited != sql and _mapped(tree, self, {}) != _mapped(_parsed(edited), None, {}):
                raise NotFound
        except (NotFound, ParseError, ValueError):
            return None
        return edited

    def _collect(self, source: Source, tree: Any, where: str) -> None:
        columns: set[int] = set()
        inner: set[int] = set()
        for tag, body in nodes(tree):
            if tag == "ColumnRef" and len(body["fields"]) < 3:
                columns.add(source.character(body.get("location", 0)))
            elif tag == "TypeCast":
                self._cast(source, body, inner, where)
            elif tag == "FuncCall":
                self._sequence(source, body, inner)
            elif tag in ("VariableSetStmt", "setstmt"):
                self._setting(source, body, inner)
            elif tag == "CreateFunctionStmt":
                self._function(source, body, inner, where)
            elif tag in ("CreateRoleStmt", "GrantRoleStmt"):
                # roles are all that these name
                for token in source.tokens:
                    if _is_word(token) and token.name in self.roles:
                        source.replace_token(token, quote_name(self.roles[token.name]))
            elif tag == "RoleSpec" and body.get("rolename") in self.roles:
                token = source.tokens[source.index(source.character(body.get("location", 0)))]
                if token.name != body["rolename"]:
                    raise NotFound
                source.replace_token(token, quote_name(self.roles[body["rolename"]]))
        self._words(source, columns)
        for tag, body in nodes(tree):
            if tag == "A_Const" and "sval" in body:
                at = source.character(body.get("location", 0))
                if at not in inner:
                    self._literal(body["sval"].get("sval", ""), where)

    def _words(self, source: Source, columns: set[int]) -> None:
        tokens = source.tokens
        for index, token in enumerate(tokens):
            if token.name != self.old_schema or token.start in columns:
                continue
            before = tokens[index - 1].kind if index else ""
            after = tokens[index + 1].kind if index + 1 < len(tokens) else ""
            if (after == _DOT and before != _DOT) or before == "SCHEMA":
                source.replace_token(token, quote_name(self.new_schema))

    def _cast(self, source: Source, body: Mapping[str, Any], inner: set[int], where: str) -> None:
        """'acme.orders'::regclass, also by way of text."""
        names = _strings(body["typeName"].get("names", ()))
        if not names or not names[-1].startswith("reg") or names[:-1] not in ([], ["pg_catalog"]):
            return
        value = body["arg"]
        while "TypeCast" in value:
            value = value["TypeCast"]["arg"]
        constant = value.get("A_Const", {})
        if "sval" not in constant:
            return
        if names[-1] in ("regnamespace", "regrole"):
            known = {self.old_schema: self.new_schema} if names[-1] == "regnamespace" else self.roles
            self._name_alone(source, constant, inner, known)
        else:
            self._name(source, constant, inner)

    def _sequence(self, source: Source, body: Mapping[str, Any], inner: set[int]) -> None:
        """nextval('acme.numbers'), where the cast to regclass is not written."""
        names, arguments = _strings(body["funcname"]), body.get("args", ())
        if names[-1] in _OF_SEQUENCES and names[:-1] in ([], ["pg_catalog"]) and arguments:
            constant = arguments[0].get("A_Const", {})
            if "sval" in constant:
                self._name(source, constant, inner)

    def _name(self, source: Source, constant: Mapping[str, Any], inner: set[int]) -> None:
        """A constant that holds a name, perhaps with types of arguments."""
        at = source.character(constant.get("location", 0))
        inner.add(at)
        changed = Source(constant["sval"].get("sval", ""))
        self._words(changed, set())
        if changed.edits:
            source.edit(*_span(source, at), quoted_string(changed.edited()))

    def _name_alone(
        self, source: Source, constant: Mapping[str, Any], inner: set[int], known: Mapping[str, str]
    ) -> None:
        at = source.character(constant.get("location", 0))
        inner.add(at)
        tokens = Source(constant["sval"].get("sval", "")).tokens
        new = known.get(tokens[0].name) if len(tokens) == 1 else None
        if new is not None:
            source.edit(*_span(source, at), quoted_string(quote_name(new)))

    def _setting(self, source: Source, body: Mapping[str, Any], inner: set[int]) -> None:
        """SET search_path TO 'acme', pg_temp, and what a dump says before another's grants."""
        renamed = {
            "search_path": {self.old_schema: self.new_schema},
            "session_authorization": self.roles,
        }.get(body.get("name", ""), {})
        for argument in body.get("args", ()):
            constant = argument.get("A_Const", {})
            if "sval" not in constant:
                continue
            at = source.character(constant.get("location", 0))
            inner.add(at)
            new = renamed.get(constant["sval"].get("sval", ""))
            if new is not None:
                source.edit(*_span(source, at), quoted_string(new))

    def _function(self, source: Source, body: Mapping[str, Any], inner: set[int], where: str) -> None:
        options = {option["DefElem"]["defname"]: option["DefElem"] for option in body.get("options", ())}
        code = options.get("as")
        if code is None:  # BEGIN ATOMIC and RETURN are parsed with the statement
            return
        language = options.get("language", {}).get("arg", {}).get("String", {}).get("sval", "sql").lower()
        texts = _strings(code["arg"]["List"]["items"])
        if len(texts) != 1 or not self._mentions(texts[0]):
            return  # also the name of a function in C, in a library
        if language == "sql":
            edited = self._edited(texts[0], where)
            if edited is None:
                self.findings.append(
                    Finding("unsure", where, "which words in its body are the schema's name can't be told")
                )
            text = texts[0] if edited is None else edited
        elif language == "plpgsql":
            text = self._procedural(texts[0], body, where)
        else:
            self.findings.append(Finding("unsure", where, f"code in {language} has the schema's name"))
            return
        if text != texts[0]:
            at = source.character(code["location"])
            source.edit(*_span(source, at), _dollar_quoted(text))

    def _procedural(self, text: str, body: Mapping[str, Any], where: str) -> str:
        """PL/pgSQL: nothing goes by a name that is not declared, joined or given by it."""
        source = Source(text)
        own = [
            parameter["FunctionParameter"].get("name", "") for parameter in body.get("parameters", ())
        ] + _strings(body["funcname"])[-1:]
        try:
            tokens = source.tokens
            if self.old_schema in _MAGIC or self.old_schema in own:
                raise NotFound
            for index, token in enumerate(tokens):
                if token.name == self.old_schema:
                    following = tokens[index + 1].kind if index + 1 < len(tokens) else ""
                    preceding = tokens[index - 1].kind if index else ""
                    if following != _DOT or preceding == _DOT:
                        raise NotFound
                    source.replace_token(token, quote_name(self.new_schema))
                elif token.name in self.roles:
                    raise NotFound
                elif token.kind == "SCONST":
                    self._literal(text[token.start : token.end], where)
            return source.edited()
        except NotFound:
            if self._words_in(text):
                self.findings.append(
                    Finding("unsure", where, "which words in PL/pgSQL are the schema's name can't be told")
                )
            return text

    def _words_in(self, text: str) -> list[str]:
        names = (self.old_schema, *(old for old, new in self.roles.items() if old != new))
        return [name for name in names if re.search(rf"(?<![\w$]){re.escape(name)}(?![\w$])", text)]

    def _literal(self, text: str, where: str) -> None:
        if self.old_schema == self.new_schema and not self.roles:
            return
        for name in self._words_in(text):
            # a name in front of a dot most likely is the schema's; alone it may be anything
            likely = re.search(rf'{re.escape(name)}"?\s*\.\s*["\w%]', text) is not None or name in self.roles
            self.findings.append(
                Finding("unsure" if likely else "literal", where, f"a constant has {name} in it")
            )


#: functions of pg_catalog whose first argument is a sequence's name
_OF_SEQUENCES: Final = frozenset({"nextval", "currval", "setval"})

_DOT: Final = "ASCII_46"

#: names that PL/pgSQL gives by itself
_MAGIC: Final = frozenset({"old", "new", "excluded", "found", "sqlstate", "sqlerrm"})

#: fields that hold a name's parts, the schema's first
_NAMES: Final = frozenset(
    {
        "collation",
        "collname",
        "conversion_name",
        "cfgname",
        "defnames",
        "dictname",
        "domainname",
        "func_name",
        "funcname",
        "names",
        "name",
        "objname",
        "opclass",
        "opclassname",
        "operName",
        "opfamilyname",
        "order_family",
        "typeName",
        "useOp",
    }
)
#: … and fields with lists of such
_LISTS: Final = frozenset({"object", "objects", "arg", "dicts", "exclusions", "items"})

#: what is in a relation: a name of two parts has no schema
_OF_RELATION: Final = frozenset(
    {"OBJECT_COLUMN", "OBJECT_TABCONSTRAINT", "OBJECT_TRIGGER", "OBJECT_RULE", "OBJECT_POLICY"}
)
#: the access method comes before the name
_OF_METHOD: Final = frozenset({"OBJECT_OPCLASS", "OBJECT_OPFAMILY"})
_PLACES: Final = frozenset(
    {"location", "stmt_location", "stmt_len", "name_location", "arg_location", "list_start", "list_end",
     "rexpr_list_start", "rexpr_list_end"}
)  # fmt: skip


def statements(text: str) -> Iterator[str]:
    """The statements of a script without COPY's data; psql's `\\restrict` is left out."""
    key = re.search(r"^\\restrict (\S+)$", text, re.MULTILINE)
    if key is not None:
        text = re.sub(rf"^\\(?:un)?restrict {re.escape(key[1])}$", "", text, flags=re.MULTILINE)
    yield from split(text, with_parser=True)


def quote_name(name: str) -> str:
    """As the server's quote_ident."""
    plain = re.fullmatch(r"[a-z_][a-z0-9_]*", name) is not None
    if plain and (name not in _KEYWORDS):
        return name
    escaped = name.replace('"', '""')
    return f'"{escaped}"'


_KEYWORDS: Final = keywords.RESERVED_KEYWORDS | keywords.COL_NAME_KEYWORDS | keywords.TYPE_FUNC_NAME_KEYWORDS


def nodes(tree: Any) -> Iterator[tuple[str, Any]]:
    """Every node with its tag; a RoleSpec and a TypeName also where the field says what it is."""
    stack = [tree]
    while stack:
        value = stack.pop()
        if isinstance(value, list):
            stack += value
        elif isinstance(value, dict):
            for key, inner in value.items():
                if isinstance(inner, dict):
                    yield ("RoleSpec" if "rolename" in inner and key != "RoleSpec" else key), inner
                stack.append(inner)


def _role_names(tree: Any) -> list[str]:
    return [body["rolename"] for tag, body in nodes(tree) if tag == "RoleSpec" and "rolename" in body]


def _parsed(sql: str) -> Any:
    return orjson.loads(parse_sql_json(sql))["stmts"]


def _strings(items: Any) -> list[str]:
    found = []
    for item in items:
        if not isinstance(item, dict) or "String" not in item:
            return []
        found.append(item["String"].get("sval", ""))
    return found


def _mapped(value: Any, renaming: Renaming | None, parent: Mapping[str, Any], key: str = "") -> Any:
    """A tree without places, and, with a `renaming`, with the names changed where names of schemas and roles
    stand; the code of functions, which is compared on its own, and constants that are names are left out."""
    if isinstance(value, list):
        items = [_mapped(item, renaming, parent, key) for item in value]
        parts = _strings(value)
        kind = parent.get("objtype") or parent.get("objectType")
        least = 3 if kind in _OF_RELATION or kind in _OF_METHOD or parent.get("pct_type") else 2
        at = int(kind in _OF_METHOD)
        if renaming and len(parts) >= least and parts[at] == renaming.old_schema and key in (_NAMES | _LISTS):
            items[at] = {"String": {"sval": renaming.new_schema}}
        return items
    if not isinstance(value, dict):
        return value
    if "DefElem" in value and value["DefElem"]["defname"] == "as":
        return "code"
    if "List" in value:
        return {"List": {"items": _mapped(value["List"].get("items", []), renaming, parent, key)}}
    result: dict[str, Any] = {}
    for name, inner in value.items():
        if name in _PLACES:
            continue
        if name == "TypeCast" and _of_names(inner):
            result[name] = "constant"
        elif name == "fields" and isinstance(inner, list):
            fields = _strings(inner)
            result[name] = _mapped(inner, renaming, value, "names" if len(fields) > 2 else "")
        elif renaming and name in ("schemaname", "newschema") and inner == renaming.old_schema:
            result[name] = renaming.new_schema
        elif (renaming and name == "rolename") or (renaming and name == "role" and "stmt_type" in value):
            result[name] = renaming.roles.get(inner, inner)
        elif name == "granted_roles":
            granted = [one["AccessPriv"]["priv_name"] for one in inner]
            result[name] = [renaming.roles.get(one, one) if renaming else one for one in granted]
        elif (
            name == "FuncCall"
            and _strings(inner["funcname"])[-1:]
            and (_strings(inner["funcname"])[-1] in _OF_SEQUENCES and "args" in inner)
        ):
            # the constant is compared on its own
            mapped = _mapped(inner, renaming, value, name)
            if _is_constant(inner["args"][0]):
                mapped["args"][0] = "constant"
            result[name] = mapped
        elif name in ("VariableSetStmt", "setstmt") and inner.get("name") in (
            "search_path",
            "session_authorization",
        ):
            result[name] = inner["name"]
        elif name == "objects" and value.get("objtype") == "OBJECT_SCHEMA":
            result[name] = [_schema(one, renaming) for one in inner]
        elif name == "object" and "OBJECT_SCHEMA" in (value.get("objtype"), value.get("objectType")):
            result[name] = _schema(inner, renaming)
        elif name == "arg" and value.get("defname") in ("schemas", "schema"):
            items = inner["List"]["items"] if "List" in inner else [inner]
            result[name] = [_schema(one, renaming) for one in items]
        else:
            result[name] = _mapped(inner, renaming, value, name)
    return result


def _schema(node: Any, renaming: Renaming | None) -> str:
    name = str(node["String"].get("sval", ""))
    return renaming.new_schema if renaming and name == renaming.old_schema else name


def _of_names(cast: Any) -> bool:
    """A cast to one of the reg… types, whose constant is compared on its own."""
    names = _strings(cast["typeName"].get("names", ())) if isinstance(cast, dict) else []
    return bool(names) and names[-1].startswith("reg") and _is_constant(cast["arg"])


def _is_constant(value: Any) -> bool:
    while isinstance(value, dict) and "TypeCast" in value:
        value = value["TypeCast"]["arg"]
    return isinstance(value, dict) and "A_Const" in value


def _span(source: Source, at: int) -> tuple[int, int]:
    """Of the literal at a character, or the first one behind (AS '…')."""
    for token in source.tokens[source.index(at) :]:
        if token.kind in ("SCONST", "USCONST"):
            return token.start, token.end
        # SET search_path TO acme, as a word
        if token.start == at and token.kind != "AS" and _is_word(token):
            return token.start, token.end
    raise NotFound


def _is_word(token: Token) -> bool:
    return bool(token.name) and (token.name[0].isalpha() or token.name[0] == "_")


def _dollar_quoted(text: str) -> str:
    """As pg_dump does: a tag that is not in the text."""
    tag, number = "$$", 0
    while tag[:-1] in text or text.endswith("$"):
        number += 1
        tag = f"$body{number}$"
        if tag[:-1] not in text:
            break
    return f"{tag}{text}{tag}"


def _beginning(sql: str) -> str:
    first = " ".join(sql.split())
    return first if len(first) <= 80 else first[:79] + "…"
