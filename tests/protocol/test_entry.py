"""The compiled login against the one in Python: the same bytes to the client, the same figures.

Two workers with one configuration, one of them with its compiled login off, are told the same; what is
random in the answers is masked.
"""

from __future__ import annotations

import base64
import hmac
import struct
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tenant_proxy.auth import scram
from tenant_proxy.config.load import load_text
from tenant_proxy.relay.core import Reason
from tenant_proxy.wire import messages
from tests.protocol.entry_rig import (
    CLIENT_NONCE,
    CONFIG,
    KEYS,
    PASSWORD,
    SALT,
    USUAL,
    VERIFIER,
    OneWorker,
    conversation,
    final_message,
    first_message,
    same,
    startup,
    warm_up,
)
from tests.protocol.rig import IDLE, TERMINATE, message, split


@pytest.fixture(scope="module")
def both() -> Iterator[tuple[OneWorker, OneWorker]]:
    pair = OneWorker(compiled=True), OneWorker(compiled=False)
    for one in pair:
        warm_up(one)
    yield pair
    for one in pair:
        one.close()


# --- the usual way ---------------------------------------------------------------------


def test_the_usual_login_is_done_without_python(both):
    compiled, python = both
    before = compiled.entered()
    hooks_made = compiled.worker.logins.succeeded
    said = same(both, conversation(USUAL, first_message(), final_message))
    assert [kind for kind, _ in said[2]] == ["R", "R", "S", "S", "K", "Z"]
    assert (compiled.entered(), compiled.worker.logins.succeeded) == (before + 1, hooks_made)
    assert python.entered() == 0


def test_the_server_proves_itself(both):
    for one in both:
        end = one.client(USUAL)
        end.take()
        end.send(first_message())
        challenge = end.take()
        proof = final_message(challenge)
        end.send(proof)
        (_, final), *_ = split(end.take())
        [(_, body)] = split(challenge)
        signed = b"n=,r=%b,%b,%b" % (CLIENT_NONCE.encode(), body[4:], proof[5:].rpartition(b",p=")[0])
        assert final[4:] == b"v=" + base64.b64encode(hmac.digest(KEYS.server_key, signed, "sha256"))


def test_a_query_may_come_with_the_proof(both):
    """A client that does not wait for ReadyForQuery is answered all the same."""
    talk = conversation(USUAL, first_message(), lambda said: final_message(said) + message("S"))
    assert same(both, talk)[2][-2:] == [("Z", b"I"), ("Z", b"I")]


@pytest.mark.parametrize(
    "packet",
    [
        startup(2, user="acme_app"),
        startup(user="both.beta", database="x"),
        startup(user="both", database="beta"),
        startup(user="acme_app", database="never seen before"),
        startup(user="both", database="never seen before"),
        startup(user="acme_app", options="-c work_mem=64kB"),
        startup(user="acme_app", extra_float_digits="nonsense"),
        startup(user="acme_app", role="postgres"),
        startup(user="acme_app", replication="true"),
        startup(user="acme_app", more={"_pq_.x": "1"}),
        startup(9, user="acme_app"),
        startup(user="acme_app", database="tenant_proxy"),
    ],
)
def test_packets_of_all_kinds(both, packet):
    for _ in range(3):
        same(both, conversation(packet, first_message(), final_message))


@pytest.mark.parametrize("user", ["nobody", "nobody.acme", "nobody.nowhere", "x.y.z", ".", "a."])
def test_who_can_not_log_in_is_asked_and_refused(both, user):
    said = same(both, conversation(startup(user=user, database="app"), first_message(), final_message))
    assert [kind for kind, _ in said[0] + said[1] + said[2]] == ["R", "R", "E"]
    assert b"28P01" in said[2][0][1]


def test_a_name_has_one_salt_on_both_sides(both):
    salts = {
        split(answer)[0][1].partition(b",")[2]
        for one in both
        for user in ("nobody", "nobody.acme")
        for answer in [answer_to_first(one, startup(user=user))]
    }
    assert len(salts) == 1


def answer_to_first(one: OneWorker, packet: bytes) -> bytes:
    end = one.client(packet)
    end.take()
    end.send(first_message())
    return end.take()


