"""The arithmetic and syntax of SCRAM on messages alone."""

import binascii
import hashlib
import hmac

import pytest

from tenant_proxy.auth import scram
from tenant_proxy.auth.scram import (
    ScramClient,
    ScramKeys,
    ScramServer,
    build_verifier,
    derive_keys,
    mock_salt,
    mock_verifier,
    parse_verifier,
)
from tests.unit.auth.conversation import PASSWORD, VERIFIER, refused

# RFC 7677, section 3
RFC_SALT = binascii.a2b_base64(b"W22ZaJ0SNY7soEsUEjb6gQ==")
RFC_CLIENT_NONCE = b"rOprNGfwEbeRWgbNEkqO"
RFC_SERVER_NONCE = b"%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
RFC_CLIENT_FIRST = b"n,,n=user,r=" + RFC_CLIENT_NONCE
RFC_SERVER_FIRST = b"r=" + RFC_CLIENT_NONCE + RFC_SERVER_NONCE + b",s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
RFC_CLIENT_FINAL = (
    b"c=biws,r=" + RFC_CLIENT_NONCE + RFC_SERVER_NONCE + b",p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
)
RFC_SERVER_FINAL = b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="


def rfc_keys() -> ScramKeys:
    return derive_keys(b"pencil", RFC_SALT, 4096)


class TestRfc7677:
    def test_server(self):
        server = ScramServer(rfc_keys().verifier())
        assert server.first(RFC_CLIENT_FIRST, nonce=RFC_SERVER_NONCE) == RFC_SERVER_FIRST
        assert server.final(RFC_CLIENT_FINAL) == RFC_SERVER_FINAL

    def test_client(self):
        client = ScramClient(nonce=RFC_CLIENT_NONCE)
        assert client.first() == RFC_CLIENT_FIRST.replace(b"n=user", b"n=")
        client._first_bare = RFC_CLIENT_FIRST[3:]  # PostgreSQL's clients leave the name out
        assert client.challenge(RFC_SERVER_FIRST) == (RFC_SALT, 4096)
        assert client.final(rfc_keys()) == RFC_CLIENT_FINAL
        client.verify(RFC_SERVER_FINAL)

    def test_the_proof_gives_the_client_key_away(self):
        server = ScramServer(rfc_keys().verifier())
        server.first(RFC_CLIENT_FIRST, nonce=RFC_SERVER_NONCE)
        assert server.keys is None
        server.final(RFC_CLIENT_FINAL)
        assert server.keys == rfc_keys()

    def test_a_changed_message_proves_nothing(self):
        for message in (
            RFC_CLIENT_FINAL.replace(b"p=d", b"p=e"),
            RFC_CLIENT_FINAL.replace(b",p=", b",x=,p="),
        ):
            server = ScramServer(rfc_keys().verifier())
            server.first(RFC_CLIENT_FIRST, nonce=RFC_SERVER_NONCE)
            assert server.final(message) is None
            assert server.keys is None


class TestVerifier:
    #: of the password and the salt in RFC 7677
    TEXT = (
        "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ=="
        "$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU="
    )

    def test_text(self):
        verifier = build_verifier("pencil", salt=RFC_SALT)
        assert str(verifier) == self.TEXT
        assert parse_verifier(self.TEXT) == verifier

    def test_salts_are_random(self):
        first, second = build_verifier("pencil", iterations=1), build_verifier("pencil", iterations=1)
        assert first.salt != second.salt
        assert len(first.salt) == 16

    def test_repr_shows_nothing(self):
        shown = f"{VERIFIER!r} {VERIFIER.stored_key!r:.0} {rfc_keys()!r}"
        assert shown == "Verifier(iterations=16)  ScramKeys(iterations=4096)"

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "SCRAM-SHA-256$",
            "SCRAM-SHA-1" + TEXT[13:],
            TEXT.replace("4096", "0"),
            TEXT.replace("4096", "-1"),
            TEXT.replace("4096", "+1"),
            TEXT.replace("4096", ""),
            TEXT.replace("4096", "4096x"),
            TEXT.replace("4096", "4_096"),
            TEXT.replace("4096", "٤٠٩٦"),
            TEXT.replace("4096", "10000001"),
            TEXT.replace("4096", "9" * 5000),
            TEXT.replace("W22ZaJ0SNY7soEsUEjb6gQ==", ""),
            TEXT.replace("W22Z", "W2-Z"),
            TEXT.replace("W22Z", "W2 Z"),
            TEXT.replace("W22Z", "W2ÄZ"),
            TEXT.replace("==", "="),
            TEXT[:-4],
            TEXT + "AAAA",
            TEXT + "$",
            TEXT.replace("$WG5d", "$"),
            TEXT.rpartition(":")[0],
        ],
    )
    def test_malformed(self, text):
        with pytest.raises(ValueError) as caught:
            parse_verifier(text)
        assert "W22" not in str(caught.value)
        assert caught.value.__cause__ is None


