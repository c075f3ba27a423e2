"""The same conversation with PostgreSQL directly and through the proxy; the replies must be equal.

    def test_x(both):
        for c in both():
            assert types(c.query("SELECT 1")) == "TDCZ"

runs the body twice, and compares message for message when it has run on both sides.  Masked is
only what must differ: pids and keys, OIDs of objects that the conversation makes, and the place
in the server's source that an error came from (see `test_errors_are_whole` for that).
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest

from tests.fix_proxy import Proxy
from tests.pg_server import Server
from tests.wire_client import Message, WireClient, columns, fields

#: objects made after initdb have OIDs from here on (PostgreSQL's FirstNormalObjectId)
FIRST_NORMAL_OID = 16384


class Peer(NamedTuple):
    """One side of the comparison."""

    name: str
    host: str
    port: int
    #: settings that only this side needs in its startup packet
    settings: dict[str, str]


class Recorder(WireClient):
    """A client that keeps what it receives, and knows which side it talks to."""

    def __init__(self, host: str, port: int) -> None:
        super().__init__(host, port)
        self.transcript: list[Message] = []

    def receive(self) -> Message:
        reply = super().receive()
        self.transcript.append(reply)
        return reply


def masked(client: Recorder) -> list[object]:
    """A transcript in which what must differ is made equal, in a form that pytest shows well."""
    oids: dict[int, str] = {}
    found: list[object] = []
    for reply in client.transcript:
        match reply.type:
            case "E" | "N":
                said = {k: v for k, v in fields(reply).items() if k not in "FLR"}
                found.append((reply.type, {k: v.replace(str(client.pid), "PID") for k, v in said.items()}))
            case "K":
                found.append(("K", len(reply.body)))
            case "A":
                (pid,) = struct.unpack_from("!i", reply.body)
                found.append(("A", "own" if pid == client.pid else "other", reply.body[4:]))
            case "T":
                found.append(("T", [c._replace(table=_ordinal(oids, c.table)) for c in columns(reply)]))
            case "D" if len(reply.body) > 1000:
                found.append(("D", len(reply.body), hash(reply.body)))
            case _:
                found.append((reply.type, reply.body))
    return found


def _ordinal(oids: dict[int, str], oid: int) -> object:
    return oid if oid < FIRST_NORMAL_OID else oids.setdefault(oid, f"oid {len(oids)}")


def login_masked(client: Recorder) -> list[object]:
    """The login's messages: the authentication exchange apart, ParameterStatus in any order."""
    said = [m for m in client.login_replies if m.type != "R"]
    status = sorted(m.body for m in said if m.type == "S")
    return [status, [m.body if m.type == "Z" else m.type for m in said if m.type not in "SEN"]] + [
        {k: v for k, v in fields(m).items() if k not in "FLR"} for m in said if m.type in "EN"
    ]


class Both:
    def __init__(self, peers: list[Peer]) -> None:
        self.peers = peers

    def __call__(self, **settings: Any) -> Iterator[Recorder]:
        """Logged in on each side in turn, with these settings in the startup packet."""
        done: list[Recorder] = []
        for peer in self.peers:
            client = Recorder(peer.host, peer.port)
            with client:
                client.log_in(**{**peer.settings, **settings})
                client.transcript.clear()
                yield client
            done.append(client)
        direct, proxied = done
        assert login_masked(proxied) == login_masked(direct)
        assert masked(proxied) == masked(direct)

    def strangers(self) -> Iterator[tuple[Recorder, dict[str, str]]]:
        """Connected on each side in turn without a login, with the settings that this side needs."""
        done: list[Recorder] = []
        for peer in self.peers:
            client = Recorder(peer.host, peer.port)
            with client:
                yield client, peer.settings
            done.append(client)
        direct, proxied = done
        assert masked(proxied) == masked(direct)


VARIANTS = {
    "session": {"pool": {"mode": "session"}},
    "transaction": {"pool": {"mode": "transaction"}},
    "session-2-workers": {"pool": {"mode": "session"}, "workers": 2},
    "transaction-2-workers": {"pool": {"mode": "transaction"}, "workers": 2},
}


@pytest.fixture(params=VARIANTS)
def proxied(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Options of the proxy under comparison."""
    return VARIANTS[request.param]


@pytest.fixture
def both(any_pg: Server, proxied: dict[str, Any], request: pytest.FixtureRequest) -> Both:
    """Every major version, both pool modes, one worker and two."""
    return _both(any_pg, proxied, request)


@pytest.fixture(params=["session", "session-2-workers"])
def both_session(any_pg: Server, request: pytest.FixtureRequest) -> Both:
    """As `both`, for what only session mode promises."""
    return _both(any_pg, VARIANTS[request.param], request)


@pytest.fixture(params=["session", "transaction-2-workers"])
def both_once(pg: Server, request: pytest.FixtureRequest) -> Both:
    """As `both`, for what takes seconds: the default server only."""
    return _both(pg, VARIANTS[request.param], request)


def _both(server: Server, options: dict[str, Any], request: pytest.FixtureRequest) -> Both:
    direct = Peer("direct", server.host, server.port, {"search_path": "acme, public"})
    proxies: Callable[..., Proxy] = request.getfixturevalue("proxies")
    proxy = proxies(server, **options)
    return Both([direct, Peer("proxied", proxy.host, proxy.port, {})])


@pytest.fixture
def scratch(any_pg: Server) -> Iterator[Callable[[], None]]:
    """Table acme.scratch is empty at first, whenever this is called, and afterwards."""

    def empty() -> None:
        with any_pg.connect() as conn:
            conn.execute("TRUNCATE acme.scratch, acme.promises")

    empty()
    yield empty
    empty()