# --- the unusual ----------------------------------------------------------------------------


WRONG = scram.derive_keys(b"wrong", SALT, 4096)


@pytest.mark.parametrize(
    "final",
    [
        lambda said: final_message(said, WRONG),
        lambda said: final_message(said, change=lambda text: text.replace(b"c=biws", b"c=eSws")),
        lambda said: final_message(said, change=lambda text: text[:12] + b"x" + text[13:]),
        lambda said: final_message(said, change=lambda text: text.replace(b",p=", b",x=1,p=")),
        lambda said: final_message(said, change=lambda text: text + b","),
        lambda said: final_message(said, change=lambda text: text + b",x=1"),
        lambda said: final_message(said, change=lambda text: text[:-1]),
        lambda said: final_message(said, change=lambda text: text[:-2] + b"//"),
        lambda said: final_message(said, change=lambda text: text[:-1] + b"\0"),
        lambda said: final_message(said, change=lambda text: b""),
        lambda said: first_message(),
        lambda said: message("p", b"x" * 70_000),
        lambda said: message("Q", b"SELECT 1\0"),
        lambda said: TERMINATE,
        lambda said: b"p\0\0\0\3",
    ],
)
def test_final_messages_that_are_not_expected(both, final):
    same(both, conversation(USUAL, first_message(), final, message("S")))
    said = same(both, conversation(USUAL, first_message(), final_message))
    assert said[2][-1] == ("Z", b"I"), "others log in after it"


@pytest.mark.parametrize(
    "first",
    [
        first_message("y,,n=,r=abc"),
        first_message("n,,n=somebody,r=abc"),
        first_message("n,,n=some=2Cbody,r=abc"),
        first_message("n,a=x,n=,r=abc"),
        first_message("n,,m=x,n=,r=abc"),
        first_message("n,,n=,r="),
        first_message("n,,n=,r=abc,x=1"),
        first_message("n,,n=,r=a\x7fc"),
        first_message("n,,n=,r=a\0c"),
        first_message("n,,n=\0,r=abc"),
        first_message("n,,n="),
        first_message("n,,n=,"),
        first_message("n,,n=,r"),
        first_message("n,,n=,x=abc"),
        first_message("n,,n=,r=" + "a" * 222),
        first_message("n,,n=,r=" + "a" * 400),
        first_message("n,,n=,r=" + "a" * 2000),
        first_message("p=tls-server-end-point,,n=,r=abc"),
        first_message(mechanism="SCRAM-SHA-256-PLUS"),
        first_message(mechanism="SCRAM-SHA-512"),
        first_message(mechanism=""),
        message("p", b"SCRAM-SHA-256\0\xff\xff\xff\xff"),
        message("p", b"SCRAM-SHA-256\0\0\0\0\x09n,,n=,r=abc"),
        message("p", b"SCRAM-SHA-256\0\0\0\1\x0bn,,n=,r=abc"),
        message("p", b"SCRAM-SHA-256\0\0\0\0\x0an,,n=,r=abc"),
        message("p", b"SCRAM-SHA-256\0"),
        message("p", b""),
    ],
)
def test_first_messages_of_all_kinds(both, first):
    def answer(said: bytes) -> bytes:
        if said[:1] != b"R":
            return message("S")
        text = first[5:].partition(b"\0")[2][4:].decode()
        return final_message(said, bare=text.partition(",,")[2])

    same(both, conversation(USUAL, first, answer))
    same(both, conversation(startup(user="nobody"), first, answer))


LETTERS = st.sampled_from(b"\0\x01\x7f\xff,=nrcpyai\x20Az/+0")