class TestMock:
    def test_salt_is_of_the_user_and_the_key(self):
        salt = mock_salt(b"key", "nobody")
        assert salt == mock_salt(b"key", "nobody")
        assert len(salt) == 16
        assert salt != mock_salt(b"key", "somebody")
        assert salt != mock_salt(b"other key", "nobody")

    def test_a_name_that_is_not_utf8(self):
        assert mock_salt(b"key", b"\xff".decode("utf-8", "surrogateescape"))

    def test_nothing_proves_it(self):
        verifier = mock_verifier(b"key", "nobody")
        assert verifier.iterations == 4096
        server = ScramServer(verifier, doomed=True)
        # keys of zeros: the attacker knows them, and their signature, but not what hashes to zeros
        first = server.first(RFC_CLIENT_FIRST, nonce=RFC_SERVER_NONCE)
        final = b"c=biws,r=" + RFC_CLIENT_NONCE + RFC_SERVER_NONCE
        signed = RFC_CLIENT_FIRST[3:] + b"," + first + b"," + final
        proof = hmac.digest(bytes(32), signed, "sha256")
        assert server.final(final + b",p=" + binascii.b2a_base64(proof, newline=False)) is None

    def test_doomed_even_with_the_right_proof(self):
        server = ScramServer(rfc_keys().verifier(), doomed=True)
        server.first(RFC_CLIENT_FIRST, nonce=RFC_SERVER_NONCE)
        assert server.final(RFC_CLIENT_FINAL) is None
        assert server.keys is None


BINDING = hashlib.sha256(b"certificate").digest()


def server(*, binding: bytes | None = None, plus_offered: bool = False) -> ScramServer:
    return ScramServer(VERIFIER, binding=binding, plus_offered=plus_offered or binding is not None)


class TestClientFirst:
    @pytest.mark.parametrize(
        "message",
        [
            b"n,,n=,r=abc",
            b"y,,n=,r=abc",
            b"n,,n=someone else,r=abc",
            b"n,,n=,r=abc,",
            b"n,,n=,r=abc,x=1,Y=",
            b"n,,n=,r=",
        ],
    )
    def test_good(self, message):
        assert server().first(message).startswith(b"r=")

    def test_with_binding(self):
        assert server(binding=BINDING).first(b"p=tls-server-end-point,,n=,r=abc").startswith(b"r=abc")

    def test_nonces_are_random(self):
        first, second = (server().first(b"n,,n=,r=abc").split(b",")[0] for _ in range(2))
        assert first != second
        assert len(first) == len(b"r=abc") + 24

    @pytest.mark.parametrize(
        ("message", "detail"),
        [
            (b"", "The message is empty."),
            (b"n,,n=,r=abc\0", "Message length does not match input length."),
            (b"x,,n=,r=abc", "Unexpected channel-binding flag \"'x'\"."),
            (b"\x01,,n=,r=abc", 'Unexpected channel-binding flag "0x01".'),
            (b",,n=,r=abc", "Unexpected channel-binding flag \"','\"."),
            (b"nn,,n=,r=abc", "Comma expected, but found character \"'n'\"."),
            (b"n", 'Comma expected, but found character "0x00".'),
            (b"n,", 'Unexpected attribute "0x00" in client-first-message.'),
            (b"n,x,n=,r=abc", "Unexpected attribute \"'x'\" in client-first-message."),
            (b"n,,", 'Expected attribute "n" but found "0x00".'),
            (b"n,,r=abc", 'Expected attribute "n" but found "\'r\'".'),
            (b"n,,n", 'Expected character "=" for attribute "n".'),
            (b"n,,n=", 'Expected attribute "r" but found "0x00".'),
            (b"n,,n=,,r=abc", 'Expected attribute "r" but found "\',\'".'),
            (b"n,,n=,r=abc,,", None),
            (b"n,,n=,r=abc,1=", "Attribute expected, but found invalid character \"'1'\"."),
            (b"n,,n=,r=abc,x", 'Expected character "=" for attribute "x".'),
            (b"n,,n=,r=abc,\xe4=", 'Attribute expected, but found invalid character "0xe4".'),
            (
                b"p=tls-server-end-point,,n=,r=abc",
                "The client selected SCRAM-SHA-256 without channel binding, "
                "but the SCRAM message includes channel binding data.",
            ),
        ],
    )
    def test_malformed(self, message, detail):
        error = refused(server().first, message)
        assert (error.sqlstate, error.severity, error.message) == (
            "08P01",
            "FATAL",
            "malformed SCRAM message",
        )
        assert detail is None or error.detail == detail

    @pytest.mark.parametrize("nonce", [b"a b", b"a\x7f", b"\xc3\xa4", b"a\tb"])
    def test_unprintable_nonce(self, nonce):
        error = refused(server().first, b"n,,n=,r=" + nonce)
        assert (error.sqlstate, error.message) == ("08P01", "non-printable characters in SCRAM nonce")

    @pytest.mark.parametrize(
        ("message", "text"),
        [
            (b"n,a=admin,n=,r=abc", "client uses authorization identity, but it is not supported"),
            (b"n,a", "client uses authorization identity, but it is not supported"),
            (b"n,,m=ext,n=,r=abc", "client requires an unsupported SCRAM extension"),
        ],
    )
    def test_unsupported(self, message, text):
        error = refused(server().first, message)
        assert (error.sqlstate, error.message) == ("0A000", text)

    @pytest.mark.parametrize("flag", [b"n", b"y"])
    def test_plus_without_binding(self, flag):
        error = refused(server(binding=BINDING).first, flag + b",,n=,r=abc")
        assert error.sqlstate == "08P01"
        assert "does not include channel binding data" in (error.detail or "")

    @pytest.mark.parametrize("kind", [b"tls-unique", b"", b"\xff" * 500])
    def test_other_binding(self, kind):
        error = refused(server(binding=BINDING).first, b"p=" + kind + b",,n=,r=abc")
        assert error.sqlstate == "08P01"
        assert error.message.startswith("unsupported SCRAM channel-binding type")
        assert len(error.message) < 100

    def test_downgrade(self):
        """A client that can bind, and was told that the proxy can't, though it had said so."""
        error = refused(server(plus_offered=True).first, b"y,,n=,r=abc")
        assert (error.sqlstate, error.message) == ("28000", "SCRAM channel binding negotiation error")
        assert server(plus_offered=True).first(b"n,,n=,r=abc")


