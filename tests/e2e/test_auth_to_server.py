"""`ServerAuth` logs in to real PostgreSQL servers; `ClientAuth` says what they say."""

from __future__ import annotations

import base64
import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tenant_proxy.auth.client_auth import ClientAuth
from tenant_proxy.auth.scram import (
    MECHANISM,
    MECHANISM_PLUS,
    ScramClient,
    derive_keys,
    parse_verifier,
)
from tenant_proxy.auth.secret import Secret
from tenant_proxy.auth.server_auth import ServerAuth
from tenant_proxy.auth.tls import TlsInfo
from tenant_proxy.devel import installs
from tenant_proxy.devel.postgres import Server
from tenant_proxy.errors import ProxyError
from tests.e2e.auth_peers import PASSWORD, RawLogin, ServerError, hba_lines, make_certificate
from tests.unit.auth.conversation import initial


def quoted(password: str) -> str:
    return "'" + password.replace("'", "''") + "'"


@pytest.fixture(scope="module", params=installs.installs(), ids=str)
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    tls = make_certificate(tmp_path_factory.mktemp("tls"))
    with Server(request.param, hba=hba_lines(), tls=tls) as server:
        server.psql(
            f"""
            CREATE ROLE trusted LOGIN;
            CREATE ROLE scram_user LOGIN PASSWORD {quoted(PASSWORD)};
            CREATE ROLE md5_rule LOGIN PASSWORD {quoted(PASSWORD)};
            CREATE ROLE cleartext LOGIN PASSWORD {quoted(PASSWORD)};
            SET password_encryption = md5;
            CREATE ROLE md5_user LOGIN PASSWORD {quoted(PASSWORD)};
            """
        )
        yield server


def stored(server: Server, user: str) -> str:
    return server.psql(f"SELECT rolpassword FROM pg_authid WHERE rolname = '{user}'")


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize(
    ("user", "method"),
    [
        ("trusted", "none"),
        ("cleartext", "password"),
        ("md5_user", "md5"),
        ("md5_rule", "scram-sha-256"),
        ("scram_user", "scram-sha-256"),
    ],
)
def test_login(server, user, method, tls):
    with RawLogin(server, user, tls=tls) as login:
        auth = ServerAuth(user, password=PASSWORD, channel_binding=login.end_point)
        assert login.run(auth)[-1] == b"Z"
        assert auth.method == method


@pytest.mark.parametrize("user", ["cleartext", "md5_user", "scram_user", "no_such_user"])
def test_wrong_password(server, user):
    with RawLogin(server, user) as login:
        with pytest.raises(ServerError) as caught:
            login.run(ServerAuth(user, password="wrong"))
        assert caught.value.fields["C"] == "28P01"


def test_channel_binding_required(server):
    with RawLogin(server, "scram_user", tls=True) as login:
        assert login.end_point is not None
        login.run(
            ServerAuth(
                "scram_user", password=PASSWORD, channel_binding=login.end_point, require_channel_binding=True
            )
        )


def test_channel_binding_to_another_certificate(server):
    with (
        RawLogin(server, "scram_user", tls=True) as login,
        pytest.raises(ServerError, match="channel binding"),
    ):
        login.run(ServerAuth("scram_user", password=PASSWORD, channel_binding=b"x" * 48))


def test_md5_hash(server):
    secret = Secret.parse_verifier(stored(server, "md5_user"))
    with RawLogin(server, "md5_user") as login:
        login.run(ServerAuth("md5_user", password=secret))


def test_passed_through(server):
    """client -> proxy with the server's verifier -> server; the proxy never has the password."""
    verifier = stored(server, "scram_user")
    proxy = ClientAuth("scram-sha-256", "scram_user", Secret.parse_verifier(verifier), mock_key=b"k")
    client = ServerAuth("scram_user", password=PASSWORD)
    message = proxy.start()
    while not proxy.done:
        answer = client.on_auth(message[5:])
        assert answer is not None
        message = proxy.on_message(answer[5:])
    for tls in (False, True):
        with RawLogin(server, "scram_user", tls=tls) as login:
            login.run(ServerAuth("scram_user", keys=proxy.keys, channel_binding=login.end_point))


def test_one_derivation_for_many_backends(server):
    secret = Secret.plain(PASSWORD)
    for number in range(3):
        with RawLogin(server, "scram_user") as login:
            auth = ServerAuth("scram_user", password=secret, defer=number > 0)
            login.run(auth)


def test_ed25519_certificate(tmp_path: Path):
    """The server offers PLUS, though channel binding is not defined for its certificate."""
    with (
        Server(tls=make_certificate(tmp_path, eddsa=True)) as server,
        RawLogin(server, "postgres", tls=True) as login,
    ):
        assert login.end_point is None
        login.run(ServerAuth("postgres", password=server.password, channel_binding=login.end_point))


