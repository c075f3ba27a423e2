"""The compiled login behind TLS: as in Python, bound to the certificate or not."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from tenant_proxy.auth import scram
from tenant_proxy.auth.tls import server_end_point
from tenant_proxy.config.load import load_text
from tenant_proxy.relay.core import Reason
from tests.fix_tls import Certificates, Pem
from tests.protocol.entry_rig import (
    CLIENT_NONCE,
    CONFIG,
    SALT,
    USUAL,
    OneWorker,
    TlsEnd,
    conversation,
    final_message,
    first_message,
    same,
    startup,
)
from tests.protocol.rig import IDLE, TERMINATE, message, split

PLUS = "SCRAM-SHA-256-PLUS"
HEADER = "p=tls-server-end-point,,"
WRONG = scram.derive_keys(b"wrong", SALT, 4096)


def config(pem: Pem, more: str = "") -> str:
    return CONFIG.replace(
        "listen: {port: 6432}",
        f"listen: {{port: 6432, tls: {{mode: require, cert: '{pem.cert}', key: '{pem.key}'{more}}}}}",
    )


@dataclass
class Pair:
    workers: tuple[OneWorker, OneWorker]
    #: of the certificate
    end_point: bytes

    def final(self, binding: bytes | None = None, **how: object) -> Callable[[bytes], bytes]:
        """The proof, bound to the certificate or to another."""
        data = HEADER.encode() + (self.end_point if binding is None else binding)
        return lambda said: final_message(said, binding=data, **how)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def pair(certificates: Certificates) -> Iterator[Pair]:
    pem = certificates.proxy
    both = OneWorker(compiled=True, text=config(pem)), OneWorker(compiled=False, text=config(pem))
    for one in both:
        warm_up(one)
    end_point = server_end_point(ssl.PEM_cert_to_DER_cert(pem.cert.read_text()))
    assert end_point is not None
    yield Pair(both, end_point)
    for one in both:
        one.close()


def log_in(one: OneWorker, packet: bytes = USUAL, host: str | None = None) -> TlsEnd:
    end = one.tls_client(packet, host=host)
    end.take()
    end.send(first_message())
    end.send(final_message(end.take()))
    return end


def warm_up(one: OneWorker, packet: bytes = USUAL) -> None:
    # the first of a pool waits for a server
    one.worker.engine.client_end(log_in(one, packet).link, Reason.KILLED)
    for _ in range(2):
        log_in(one, packet).send(TERMINATE)


BOUND = first_message(f"{HEADER}n=,r={CLIENT_NONCE}", PLUS)


def test_a_login_is_done_without_python(pair):
    compiled, _ = pair.workers
    for first, final in ((first_message(), final_message), (BOUND, pair.final())):
        before = compiled.entered(), compiled.worker.logins.succeeded
        said = same(pair.workers, conversation(USUAL, first, final, tls=True))
        assert said[0] == [("R", b"\0\0\0\nSCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0")]
        assert [kind for kind, _ in said[2]] == ["R", "R", "S", "S", "K", "Z"]
        assert (compiled.entered(), compiled.worker.logins.succeeded) == (before[0] + 1, before[1])


@pytest.mark.parametrize(
    ("first", "final"),
    [
        (BOUND, {"binding": b"x" * 32}),
        (BOUND, {"binding": b""}),
        (BOUND, {"password_keys": WRONG}),
        (BOUND, {"change": lambda text: text[:-1] + b"\0"}),
        (BOUND, {"change": lambda text: text[2:]}),
        (BOUND, None),
        (first_message(), {}),
        (first_message(f"{HEADER}n=,r={CLIENT_NONCE}"), {}),
        (first_message(f"n,,n=,r={CLIENT_NONCE}", PLUS), None),
        (first_message(f"y,,n=,r={CLIENT_NONCE}"), None),
        (first_message(f"y,,n=,r={CLIENT_NONCE}", PLUS), None),
        (first_message(f"p=tls-unique,,n=,r={CLIENT_NONCE}", PLUS), {}),
        (first_message(f"{HEADER}n=,r=", PLUS), {}),
        (first_message(f"{HEADER}n=", PLUS), {}),
        (first_message(f"{HEADER}n=,r={'a' * 230}", PLUS), {}),
        (message("p", b"SCRAM-SHA-256-PLUS\0\0\0\0\x09" + HEADER.encode() + b"n=,r=abc"), {}),
        (message("p", b"SCRAM-SHA-256-PLUS\0"), {}),
    ],
)
def test_what_is_not_expected(pair, first, final):
    answer = pair.final(**final) if final is not None else final_message
    for packet in (USUAL, startup(user="nobody")):
        talk = conversation(
            packet,
            first,
            lambda said: answer(said) if said[:1] == b"R" else message("S"),
            tls=True,
        )
        said = same(pair.workers, talk)
        assert b"Z" not in [kind.encode() for kind, _ in said[-2]]


def test_a_packet_leads_elsewhere_without_tls(certificates):
    """What was let in with TLS says nothing of connections without, and the other way round."""
    one = OneWorker(compiled=True, text=config(certificates.proxy))
    warm_up(one)
    before = one.entered()
    assert before > 0
    end = one.client(USUAL)
    end.take()
    end.send(first_message())
    end.send(final_message(end.take()))
    assert end.take().endswith(IDLE)
    assert one.entered() == before, "the first without TLS"
    end.send(TERMINATE)
    one.log_in(USUAL)
    assert one.entered() == before + 1
    one.close()


def test_what_is_shown_of_it(pair):
    compiled, _ = pair.workers
    before = compiled.used("clients")
    end = log_in(compiled)
    session = compiled.worker.engine.session(end.link)
    assert (session.tls, session.tenant, session.user) == (True, "acme", "acme_app")
    assert compiled.worker.logins._attempts == {}
    end.send(TERMINATE)
    assert compiled.used("clients") == before


def test_the_host_name_decides_where_the_packet_does_not(certificates):
    text = config(certificates.proxy).replace(
        "tenants: [{name: acme}, {name: beta}]",
        "tenants: [{name: acme, sni: [acme.tenants.test]}, {name: beta, sni: [beta.tenants.test]}]",
    )
    for mapping in ("[user_suffix, sni]", "[login, sni]"):
        one = OneWorker(compiled=True, text=text.replace("[login, user_suffix, database]", mapping))
        packet = startup(user="both", database="app")
        tenants = []
        for _ in range(3):
            for host in ("acme.tenants.test", "beta.tenants.test"):
                end = log_in(one, packet, host)
                tenants.append(one.worker.engine.session(end.link).tenant)
                one.worker.engine.client_end(end.link, Reason.KILLED)
        assert tenants == ["acme", "beta"] * 3
        assert one.entered() == 0
        assert split(log_in(one, packet, "other.tenants.test").take())[0][0] == "E"
        one.close()


def test_a_certificate_of_the_client_is_looked_at_in_python(certificates):
    one = OneWorker(compiled=True, text=config(certificates.proxy, f", client_ca: '{certificates.ca}'"))
    warm_up(one)
    assert one.entered() == 0
    one.close()


def test_another_certificate_after_a_reload(pair, certificates):
    """What was begun with the old one is not taken with the new one."""
    one = OneWorker(compiled=True, text=config(certificates.proxy))
    warm_up(one)
    end = one.tls_client(USUAL)
    end.take()
    end.send(BOUND)
    challenge = end.take()
    one.worker.reload(load_text(config(certificates.server), environ={}).config, one.indexes)
    end.send(pair.final()(challenge))
    [(kind, body)] = split(end.take())
    assert kind == "E"
    assert b"channel binding" in body
    one.close()