class TestClientFinal:
    def after_first(self, flag: bytes = b"n", **more) -> tuple[ScramServer, bytes]:
        end = server(**more)
        return end, end.first(flag + b",,n=,r=abc").split(b",")[0]

    PROOF = b"p=" + binascii.b2a_base64(bytes(32), newline=False)

    @pytest.mark.parametrize(
        ("message", "detail"),
        [
            (b"", "The message is empty."),
            (b"c=biws,NONCE,PROOF\0", "Message length does not match input length."),
            (b"NONCE,PROOF", 'Expected attribute "c" but found "\'r\'".'),
            (b"c=biws,PROOF", 'Expected attribute "r" but found "\'p\'".'),
            (b"c=biws", 'Expected attribute "r" but found "0x00".'),
            (b"c=biws,NONCE", None),
            (b"c=biws,NONCE,x=1", None),
            (b"c=biws,NONCE,p", 'Expected character "=" for attribute "p".'),
            (b"c=biws,NONCE,,PROOF", "Attribute expected, but found invalid character \"','\"."),
            (b"c=biws,NONCE,p=", "Malformed proof in client-final-message."),
            (b"c=biws,NONCE,p=AAAA", "Malformed proof in client-final-message."),
            (b"c=biws,NONCE,p=*" + PROOF[3:], "Malformed proof in client-final-message."),
            (b"c=biws,NONCE,p= " + PROOF[3:], "Malformed proof in client-final-message."),
            (b"c=biws,NONCE,p=\xff", "Malformed proof in client-final-message."),
            (b"c=biws,NONCE,p=" + b"A" * 900, "Malformed proof in client-final-message."),
            (b"c=biws,NONCE,PROOF,x=1", "Garbage found at the end of client-final-message."),
        ],
    )
    def test_malformed(self, message, detail):
        end, nonce = self.after_first()
        error = refused(end.final, message.replace(b"NONCE", nonce).replace(b"PROOF", self.PROOF))
        assert (error.sqlstate, error.severity, error.message) == (
            "08P01",
            "FATAL",
            "malformed SCRAM message",
        )
        assert detail is None or error.detail == detail

    @pytest.mark.parametrize(
        "change", [lambda n: n[:-1], lambda n: n + b"A", lambda n: b"r=abc", lambda n: b"r="]
    )
    def test_other_nonce(self, change):
        end, nonce = self.after_first()
        error = refused(end.final, b"c=biws," + change(nonce) + b"," + self.PROOF)
        assert (error.sqlstate, error.message) == ("08P01", "invalid SCRAM response")

    @pytest.mark.parametrize(
        ("flag", "value"), [(b"n", b"eSws"), (b"y", b"biws"), (b"n", b""), (b"n", b"biwsAAAA")]
    )
    def test_other_header(self, flag, value):
        end, nonce = self.after_first(flag)
        error = refused(end.final, b"c=" + value + b"," + nonce + b"," + self.PROOF)
        assert error.sqlstate == "08P01"
        assert error.message == "unexpected SCRAM channel-binding attribute in client-final-message"

    @pytest.mark.parametrize("value", [b"biws", b"", b"cD10bHMtc2VydmVyLWVuZC1wb2ludCwsAAAA"])
    def test_other_certificate(self, value):
        end, nonce = self.after_first(b"p=tls-server-end-point", binding=BINDING)
        error = refused(end.final, b"c=" + value + b"," + nonce + b"," + self.PROOF)
        assert (error.sqlstate, error.message) == ("28000", "SCRAM channel binding check failed")