PASSWORDS = [
    "plain",
    " spaces ",
    "I\u00adX",
    "\u2168",
    "\u00aa",
    "a\u00a0b",
    "a\u200bb",
    "a\u0340",
    "\u0627\u0031",
    "\u0627\u0031\u0628",
    "\u0627a\u0628",
    "\u0221",
    "\ue000",
    "\U000e0001x",
    "\u00ad",
    "\u00ad\u200d",
    "e\u0301 \u212b \ufb01",
    "\ufdfa",
    "\uac00\u1100\u1161",
    "\u1e9b\u0323",
    "\U0001f600",
    "\u0958",
    "\u2126\u03a9",
    "x\x07y",
    "\u06dd",
    "\u2028",
    "\ufeffx",
    "\ufffd",
    "\u0344",
    "\u017f\u0307",
    "\u3000",
    "Ünïcödé",
]


def test_passwords_are_prepared_as_the_server_does(server):
    """The server's own verifiers fit what is made of the same text here."""
    statements = [
        f"CREATE ROLE prepared_{number} PASSWORD {quoted(password)};"
        for number, password in enumerate(PASSWORDS)
    ]
    server.psql("".join(statements))
    for number, password in enumerate(PASSWORDS):
        verifier = parse_verifier(stored(server, f"prepared_{number}"))
        keys = derive_keys(password.encode(), verifier.salt, verifier.iterations)
        assert keys.verifier() == verifier, ascii(password)


# --- the same errors as PostgreSQL's -----------------------------------------------

FIRST = b"n=,r=abcdefghijklmnop"
#: body of the first 'p' message
FIRST_MESSAGES = [
    b"",
    b"SCRAM-SHA-256",
    b"SCRAM-SHA-256\0",
    b"SCRAM-SHA-256\0\0\0\0",
    initial(b"n,," + FIRST, b"SCRAM-SHA-1"),
    initial(b"n,," + FIRST, b""),
    initial(b"n,," + FIRST, size=3),
    initial(b"n,," + FIRST, size=100),
    initial(b"n,," + FIRST, size=-2),
    initial(b"n,," + FIRST, size=-1),
    initial(b""),
    initial(b"\0"),
    initial(b"n,," + FIRST + b"\0"),
    initial(b"n,," + FIRST),
    initial(b"y,," + FIRST),
    initial(b"n,," + FIRST + b","),
    initial(b"n,," + FIRST + b",,"),
    initial(b"n,," + FIRST + b",x=1"),
    initial(b"n,," + FIRST + b",x=1,Y="),
    initial(b"n,," + FIRST + b",x"),
    initial(b"n,," + FIRST + b",1=2"),
    initial(b"n,," + FIRST + b",\xc3\xa4=2"),
    initial(b"n"),
    initial(b"n,"),
    initial(b"n,,"),
    initial(b"n,,n"),
    initial(b"n,,n="),
    initial(b"n,,n=,"),
    initial(b"n,,n=,,r=abc"),
    initial(b"n,,r=abc"),
    initial(b"n,,n=,r"),
    initial(b"n,,n=,r="),
    initial(b"n,,n=,r=a\xc3\xa4"),
    initial(b"n,,n=,r=a b"),
    initial(b"n,,n=,r=\x7f"),
    initial(b"nn,,n=,r=abc"),
    initial(b"n,x,n=,r=abc"),
    initial(b"n,a=admin,n=,r=abc"),
    initial(b"n,a"),
    initial(b"n,,m=x,n=,r=abc"),
    initial(b"n,,m"),
    initial(b","),
    initial(b"x,,n=,r=abc"),
    initial(b"\x01"),
    initial(b"p=tls-server-end-point,," + FIRST),
    initial(b"p"),
    initial(b"p=tls-server-end-point,," + FIRST, MECHANISM_PLUS),
]

TLS_MESSAGES = [
    initial(message, mechanism)
    for mechanism in (MECHANISM, MECHANISM_PLUS)
    for message in (
        b"n,," + FIRST,
        b"y,," + FIRST,
        b"p,," + FIRST,
        b"p=,," + FIRST,
        b"p=tls-unique,," + FIRST,
        b"p=tls-\xff\x01,," + FIRST,
        b"p=tls-server-end-point,," + FIRST,
        b"p=tls-server-end-point",
        b"p=tls-server-end-point,x,",
        b"p=tls-server-end-point,a=x," + FIRST,
    )
]

