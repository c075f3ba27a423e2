"""md5 and cleartext passwords."""

import hashlib

import pytest

from tenant_proxy.auth import scram, verify
from tenant_proxy.auth.scram import derive_keys
from tenant_proxy.auth.secret import Secret
from tests.unit.auth.conversation import ITERATIONS, PASSWORD, USER, VERIFIER, count_calls

SALT = b"mock salt"
HASH = verify.md5_hash(PASSWORD.encode(), USER)


def test_md5_as_postgresql_stores_it():
    # SELECT rolpassword after SET password_encryption = md5; CREATE ROLE joe PASSWORD 'secret'
    assert verify.md5_hash(b"secret", "joe") == b"md5" + hashlib.md5(b"secretjoe").hexdigest().encode()


def test_md5_response():
    """md5 of the stored digits and the salt."""
    inner = hashlib.md5(b"secretjoe").hexdigest().encode()
    expected = b"md5" + hashlib.md5(inner + b"\1\2\3\4").hexdigest().encode()
    assert verify.md5_response(b"md5" + inner, b"\1\2\3\4") == expected


@pytest.mark.parametrize("secret", [Secret.plain(PASSWORD), Secret.parse(HASH.decode())], ids=repr)
def test_check_md5(secret):
    right = verify.md5_response(HASH, b"abcd")
    assert verify.check_md5(right, b"abcd", secret, USER)
    assert not verify.check_md5(right, b"abce", secret, USER)
    assert not verify.check_md5(right.upper(), b"abcd", secret, USER)
    assert not verify.check_md5(right[:-1], b"abcd", secret, USER)
    assert not verify.check_md5(b"", b"abcd", secret, USER)
    assert not verify.check_md5("é".encode(), b"abcd", secret, USER)


def test_md5_of_nobody_is_always_wrong():
    guess = verify.md5_response(verify.md5_hash(b"", USER), b"abcd")
    for secret in (None, Secret.parse(str(VERIFIER))):
        assert not verify.check_md5(guess, b"abcd", secret, USER)


def check(password: bytes, secret: Secret | None) -> verify.Checked:
    return verify.check_cleartext(password, secret, USER, salt=SALT, iterations=ITERATIONS)


@pytest.mark.parametrize("text", [PASSWORD, HASH.decode(), str(VERIFIER)], ids=["plain", "md5", "scram"])
def test_cleartext(text):
    secret = Secret.parse(text)
    assert check(PASSWORD.encode(), secret).ok
    for wrong in (
        b"",
        b"wrong",
        PASSWORD.encode() + b" ",
        PASSWORD.encode("latin-1"),
        b"\xff",
        text.encode() + b".",
    ):
        assert not check(wrong, secret).ok
    if text != PASSWORD:
        assert not check(text.encode(), secret).ok, "what is stored is not a password"


def test_cleartext_of_nobody():
    assert check(PASSWORD.encode(), None) == verify.Checked(ok=False)


def test_cleartext_leaves_keys_where_the_secret_is_a_verifier():
    checked = check(PASSWORD.encode(), Secret.parse(str(VERIFIER)))
    assert checked.keys == derive_keys(PASSWORD.encode(), VERIFIER.salt, VERIFIER.iterations)
    assert check(b"wrong", Secret.parse(str(VERIFIER))).keys is None


@pytest.mark.parametrize(
    "text", [PASSWORD, HASH.decode(), str(VERIFIER), None], ids=["plain", "md5", "scram", "nobody"]
)
def test_every_refusal_costs_one_pbkdf2(text, monkeypatch):
    calls = count_calls(monkeypatch, scram, "derive_keys")
    secret = Secret.parse(text)
    check(b"wrong", secret)
    assert [args[2] for args in calls] == [ITERATIONS]
    assert not verify.check_cleartext_fast(b"wrong", secret, USER)
    assert len(calls) == 1
