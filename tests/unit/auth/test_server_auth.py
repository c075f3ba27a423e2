"""The proxy as client of a server: what it answers, and what it does not put up with."""

import struct
import threading

import pytest

from tenant_proxy.auth import verify
from tenant_proxy.auth.scram import ScramKeys, ScramServer, derive_keys
from tenant_proxy.auth.secret import Secret
from tenant_proxy.auth.server_auth import ServerAuth
from tests.unit.auth.conversation import (
    ITERATIONS,
    OK,
    PASSWORD,
    USER,
    VERIFIER,
    asks,
    body,
    refused,
    verifier_secret,
)

BINDING = b"e" * 32
BOTH = asks(10, b"SCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0")
PLAIN_ONLY = asks(10, b"SCRAM-SHA-256\0\0")
PLUS_ONLY = asks(10, b"SCRAM-SHA-256-PLUS\0\0")
KEYS = derive_keys(PASSWORD.encode(), VERIFIER.salt, ITERATIONS)


def initial_response(message: bytes | None) -> tuple[bytes, bytes]:
    """Mechanism and client-first-message."""
    mechanism, _, rest = body(message, b"p").partition(b"\0")
    assert struct.unpack_from("!i", rest)[0] == len(rest) - 4
    return mechanism, rest[4:]


def log_in(auth: ServerAuth, mechanisms: bytes = PLAIN_ONLY, binding: bytes | None = None) -> None:
    mechanism, first = initial_response(auth.on_auth(mechanisms))
    server = ScramServer(
        VERIFIER, binding=binding if mechanism.endswith(b"PLUS") else None, plus_offered=bool(binding)
    )
    answer = auth.on_auth(asks(11, server.first(first)))
    final = server.final(body(answer, b"p"))
    assert final is not None
    assert auth.on_auth(asks(12, final)) is None
    assert not auth.done
    assert auth.on_auth(OK) is None
    assert auth.done


def test_nothing_asked():
    auth = ServerAuth(USER)
    assert auth.on_auth(OK) is None
    assert auth.done
    assert auth.method == "none"


def test_cleartext():
    auth = ServerAuth(USER, password=PASSWORD)
    assert (
        auth.on_auth(asks(3))
        == b"p" + struct.pack("!i", 5 + len(PASSWORD.encode())) + PASSWORD.encode() + b"\0"
    )
    assert not auth.done
    auth.on_auth(OK)
    assert auth.done


@pytest.mark.parametrize(
    "secret", [PASSWORD, Secret.parse(verify.md5_hash(PASSWORD.encode(), USER).decode())]
)
def test_md5(secret):
    auth = ServerAuth(USER, password=secret)
    answer = body(auth.on_auth(asks(5, b"salt")), b"p")
    assert answer.endswith(b"\0")
    assert verify.check_md5(answer[:-1], b"salt", Secret.plain(PASSWORD), USER)
    auth.on_auth(OK)
    assert auth.done


@pytest.mark.parametrize(
    "have",
    [{"password": PASSWORD}, {"password": Secret.plain(PASSWORD)}, {"keys": KEYS}],
    ids=["text", "secret", "keys"],
)
def test_scram(have):
    auth = ServerAuth(USER, **have)
    log_in(auth)
    assert auth.method == "scram-sha-256"


