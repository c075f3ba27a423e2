"""Code is scanned with letters in place of what is not ASCII: the tokens are the same."""

from __future__ import annotations

import time

from hypothesis import example, given, settings
from hypothesis import strategies as st
from pglast.parser import ParseError, scan

from tenant_proxy.guard.parse import Unreadable, tokens

PIECES = [
    *(
        "é",
        "ç",
        "日本",
        "\u00a0",
        "\u3000",
        "𝛼",
        "q",
        "x",
        "e",
        "n",
        "b",
        "u&",
        "uni",
        "ue",
        "i",
        "f",
        "1",
        ".5",
    ),
    *(
        "'",
        "''",
        '"',
        "$",
        "$$",
        "$a$",
        "$é$",
        "$ç$",
        "$1",
        "$a",
        "--",
        "\n",
        "/*",
        "*/",
        "\\",
        " ",
        ":=",
        ";",
    ),
    *("+", "@", "(", ")", "begin", "end", "_"),
]


def found(scanner, text):
    try:
        return [(token.start, token.end, _kind(token)) for token in scanner(text)]
    except (ParseError, Unreadable):
        return None


@given(st.lists(st.sampled_from(PIECES), max_size=14).map("".join))
@example("é'41'")
@example("$é$ ' $ç$ ' $é$")
@example("$é$ $q$ $é$")
@example("$aé$ ' $aç$")
@settings(max_examples=800, deadline=None)
def test_tokens_are_those_of_the_scanner(text):
    before, after = found(scan, text), found(tokens, text)
    assert before == after


def _kind(token):
    """Which word it is comes from the text; only that it is one matters."""
    return "a word" if token.name == "IDENT" or token.kind != "NO_KEYWORD" else token.name


def test_a_long_body_is_scanned_in_no_time():
    text = "BEGIN " + "é := 'ü'; " * 20_000 + "END"
    before = time.thread_time()
    assert len(tokens(text)) == 80_002
    assert time.thread_time() - before < 2
