"""The tenants' life by command, with a proxy that follows the catalog: what is printed works at once."""

from __future__ import annotations

import json
import threading
import time
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import psycopg
import pytest
from joserfc import jwt
from joserfc.jwk import ECKey, KeySet

from tenant_proxy.catalog.failures import Failure
from tenant_proxy.catalog.records import Level, LoginKind
from tenant_proxy.cli import main
from tenant_proxy.config.opaque import server_password
from tenant_proxy.lifecycle.records import NewAccess, NewTenant
from tenant_proxy.lifecycle.verbs import Verbs
from tenant_proxy.model import MOVING
from tests.fix_proxy import PASSWORDS
from tests.wire_client import wait_until

#: a change is everywhere within this; generous, as machines that test are busy
FOLLOWED_S = 10.0


@pytest.fixture
def proxy(own_proxy, town) -> Any:
    return own_proxy(
        clusters=town.config()["clusters"], catalog=town.config()["catalog"], tenants=[], users=[]
    )


@pytest.fixture
def command(proxy, capsys, monkeypatch) -> Any:
    monkeypatch.setenv("TENANT_PROXY_CONFIG", str(proxy.config_path))

    def command(text: str) -> str:
        status = main(text.split())
        said = capsys.readouterr()
        assert status == 0, said.out + said.err
        return said.out.strip()

    return command


def served(dsn: str) -> str | None:
    """Why the login is refused, or None."""
    try:
        with psycopg.connect(dsn, autocommit=True) as conn:
            conn.execute("SELECT 1")
    except psycopg.OperationalError as error:
        return str(error)
    return None


def test_a_tenants_life_through_the_proxy(command, proxy, town):
    command("plan set standard --set max_clients=5")
    dsn = command("tenant onboard acme --plan standard")
    wait_until(lambda: served(dsn) is None, "the new tenant is served", FOLLOWED_S)
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute("CREATE TABLE t (id int)")
        assert conn.execute("SELECT current_user, current_schema").fetchone() == ("acme_owner", "acme")
    reader = command("access grant acme rita --role readonly")
    wait_until(lambda: served(reader) is None, "the new login is served", FOLLOWED_S)
    with psycopg.connect(reader, autocommit=True) as conn:
        assert conn.execute("SELECT count(*) FROM t").fetchone() == (0,)
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            conn.execute("INSERT INTO t VALUES (1)")
    command("tenant suspend acme --reason unpaid")
    wait_until(lambda: "unpaid" in (served(dsn) or ""), "it is refused with the reason", FOLLOWED_S)
    command("tenant resume acme")
    wait_until(lambda: served(dsn) is None, "it is served again", FOLLOWED_S)
    # both passwords are good while they overlap, each through its own role on the server
    new = command("access rotate acme --overlap 1h")
    wait_until(lambda: served(new) is None, "the new password is good", FOLLOWED_S)
    assert served(dsn) is None
    command("access rotate acme --end")
    wait_until(lambda: served(dsn) is not None, "the password before it is not", FOLLOWED_S)
    assert served(new) is None
    command("tenant rename acme anvil")
    renamed = new.removesuffix("/acme") + "/anvil"
    time.sleep(1)  # its only login leads there under any name: nothing shows when the proxy has heard of it
    wait_until(lambda: served(renamed) is None, "it is served under its new name", FOLLOWED_S)
    with psycopg.connect(renamed, autocommit=True) as conn:
        conn.execute("SELECT * FROM t")
    command("access revoke anvil rita --yes")
    wait_until(lambda: served(reader) is not None, "who was revoked is out", FOLLOWED_S)


async def test_the_proxy_takes_away_what_has_expired(verbs, town, own_proxy):
    soon = datetime.now(UTC) + timedelta(milliseconds=100)
    await verbs.tenant_onboard(NewTenant(name="acme"), NewAccess(login="alice", expires_at=soon))
    assert "alice" in town.roles()
    proxy = own_proxy(
        clusters=town.config()["clusters"], catalog=town.config()["catalog"], tenants=[], users=[]
    )
    wait_until(lambda: "alice" not in town.roles(), "the role is gone", FOLLOWED_S)
    wait_until(lambda: "access of alice on acme expired" in proxy.log(), "it is logged", FOLLOWED_S)


def test_the_proxy_tells_webhooks(own_proxy, town, capsys, monkeypatch):
    """Soon after the change, not when upkeep would come by anyway."""
    told: list[str] = []

    class Hook(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            told.append(json.loads(self.rfile.read(int(self.headers["Content-Length"])))["type"])
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    proxy = own_proxy(
        clusters=town.config()["clusters"],
        catalog=town.config()["catalog"],
        tenants=[],
        users=[],
        secret={"value": "of tests"},
        webhooks={"allowed_networks": ["127.0.0.0/8"]},
    )
    monkeypatch.setenv("TENANT_PROXY_CONFIG", str(proxy.config_path))
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hook)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        assert (
            main(["webhook", "add", "audit", f"http://127.0.0.1:{server.server_port}/", "-e", "tenant.*"])
            == 0
        )
        assert main(["tenant", "create", "acme"]) == 0
        wait_until(lambda: "tenant_proxy.tenant.create" in told, "it is told", FOLLOWED_S)
        assert capsys.readouterr().out.startswith("whsec_")
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


