"""Logging in: every method, the order of the rules, and what a stranger can learn."""

from __future__ import annotations

import hashlib
import statistics
import struct
import time
from collections.abc import Callable
from typing import Any

import pytest

from tenant_proxy.config.schema import Config
from tests.fix_proxy import PASSWORDS, Proxy, base_config
from tests.wire_client import (
    LoginFailed,
    Message,
    WireClient,
    cstr,
    errors,
    message,
    startup,
    types,
    wait_until,
)

METHODS = ["scram-sha-256", "md5", "password", "trust"]
#: `acme-secret` and `beta-secret` as PostgreSQL stores them; made by the tests, used nowhere else
ASKS = {"scram-sha-256": 10, "md5": 5, "password": 3, "trust": 0}


def rules(*entries: dict) -> dict:
    """A configuration's `auth` section; the console stays reachable."""
    return {"rules": [{"user": ["admin", "viewer"], "method": "scram-sha-256"}, *entries]}


def asked(client: WireClient) -> int:
    """The code of the first authentication request."""
    first = next(m for m in client.login_replies if m.type == "R")
    return int.from_bytes(first.body[:4], "big")


def refusal(proxy: Proxy, **login: Any) -> dict[str, str]:
    """The error of a login that must fail; the connection must be closed after it."""
    client = WireClient(proxy.host, proxy.port)
    with client, pytest.raises(LoginFailed) as failed:
        client.log_in(**login)
    return failed.value.fields


@pytest.mark.parametrize("method", METHODS)
def test_each_method_lets_the_right_password_in(proxies, method):
    proxy = proxies(auth=rules({"method": method}))
    with proxy.wire() as c:
        assert asked(c) == ASKS[method]
        assert c.value("SELECT current_user") == "acme_app"
        assert c.value("SELECT count(*) FROM orders") == "3"


@pytest.mark.parametrize("method", ["scram-sha-256", "md5", "password"])
@pytest.mark.parametrize("wrong", ["wrong", "acme-secre", "acme-secret ", "x" * 5000, "żółć"])
def test_each_method_keeps_a_wrong_password_out(proxies, method, wrong):
    proxy = proxies(auth=rules({"method": method}))
    said = refusal(proxy, password=wrong)
    assert (said["S"], said["C"]) == ("FATAL", "28P01")
    assert "acme_app" in said["M"]
    assert wrong not in said["M"]


@pytest.mark.parametrize("method", ["scram-sha-256", "md5", "password"])
def test_an_empty_password(proxies, method):
    said = refusal(proxies(auth=rules({"method": method})), password="")
    assert (said["S"], said["C"]) == ("FATAL", "28P01")


@pytest.mark.parametrize("method", ["scram-sha-256", "md5", "password"])
def test_an_unknown_user_is_as_a_wrong_password(proxies, method):
    """The same messages, of the same sizes, and the same error but for the name."""
    proxy = proxies(auth=rules({"method": method}))
    said: list[tuple[list[tuple[str, int]], dict[str, str]]] = []
    for user in ("acme_app", "nobody_1"):
        client = WireClient(proxy.host, proxy.port)
        with client, pytest.raises(LoginFailed) as failed:
            client.log_in(user=user, password="wrong")
        shape = [(m.type, len(m.body)) for m in failed.value.replies]
        said.append((shape, {k: v.replace(user, "USER") for k, v in failed.value.fields.items()}))
    assert said[0] == said[1]


def test_an_unknown_users_salt_stays_the_same(proxy):
    """A verifier made up anew for each try would tell that there is none."""
    salts = set()
    for _ in range(3):
        client = WireClient(proxy.host, proxy.port)
        with client, pytest.raises(LoginFailed) as failed:
            client.log_in(user="nobody_1", password="x")
        first = next(m for m in failed.value.replies if m.body[:4] == b"\0\0\0\x0b")
        salts.add(dict(part.split(b"=", 1) for part in first.body[4:].split(b","))[b"s"])
    assert len(salts) == 1


def test_an_unknown_user_is_refused_as_slowly(proxy):
    """Not a measurement of microseconds: only that no half of the exchange is left out."""

    def seconds(user: str) -> float:
        taken = []
        for _ in range(7):
            start = time.perf_counter()
            refusal(proxy, user=user, password="wrong")
            taken.append(time.perf_counter() - start)
        return statistics.median(taken)

    known, unknown = seconds("acme_app"), seconds("nobody_1")
    assert unknown > known / 5
    assert known > unknown / 5