@st.composite
def edited(draw: st.DrawFn, text: bytes) -> bytes:
    """A text with a few bytes other than they should be."""
    data = bytearray(text)
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(data)))
        match draw(st.sampled_from(("put", "cut", "set"))):
            case "put":
                data[at:at] = bytes(draw(st.lists(LETTERS, min_size=1, max_size=4)))
            case "cut":
                del data[at : at + draw(st.integers(1, 4))]
            case _:
                data[at : at + 1] = bytes([draw(LETTERS)])
    return bytes(data)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_both_say_the_same_whatever_comes(both, data):
    user = data.draw(st.sampled_from(("acme_app", "both.beta", "nobody")))
    body = data.draw(edited(startup(user=user, database="app")[4:]))
    packet = struct.pack("!I", len(body) + 4) + body
    if len(body) >= 4 and body[:4] == struct.pack("!I", messages.CANCEL_REQUEST):
        return
    first = data.draw(edited(first_message()[5:]))
    at, cut = data.draw(st.integers(0, 108)), data.draw(st.integers(0, 2))
    put = bytes(data.draw(st.lists(LETTERS, max_size=2)))

    def final(said: bytes) -> bytes:
        if said[:5] != b"R\0\0\0\x5c":
            return message("p", put)
        # the same edit of two texts that differ in what is random
        text = final_message(said)[5:]
        bare = first[18:].partition(b",,")[2]
        if bare != f"n=,r={CLIENT_NONCE}".encode():
            return message("p", text)
        return message("p", text[:at] + put + text[at + cut :])

    same(both, conversation(packet, message("p", first), final))


# --- limits, reloads, ends -----------------------------------------------------------------------


def test_places_are_counted_and_given_back(both):
    packet = startup(user="few")
    for one in both:
        warm_up(one, packet)
        ends = []
        for _ in range(5):
            end = one.client(packet)
            end.take()
            end.send(first_message())
            end.send(final_message(end.take()))
            assert end.take().endswith(IDLE)
            ends.append(end)
        assert one.used("clients of user:few") == 5
    said = same(both, conversation(packet, first_message(), final_message))
    assert b"53300" in said[2][0][1]
    for one in both:
        for row in one.worker.engine.client_rows():
            one.worker.engine.client_end(row[0], Reason.KILLED)
        assert one.used("clients of user:few") == one.used("clients") == 0


def test_a_session_is_made_when_somebody_asks(both):
    compiled = both[0]
    end = compiled.client(USUAL)
    end.take()
    end.send(first_message())
    end.send(final_message(end.take()))
    engine = compiled.worker.engine
    [row] = [row for row in engine.client_rows() if row[0] == end.link]
    assert (row[1].tenant, row[1].user, row[1].application_name) == ("acme", "acme_app", "psql")
    assert row[1] is engine.session(end.link)
    before = compiled.used("clients")
    end.send(TERMINATE)
    assert compiled.used("clients") == before - 1


@pytest.mark.parametrize(("password", "answer"), [(PASSWORD, IDLE), ("changed", b"28P01")])
def test_a_reload_between_two_messages(password, answer):
    """What was begun compiled is ended by the new configuration."""
    compiled = OneWorker(compiled=True)
    warm_up(compiled)
    end = compiled.client(USUAL)
    end.take()
    end.send(first_message())
    challenge = end.take()
    keys = scram.derive_keys(password.encode(), SALT, 4096)
    config = load_text(CONFIG.replace(VERIFIER, str(keys.verifier())), environ={}).config
    compiled.worker.reload(config, compiled.indexes)
    end.send(final_message(challenge))
    assert answer in end.take()
    assert compiled.worker.engine.open_counts()[1] == 0
    compiled.close()


def test_an_unknown_login_keeps_its_salt_over_a_reload():
    compiled = OneWorker(compiled=True)
    before = split(answer_to_first(compiled, startup(user="nobody")))[0][1].partition(b",")[2]
    end = compiled.client(startup(user="nobody"))
    end.take()
    compiled.worker.reload(load_text(CONFIG, environ={}).config, compiled.indexes)
    end.send(first_message())
    assert split(end.take())[0][1].partition(b",")[2] == before
    compiled.close()


@pytest.mark.parametrize(
    "rules",
    [
        "[{type: local, user: [admin], method: trust}, {type: local, method: scram-sha-256}]",
        "[{type: local, method: md5}]",
        "[{type: local, database: [app], method: scram-sha-256}]",
        "[]",
    ],
)
def test_rules_that_look_at_names_are_python_s(rules):
    worker = OneWorker(compiled=True, text=CONFIG + f"auth: {{rules: {rules}}}\n")
    warm_up_quietly(worker)
    assert worker.entered() == 0
    worker.close()


