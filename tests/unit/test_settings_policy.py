"""Which settings clients may change: the one list that SET and the startup packet share."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenant_proxy.settings_policy import (
    CLIENT_ENCODINGS,
    REFUSED_SETTINGS,
    check_setting,
    is_setting_name,
    join_identifiers,
    split_identifiers,
)


def sqlstate(name: str, value: str | None, denied: tuple[str, ...] = (), schema: str = "acme") -> str | None:
    refusal = check_setting(name, value, schema=schema, allowed_schemas=["public"], denied=denied)
    return None if refusal is None else refusal.sqlstate


# --- what is refused whatever the value ------------------------------------------


@pytest.mark.parametrize("name", sorted(REFUSED_SETTINGS))
def test_refused(name):
    refusal = check_setting(name.upper(), "x", schema="acme", allowed_schemas=[], denied=())
    assert refusal is not None
    assert (refusal.sqlstate, refusal.severity) == ("42501", "ERROR")
    assert f'"{name}"' in refusal.message
    assert refusal.hint


@pytest.mark.parametrize("name", ["tenant_proxy.mode", "Set_User.block_log_statement"])
def test_names_of_the_proxy_and_of_set_user(name):
    assert sqlstate(name, "x") == "42501"


def test_reset_is_for_everything_but_identity():
    assert sqlstate("search_path", None) is None
    assert sqlstate("work_mem", None, denied=("work_mem",)) is None
    assert sqlstate("role", None) == "42501"
    assert sqlstate("session_authorization", None) == "42501"


def test_denied_by_the_operator():
    denied = ("work_mem", "plpgsql.*", "Statement_Timeout")
    assert sqlstate("WORK_MEM", "1GB", denied) == "42501"
    assert sqlstate("sort_mem", "1GB", denied) == "42501"  # its older name
    assert sqlstate("plpgsql.variable_conflict", "error", denied) == "42501"
    assert sqlstate("statement_timeout", "0", denied) == "42501"
    assert sqlstate("lock_timeout", "0", denied) is None


# --- how the server reads text -----------------------------------------------------


@pytest.mark.parametrize("value", ["on", "ON", "true", "t", "yes", "y", "1"])
def test_standard_conforming_strings_may_be_on(value):
    assert sqlstate("standard_conforming_strings", value) is None


@pytest.mark.parametrize("value", ["off", "false", "0", "o", "", "on ", "2"])
def test_standard_conforming_strings_may_not_be_off(value):
    assert sqlstate("standard_conforming_strings", value) == "42501"


def test_backslash_quote():
    assert sqlstate("backslash_quote", "safe_encoding") is None
    assert sqlstate("backslash_quote", "on") == "42501"


@pytest.mark.parametrize(
    "value", ["UTF8", "utf-8", "Unicode", "latin1", "ISO_8859-1", "WIN1252", "EUC_JP", "SQL_ASCII"]
)
def test_client_encodings_that_the_guard_reads_as_the_server_does(value):
    assert sqlstate("client_encoding", value) is None


@pytest.mark.parametrize(
    "value",
    ["SJIS", "shift_jis", "mskanji", "BIG5", "GBK", "win936", "UHC", "GB18030", "JOHAB", "shift_jis_2004",
     "EUC_TW", "MULE_INTERNAL", "auto", ""],
)  # fmt: skip
def test_client_encodings_that_are_refused(value):
    assert sqlstate("client_encoding", value) == "42501"


def test_no_encoding_that_is_let_through_hides_ascii_in_a_multibyte_character():
    """An ASCII byte must mean itself wherever it stands, or a quote could hide from the guard."""
    ascii_bytes = bytes(range(0x80))
    for codec in set(CLIENT_ENCODINGS.values()):
        assert ascii_bytes.decode(codec) == ascii_bytes.decode("ascii")
        for char in map(chr, range(0x80, 0x10000)):
            encoded = char.encode(codec, "ignore")
            assert len(encoded) <= 1 or min(encoded) >= 0x80, (codec, char)


# --- search_path -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "value",
    [
        "acme",
        "ACME",
        '"acme"',
        "acme, public",
        "pg_catalog,acme",
        "pg_temp",
        "information_schema",
        "",
        '""',
        " acme ",
    ],
)
def test_search_path_inside_the_tenant(value):
    assert sqlstate("search_path", value) is None


@pytest.mark.parametrize(
    "value", ["beta", "acme, beta", '"Acme"', '"$user"', "pg_temp_3", "pg_toast", 'ac"me']
)
def test_search_path_outside_the_tenant(value):
    refusal = check_setting("search_path", value, schema="acme", allowed_schemas=["public"], denied=())
    assert refusal is not None
    assert refusal.sqlstate == "42501"
    assert refusal.schema


@pytest.mark.parametrize(
    "value", ["acme,", ",acme", "acme beta", '"acme', '"acme"x', "acme\v", "ÄCME", "a" * 64]
)
def test_search_path_that_is_malformed_or_read_differently_by_some_servers(value):
    assert sqlstate("search_path", value, schema="a" * 63) == "22023"


def test_the_error_names_the_schema():
    refusal = check_setting("search_path", "acme, beta", schema="acme", allowed_schemas=[], denied=())
    assert refusal is not None
    assert refusal.message == "permission denied for schema beta"
    assert refusal.hint is not None
    assert '"acme"' in refusal.hint


@pytest.mark.parametrize(
    ("value", "answer"),
    [
        ("english", None),
        ("pg_catalog.english", None),
        ('"acme"."my config"', None),
        ("beta.english", "42501"),
        ('"be""ta"."x"', "42501"),
        ("app.acme.english", "22023"),
        ("acme.", "22023"),
        ("acme.x,", "22023"),
    ],
)
def test_text_search_configurations_are_names_too(value, answer):
    assert sqlstate("default_text_search_config", value) == answer


# --- names ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a", "DateStyle", "plpgsql.extra_warnings", "_x$1", "a.b.c"])
def test_names_of_settings(name):
    assert is_setting_name(name)


@pytest.mark.parametrize("name", ["", "1a", "a b", "a-b", "a..b", ".a", "a.", "a;b", "ä", "a\n", "a" * 257])
def test_what_is_no_name(name):
    assert not is_setting_name(name)
    assert sqlstate(name, "x") == "42602"


# --- lists of identifiers --------------------------------------------------------------------

names = st.text(st.characters(exclude_characters="\v\0", exclude_categories=["Cs"]), max_size=20).filter(
    lambda name: len(name.encode()) <= 63
)


@given(st.lists(names))
def test_a_joined_list_splits_into_its_names(given_names):
    assert split_identifiers(join_identifiers(given_names)) == given_names


def test_names_are_quoted_only_where_they_need_it():
    assert (
        join_identifiers(["acme", "Acme", "a b", "", 'q"q', "a1_$"])
        == 'acme, "Acme", "a b", "", "q""q", a1_$'
    )


@given(st.text(st.sampled_from('ab",. \t\n$\\A'), max_size=12))
def test_a_split_is_stable(text):
    split = split_identifiers(text)
    if split is not None:
        assert split_identifiers(join_identifiers(split)) == split