def test_a_verifier_of_scram_in_place_of_a_password(pg, proxies, superuser):
    """The password is stored nowhere in the proxy; the client's proof opens the backend (pass-through)."""
    (verifier,) = superuser.execute("SELECT rolpassword FROM pg_authid WHERE rolname = 'acme_app'").fetchone()
    proxy = proxies(users=users_with({"verifier": {"value": verifier}}))
    for _ in range(3):
        with proxy.wire() as c:
            assert c.value("SELECT current_user") == "acme_app"
    assert refusal(proxy, password="wrong")["C"] == "28P01"


def test_pass_through_opens_more_backends_while_the_first_are_busy(proxies, superuser):
    (verifier,) = superuser.execute("SELECT rolpassword FROM pg_authid WHERE rolname = 'acme_app'").fetchone()
    proxy = proxies(users=users_with({"verifier": {"value": verifier}}), pool={"mode": "transaction"})
    clients = [proxy.wire() for _ in range(4)]
    for c in clients:
        c.query("BEGIN; SELECT 1")
        assert c.value("SELECT current_user") == "acme_app"
    assert len({c.value("SELECT pg_backend_pid()") for c in clients}) == 4
    for c in clients:
        c.terminate()


def test_a_verifier_that_is_not_the_servers(proxies, superuser):
    """The client's proof is right for the proxy, and wrong for the server: a clear error."""
    superuser.execute("BEGIN; CREATE ROLE made_up PASSWORD 'another-secret'")
    (made,) = superuser.execute("SELECT rolpassword FROM pg_authid WHERE rolname = 'made_up'").fetchone()
    superuser.execute("ROLLBACK")
    proxy = proxies(users=users_with({"verifier": {"value": made}}))
    said = refusal(proxy, password="another-secret")
    assert said["S"] == "FATAL"
    assert said["C"] in ("08006", "28P01")


def test_an_md5_verifier(proxies):
    hashed = "md5" + hashlib.md5(b"acme-secretacme_app").hexdigest()
    proxy = proxies(
        auth=rules({"method": "md5"}),
        users=users_with({"verifier": {"value": hashed}, "server_password": {"value": "acme-secret"}}),
    )
    with proxy.wire() as c:
        assert c.value("SELECT current_user") == "acme_app"
    assert refusal(proxy, password="wrong")["C"] == "28P01"


def users_with(acme: dict) -> list[dict]:
    """The users of `base_config`, with another secret for acme_app."""
    others = [
        {"name": name, **extra, "password": {"value": PASSWORDS[name]}}
        for name, extra in (
            ("beta_app", {"tenant": "beta"}),
            ("admin", {"admin": True}),
            ("viewer", {"stats": True}),
        )
    ]
    return [{"name": "acme_app", "tenant": "acme", **acme}, *others]


def test_another_name_and_password_on_the_server(proxies):
    users = users_with({"password": {"value": "acme-secret"}})
    users[0] |= {"name": "web", "server_user": "acme_app", "server_password": {"value": "acme-secret"}}
    users[0]["password"] = {"value": "web-secret"}
    proxy = proxies(users=users)
    with proxy.wire("web", password="web-secret") as c:
        assert c.value("SELECT current_user") == "acme_app"


def test_secrets_from_file_and_environment(own_proxy, monkeypatch, tmp_path):
    path = tmp_path / "secret"
    path.write_text("from-file\n")
    monkeypatch.setenv("ACME_SERVER_SECRET", "acme-secret")
    users = users_with({"password": {"file": str(path)}, "server_password": {"env": "ACME_SERVER_SECRET"}})
    proxy = own_proxy(users=users)
    with proxy.wire(password="from-file") as c:
        assert c.value("SELECT 1") == "1"


def test_the_first_rule_that_fits_decides(proxies):
    proxy = proxies(
        auth=rules(
            {"user": ["beta_app"], "method": "reject"},
            {"database": ["open"], "method": "trust"},
            {"address": "10.0.0.0/8", "method": "trust"},
            {"type": "hostssl", "method": "trust"},
            {"address": "127.0.0.0/8", "method": "md5"},
            {"method": "password"},
        )
    )
    with proxy.wire(database="open", password="") as c:
        assert asked(c) == 0
    with proxy.wire(database="app") as c:
        assert asked(c) == ASKS["md5"]
    said = refusal(proxy, user="beta_app", password="beta-secret")
    assert (said["S"], said["C"]) == ("FATAL", "28000")
    assert "rejects" in said["M"]


