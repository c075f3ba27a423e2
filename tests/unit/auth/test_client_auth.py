"""The proxy as server: what a client is asked, and how each refusal reads."""

import struct
import threading
from typing import get_args

import pytest

from tenant_proxy.auth import scram, verify
from tenant_proxy.auth.client_auth import MAX_BODY_BYTES, MAX_SASL_BYTES, METHODS
from tenant_proxy.auth.scram import build_verifier
from tenant_proxy.auth.secret import Secret, SecretKind
from tenant_proxy.auth.server_auth import ServerAuth
from tenant_proxy.auth.tls import TlsInfo
from tenant_proxy.config.schema import AuthRule
from tenant_proxy.errors import ProxyError
from tests.unit.auth.conversation import (
    ITERATIONS,
    MOCK_KEY,
    PASSWORD,
    USER,
    VERIFIER,
    ScriptedClient,
    authentication,
    body,
    client_auth,
    converse,
    count_calls,
    initial,
    is_done,
    refused,
    verifier_secret,
)

END_POINT = b"e" * 32
TLS = TlsInfo(END_POINT)
MD5_HASH = verify.md5_hash(PASSWORD.encode(), USER)
MD5_SECRET = Secret.parse_verifier(MD5_HASH.decode())


def test_every_method_of_a_rule_is_there():
    assert set(get_args(AuthRule.model_fields["method"].annotation)) == set(METHODS)


class TestScram:
    def test_offer(self):
        assert authentication(client_auth().start()) == (10, b"SCRAM-SHA-256\0\0")

    @pytest.mark.parametrize("tls", [TlsInfo(), TlsInfo(None, cert_cn=USER)])
    def test_no_plus_without_binding_data(self, tls):
        """As with an Ed25519 certificate, for which tls-server-end-point is not defined."""
        auth = client_auth(tls=tls)
        assert authentication(auth.start()) == (10, b"SCRAM-SHA-256\0\0")

    def test_offer_with_tls(self):
        assert authentication(client_auth(tls=TLS).start()) == (10, b"SCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0")

    def test_login(self):
        client = ScriptedClient(auth := client_auth(secret=verifier_secret()))
        client.first()
        assert not is_done(auth)
        code, message = authentication(auth.on_message(client.final()))
        assert code == 12
        client.scram.verify(message)
        assert auth.done
        assert auth.keys is not None
        assert auth.keys.verifier() == VERIFIER

    @pytest.mark.parametrize(
        "secret", [verifier_secret(), Secret.plain(PASSWORD), MD5_SECRET, None], ids=repr
    )
    def test_wrong_password(self, secret):
        client = ScriptedClient(auth := client_auth(secret=secret), password="wrong")
        client.first()
        error = refused(auth.on_message, client.final())
        assert (error.sqlstate, error.severity) == ("28P01", "FATAL")
        assert error.message == 'password authentication failed for user "alice"'
        assert (error.detail, error.hint) == (None, None)
        assert not auth.done
        assert auth.keys is None

    def test_md5_hash_cannot_do_scram(self):
        client = ScriptedClient(auth := client_auth(secret=MD5_SECRET))
        client.first()
        assert refused(auth.on_message, client.final()).sqlstate == "28P01"

    def test_no_initial_response(self):
        """A client may wait for an empty challenge."""
        client = ScriptedClient(auth := client_auth(secret=verifier_secret()))
        auth.start()
        assert authentication(auth.on_message(initial(None))) == (11, b"")
        _, client.server_first = authentication(auth.on_message(client.scram.first()))
        auth.on_message(client.final())
        assert auth.done

    def test_empty_message_after_no_initial_response(self):
        auth = client_auth()
        auth.start()
        auth.on_message(initial(None))
        assert refused(auth.on_message, b"").detail == "The message is empty."

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b"", "invalid string in message"),
            (b"SCRAM-SHA-256", "invalid string in message"),
            (b"SCRAM-SHA-256\0", "insufficient data left in message"),
            (b"SCRAM-SHA-256\0\0\0\0", "insufficient data left in message"),
            (initial(b"n,,n=,r=a", size=10), "insufficient data left in message"),
            (initial(b"n,,n=,r=a", size=8), "invalid message format"),
            (initial(b"n,,n=,r=a", size=-2), "insufficient data left in message"),
            (initial(b"n,,n=,r=a", size=-1), "invalid message format"),
            (initial(b"n,,n=,r=a", size=2**31 - 1), "insufficient data left in message"),
            (
                initial(b"n,,n=,r=a", b"SCRAM-SHA-1"),
                "client selected an invalid SASL authentication mechanism",
            ),
            (
                initial(b"n,,n=,r=a", b"scram-sha-256"),
                "client selected an invalid SASL authentication mechanism",
            ),
            (initial(b"n,,n=,r=a", b""), "client selected an invalid SASL authentication mechanism"),
            (
                initial(b"p=x", b"SCRAM-SHA-256-PLUS"),
                "client selected an invalid SASL authentication mechanism",
            ),
            (initial(b""), "malformed SCRAM message"),
            (initial(b"x" * 1024), "invalid message length"),
        ],
    )
    def test_malformed_initial_response(self, content, message):
        auth = client_auth(secret=verifier_secret())
        auth.start()
        error = refused(auth.on_message, content)
        assert (error.sqlstate, error.message, error.severity) == ("08P01", message, "FATAL")

    def test_limit_is_told(self):
        assert client_auth().max_body_bytes == MAX_SASL_BYTES == 1024
        assert client_auth("password").max_body_bytes == MAX_BODY_BYTES == 65535