HERE = "{type: host, address: 127.0.0.0/30, method: scram-sha-256}"


@pytest.mark.parametrize(
    ("rules", "source", "listen", "compiled"),
    [
        (f"[{HERE}, {{type: host, method: md5}}]", "127.0.0.1", "127.0.0.1", True),
        (f"[{HERE}, {{type: host, method: md5}}]", "127.0.0.5", "127.0.0.1", False),
        (f"[{HERE}]", "127.0.0.5", "127.0.0.1", False),
        (f"[{HERE}]", "127.0.0.1", "::", True),
        (f"[{HERE}]", "::1", "::", False),
        ("[{type: host, address: '::/64', method: scram-sha-256}]", "::1", "::", True),
        ("[{type: host, address: '::/64', method: scram-sha-256}]", "127.0.0.1", "::", False),
        ("[{type: host, address: samehost, method: scram-sha-256}]", "127.0.0.1", "127.0.0.1", False),
        (f"[{{type: hostssl, method: trust}}, {HERE}]", "127.0.0.1", "127.0.0.1", True),
        (f"[{{type: host, user: [admin], method: trust}}, {HERE}]", "127.0.0.1", "127.0.0.1", False),
        (
            f"[{{type: host, user: [admin], address: 10.0.0.0/8, method: trust}}, {HERE}]",
            "127.0.0.1",
            "127.0.0.1",
            True,
        ),
        (
            "[" + "{type: host, address: 10.0.0.0/8, method: reject}, " * 40 + f"{HERE}]",
            "127.0.0.1",
            "127.0.0.1",
            False,
        ),
    ],
)
def test_rules_by_address(rules, source, listen, compiled):
    """Compiled where the first rule for the client's address asks everybody for SCRAM."""
    worker = OneWorker(compiled=True, text=CONFIG + f"auth: {{rules: {rules}}}\n")
    for _ in range(4):
        end = worker.tcp_client(USUAL, source, listen=listen)
        if end.take()[:5] != b"R\0\0\0\x17":
            continue
        end.send(first_message())
        end.send(final_message(end.take()))
        worker.worker.engine.client_end(end.link, Reason.KILLED)
    assert (worker.entered() > 0) == compiled
    worker.close()


def warm_up_quietly(one: OneWorker) -> None:
    for _ in range(3):
        end = one.client(USUAL)
        if end.take()[:5] == b"R\0\0\0\x17":
            end.send(first_message())
            end.send(final_message(end.take()))
            end.take()


def test_a_draining_worker_lets_nobody_in():
    one = OneWorker(compiled=True)
    warm_up(one)
    one.worker.draining = True
    one.worker.engine.entry_stop()
    assert b"57P03" in one.client(USUAL).take()
    one.close()


def test_what_another_worker_serves_is_handed_over():
    """The compiled login of a worker that is not the tenant's home leaves the packet alone."""
    homes = [OneWorker(compiled=True, slot=slot, workers=2) for slot in range(2)]
    served = []
    for one in homes:
        end = one.client(USUAL)
        served.append(end.take() != b"")
    assert sorted(served) == [False, True]
    for one in homes:
        one.close()


def test_nonces_and_keys_are_never_the_same(both):
    compiled = both[0]
    seen = set()
    for _ in range(60):
        end = compiled.client(USUAL)
        end.take()
        end.send(first_message())
        challenge = end.take()
        seen.add(challenge[15:63].partition(b",")[0])
        end.send(final_message(challenge))
        seen.add(next(body for kind, body in split(end.take()) if kind == "K"))
        end.send(TERMINATE)
    assert len(seen) == 120
    nonces = [one for one in seen if len(one) > 12]
    assert all(
        set(nonce[-24:]) <= set(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/")
        for nonce in nonces
    )


def test_a_proof_is_of_no_use_a_second_time(both):
    compiled = both[0]
    end = compiled.client(USUAL)
    end.take()
    end.send(first_message())
    proof = final_message(end.take())
    end.send(proof)
    assert end.take().endswith(IDLE)
    again = compiled.client(USUAL)
    again.take()
    again.send(first_message())
    again.take()
    again.send(proof)
    assert b"08P01" in again.take()
