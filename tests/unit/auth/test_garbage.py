"""Whatever a peer sends, there is an answer or a ProxyError, and nobody gets in."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tenant_proxy.auth import rules, scram
from tenant_proxy.auth.saslprep import prepare_password
from tenant_proxy.auth.scram import derive_keys
from tenant_proxy.auth.secret import Secret
from tenant_proxy.auth.server_auth import ServerAuth
from tenant_proxy.auth.tls import TlsInfo
from tenant_proxy.config.schema import AuthRule
from tenant_proxy.errors import ProxyError, Source
from tests.unit.auth.conversation import (
    OK,
    PASSWORD,
    USER,
    VERIFIER,
    ScriptedClient,
    asks,
    client_auth,
    initial,
    verifier_secret,
)

END_POINT = b"e" * 32


def is_clients_fault(error: ProxyError) -> bool:
    return (
        error.sqlstate in {"08P01", "28P01", "28000", "0A000"} and error.fatal and error.to_message() != b""
    )


def is_servers_fault(error: ProxyError) -> bool:
    return error.sqlstate == "08006" and error.source is Source.SERVER and error.to_message() != b""


def outcome(call, *args) -> ProxyError | None:
    """None if it went well; any other exception is a failure of the test."""
    try:
        call(*args)
    except ProxyError as error:
        return error
    return None


#: bytes of which some look like SCRAM
scramish = st.lists(
    st.sampled_from(
        [b"n", b"y", b"p=", b"r=", b"c=", b"s=", b"i=", b"v=", b"e=", b"m=", b"a=", b",", b"=", b"\0"]
    )
    | st.sampled_from(
        [b"tls-server-end-point", b"biws", b"AAAA", b"4096", b"SCRAM-SHA-256", b"-PLUS", b"md5"]
    )
    | st.binary(max_size=8),
    max_size=12,
).map(b"".join)
garbage = st.binary(max_size=200) | scramish
bodies = garbage | garbage.map(initial) | garbage.map(lambda data: data + b"\0")
tls = st.sampled_from([None, TlsInfo(), TlsInfo(END_POINT), TlsInfo(END_POINT, cert_cn="bob")])
secrets = st.sampled_from([None, verifier_secret(), Secret.plain(PASSWORD), Secret.parse("md5" + "0" * 32)])


def spoilt(message: bytes) -> st.SearchStrategy[bytes]:
    """Something a few bytes away from a good message."""
    places = st.integers(0, len(message))
    return st.one_of(
        st.builds(
            lambda at, data: message[:at] + data + message[at:], places, st.binary(min_size=1, max_size=4)
        ),
        st.builds(lambda a, b: message[: min(a, b)] + message[max(a, b) :], places, places),
        st.builds(
            lambda at, bit: (
                message[:at] + bytes(c ^ (1 << bit) for c in message[at : at + 1]) + message[at + 1 :]
            ),
            places,
            st.integers(0, 7),
        ),
    )


@given(
    method=st.sampled_from(["scram-sha-256", "md5", "password", "cert", "trust", "reject"]),
    secret=secrets,
    tls=tls,
    messages=st.lists(bodies, max_size=4),
)
def test_client_sends_garbage(method, secret, tls, messages):
    auth = client_auth(method, secret, tls=tls)
    error = outcome(auth.start)
    for message in messages:
        error = outcome(auth.on_message, message) or error
    assert error is None or is_clients_fault(error)
    assert not auth.done or method == "trust"
    assert auth.keys is None


@given(data=st.data(), secret=secrets, tls=tls)
def test_client_spoils_the_first_message(data, secret, tls):
    client = ScriptedClient(auth := client_auth(secret=secret, tls=tls))
    auth.start()
    good = initial(client.scram.first(), client.mechanism)
    error = outcome(auth.on_message, data.draw(spoilt(good)))
    assert error is None or is_clients_fault(error)
    assert not auth.done


@given(data=st.data(), plus=st.booleans())
def test_client_spoils_the_final_message(data, plus):
    auth = client_auth(secret=verifier_secret(), tls=TlsInfo(END_POINT) if plus else None)
    client = ScriptedClient(auth, binding=END_POINT if plus else None, plus=plus)
    client.first()
    good = client.final()
    bad = data.draw(spoilt(good))
    error = outcome(auth.on_message, bad)
    assert auth.done if error is None else is_clients_fault(error)
    # a comma behind the proof, and base64's unused bits, are the only things that may differ
    harmless = bad.rstrip(b",")[:-2] == good[:-2] and len(bad.rstrip(b",")) == len(good)
    assert not auth.done or harmless


@given(
    messages=st.lists(
        st.builds(
            asks,
            st.sampled_from([0, 2, 3, 5, 7, 8, 10, 11, 12, -1]) | st.integers(-(2**31), 2**31 - 1),
            garbage,
        )
        | garbage
        | st.sampled_from(
            [asks(10, b"SCRAM-SHA-256\0\0"), asks(10, b"SCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0")]
        ),
        max_size=5,
    ),
    binding=st.sampled_from([None, END_POINT]),
    have=st.sampled_from([{}, {"password": PASSWORD}, {"password": Secret.parse("md5" + "0" * 32)}]),
)
@example(
    messages=[asks(10, b"SCRAM-SHA-256\0\0"), asks(11, b"r=,s=AAAA,i=1")],
    binding=None,
    have={"password": "x"},
)
def test_server_sends_garbage(messages, binding, have):
    auth = ServerAuth(USER, channel_binding=binding, **have)
    for message in messages:
        was_done = auth.done
        error = outcome(auth.on_auth, message)
        assert error is None or is_servers_fault(error)
        assert not auth.done or was_done or message == OK
    # nobody knows the keys here, so nobody gets through SCRAM
    assert not (auth.done and auth.method == "scram-sha-256")


@given(data=st.data())
def test_server_spoils_the_challenge(data):
    client = scram.ScramClient(nonce=b"abc")
    good = scram.ScramServer(VERIFIER).first(client.first())
    error = outcome(client.challenge, data.draw(spoilt(good)))
    assert error is None or is_servers_fault(error)


@given(data=st.data())
def test_server_spoils_its_signature(data):
    client, server = scram.ScramClient(), scram.ScramServer(VERIFIER)
    client.challenge(server.first(client.first()))
    good = server.final(client.final(derive_keys(PASSWORD.encode(), VERIFIER.salt, VERIFIER.iterations)))
    assert good is not None
    bad = data.draw(spoilt(good))
    error = outcome(client.verify, bad)
    assert bad[:-2] == good[:-2] if error is None else is_servers_fault(error)


@given(
    st.text(max_size=80)
    | st.text("SCRAM-256$4096:=AB/", max_size=80).map(lambda rest: "SCRAM-SHA-256$" + rest)
)
def test_secrets(text):
    secret = Secret.parse(text)
    assert (secret is None) == (text == "")
    with pytest.raises(ValueError):
        Secret.parse_verifier(text)


@given(st.binary(max_size=40) | st.text(max_size=40).map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_any_password_can_be_prepared(password):
    prepared = prepare_password(password)
    assert prepared or not password


@given(address=st.text(max_size=40), local_address=st.text(max_size=40))
def test_addresses(address, local_address):
    ready = rules.compile_rules(
        [AuthRule(method="trust", address=a) for a in ("10.0.0.0/8", "fd00::/8", "samehost")]
    )
    found = rules.match_rule(
        ready, kind="tcp", tls=False, address=address, user="a", database="b", local_address=local_address
    )
    assert found is None or found.address in ("10.0.0.0/8", "fd00::/8", "samehost")