class TestChannelBinding:
    def test_plus(self):
        client = ScriptedClient(
            auth := client_auth(secret=verifier_secret(), tls=TLS), binding=END_POINT, plus=True
        )
        client.first()
        auth.on_message(client.final())
        assert auth.done

    def test_man_in_the_middle(self):
        client = ScriptedClient(
            auth := client_auth(secret=verifier_secret(), tls=TLS), binding=b"x" * 32, plus=True
        )
        client.first()
        error = refused(auth.on_message, client.final())
        assert (error.sqlstate, error.reason) == ("28000", "channel_binding")

    def test_downgrade(self):
        """Somebody took PLUS off the list; the client says `y`."""
        client = ScriptedClient(client_auth(secret=verifier_secret(), tls=TLS), binding=END_POINT)
        error = refused(client.first)
        assert (error.sqlstate, error.reason) == ("28000", "channel_binding")

    def test_client_without_binding(self):
        client = ScriptedClient(auth := client_auth(secret=verifier_secret(), tls=TLS))
        client.first()
        auth.on_message(client.final())
        assert auth.done

    def test_y_is_right_where_plus_was_not_offered(self):
        client = ScriptedClient(auth := client_auth(secret=verifier_secret()), binding=END_POINT)
        client.first()
        auth.on_message(client.final())
        assert auth.done


