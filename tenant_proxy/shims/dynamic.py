"""Writes the functions that read SQL made at run time (data/dynamic.sql), from what the guard knows of names.

The words that PostgreSQL's scanner takes for one token are described by regular expressions here.  They are
as its rules in scan.l, but for what the functions refuse: U&"…", nested comments, strings in a row.
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib import resources
from typing import Final

from tenant_proxy.guard import functions
from tenant_proxy.settings_policy import FIXED_SETTINGS, REFUSED_SETTINGS
from tenant_proxy.shims import names

#: what a name begins with and goes on with: letters, _ and all that is not ASCII; then digits and $
_START: Final = r"[^\x01-\x40\x5b-\x5e\x60\x7b-\x7f]"
_GO_ON: Final = r"[^\x01-\x23\x25-\x2f\x3a-\x40\x5b-\x5e\x60\x7b-\x7f]"
_TAG: Final = rf"\$(?:{_START}[^\x01-\x2f\x3a-\x40\x5b-\x5e\x60\x7b-\x7f]*)?\$"

#: the longest of these that matches is the token; a quote that is left alone has no end
_TOKEN: Final = "|".join(
    (
        r"[ \t\n\r\f\v]+",
        r"--[^\n\r]*",
        r"/\*(?:[^*]|\*+[^*/])*\*+/",
        rf"{_START}{_GO_ON}*",
        r'"(?:[^"]|"")*"',
        r"'(?:[^']|'')*'",
        r"[eE]'(?:[^'\\]|\\.|'')*'",
        _TAG,
        r"[$.]?[0-9]+",
        r".",
    )
)

_SCHEMAS: Final = r"information_schema|tenant_proxy|set_user|tp_catalog|tp_information_schema"
_LISTENING: Final = ("listen", "unlisten", "notify", "load")
#: not settings, but how these are written
_SPELLINGS: Final = ("authorization", "names", "schema", "search_path", "client_encoding")
#: ALTER USER, with whatever between; not a word alone, as many queries have one
_ALTER_USER: Final = r"alter.*[^a-z0-9_]user"
#: DO is a statement if none of these follows
_DO: Final = r"\mdo\M(?!\s+(?:nothing|update|instead|also)\M)"
#: the same without constraints, and less exact
_DO_TEXT: Final = r"(?:^|[^a-z0-9_])do(?:[^a-z0-9_ \t\n\r\f\v]|[ \t\n\r\f\v]+(?:[^nuai \t\n\r\f\v]|n'))"


def script() -> str:
    text = resources.files("tenant_proxy.shims").joinpath("data", "dynamic.sql").read_text("utf-8")
    refused = sorted(
        name
        for name, fact in functions.FUNCTIONS.items()
        if fact is not None and (fact.refused or fact.queries or fact.reads_rows or fact.sets)
    )
    patterns = functions.refused_extensions()
    settings = sorted({*REFUSED_SETTINGS, *FIXED_SETTINGS, *_SPELLINGS})
    # names that begin with pg_ are looked at anyway
    others = sorted(name for name in {*refused, *names.FUNCTIONS} if not name.startswith("pg_"))
    begins_refused = "|".join(name for name, _ in patterns)
    words = "|".join((*settings, *_LISTENING, "function", "procedure", "execute"))
    starts = "|".join((*others, *(name for name, _ in patterns), "crosstab"))
    # what a text without which is left alone; beginnings are enough, as long patterns make slow automata
    begins = "|".join(sorted({name[:8] for name in starts.split("|") if not name.startswith("pg_")}))
    long = "|".join(sorted({word[:8] for word in words.split("|") if len(word) > 8}))
    short = "|".join(word for word in words.split("|") if len(word) <= 8)
    suspicious = (
        rf"pg_|u&['\"]|{_SCHEMAS}|{begins}",
        rf"(?:^|[^a-z0-9_])(?:(?:{short})(?:$|[^a-z0-9_])|{long})",
        rf"{_DO_TEXT}|{_ALTER_USER}",
    )
    values = {
        **{f"suspicious_{at}": _string(pattern) for at, pattern in enumerate(suspicious)},
        "exact": _list([*others, *words.split("|"), "do", "user"]),
        "beginnings": _string(f"^(?:pg_|{_SCHEMAS}|crosstab|{begins_refused})"),
        "code": _string(rf"\\|u&|pg_|{_SCHEMAS}|{starts.removesuffix('|crosstab')}"
                        rf"|\m(?:{words}|routine)\M|{_ALTER_USER}|{_DO}"),
        "token": _string(_TOKEN),
        "dollar": _string(_TAG),
        "dollar_alone": _string(f"^{_TAG}$"),
        "word_start": _string(f"^{_START}"),
        "refused_patterns": _string(
            "^(?:" + "|".join(f"{name}.*" if wild else name for name, wild in patterns) + ")$"
        ),
        "refused_functions": _list(refused),
        "refused_relations": _list(functions.REFUSED_RELATIONS),
        "functions": _list(names.FUNCTIONS),
        # PostgreSQL's grants decide on what the others are given
        "checked_functions": _list(name for name in names.CHECKED_FUNCTIONS if name.startswith("pg_")),
        "relations": _list(names.RELATIONS),
        "system_relations": _list(names.SYSTEM_RELATIONS),
        "system_columns": _list(names.SYSTEM_COLUMNS),
        "information": _list(names.INFORMATION_RELATIONS),
    }  # fmt: skip
    for key, value in values.items():
        text = text.replace(f"{{{key}}}", value)
    return text.strip()


def _string(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


def _list(values: Iterable[str]) -> str:
    return ", ".join(_string(value) for value in sorted(values))
