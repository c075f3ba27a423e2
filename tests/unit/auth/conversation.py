"""ClientAuth and ServerAuth against each other, and the messages that tests write by hand."""

from __future__ import annotations

import struct
from typing import Any

import pytest

from tenant_proxy.auth.client_auth import ClientAuth
from tenant_proxy.auth.scram import MECHANISM, MECHANISM_PLUS, ScramClient, build_verifier, derive_keys
from tenant_proxy.auth.secret import Secret
from tenant_proxy.auth.server_auth import ServerAuth
from tenant_proxy.errors import ProxyError

USER = "alice"
PASSWORD = "wonder land, Ünïcode"
MOCK_KEY = b"k" * 32
#: few rounds: the tests are not about PBKDF2
ITERATIONS = 16

VERIFIER = build_verifier(PASSWORD, salt=b"0123456789abcdef", iterations=ITERATIONS)
OK = struct.pack("!i", 0)


def client_auth(
    method: str = "scram-sha-256", secret: Secret | None = None, user: str = USER, **more: Any
) -> ClientAuth:
    """The proxy's side of a login."""
    options: dict[str, Any] = {"mock_key": MOCK_KEY, "mock_iterations": ITERATIONS} | more
    return ClientAuth(method, user, secret, **options)


def verifier_secret() -> Secret:
    return Secret.parse_verifier(str(VERIFIER))


def body(message: bytes | None, kind: bytes) -> bytes:
    """Of a complete message, whose frame is checked."""
    assert message is not None
    assert message[:1] == kind
    assert struct.unpack_from("!i", message, 1)[0] == len(message) - 1
    return message[5:]


def authentication(message: bytes) -> tuple[int, bytes]:
    """Code and data of an AuthenticationXxx message."""
    content = body(message, b"R")
    return struct.unpack_from("!i", content)[0], content[4:]


def asks(code: int, data: bytes = b"") -> bytes:
    """Body of an 'R' message."""
    return struct.pack("!i", code) + data


def converse(client_side: ServerAuth, proxy_side: ClientAuth) -> list[bytes]:
    """Lets a client (a `ServerAuth`, which speaks as one) log in; returns all messages, in order."""
    said = []
    message = proxy_side.start()
    while message:
        said.append(message)
        answer = client_side.on_auth(body(message, b"R"))
        if answer is None:
            break
        said.append(answer)
        message = proxy_side.on_message(body(answer, b"p"))
    assert proxy_side.done
    client_side.on_auth(OK)
    assert client_side.done
    return said


def is_done(side: ClientAuth | ServerAuth) -> bool:
    """For where it is looked at before and after (a type checker thinks that it can't change)."""
    return side.done


def count_calls(monkeypatch, module, name: str) -> list[tuple]:
    """Arguments of the calls of a function from now on."""
    calls: list[tuple] = []
    original = getattr(module, name)

    def counted(*args):
        calls.append(args)
        return original(*args)

    monkeypatch.setattr(module, name, counted)
    return calls


def refused(call, *args) -> ProxyError:
    """The error of a call that must fail."""
    with pytest.raises(ProxyError) as caught:
        call(*args)
    return caught.value


# --- by hand ---------------------------------------------------------------------


def initial(message: bytes | None, mechanism: bytes = MECHANISM, size: int | None = None) -> bytes:
    """Body of SASLInitialResponse."""
    if message is None:
        return mechanism + b"\0" + struct.pack("!i", -1)
    return mechanism + b"\0" + struct.pack("!i", len(message) if size is None else size) + message


class ScriptedClient:
    """A SCRAM client that stops where a test wants to send something else."""

    def __init__(self, auth: ClientAuth, password: str = PASSWORD, **scram) -> None:
        self.auth = auth
        self.password = password
        self.scram = ScramClient(**scram)
        self.mechanism = MECHANISM_PLUS if scram.get("plus") else MECHANISM

    def first(self) -> bytes:
        """Sends client-first-message, returns server-first-message."""
        self.auth.start()
        code, self.server_first = authentication(
            self.auth.on_message(initial(self.scram.first(), self.mechanism))
        )
        assert code == 11
        return self.server_first

    def final(self) -> bytes:
        """client-final-message, to be sent or spoilt."""
        salt, iterations = self.scram.challenge(self.server_first)
        return self.scram.final(derive_keys(self.password.encode(), salt, iterations))