class TestChannelBinding:
    def chosen(self, mechanisms: bytes, binding: bytes | None) -> tuple[bytes, bytes]:
        return initial_response(
            ServerAuth(USER, password=PASSWORD, channel_binding=binding).on_auth(mechanisms)
        )

    def test_plus_is_preferred(self):
        assert self.chosen(BOTH, BINDING)[0] == b"SCRAM-SHA-256-PLUS"
        log_in(ServerAuth(USER, password=PASSWORD, channel_binding=BINDING), BOTH, BINDING)

    def test_not_offered(self):
        mechanism, first = self.chosen(PLAIN_ONLY, BINDING)
        assert mechanism == b"SCRAM-SHA-256"
        assert first.startswith(b"y,,"), "a server that did offer it must learn that somebody took it away"

    def test_offered_but_not_possible(self):
        """As with an Ed25519 certificate: `y` would wrongly accuse the server."""
        mechanism, first = self.chosen(BOTH, None)
        assert mechanism == b"SCRAM-SHA-256"
        assert first.startswith(b"n,,")
        assert refused(ServerAuth(USER, password=PASSWORD).on_auth, PLUS_ONLY).reason == "server_login_failed"

    def test_required(self):
        log_in(
            ServerAuth(USER, password=PASSWORD, channel_binding=BINDING, require_channel_binding=True),
            BOTH,
            BINDING,
        )
        for mechanisms, binding in ((PLAIN_ONLY, BINDING), (BOTH, None), (OK, BINDING), (asks(3), BINDING)):
            auth = ServerAuth(USER, password=PASSWORD, channel_binding=binding, require_channel_binding=True)
            assert "hannel binding is required" in (refused(auth.on_auth, mechanisms).detail or "")


class TestRequire:
    @pytest.mark.parametrize(
        ("allowed", "request_", "method"),
        [
            ({"scram-sha-256"}, asks(3), "password"),
            ({"scram-sha-256"}, asks(5, b"salt"), "md5"),
            ({"scram-sha-256", "md5"}, OK, "none"),
            ({"none"}, PLAIN_ONLY, "scram-sha-256"),
        ],
    )
    def test_refused(self, allowed, request_, method):
        error = refused(ServerAuth(USER, password=PASSWORD, require=allowed).on_auth, request_)
        assert f'"{method}"' in (error.detail or "")

    def test_allowed(self):
        log_in(ServerAuth(USER, password=PASSWORD, require={"scram-sha-256"}))
        ServerAuth(USER, password=PASSWORD, require={"password"}).on_auth(asks(3))

    def test_unknown(self):
        with pytest.raises(ValueError, match="require"):
            ServerAuth(USER, require={"gss"})


class TestServerMustProveItself:
    def at_final(self) -> tuple[ServerAuth, bytes]:
        auth = ServerAuth(USER, password=PASSWORD)
        server = ScramServer(VERIFIER)
        _, first = initial_response(auth.on_auth(PLAIN_ONLY))
        final = server.final(body(auth.on_auth(asks(11, server.first(first))), b"p"))
        assert final is not None
        return auth, final

    def test_ok_instead_of_the_signature(self):
        auth, _ = self.at_final()
        assert "out of turn" in (refused(auth.on_auth, OK).detail or "")
        assert not auth.done

    def test_ok_in_the_middle(self):
        auth = ServerAuth(USER, password=PASSWORD)
        auth.on_auth(PLAIN_ONLY)
        refused(auth.on_auth, OK)
        assert not auth.done

    def test_another_servers_signature(self):
        auth, final = self.at_final()
        assert "does not know the password" in (
            refused(auth.on_auth, asks(12, final[:-5] + b"AAAA=")).detail or ""
        )
        assert not auth.done

    def test_another_question_in_the_middle(self):
        """Not even a signature later makes up for having asked for the password in the clear."""
        for request in (asks(3), asks(5, b"salt"), PLAIN_ONLY):
            auth, _ = self.at_final()
            assert "out of turn" in (refused(auth.on_auth, request).detail or "")


@pytest.mark.parametrize(
    ("have", "request_", "detail"),
    [
        ({}, asks(3), "no password"),
        ({"password": ""}, asks(3), "no password"),
        ({}, asks(5, b"salt"), "no password"),
        ({}, PLAIN_ONLY, "no password"),
        ({"keys": KEYS}, asks(3), "only the SCRAM keys"),
        ({"keys": KEYS}, asks(5, b"salt"), "only the SCRAM keys"),
        ({"password": verifier_secret()}, asks(3), "only a SCRAM verifier"),
        ({"password": verifier_secret()}, asks(5, b"salt"), "only a SCRAM verifier"),
        ({"password": verifier_secret()}, PLAIN_ONLY, "only a SCRAM verifier"),
        ({"password": Secret.parse("md5" + "0" * 32)}, asks(3), "only an md5 hash"),
        ({"password": Secret.parse("md5" + "0" * 32)}, PLAIN_ONLY, "only an md5 hash"),
    ],
)
def test_no_answer(have, request_, detail):
    error = refused(ServerAuth(USER, **have).on_auth, request_)
    assert (error.sqlstate, error.source.value) == ("08006", "server")
    assert detail in (error.detail or "")


