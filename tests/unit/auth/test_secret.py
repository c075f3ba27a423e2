"""What is kept of passwords, and that it doesn't get out."""

import copy
import pickle
import threading

import pytest

from tenant_proxy.auth import scram
from tenant_proxy.auth.secret import Secret, SecretKind
from tests.unit.auth.conversation import PASSWORD, VERIFIER, count_calls

MD5 = "md5" + "0123456789abcdef" * 2


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        (str(VERIFIER), SecretKind.SCRAM),
        (MD5, SecretKind.MD5),
        ("secret", SecretKind.PLAIN),
        (MD5 + "0", SecretKind.PLAIN),
        (MD5[:-1] + "G", SecretKind.PLAIN),
        (MD5 + "\n", SecretKind.PLAIN),
        ("SCRAM-SHA-256$4096:nonsense", SecretKind.PLAIN),
    ],
)
def test_parse_as_pg_authid(text, kind):
    secret = Secret.parse(text)
    assert secret is not None
    assert secret.kind is kind
    assert (secret.password is not None) == (kind is SecretKind.PLAIN)
    assert (secret.md5 is not None) == (kind is SecretKind.MD5)
    assert (secret.verifier is not None) == (kind is SecretKind.SCRAM)


@pytest.mark.parametrize("text", [None, ""])
def test_no_secret(text):
    assert Secret.parse(text) is None


def test_of_a_configured_login():
    assert Secret.of() is None
    plain, verifier = Secret.of(password=MD5), Secret.of(verifier=str(VERIFIER))
    assert plain is not None
    assert plain.kind is SecretKind.PLAIN
    assert verifier is not None
    assert verifier.verifier == VERIFIER
    with pytest.raises(ValueError):
        Secret.of(verifier="not one")
    with pytest.raises(ValueError):
        Secret.of(password="")


def test_plain_is_plain_whatever_it_looks_like():
    assert Secret.plain(MD5).kind is SecretKind.PLAIN
    assert Secret.plain(MD5).password == MD5.encode()


def test_an_empty_password_is_refused():
    with pytest.raises(ValueError, match="empty"):
        Secret.plain("")


@pytest.mark.parametrize("text", ["", "secret", MD5[:-1], "SCRAM-SHA-256$1:x"])
def test_verifier_must_be_one(text):
    with pytest.raises(ValueError) as caught:
        Secret.parse_verifier(text)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("text", [str(VERIFIER), MD5, "open sesame"])
def test_nothing_shows_it(text):
    secret = Secret.parse(text)
    assert secret is not None
    for shown in (repr(secret), str(secret), f"{secret}", repr({"secret": [secret]}), f"{secret.verifier!r}"):
        for part in (text[-8:], text[:14], "sesame"):
            assert part not in shown or part == "SCRAM-SHA-256$"
    for steal in (pickle.dumps, copy.deepcopy):
        with pytest.raises(TypeError):
            steal(secret)


class TestDerive:
    def test_once(self, monkeypatch):
        calls = count_calls(monkeypatch, scram, "derive_keys")
        secret = Secret.plain(PASSWORD)
        assert secret.cached_keys(b"salt", 16) is None
        assert secret.cached_verifier(b"salt", 16) is None
        keys = secret.derive(b"salt", 16)
        assert secret.derive(b"salt", 16) is keys
        assert secret.cached_keys(b"salt", 16) is keys
        assert secret.cached_verifier(b"salt", 16) == keys.verifier()
        assert len(calls) == 1

    def test_each_salt_and_count_has_its_own(self):
        secret = Secret.plain(PASSWORD)
        assert secret.derive(b"salt", 16) != secret.derive(b"salt", 17)
        assert secret.derive(b"other", 16) != secret.derive(b"salt", 16)

    def test_bounded(self):
        """A server that changes its salt at each login (a load balancer over several) fills no memory."""
        secret = Secret.plain(PASSWORD)
        for number in range(100):
            secret.derive(b"%d" % number, 1)
        assert len(secret._keys) <= 8
        assert secret._keys.keys() == secret._verifiers.keys()

    @pytest.mark.parametrize("text", [str(VERIFIER), MD5])
    def test_of_plain_only(self, text):
        with pytest.raises(ValueError, match="cannot be derived"):
            Secret.parse_verifier(text).derive(b"salt", 1)

    def test_a_verifier_is_its_own(self):
        assert Secret.parse_verifier(str(VERIFIER)).cached_verifier(b"another salt", 1) == VERIFIER

    def test_from_several_threads(self):
        secret = Secret.plain(PASSWORD)
        results: list[object] = []
        threads = [
            threading.Thread(target=lambda: results.extend(secret.derive(b"%d" % n, 2) for n in range(50)))
            for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(results) == 200
        assert len(set(map(id, results))) >= 50