NONCE, PROOF = b"NONCE", b"p=" + base64.b64encode(bytes(32))
#: client-final-message, with the nonce of the exchange in it
FINAL_MESSAGES = [
    b"",
    b"\0",
    b"c=biws",
    b"c=biws,",
    b"c=biws,r=NONCE",
    b"c=biws,r=NONCE,",
    b"c=biws,r=NONCE,," + PROOF,
    b"c=biws,r=NONCE,x=1",
    b"c=biws,r=NONCE,p",
    b"c=biws,r=NONCE,p=",
    b"c=biws,r=NONCE,p=AAAA",
    b"c=biws,r=NONCE,p=" + b"A" * 300,
    b"c=biws,r=NONCE,p=*" + PROOF[3:],
    b"c=biws,r=NONCE," + PROOF,
    b"c=biws,r=NONCE," + PROOF + b",",
    b"c=biws,r=NONCE," + PROOF + b",x=1",
    b"c=biws,r=NONCE,x=1," + PROOF,
    b"c=biws,r=NONCEx," + PROOF,
    b"c=biws,r=abcdefghijklmnop," + PROOF,
    b"c=biws,r=," + PROOF,
    b"c=eSws,r=NONCE," + PROOF,
    b"c=,r=NONCE," + PROOF,
    b"c,r=NONCE," + PROOF,
    b"r=NONCE," + PROOF,
    b"c=biws," + PROOF,
    b"GOOD",
    b"GOOD,",
]


def shape_of(kind: bytes, body: bytes) -> object:
    """What of a reply must be equal on both sides: not nonces and signatures."""
    if kind == b"E":
        fields = ServerError(body).fields
        return {key: fields.get(key, "").replace("this proxy", "this server") for key in "SVCMD"}
    return kind, body[:4], [part[:2] for part in body[4:].split(b",")], len(body)


@contextlib.contextmanager
def both_ends(server: Server, *, tls: bool) -> Iterator[tuple[RawLogin, ClientAuth]]:
    """The server and `ClientAuth` with the server's own verifier, each past its first message."""
    secret = Secret.parse_verifier(stored(server, "scram_user"))
    with RawLogin(server, "scram_user", tls=tls) as login:
        info = TlsInfo(login.end_point) if tls else None
        proxy = ClientAuth("scram-sha-256", "scram_user", secret, tls=info, mock_key=b"k")
        assert login.read() == (b"R", proxy.start()[5:])
        yield login, proxy


@pytest.fixture
def both(server):
    with both_ends(server, tls=False) as ends:
        yield ends


@pytest.fixture
def both_tls(server):
    with both_ends(server, tls=True) as ends:
        yield ends


def said_by(proxy: ClientAuth, body: bytes) -> tuple[bytes, bytes]:
    try:
        message = proxy.on_message(body)
    except ProxyError as error:
        message = error.to_message()
    return message[:1], message[5:]


def same_reply(login: RawLogin, proxy: ClientAuth, ours: bytes, theirs: bytes | None = None) -> bool:
    login.password(ours if theirs is None else theirs)
    expected, actual = shape_of(*login.read()), shape_of(*said_by(proxy, ours))
    assert actual == expected
    return True


@pytest.mark.parametrize("message", FIRST_MESSAGES, ids=ascii)
def test_same_answer_to_the_first_message(both, message):
    login, proxy = both
    assert same_reply(login, proxy, message)


@pytest.mark.parametrize("message", TLS_MESSAGES, ids=ascii)
def test_same_answer_to_the_first_message_over_tls(both_tls, message):
    login, proxy = both_tls
    assert same_reply(login, proxy, message)


def test_same_answer_to_no_initial_response(both):
    login, proxy = both
    assert same_reply(login, proxy, initial(None))
    assert same_reply(login, proxy, b"n,," + FIRST)


@pytest.mark.parametrize("message", FINAL_MESSAGES, ids=ascii)
def test_same_answer_to_the_final_message(both, message):
    login, proxy = both
    finals = []
    for end in ("theirs", "ours"):
        client = ScramClient(nonce=b"abcdefghijklmnop")
        first = initial(client.first(), MECHANISM)
        if end == "theirs":
            login.password(first)
            _, reply = login.read()
        else:
            _, reply = said_by(proxy, first)
        salt, iterations = client.challenge(reply[4:])
        good = client.final(derive_keys(PASSWORD.encode(), salt, iterations))
        nonce = reply[4:].split(b",")[0][2:]
        finals.append(message.replace(NONCE, nonce).replace(b"GOOD", good))
    assert same_reply(login, proxy, finals[1], finals[0])


@pytest.mark.parametrize("body", [b"", b"secret", b"a\0b\0", b"secret\0\0", b"\0", b"wrong\0"], ids=ascii)
@pytest.mark.parametrize(("user", "method"), [("cleartext", "password"), ("md5_user", "md5")])
def test_same_answer_to_a_password_message(server, user, method, body):
    proxy = ClientAuth(method, user, Secret.parse_verifier(stored(server, user)), mock_key=b"k")
    with RawLogin(server, user) as login:
        assert login.read()[1][:4] == proxy.start()[5:9]
        assert same_reply(login, proxy, body)
