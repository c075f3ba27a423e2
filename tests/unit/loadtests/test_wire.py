"""The lean client: messages, and both halves of SCRAM against the example of RFC 7677."""

import base64
import hashlib
import hmac
import socket
import struct
import threading

import pytest

from loadtests.wire import (
    READY_IDLE,
    Connection,
    Endpoint,
    Scram,
    WireError,
    error_text,
    make_verifier,
    message,
    read_row,
    startup_message,
)
from loadtests.work import copy_data

SERVER_FIRST = b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"


def test_a_message_counts_its_length_but_not_its_type():
    assert message(b"Q", b"SELECT 1\0") == b"Q\x00\x00\x00\x0dSELECT 1\0"


def test_the_startup_message():
    startup = startup_message("acme", "bench")
    assert struct.unpack_from("!II", startup) == (len(startup), 196608)
    assert startup.startswith(b"user\0acme\0database\0bench\0", 8)
    assert startup.endswith(b"\0\0")


def test_scram_as_in_the_example_of_rfc_7677():
    scram = Scram("pencil")
    scram._bare = "n=user,r=rOprNGfwEbeRWgbNEkqO"
    final = scram.final(SERVER_FIRST)
    assert final.endswith(b",p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=")
    scram.check(b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=")
    with pytest.raises(WireError):
        scram.check(b"v=" + base64.b64encode(b"x" * 32))


def test_a_verifier_holds_what_the_password_proves():
    algorithm, parameters, keys = make_verifier("pencil").split("$")
    iterations, salt = parameters.split(":")
    stored, _ = (base64.b64decode(key) for key in keys.split(":"))
    salted = hashlib.pbkdf2_hmac("sha256", b"pencil", base64.b64decode(salt), int(iterations))
    assert algorithm == "SCRAM-SHA-256"
    assert stored == hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()


def test_a_row_with_a_null():
    assert read_row(struct.pack("!HI2si", 2, 2, b"ab", -1)) == ["ab", None]


def test_an_error_says_its_sqlstate_and_message():
    assert error_text(b"SFATAL\0C28P01\0Mno\0\0") == "28P01: no"


def test_copy_data_is_whole_messages_of_about_the_wanted_size():
    chunks = list(copy_data(1_000_000, 1000))
    total = sum(map(len, chunks))
    assert 0.9e6 < total <= 1.0e6
    size = struct.unpack_from("!I", chunks[0], 1)[0]
    assert chunks[0][:1] == b"d"
    assert len(chunks[0]) % (size + 1) == 0
    assert size - 4 == 1000


class Script:
    """A server of one connection that reads a little and answers with given bytes."""

    def __init__(self, *answers: bytes) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.endpoint = Endpoint("127.0.0.1", self._listener.getsockname()[1], "acme", "pencil", "bench")
        self._answers = answers
        self._thread = threading.Thread(target=self._serve)

    def _serve(self) -> None:
        peer, _ = self._listener.accept()
        with peer:
            for answer in self._answers:
                peer.recv(65536)
                peer.sendall(answer)

    def __enter__(self) -> "Script":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.join()
        self._listener.close()


WELCOME = message(b"R", struct.pack("!I", 0)) + READY_IDLE


def test_a_result_is_drained_to_its_end_and_counted():
    rows = message(b"D", b"x" * 5000) * 100
    answer = rows + message(b"C", b"SELECT 100\0") + READY_IDLE
    with Script(WELCOME, answer, b"") as script, Connection(script.endpoint) as connection:
        assert connection.drain_query("SELECT") == len(answer)


def test_a_refused_statement_is_an_error():
    answer = message(b"E", b"SERROR\0C42501\0Mno\0\0") + READY_IDLE
    with Script(WELCOME, answer, answer, b"") as script, Connection(script.endpoint) as connection:
        with pytest.raises(WireError, match="42501"):
            connection.drain_query("SELECT")
        with pytest.raises(WireError, match="42501"):
            connection.query("SELECT")


def test_a_refused_login_is_an_error():
    with (
        Script(message(b"E", b"SFATAL\0C28P01\0Mno\0\0")) as script,
        pytest.raises(WireError, match="28P01: no"),
    ):
        Connection(script.endpoint)


def test_a_connection_that_ends_in_the_middle_is_an_error():
    with (
        Script(WELCOME, message(b"D", b"x" * 10)) as script,
        Connection(script.endpoint) as connection,
        pytest.raises(WireError, match="closed"),
    ):
        connection.drain_query("SELECT")