class TestUnknownUser:
    """Message for message as a known one with a wrong password."""

    def exchange(self, method: str, secret: Secret | None, user: str = USER, tls: TlsInfo | None = None):
        """Shapes of all that is said to a client that does not know the password."""
        auth = client_auth(method, secret, user, tls=tls)
        client_side = ServerAuth(user, password="guess", channel_binding=tls.end_point if tls else None)
        said = [auth.start()]
        while True:
            answer = client_side.on_auth(said[-1][5:])
            try:
                said.append(auth.on_message(body(answer, b"p")))
            except ProxyError as error:
                said.append(error.to_message())
                return said

    @pytest.mark.parametrize("tls", [None, TLS], ids=["plain", "tls"])
    @pytest.mark.parametrize("method", ["scram-sha-256", "md5", "password"])
    def test_same_messages(self, method, tls):
        known = self.exchange(method, Secret.plain(PASSWORD), tls=tls)
        unknown = self.exchange(method, None, tls=tls)
        assert [(m[:1], len(m)) for m in known] == [(m[:1], len(m)) for m in unknown]
        assert known[-1] == unknown[-1]
        if method != "md5":  # whose first message is a random salt
            assert known[0] == unknown[0]

    @pytest.mark.parametrize("known", [Secret.plain(PASSWORD), verifier_secret(), MD5_SECRET], ids=repr)
    def test_same_challenge_but_for_nonce_and_salt(self, known):
        _, first = authentication(self.exchange("scram-sha-256", known)[1])
        _, second = authentication(self.exchange("scram-sha-256", None)[1])
        (nonce, salt, count), (nonce2, salt2, count2) = first.split(b","), second.split(b",")
        assert (len(nonce), len(salt), count) == (len(nonce2), len(salt2), count2)

    def salt(self, user: str, secret: Secret | None = None, **more) -> bytes:
        client = ScriptedClient(client_auth(user=user, secret=secret, **more))
        client.first()
        return client.scram.challenge(client.server_first)[0]

    def test_same_salt_at_each_try(self):
        assert self.salt("nobody") == self.salt("nobody")

    def test_salts_of_users_differ(self):
        assert self.salt("nobody") != self.salt("somebody")
        assert self.salt("nobody") != self.salt("nobody", mock_key=b"another installation")

    def test_a_user_with_a_plain_password_has_the_salt_it_had_before_it_was_made(self):
        assert self.salt(USER) == self.salt(USER, Secret.plain(PASSWORD))

    def test_nobody_has_every_password_wrong(self):
        for password in ("", "guess", PASSWORD):
            client = ScriptedClient(auth := client_auth(), password=password)
            client.first()
            assert refused(auth.on_message, client.final()).sqlstate == "28P01"

    def test_iterations_as_those_of_the_others(self):
        client = ScriptedClient(client_auth(mock_iterations=8192))
        client.first()
        assert client.scram.challenge(client.server_first)[1] == 8192

    def test_md5_of_an_installation_of_verifiers(self):
        """Rule md5, where users have SCRAM verifiers: nobody has one too."""
        known = self.exchange("md5", verifier_secret())
        auth = client_auth("md5", None, mock_kind=SecretKind.SCRAM)
        assert auth.start() == known[0]


class TestMd5:
    def right(self, salt: bytes, user: str = USER) -> bytes:
        return verify.md5_response(verify.md5_hash(PASSWORD.encode(), user), salt) + b"\0"

    @pytest.mark.parametrize("secret", [Secret.plain(PASSWORD), MD5_SECRET], ids=repr)
    def test_login(self, secret):
        auth = client_auth("md5", secret)
        code, salt = authentication(auth.start())
        assert (code, len(salt)) == (5, 4)
        assert auth.on_message(self.right(salt)) == b""
        assert auth.done

    def test_salts_are_random(self):
        assert len({client_auth("md5").start() for _ in range(8)}) > 1

    def test_a_replayed_answer(self):
        first, second = client_auth("md5", MD5_SECRET), client_auth("md5", MD5_SECRET)
        _, salt = authentication(first.start())
        second.start()
        assert refused(second.on_message, self.right(salt)).sqlstate == "28P01"

    def test_the_stored_hash_is_not_the_answer(self):
        auth = client_auth("md5", MD5_SECRET)
        auth.start()
        assert refused(auth.on_message, MD5_HASH + b"\0").sqlstate == "28P01"

    def test_a_verifier_does_scram(self):
        auth = client_auth("md5", verifier_secret())
        assert auth.start() == client_auth("scram-sha-256").start()
        converse(ServerAuth(USER, password=PASSWORD), client_auth("md5", verifier_secret()))

    def test_user_with_tenant_suffix(self):
        """The client hashes the name that it sent; a plain password fits any name."""
        auth = client_auth("md5", Secret.plain(PASSWORD), startup_user="alice.acme")
        _, salt = authentication(auth.start())
        auth.on_message(self.right(salt, "alice.acme"))
        assert auth.done