def test_no_rule_at_all(proxies):
    proxy = proxies(auth=rules({"address": "10.0.0.0/8", "method": "trust"}))
    said = refusal(proxy)
    assert (said["S"], said["C"]) == ("FATAL", "28000")
    assert "no authentication rule" in said["M"]
    assert "127.0.0.1" in said["M"]


def test_trust_lets_no_unknown_user_in(proxies):
    """Trust takes a user's word for who it is; it must still be a user."""
    proxy = proxies(auth=rules({"method": "trust"}))
    said = refusal(proxy, user="nobody_1", password="")
    assert said["S"] == "FATAL"
    assert said["C"] in ("28000", "28P01", "3D000")


def test_unix_socket(own_proxy, tmp_path):
    directory = tmp_path / "s"
    directory.mkdir()
    proxy = own_proxy(
        listen={"unix_socket_dir": str(directory)},
        auth=rules({"type": "local", "method": "trust"}, {"method": "scram-sha-256"}),
    )
    with WireClient.open(str(directory), proxy.port, password="") as c:
        assert asked(c) == 0
        assert c.value("SELECT item FROM orders WHERE id = 1") == "anvil"
    with proxy.wire() as c:
        assert asked(c) == ASKS["scram-sha-256"]


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"\0",
        b"SCRAM-SHA-256\0",
        b"SCRAM-SHA-256\0\x7f\xff\xff\xffn,,n=,r=x",
        b"SCRAM-SHA-1\0\0\0\0\x04n,,x",
        b"SCRAM-SHA-256\0\0\0\0\x0cn,,n=,r=\xff\xfe\xfd\0",
        b"SCRAM-SHA-256\0\0\0\0\x03n,,",
        b"SCRAM-SHA-256-PLUS\0\0\0\0\x21p=tls-server-end-point,,n=,r=abcde",
        b"SCRAM-SHA-256\0\0\0\x27\x10" + b"n,,n=,r=" + b"x" * 9992,
        b"x" * 60_000,
    ],
)
def test_a_malformed_answer_to_scram(proxy, answer):
    """FATAL with a reason, then the end; nobody else notices."""
    with WireClient(proxy.host, proxy.port) as c:
        c.send(startup({"user": "acme_app", "database": "app"}))
        assert c.receive().type == "R"
        c.send(message("p", answer))
        replies = [m for m in c.until_end() if m.type != "R"]
        assert types(replies) == "E"
        assert errors(replies)[0]["S"] == "FATAL"
        assert errors(replies)[0]["C"] in ("08P01", "28P01", "28000", "0A000")
    with proxy.wire() as c:
        assert c.value("SELECT 1") == "1"


@pytest.mark.parametrize("sent", ["Q", "X", "P", "S", "d", "\x00", "z"])
def test_another_message_in_place_of_the_password(proxy, sent):
    with WireClient(proxy.host, proxy.port) as c:
        c.send(startup({"user": "acme_app", "database": "app"}))
        assert c.receive().type == "R"
        c.send(message(sent, b"SELECT 1\0"))
        replies = c.until_end()
        assert types(replies) in ("E", "") if sent == "X" else types(replies) == "E"
        for error in errors(replies):
            assert (error["S"], error["C"]) == ("FATAL", "08P01")


def test_statements_sent_before_the_login_is_done_do_not_run(proxy, superuser):
    """Bytes behind a startup packet wait for the login, and are nothing if it fails."""
    superuser.execute("TRUNCATE acme.scratch")
    with WireClient(proxy.host, proxy.port) as c:
        c.send(
            startup({"user": "acme_app", "database": "app"}),
            message("Q", b"INSERT INTO scratch VALUES (1)\0"),
        )
        c.until_end()
    assert superuser.execute("SELECT count(*) FROM acme.scratch").fetchone() == (0,)


def test_login_timeout(proxies):
    """A client that says nothing, or goes on too slowly, is let go in login_s."""
    proxy = proxies(timeouts={"login_s": 1})
    silent, halfway = WireClient(proxy.host, proxy.port), WireClient(proxy.host, proxy.port)
    halfway.send(startup({"user": "acme_app", "database": "app"}))
    assert halfway.receive().type == "R"
    start = time.monotonic()
    for client in (silent, halfway):
        with client:
            replies: list[Message] = client.until_end()
            for error in errors(replies):
                assert error["S"] == "FATAL"
    assert time.monotonic() - start < 6
    with proxy.wire() as c:
        assert c.value("SELECT 1") == "1"