class TestServersMessages:
    """A client (the proxy) takes nothing from a server on trust."""

    def client(self) -> ScramClient:
        return ScramClient(nonce=b"abc")

    @pytest.mark.parametrize(
        "message",
        [
            b"",
            b"r=abcdef,s=AAAA,i=1\0",
            b"s=AAAA,i=1",
            b"r=abcdef",
            b"r=abcdef,s=AAAA",
            b"r=abcdef,i=1,s=AAAA",
            b"r=abc,s=AAAA,i=1",  # added nothing
            b"r=xbcdef,s=AAAA,i=1",
            b"r=abcdef,s=,i=1",
            b"r=abcdef,s=A,i=1",
            b"r=abcdef,s=\xff,i=1",
            b"r=abcdef,s=AAAA,i=",
            b"r=abcdef,s=AAAA,i=0",
            b"r=abcdef,s=AAAA,i=-1",
            b"r=abcdef,s=AAAA,i=1x",
            b"r=abcdef,s=AAAA,i=99999999",
            b"r=abcdef,s=AAAA,i=" + b"9" * 1500,
            b"r=abcdef,s=AAAA,i=1,x=2",
            b"m=ext,r=abcdef,s=AAAA,i=1",
        ],
    )
    def test_challenge(self, message):
        error = refused(self.client().challenge, message)
        assert (error.sqlstate, error.source.value, error.reason) == (
            "08006",
            "server",
            "server_login_failed",
        )

    @pytest.mark.parametrize(
        ("message", "detail"),
        [
            (b"", "malformed"),
            (b"v=", "signature is wrong"),
            (b"v=A", "not base64"),
            (b"v=AAAA", "signature is wrong"),
            (b"v=" + TestClientFinal.PROOF[2:], "signature is wrong"),
            (RFC_SERVER_FINAL + b",x=1", "garbage"),
            (b"x=1", "malformed"),
            (b"e=other-error", "refused SCRAM authentication: other-error."),
            (b"e=\x1b[31m\xff" + b"x" * 1000, "[31m"),
        ],
    )
    def test_final(self, message, detail):
        client = ScramClient(nonce=RFC_CLIENT_NONCE)
        client.challenge(RFC_SERVER_FIRST)
        client.final(rfc_keys())
        error = refused(client.verify, message)
        assert error.sqlstate == "08006"
        assert detail in (error.detail or "")
        assert "\x1b" not in (error.detail or "")
        assert len(error.detail or "") < 200


def test_headers_of_the_client():
    assert ScramClient(nonce=b"x").first() == b"n,,n=,r=x"
    assert ScramClient(nonce=b"x", binding=BINDING).first() == b"y,,n=,r=x"
    assert ScramClient(nonce=b"x", binding=BINDING, plus=True).first() == b"p=tls-server-end-point,,n=,r=x"


def test_password_is_prepared():
    salt = b"salt"
    assert derive_keys("I\u00adX".encode(), salt, 1) == derive_keys(b"IX", salt, 1)
    assert derive_keys(PASSWORD.encode(), salt, 1) != derive_keys(b"IX", salt, 1)


def test_limits_are_postgresqls():
    assert (scram.SALT_BYTES, scram.NONCE_BYTES, scram.DEFAULT_ITERATIONS) == (16, 18, 4096)