async def test_a_service_account_comes_with_its_token(own_proxy, town, new_context, tmp_path):
    """No password anywhere: the proxy makes that of its role on the server, of the configuration's secret."""
    key = ECKey.generate_key("P-256", {"kid": "one"})
    keys = tmp_path / "keys.json"
    keys.write_text(json.dumps(KeySet([key]).as_dict(private=False)))
    secret = {"value": "of all proxies"}
    verbs = Verbs(await new_context(secret=secret))
    await verbs.tenant_onboard(NewTenant(name="acme"), NewAccess(login="acme"))
    granted = await verbs.access_grant("acme", NewAccess(login="ci", level=Level.READWRITE, service=True))
    assert granted.password is None
    assert granted.dsn.startswith("postgresql://ci@")
    rules = [{"user": ["ci"], "method": "jwt"}, {"method": "scram-sha-256"}]
    jwt_keys = {"keys": str(keys), "issuer": "https://id", "audience": "databases"}
    changes: dict[str, Any] = {
        "clusters": town.config()["clusters"],
        "catalog": town.config()["catalog"],
        "tenants": [],
        "users": [{"name": "admin", "admin": True, "password": {"value": PASSWORDS["admin"]}}],
        "auth": {"rules": rules, "jwt": jwt_keys},
    }
    proxy = own_proxy(secret=secret, **changes)

    def comes_in(password: str) -> str:
        try:
            with psycopg.connect(
                host=proxy.host, port=proxy.port, user="ci", password=password, dbname="acme"
            ) as conn:
                row = conn.execute("SELECT session_user || ' ' || current_user").fetchone()
                return str(row[0]) if row is not None else ""
        except psycopg.OperationalError as error:
            return str(error)

    claims = {"iss": "https://id", "aud": "databases", "sub": "ci", "exp": int(time.time()) + 600}
    token = str(jwt.encode({"alg": "ES256", "kid": "one"}, claims, key))
    wait_until(lambda: comes_in(token) == "ci acme_readwrite", "its token opens a backend", FOLLOWED_S)
    assert "acme_readwrite" not in comes_in("nonsense")
    # by password nobody gets in as it, not even with the one of its role on the server
    made = server_password("ci", secret["value"])
    with town.connect("ci", made) as conn:
        assert conn.execute("SELECT session_user").fetchone() == ("ci",)
    proxy.reload(proxy.config | {"auth": {"rules": [{"method": "scram-sha-256"}]}})
    assert "password authentication failed" in comes_in(made)

    # another secret: the role's password is the one of before until it is set anew
    other = {"value": "another"}
    proxy.reload(proxy.config | {"secret": other, "auth": changes["auth"]})
    wait_until(
        lambda: "acme_readwrite" not in comes_in(token), "the role has the password of before", FOLLOWED_S
    )
    with pytest.raises(Failure, match="the same still"):
        await verbs.access_rotate("ci")
    renewed = Verbs(await new_context(secret=other))
    rotated = await renewed.access_rotate("ci", overlap_s=0)
    assert rotated.password is None
    wait_until(lambda: "acme_readwrite" in comes_in(token), "it is set anew", 2 * FOLLOWED_S)


def test_logins_wait_while_a_tenant_is_moved(own_proxy, town, capsys, monkeypatch):
    proxy = own_proxy(
        clusters=town.config()["clusters"],
        catalog=town.config()["catalog"],
        tenants=[],
        users=[],
        timeouts={"login_s": 6},
    )
    monkeypatch.setenv("TENANT_PROXY_CONFIG", str(proxy.config_path))

    def command(text: str) -> str:
        assert main(text.split()) == 0
        return capsys.readouterr().out.strip()

    dsn = command("tenant onboard acme")
    wait_until(lambda: served(dsn) is None, "it is served", FOLLOWED_S)
    main(["tenant", "suspend", "acme", "--reason", "unpaid"])
    wait_until(lambda: "unpaid" in (served(dsn) or ""), "others are refused at once", FOLLOWED_S)
    main(["tenant", "suspend", "acme", "--reason", MOVING])
    time.sleep(1)
    answers: list[str | None] = []
    waiting = [threading.Thread(target=lambda: answers.append(served(dsn))) for _ in range(3)]
    for thread in waiting:
        thread.start()
    time.sleep(1)
    assert answers == []
    main(["tenant", "resume", "acme"])
    for thread in waiting:
        thread.join(10)
    assert answers == [None] * 3
    # no longer than a login may take
    main(["tenant", "suspend", "acme", "--reason", MOVING])
    wait_until(lambda: MOVING in (served(dsn) or ""), "it is said why", 3 * FOLLOWED_S)
    # whoever gives up while it waits leaves nothing behind
    with pytest.raises(psycopg.OperationalError, match="timeout"):
        psycopg.connect(dsn, connect_timeout=2)
    main(["tenant", "resume", "acme"])
    wait_until(lambda: served(dsn) is None, "it is served again", FOLLOWED_S)


async def test_service_accounts_need_a_secret_and_have_no_password(verbs, new_context):
    await verbs.tenant_onboard(NewTenant(name="acme"), NewAccess(login="acme"))
    with pytest.raises(Failure, match="secret"):
        await verbs.access_grant("acme", NewAccess(login="ci", service=True))
    with_secret = Verbs(await new_context(secret={"value": "x"}))
    with pytest.raises(Failure, match="has a password"):
        await with_secret.access_grant("acme", NewAccess(login="acme", level=Level.READONLY, service=True))
    await with_secret.access_grant("acme", NewAccess(login="ci", service=True))
    with pytest.raises(Failure, match="no password"):
        await with_secret.access_rotate("ci", password="mine")
    assert (await with_secret.login_get("ci")).kind is LoginKind.SERVICE