class TestCleartext:
    @pytest.mark.parametrize("secret", [Secret.plain(PASSWORD), MD5_SECRET, verifier_secret()], ids=repr)
    def test_login(self, secret):
        auth = client_auth("password", secret, startup_user="alice.acme")
        assert authentication(auth.start()) == (3, b"")
        assert auth.on_message(PASSWORD.encode() + b"\0") == b""
        assert auth.done
        assert (auth.keys is not None) == (secret.kind is SecretKind.SCRAM)

    @pytest.mark.parametrize(
        "secret", [Secret.plain(PASSWORD), MD5_SECRET, verifier_secret(), None], ids=repr
    )
    def test_wrong(self, secret):
        auth = client_auth("password", secret, startup_user="alice.acme")
        auth.start()
        error = refused(auth.on_message, b"wrong\0")
        assert (error.sqlstate, error.message) == (
            "28P01",
            'password authentication failed for user "alice.acme"',
        )
        assert not auth.done

    def test_the_verifier_is_not_the_password(self):
        auth = client_auth("password", verifier_secret())
        auth.start()
        assert refused(auth.on_message, str(VERIFIER).encode() + b"\0").sqlstate == "28P01"


@pytest.mark.parametrize("method", ["password", "md5"])
@pytest.mark.parametrize(
    ("content", "sqlstate"),
    [
        (b"", "08P01"),
        (b"secret", "08P01"),
        (b"sec\0ret\0", "08P01"),
        (b"secret\0\0", "08P01"),
        (b"\0", "28P01"),
        (b"x" * 65535 + b"\0", "08P01"),
        (b"\xff\xfe\0", "28P01"),
    ],
)
def test_malformed_password_message(method, content, sqlstate):
    auth = client_auth(method, Secret.plain(PASSWORD))
    auth.start()
    assert refused(auth.on_message, content).sqlstate == sqlstate


class TestCertificate:
    def test_common_name_is_the_user(self):
        auth = client_auth("cert", tls=TlsInfo(None, cert_cn=USER))
        assert auth.start() == b""
        assert auth.done

    @pytest.mark.parametrize("name", ["bob", "", "Alice", "alice ", "alice\0", "ali"])
    def test_other_name(self, name):
        auth = client_auth(
            "cert", Secret.plain(PASSWORD), tls=TlsInfo(None, cert_cn=name, cert_names=(USER,))
        )
        error = refused(auth.start)
        assert (error.sqlstate, error.message) == (
            "28000",
            'certificate authentication failed for user "alice"',
        )
        assert not auth.done

    @pytest.mark.parametrize("tls", [None, TLS])
    def test_no_certificate(self, tls):
        error = refused(client_auth("cert", tls=tls).start)
        assert (error.sqlstate, error.message) == ("28000", "connection requires a valid client certificate")


def test_trust():
    auth = client_auth("trust")
    assert auth.start() == b""
    assert auth.done


def test_reject():
    auth = client_auth("reject", Secret.plain(PASSWORD), database="shop", address="10.0.0.1")
    error = refused(auth.start)
    assert error.sqlstate == "28000"
    assert error.message.endswith('rejects connection for host "10.0.0.1", user "alice", database "shop"')
    assert not auth.done


def test_unknown_method():
    with pytest.raises(KeyError):
        client_auth("gss")


class TestOrder:
    @pytest.mark.parametrize("method", ["trust", "cert"])
    def test_a_message_that_nobody_asked_for(self, method):
        auth = client_auth(method, tls=TlsInfo(None, cert_cn=USER))
        auth.start()
        assert refused(auth.on_message, b"secret\0").sqlstate == "08P01"

    def test_after_the_end(self):
        auth = client_auth("password", Secret.plain(PASSWORD))
        auth.start()
        auth.on_message(PASSWORD.encode() + b"\0")
        assert refused(auth.on_message, PASSWORD.encode() + b"\0").sqlstate == "08P01"

    @pytest.mark.parametrize("method", ["password", "md5", "scram-sha-256"])
    def test_there_is_no_second_try(self, method):
        auth = client_auth(method, Secret.plain(PASSWORD))
        auth.start()
        refused(auth.on_message, b"wrong\0")
        error = refused(auth.on_message, PASSWORD.encode() + b"\0")
        assert (error.sqlstate, error.message) == ("08P01", "unexpected password message")
        assert not auth.done

    def test_after_reject(self):
        auth = client_auth("reject")
        refused(auth.start)
        assert refused(auth.on_message, b"secret\0").sqlstate == "08P01"
        assert not auth.done


