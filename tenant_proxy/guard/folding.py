"""What text an expression makes of constants, as far as that can be told without running it.

It only adds to what is refused: SQL and names that are put together from constants are judged as if they had
been written at once, beside all that is done with what is not constant.  So it may err, as functions and
operators may be the tenant's own; and where more than one text is possible all of them are looked at.
"""

from __future__ import annotations

import base64
import itertools
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from tenant_proxy.guard.source import quoted_name, quoted_string

#: texts that one expression may make, and their length
_MAX_TEXTS: Final = 16
_MAX_LENGTH: Final = 16 * 1024
#: … of the arguments of functions that may repeat them
_MAX_REPEATED: Final = 1024
_MAX_DEPTH: Final = 32

Node = Mapping[str, Any]
#: name of a variable -> texts that it may hold
Variables = Mapping[str, Iterable[str]]

_NONE: Final[Variables] = {}

_PLAIN_NAME: Final = re.compile(r"[a-z_][a-z0-9_$]*")
_FORMAT: Final = re.compile(r"%(?:(\d+)\$)?(-?\d*)([sIL%])")


def is_made_of_constants(node: Node, depth: int = 0) -> bool:
    """Whether `texts` may know it; looks at no literal's value."""
    if depth > _MAX_DEPTH or not node:
        return False
    ((tag, body),) = node.items()
    if tag == "A_Const":
        return not body.get("isnull")
    if tag in ("TypeCast", "CollateClause"):
        return is_made_of_constants(body.get("arg", {}), depth + 1)
    if tag == "A_Expr":
        return _is_concatenation(body) and all(
            is_made_of_constants(body.get(side, {}), depth + 1) for side in ("lexpr", "rexpr")
        )
    if tag == "A_ArrayExpr":
        return all(is_made_of_constants(item, depth + 1) for item in body.get("elements", ()))
    if tag == "SubLink":
        return is_made_of_constants(_column(body), depth + 1)
    if tag == "FuncCall":
        return _name(body) in _FUNCTIONS and all(
            is_made_of_constants(item, depth + 1) for item in body.get("args", ())
        )
    return False


def texts(node: Node | None, variables: Variables = _NONE, depth: int = 0) -> list[str]:
    """The texts that an expression may make; none if that is not known."""
    if not node or depth > _MAX_DEPTH:
        return []
    ((tag, body),) = node.items()
    found: list[str] = []
    if tag == "A_Const":
        for field in ("sval", "ival", "fval"):
            if field in body:
                found = [str(body[field].get(field, 0 if field == "ival" else ""))]
    elif tag in ("TypeCast", "CollateClause", "A_Indirection"):
        found = texts(body.get("arg"), variables, depth + 1)
    elif tag == "ColumnRef":
        last = body["fields"][-1]
        found = list(variables.get(last["String"].get("sval", ""), ())) if "String" in last else []
    elif tag == "A_Expr" and _is_concatenation(body):
        found = _made("".join, [body.get("lexpr"), body.get("rexpr")], variables, depth)
    elif tag == "FuncCall":
        name = _name(body)
        if name in _FUNCTIONS:
            longest = _MAX_REPEATED if name in _REPEATING else _MAX_LENGTH
            found = _made(_FUNCTIONS[name], body.get("args", ()), variables, depth, longest)
    elif tag == "SubLink":
        found = texts(_column(body), variables, depth + 1)
    elif tag == "A_ArrayExpr":
        # any of its elements
        found = [text for item in body.get("elements", ()) for text in texts(item, variables, depth + 1)]
    elif tag in ("CaseExpr", "CoalesceExpr"):
        arms = [
            item["CaseWhen"].get("result") if "CaseWhen" in item else item for item in body.get("args", ())
        ]
        for arm in (*arms, body.get("defresult")):
            found += texts(arm, variables, depth + 1)
    return [text for text in dict.fromkeys(found) if len(text) <= _MAX_LENGTH][:_MAX_TEXTS]


