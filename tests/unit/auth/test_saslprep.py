"""Passwords are prepared exactly as PostgreSQL does: else the keys differ."""

import pytest

from tenant_proxy.auth.saslprep import prepare_password, saslprep


@pytest.mark.parametrize(
    ("text", "prepared"),
    [
        # RFC 4013, section 3
        ("I\u00adX", "IX"),
        ("user", "user"),
        ("USER", "USER"),
        ("\u00aa", "a"),
        ("\u2168", "IX"),
        ("\u0007", None),
        ("\u0627\u0031", None),
        # spaces of all kinds are one kind; U+200B is one of them for PostgreSQL
        ("a\u00a0b", "a b"),
        ("a\u200bb", "a b"),
        # right to left throughout
        ("\u0627\u0031\u0628", "\u0627\u0031\u0628"),
        ("\u0627a\u0628", None),
        # mapped to nothing altogether
        ("\u00ad", None),
        # unassigned in Unicode 3.2, private use, a surrogate's neighbour, a tag
        ("\u0221", None),
        ("\ue000", None),
        ("\U000e0001", None),
        # looked at before normalization: U+0340 is prohibited though NFKC makes U+0300 of it
        ("a\u0340", None),
    ],
)
def test_profile(text, prepared):
    assert saslprep(text) == prepared


@pytest.mark.parametrize(
    "password",
    [b"plain", b"\x07bell", "a\u0340".encode(), b"\xff\xfe not UTF-8", "\u00ad".encode()],
    ids=["ascii", "control", "prohibited", "not utf-8", "nothing left"],
)
def test_what_the_profile_refuses_is_taken_as_it_is(password):
    assert prepare_password(password) == password


def test_prepared_as_bytes():
    assert prepare_password("I\u00adX \u2168".encode()) == b"IX IX"