def test_keys_fit_one_verifier_only():
    keys = ScramKeys(KEYS.client_key, KEYS.server_key, b"another salt", ITERATIONS)
    auth = ServerAuth(USER, keys=keys)
    _, first = initial_response(auth.on_auth(PLAIN_ONLY))
    error = refused(auth.on_auth, asks(11, ScramServer(VERIFIER).first(first)))
    assert "is not the one that the proxy has" in (error.detail or "")


def test_a_password_is_better_than_keys():
    keys = ScramKeys(KEYS.client_key, KEYS.server_key, b"another salt", ITERATIONS)
    log_in(ServerAuth(USER, password=PASSWORD, keys=keys))


def test_keys_where_the_secret_is_a_verifier():
    log_in(ServerAuth(USER, password=verifier_secret(), keys=KEYS))


@pytest.mark.parametrize(
    "request_",
    [
        b"",
        b"\0\0\0",
        b"\0" * 2001,
        asks(0, b"x"),
        asks(3, b"x"),
        asks(5, b""),
        asks(5, b"salty"),
        asks(10, b""),
        asks(10, b"\0"),
        asks(10, b"SCRAM-SHA-256"),
        asks(10, b"SCRAM-SHA-256\0"),
        asks(10, b"SCRAM-SHA-1\0OAUTHBEARER\0\0"),
        asks(10, b"SCRAM-SHA-256\0\0x"),
        asks(11, b"r=a"),
        asks(12, b"v=a"),
        asks(1),
        asks(2),
        asks(6),
        asks(7),
        asks(8),
        asks(9),
        asks(13),
        asks(-1),
        asks(2**31 - 1),
    ],
)
def test_malformed_first(request_):
    auth = ServerAuth(USER, password=PASSWORD)
    error = refused(auth.on_auth, request_)
    assert (error.sqlstate, error.source.value, error.severity) == ("08006", "server", "FATAL")
    assert not auth.done


@pytest.mark.parametrize("code", [2, 6, 7, 9])
def test_unsupported_is_named(code):
    detail = refused(ServerAuth(USER).on_auth, asks(code)).detail or ""
    assert detail.endswith("authentication, which the proxy does not support.")


def test_after_the_end():
    auth = ServerAuth(USER)
    auth.on_auth(OK)
    assert "out of turn" in (refused(auth.on_auth, OK).detail or "")


class TestDeferred:
    def test_pbkdf2_in_a_thread(self):
        auth = ServerAuth(USER, password=PASSWORD, defer=True)
        _, first = initial_response(auth.on_auth(PLAIN_ONLY))
        server = ScramServer(VERIFIER)
        assert auth.on_auth(asks(11, server.first(first))) is None
        assert auth.deferred is not None
        assert "out of turn" in (refused(auth.on_auth, OK).detail or "")
        thread = threading.Thread(target=auth.deferred)
        thread.start()
        thread.join()
        final = server.final(body(auth.resume(), b"p"))
        assert final is not None
        auth.on_auth(asks(12, final))
        auth.on_auth(OK)
        assert auth.done

    def test_not_when_it_is_cached(self):
        secret = Secret.plain(PASSWORD)
        log_in(ServerAuth(USER, password=secret))
        log_in(ServerAuth(USER, password=secret, defer=True))


def test_no_error_shows_the_password():
    for request in (asks(0, b"x"), asks(7), asks(5, b""), asks(10, b"x")):
        error = refused(ServerAuth(USER, password=PASSWORD).on_auth, request)
        assert PASSWORD not in f"{error} {error.detail} {error.hint}"