def _made(
    function: Callable[[Sequence[str]], str],
    nodes: Sequence[Node | None],
    variables: Variables,
    depth: int,
    longest: int = _MAX_LENGTH,
) -> list[str]:
    parts: list[list[str]] = []
    for node in nodes:
        elements = (node or {}).get("A_ArrayExpr", {}).get("elements")
        items = [node] if elements is None else elements
        parts += (texts(item, variables, depth + 1) for item in items)
    found = []
    for values in itertools.islice(itertools.product(*parts), _MAX_TEXTS):
        if sum(map(len, values)) <= longest:
            try:
                found.append(function(values))
            except (ValueError, IndexError, OverflowError):
                continue
    return found


def _column(body: Node) -> Node:
    """The expression that a subquery's one column is."""
    targets = body.get("subselect", {}).get("SelectStmt", {}).get("targetList", ())
    if body.get("subLinkType") != "EXPR_SUBLINK" or len(targets) != 1:
        return {}
    found: Node = targets[0]["ResTarget"].get("val", {})
    return found


def _is_concatenation(body: Node) -> bool:
    return (
        bool(body.get("name")) and body["name"][-1].get("String", {}).get("sval") == "||" and "lexpr" in body
    )


def _name(body: Node) -> str:
    return str(body["funcname"][-1].get("String", {}).get("sval", ""))


# --- functions ----------------------------------------------------------------------------


def _quote_ident(text: str) -> str:
    return text if _PLAIN_NAME.fullmatch(text) else quoted_name(text)


def _format(values: Sequence[str]) -> str:
    pattern, arguments = values[0], values[1:]
    position = iter(range(len(arguments)))

    def replaced(match: re.Match[str]) -> str:
        if match[3] == "%":
            return "%"
        at = int(match[1]) - 1 if match[1] else next(position, len(arguments))
        value = arguments[at]
        return _quote_ident(value) if match[3] == "I" else quoted_string(value) if match[3] == "L" else value

    return _FORMAT.sub(replaced, pattern)


def _substring(values: Sequence[str]) -> str:
    text, start = values[0], int(values[1])
    end = start + int(values[2]) if len(values) > 2 else len(text) + 1
    return text[max(start, 1) - 1 : max(end, 1) - 1]


def _decode(values: Sequence[str]) -> str:
    data = base64.b64decode(values[0]) if values[1] == "base64" else bytes.fromhex(values[0])
    return "\\x" + data.hex()


def _converted(values: Sequence[str]) -> str:
    return bytes.fromhex(values[0].removeprefix("\\x")).decode("utf-8")


#: arrays among the arguments are given element by element
_FUNCTIONS: Final[Mapping[str, Callable[[Sequence[str]], str]]] = {
    "format": _format,
    "concat": "".join,
    "concat_ws": lambda values: values[0].join(values[1:]),
    "array_to_string": lambda values: values[-1].join(values[:-1]),
    "quote_ident": lambda values: _quote_ident(values[0]),
    "quote_literal": lambda values: quoted_string(values[0]),
    "lower": lambda values: values[0].lower(),
    "upper": lambda values: values[0].upper(),
    "btrim": lambda values: values[0].strip(values[1] if len(values) > 1 else " "),
    "ltrim": lambda values: values[0].lstrip(values[1] if len(values) > 1 else " "),
    "rtrim": lambda values: values[0].rstrip(values[1] if len(values) > 1 else " "),
    "chr": lambda values: chr(int(values[0])),
    "reverse": lambda values: values[0][::-1],
    "replace": lambda values: values[0].replace(values[1], values[2]) if values[1] else values[0],
    "translate": lambda values: values[0].translate(
        {ord(old): values[2][at : at + 1] for at, old in reversed([*enumerate(values[1])])}
    ),
    "left": lambda values: values[0][: int(values[1])],
    "right": lambda values: values[0][-int(values[1]) :] if int(values[1]) else "",
    "substr": _substring,
    "substring": _substring,
    "text": lambda values: values[0],
    "name": lambda values: values[0],
    "decode": _decode,
    "convert_from": _converted,
}

#: those whose result may be longer than all that they are given
_REPEATING: Final = frozenset({"format", "concat_ws", "array_to_string", "replace"})