def test_logins_in_progress_are_limited(proxies):
    proxy = proxies(limits={"max_logins_in_progress": 3}, timeouts={"login_s": 20})
    slow = [WireClient(proxy.host, proxy.port) for _ in range(3)]
    for client in slow:
        client.send(startup({"user": "acme_app", "database": "app"}))
        assert client.receive().type == "R"
    with WireClient(proxy.host, proxy.port) as one_more:
        one_more.sock.settimeout(3)
        try:
            one_more.send(startup({"user": "acme_app", "database": "app"}))
            replies = one_more.until_end()
            assert types(replies) == "E"
            assert errors(replies)[0]["C"] == "53300"
        except TimeoutError:
            pass  # kept waiting until a place is free, which is as good
    for client in slow:
        client.close()
    # that they are gone is seen a moment later
    wait_until(lambda: admitted(proxy), "there is room again")


def admitted(proxy: Proxy) -> bool:
    try:
        with proxy.wire() as c:
            return c.value("SELECT 1") == "1"
    except LoginFailed:
        return False


def test_clients_of_a_login_and_of_a_tenant_are_limited(proxies):
    users = users_with({"password": {"value": "acme-secret"}, "max_clients": 2})
    proxy = proxies(users=users, tenants=[{"name": "acme"}, {"name": "beta", "max_clients": 1}])
    held = [proxy.wire(), proxy.wire()]
    assert refusal(proxy)["C"] == "53300"
    held.append(proxy.wire("beta_app"))
    said = refusal(proxy, user="beta_app", password="beta-secret")
    assert (said["S"], said["C"]) == ("FATAL", "53300")
    held.pop().terminate()
    held.pop().terminate()
    eventually(lambda: proxy.wire("beta_app").terminate())
    eventually(lambda: proxy.wire().terminate())
    for client in held:
        client.close()


def test_clients_of_all_are_limited(own_proxy):
    proxy = own_proxy(limits={"max_clients": 3})
    held = [proxy.wire(), proxy.wire(), proxy.wire("beta_app")]
    assert refusal(proxy)["C"] == "53300"
    held.pop().terminate()
    eventually(lambda: proxy.wire().terminate())
    for client in held:
        client.close()


def eventually(action: Callable[[], object]) -> None:
    """Tries again while a place is not free yet."""
    deadline = time.monotonic() + 10
    while True:
        try:
            action()
        except LoginFailed:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)
        else:
            return


def test_secrets_are_in_no_log(proxies, superuser):
    (verifier,) = superuser.execute("SELECT rolpassword FROM pg_authid WHERE rolname = 'acme_app'").fetchone()
    proxy = proxies(
        log={"level": "debug", "format": "text"}, users=users_with({"verifier": {"value": verifier}})
    )
    with proxy.wire() as c:
        c.query("SELECT 'literal-secret-7'")
        c.query("SELECT broken 'literal-secret-7'")
    refusal(proxy, password="wrong-secret-8")
    logged = proxy.log() + str(proxy.admin("SHOW CONFIG")) + str(proxy.admin("SHOW CLIENTS"))
    for secret in (
        "acme-secret",
        "beta-secret",
        "admin-secret",
        "wrong-secret-8",
        "literal-secret-7",
        verifier,
        verifier[-44:],
    ):
        assert secret not in logged


def test_base_config_is_valid(pg):
    """What the tests start from holds no key that the proxy would not know."""
    Config.model_validate(base_config(pg))


def test_what_comes_in_one_packet_with_the_startup(proxies):
    """Whichever worker reads it, and whichever serves the tenant."""
    proxy = proxies(workers=2)
    first = b"n,,n=,r=abcdefghijklmnopqrstuvwx"
    initial = message("p", cstr("SCRAM-SHA-256") + struct.pack("!i", len(first)) + first)
    for user in ["acme_app", "beta_app"] * 6:
        with WireClient(proxy.host, proxy.port) as client:
            client.send(startup({"user": user, "database": "app"}), initial)
            asked, challenge = client.receive(), client.receive()
            assert (asked.body[:4], challenge.body[:4]) == (b"\0\0\0\x0a", b"\0\0\0\x0b")
