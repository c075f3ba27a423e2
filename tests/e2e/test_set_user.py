"""What the extension set_user does and does not keep: the facts that decision 17 rests on.

Where one of these fails on a newer version, the decision is to be looked at again.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from tenant_proxy.cli.clusters import examine
from tenant_proxy.config.load import load_text
from tenant_proxy.devel import installs
from tests.fix_proxy import base_config
from tests.pg_server import Server
from tests.wire_client import wait_until

#: as the proxy's switch would be: settings, then who it is for
SWITCH = "SELECT set_config('search_path', 'acme', false), set_user.set_user('acme_app', 'secret')"


def major_with_it() -> int | None:
    for install in installs.installs():
        share = install.bin_dir.parent / "share"
        places = [share, share / "postgresql", *share.parent.glob("share/postgresql/*")]
        # where a distribution keeps it apart
        places.append(type(share)(f"/usr/share/postgresql/{install.major}"))
        if any((place / "extension" / "set_user.control").is_file() for place in places):
            return install.major
    return None


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    major = major_with_it()
    if major is None:
        pytest.skip("no PostgreSQL here has the extension set_user (postgresql-15-set-user)")
    server = Server(major, {"shared_preload_libraries": "set_user"})
    server.start()
    server.populate()
    with server.connect() as conn:
        conn.execute(
            "CREATE SCHEMA set_user; CREATE EXTENSION set_user SCHEMA set_user;"
            "GRANT USAGE ON SCHEMA set_user TO PUBLIC;"
            # `member` may become the tenants without the extension too, as the service of shared backends
            "CREATE ROLE member LOGIN NOINHERIT PASSWORD 'x'; GRANT acme_app, beta_app TO member;"
            "CREATE ROLE stranger LOGIN NOINHERIT PASSWORD 'x';"
            "GRANT EXECUTE ON FUNCTION set_user.set_user(text, text) TO member, stranger;"
            "GRANT EXECUTE ON FUNCTION set_user.set_session_auth(text) TO stranger;"
        )
    yield server
    server.stop("immediate")
    server.close()


@pytest.fixture(params=["member", "stranger"])
def switched(server: Server, request: pytest.FixtureRequest) -> Iterator[psycopg.Connection[Any]]:
    with server.connect(request.param, "x") as conn:
        conn.execute(SWITCH)
        yield conn


@pytest.fixture
def of_a_member(server: Server) -> Iterator[psycopg.Connection[Any]]:
    with server.connect("member", "x") as conn:
        conn.execute(SWITCH)
        yield conn


def who(conn: psycopg.Connection[Any]) -> str:
    found = conn.execute("SELECT current_user::text").fetchone()
    assert found is not None
    return str(found[0])


@pytest.mark.parametrize(
    "sql",
    [
        "SET ROLE beta_app",
        "RESET ROLE",
        "SET SESSION AUTHORIZATION DEFAULT",
        "SELECT set_config('role', 'beta_app', false)",
        "UPDATE pg_settings SET setting = 'beta_app' WHERE name = 'role'",
        "DO $$ BEGIN EXECUTE 'SET ROLE beta_app'; END $$",
        "SELECT set_user.reset_user()",
        "SELECT set_user.reset_user('guessed')",
        "SELECT set_user.set_user('beta_app', 'mine')",
    ],
)
def test_what_is_refused(switched, sql):
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        switched.execute(sql)
    assert who(switched) == "acme_app"


def test_a_token_is_not_got_around_by_an_exception_block(switched):
    switched.execute(
        "DO $$ BEGIN PERFORM set_user.reset_user('guessed'); EXCEPTION WHEN OTHERS THEN NULL; END $$"
    )
    assert who(switched) == "acme_app"


def test_the_way_back(server):
    with server.connect("member", "x") as conn:
        conn.execute(SWITCH)
        conn.execute("SELECT set_user.reset_user('secret')")
        assert who(conn) == "member"


# --- why it is no wall -----------------------------------------------------------------


def is_ended(conn: psycopg.Connection) -> bool:
    try:
        conn.execute("SELECT 1")
    except psycopg.OperationalError:
        return True
    return False


def test_reset_all_ends_the_server(server, of_a_member):
    """From SQL that nobody can read beforehand, too."""
    with server.connect() as bystander:
        with pytest.raises(psycopg.OperationalError):
            of_a_member.execute("DO $$ BEGIN EXECUTE 'RESET' || ' ALL'; END $$")
        # the postmaster ends the others when it has noticed
        wait_until(lambda: is_ended(bystander), "everybody's connection has ended", 20)

    def is_back() -> bool:
        try:
            with server.connect():
                return True
        except psycopg.OperationalError:
            return False

    wait_until(is_back, "the server is back", 20)


STEAL = (
    "DO $do$ BEGIN EXECUTE 'CREATE OR REPLACE FUNCTION acme.steal() RETURNS text LANGUAGE plpgsql AS"
    " $f$ BEGIN RETURN (SELECT min(item) FROM beta.orders); END $f$';"
    " EXECUTE 'ALTER FUNCTION acme.steal() SET role = beta_app'; END $do$",
    "SELECT acme.steal()",
)


def test_a_function_that_sets_its_role_is_another(of_a_member):
    of_a_member.execute(STEAL[0])
    found = of_a_member.execute(STEAL[1]).fetchone()
    assert found == ("bolt",)
    assert who(of_a_member) == "member", "nor is it the tenant's afterwards"


def test_unless_the_login_may_not_become_it(server):
    with server.connect("stranger", "x") as conn:
        conn.execute(SWITCH)
        conn.execute(STEAL[0])
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="permission denied to set role"):
            conn.execute(STEAL[1])
        assert who(conn) == "acme_app"


def test_discard_all_leads_back_without_a_token(of_a_member):
    of_a_member.execute("DISCARD ALL")
    assert who(of_a_member) == "member"


def test_settings_are_not_kept(switched):
    switched.execute("DO $$ BEGIN EXECUTE 'SET search_path = public'; END $$")
    assert switched.execute("SHOW search_path").fetchone() == ("public",)


def test_each_switch_leaves_something_in_the_backend(server):
    """Some 680 bytes."""
    with server.connect() as conn:
        conn.execute("SELECT set_user.set_user('acme_app', 'x')")
        conn.execute("SELECT set_user.reset_user('x')")

        def size() -> int:
            found = conn.execute(
                "SELECT total_bytes FROM pg_backend_memory_contexts WHERE name = 'TopMemoryContext'"
            ).fetchone()
            assert found is not None
            return int(found[0])

        before = size()
        for number in range(300):
            conn.execute(f"SELECT set_user.set_user('acme_app', '{number}')")
            conn.execute(f"SELECT set_user.reset_user('{number}')")
        assert size() - before > 100_000


def test_a_session_that_is_given_away_is_so_for_good(server):
    """`set_session_auth`, which is no switch: nothing leads back."""
    with server.connect("stranger", "x") as conn:
        conn.execute("SELECT set_user.set_session_auth('acme_app')")
        for sql in ("RESET ROLE", "RESET ALL", "RESET SESSION AUTHORIZATION", "DISCARD ALL"):
            conn.execute(sql)
            assert conn.execute("SELECT session_user::text").fetchone() == ("acme_app",)
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            conn.execute("SET ROLE stranger")


# --- what `check` says --------------------------------------------------------------------


async def test_check_says_that_it_is_there_and_who_may_use_it(server):
    config = load_text(str(base_config(server)).replace("True", "true")).config

    async def found() -> dict[str, str]:
        return {one.code: one.sql for one in await examine(config) if one.code.startswith("set_user")}

    assert await found() == {"set_user_unused": ""}
    for grant in ("set_user.set_session_auth(text) TO acme_app", "set_user.set_user(text) TO PUBLIC"):
        with server.connect() as conn:
            conn.execute(f"GRANT EXECUTE ON FUNCTION {grant}")
            said = await found()
            assert said.keys() == {"set_user_unused", "set_user_granted"}
            conn.execute(said["set_user_granted"])
        assert await found() == {"set_user_unused": ""}