class TestDeferred:
    """PBKDF2 in a thread of the caller's."""

    def run(self, auth) -> bytes:
        thread = threading.Thread(target=auth.deferred)
        thread.start()
        thread.join()
        return auth.resume()

    def test_cleartext_against_a_verifier(self):
        auth = client_auth("password", verifier_secret(), defer=True)
        auth.start()
        assert auth.on_message(PASSWORD.encode() + b"\0") == b""
        assert not is_done(auth)
        assert callable(auth.deferred)
        assert self.run(auth) == b""
        assert auth.done
        assert auth.keys is not None

    @pytest.mark.parametrize(
        "secret", [Secret.plain(PASSWORD), MD5_SECRET, verifier_secret(), None], ids=repr
    )
    def test_every_refusal_of_cleartext(self, secret):
        auth = client_auth("password", secret, defer=True)
        auth.start()
        assert auth.on_message(b"wrong\0") == b""
        assert refused(self.run, auth).sqlstate == "28P01"
        assert not auth.done
        assert auth.deferred is None

    def test_cleartext_that_needs_none(self):
        auth = client_auth("password", Secret.plain(PASSWORD), defer=True)
        auth.start()
        auth.on_message(PASSWORD.encode() + b"\0")
        assert auth.deferred is None
        assert auth.done

    def test_first_scram_login_with_a_plain_password(self):
        secret = Secret.plain(PASSWORD)
        client_side = ServerAuth(USER, password=PASSWORD)
        auth = client_auth(secret=secret, defer=True)
        answer = client_side.on_auth(auth.start()[5:])
        assert auth.on_message(body(answer, b"p")) == b""
        assert not is_done(auth)
        answer = client_side.on_auth(self.run(auth)[5:])
        client_side.on_auth(auth.on_message(body(answer, b"p"))[5:])
        assert auth.done

        again = client_auth(secret=secret, defer=True)
        converse(ServerAuth(USER, password=PASSWORD), again)
        assert again.deferred is None

    def test_only_once_per_password(self, monkeypatch):
        calls = count_calls(monkeypatch, scram, "derive_keys")
        secret, password = Secret.plain(PASSWORD), Secret.plain(PASSWORD)
        for _ in range(3):
            converse(ServerAuth(USER, password=password), client_auth(secret=secret))
        assert len(calls) == 2  # one for each end

    def test_no_pbkdf2_for_a_verifier_nor_for_nobody(self, monkeypatch):
        guess = Secret.plain("guess")
        guess.derive(VERIFIER.salt, ITERATIONS)
        guess.derive(scram.mock_salt(MOCK_KEY, USER), ITERATIONS)
        monkeypatch.setattr(scram, "derive_keys", None)
        for secret in (verifier_secret(), None):
            client_side = ServerAuth(USER, password=guess)
            auth = client_auth(secret=secret)
            first = client_side.on_auth(auth.start()[5:])
            final = client_side.on_auth(auth.on_message(body(first, b"p"))[5:])
            assert refused(auth.on_message, body(final, b"p")).sqlstate == "28P01"

    def test_a_message_while_it_runs(self):
        auth = client_auth("password", verifier_secret(), defer=True)
        auth.start()
        auth.on_message(PASSWORD.encode() + b"\0")
        assert refused(auth.on_message, b"x\0").sqlstate == "08P01"


def test_verifier_with_other_parameters():
    """What the file says counts, not the proxy's own defaults."""
    verifier = build_verifier(PASSWORD, salt=b"a salt of another length, as tools may make it", iterations=33)
    said = converse(ServerAuth(USER, password=PASSWORD), client_auth(secret=Secret.parse(str(verifier))))
    assert b"i=33" in said[2]


def test_frames():
    assert client_auth("password").start() == b"R" + struct.pack("!ii", 8, 3)
