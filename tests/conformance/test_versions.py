"""What comes before the login: protocol versions, TLS and GSS requests.

Not all servers under test know protocol 3.2, so these are compared with the protocol's text
(docs, "Message Formats": NegotiateProtocolVersion), and with the server where it can answer.
"""

from __future__ import annotations

import struct
from typing import Any

import pytest

from tests.wire_client import (
    GSS_CODE,
    SSL_CODE,
    V2_0,
    V3_0,
    V3_2,
    V3_GREASE,
    LoginFailed,
    Message,
    WireClient,
    errors,
    special_request,
    startup,
    types,
)


def negotiation(replies: list[Message]) -> tuple[int, list[str]] | None:
    """Newest minor version and unknown options of a NegotiateProtocolVersion, None if there is none."""
    for reply in replies:
        if reply.type == "v":
            minor, count = struct.unpack_from("!iI", reply.body)
            options = [text.decode() for text in reply.body[8:].split(b"\0")[:-1]]
            assert len(options) == count
            return minor, options
    return None


def test_3_0_needs_no_negotiation(each_mode):
    with each_mode.wire(version=V3_0) as c:
        assert negotiation(c.login_replies) is None
        assert len(c.secret) == 4


def test_3_2_has_a_long_key(each_mode):
    with each_mode.wire(version=V3_2) as c:
        assert negotiation(c.login_replies) is None
        assert 4 <= len(c.secret) <= 256
        assert len(c.secret) > 4
        assert c.value("SELECT 1") == "1"


def test_a_higher_minor_version_is_negotiated_down(proxy):
    with proxy.wire(version=V3_GREASE) as c:
        told = negotiation(c.login_replies)
        assert told is not None
        # the full version number, as servers of PostgreSQL 18 say it, not only its minor part
        assert told[0] in (V3_2, 2)
        assert told[1] == []
        assert c.value("SELECT 1") == "1"


@pytest.mark.parametrize("version", [V3_0, V3_2, V3_GREASE])
def test_unknown_protocol_options_are_named(proxy, version):
    with proxy.wire(version=version, **{"_pq_.test_protocol_negotiation": "", "_pq_.other": "1"}) as c:
        told = negotiation(c.login_replies)
        assert told is not None
        assert sorted(told[1]) == ["_pq_.other", "_pq_.test_protocol_negotiation"]
        assert c.value("SELECT 1") == "1"


def test_negotiation_comes_before_authentication(proxy):
    with proxy.wire(version=V3_GREASE) as c:
        assert types(c.login_replies).startswith("vR")


def test_negotiation_with_the_server_that_can(any_pg, proxies):
    """3.0 with an unknown option: every version under test answers."""
    said = []
    for address in ((any_pg.host, any_pg.port), ("127.0.0.1", proxies(any_pg).port)):
        with WireClient.open(*address, **dict[str, Any]({"_pq_.unknown": "1"})) as c:
            told = negotiation(c.login_replies)
            assert told is not None
            said.append(told[1])
    assert said[0] == said[1]


@pytest.mark.parametrize("version", [V2_0, 1 << 16, 4 << 16, 0, 0xFFFFFFFF])
def test_other_major_versions_are_refused(proxy, version):
    with WireClient(proxy.host, proxy.port) as c:
        c.send(startup({"user": "acme_app"}, version))
        (error,) = errors(c.until_end())
        assert error["S"] == "FATAL"
        assert error["C"] in ("0A000", "08P01")


def test_tls_and_gss_are_declined(proxy):
    with WireClient(proxy.host, proxy.port) as c:
        c.send(special_request(GSS_CODE))
        assert c.sock.recv(10) == b"N"
        c.send(special_request(SSL_CODE))
        assert c.sock.recv(10) == b"N"
        c.log_in()
        assert c.value("SELECT 1") == "1"


def test_what_follows_a_request_unanswered_is_not_taken_for_the_answers_continuation(proxy):
    """With TLS off going on in clear and refusing what was sent ahead are both safe; a hang is not."""
    with WireClient(proxy.host, proxy.port) as c:
        c.send(special_request(SSL_CODE) + startup({"user": "acme_app", "database": "app"}))
        received = c.sock.recv(4096)
        assert received[:1] in b"NE"


def test_no_user_name(proxy):
    with WireClient(proxy.host, proxy.port) as c:
        c.send(startup({"database": "app"}))
        (error,) = errors(c.until_end())
        assert (error["S"], error["C"]) == ("FATAL", "28000")


@pytest.mark.parametrize("wish", ["true", "1", "on", "database"])
def test_replication_is_refused(proxy, wish):
    with pytest.raises(LoginFailed) as failed:
        proxy.wire(replication=wish)
    assert failed.value.fields["C"] == "0A000"
    assert "replication" in failed.value.fields["M"]


@pytest.mark.parametrize("wish", ["false", "off", "0", "no", "f", "FALSE", "of", "N"])
def test_replication_that_is_not_wanted(proxy, wish):
    with proxy.wire(replication=wish) as c:
        assert c.value("SELECT 1") == "1"
