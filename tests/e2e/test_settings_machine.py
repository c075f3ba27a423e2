"""Settings that the proxy carries from backend to backend are those that a session of its own would have.

A state machine: the same random statements go to the proxy and to PostgreSQL, and after each of them both
must say the same of every setting, have told the client the same of those that are reported, and be in the
same state of transaction.  Between them others use the backends.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, settings, strategies
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from tests.fix_proxy import Proxy
from tests.fix_shared import provide, shared_config, shares_again
from tests.pg_server import Server
from tests.wire_client import SYNC, WireClient, bind, execute, parse, rows, sqlstates

#: machines that are run, for a longer hunt
EXAMPLES = int(os.environ.get("TP_SETTINGS_EXAMPLES", "12"))

VALUES: dict[str, list[str]] = {
    "work_mem": ["3MB", "5MB", "64kB"],
    "TimeZone": ["UTC", "Asia/Tokyo", "America/New_York"],
    "DateStyle": ["ISO, MDY", "German, DMY"],
    "search_path": ["acme", "acme, public", "public"],
    "extra_float_digits": ["0", "3"],
    "statement_timeout": ["0", "61s"],
    "default_transaction_isolation": ["serializable", "read committed"],
    "my.own": ["plain", "it's", "ünï"],
}
#: without application_name: where a client gives none, shared backends have the proxy's, and within the
#: transaction in which it is RESET it is not the client's (docs/life-of-a-query.md)
REPORTED = ("TimeZone", "DateStyle")
NAMES = strategies.sampled_from(sorted(VALUES))
VALUE = strategies.integers(0, 5)
SAVEPOINTS = strategies.sampled_from(["a", "b"])


def quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def assigned(name: str, number: int) -> str:
    """What SET takes."""
    value = VALUES[name][number % len(VALUES[name])]
    return value if name in ("search_path", "DateStyle") else quoted(value)


class Sessions(RuleBasedStateMachine):
    """`places` are set by the test: where the proxy is, where PostgreSQL, and who gets in between."""

    places: dict[str, Any]

    @initialize()
    def open(self) -> None:
        begin: dict[str, Any] = {"options": "-c extra_float_digits=2"}
        self.through: WireClient = self.places["proxy"].wire(**begin)
        server: Server = self.places["server"]
        self.direct = WireClient.open(server.host, server.port, **begin)
        self.said: list[str] = []

    def both(self, sql: str) -> None:
        through, direct = self.through.query(sql), self.direct.query(sql)
        self.said.append(f"{sql} -> {sqlstates(through)}")
        if sqlstates(through) == ["40001"]:
            # to be tried again elsewhere: both give the transaction up
            self.through.query("ROLLBACK")
            self.direct.query("ROLLBACK")
            return
        assert sqlstates(through) == sqlstates(direct), "\n".join(self.said)
        assert rows(through) == rows(direct), "\n".join(self.said)

    @rule(name=NAMES, number=VALUE, local=strategies.booleans())
    def set(self, name: str, number: int, local: bool) -> None:
        self.both(f"SET {'LOCAL ' if local else ''}{name} = {assigned(name, number)}")

    @rule(name=NAMES, number=VALUE, local=strategies.booleans())
    def set_config(self, name: str, number: int, local: bool) -> None:
        value = VALUES[name][number % len(VALUES[name])]
        self.both(f"SELECT set_config({quoted(name)}, {quoted(value)}, {str(local).lower()})")

    @rule(name=NAMES, number=VALUE)
    def set_config_bound(self, name: str, number: int) -> None:
        value = VALUES[name][number % len(VALUES[name])]
        messages = parse("SELECT set_config($1, $2, false)"), bind(name, value), execute(), SYNC
        through, direct = self.through.ask(*messages), self.direct.ask(*messages)
        self.said.append(f"bound {name} {value} -> {sqlstates(through)}")
        if sqlstates(through) == ["40001"]:
            self.through.query("ROLLBACK")
            self.direct.query("ROLLBACK")
            return
        assert sqlstates(through) == sqlstates(direct), "\n".join(self.said)

    @rule(name=NAMES)
    def reset(self, name: str) -> None:
        self.both(f"RESET {name}")

    @rule()
    def reset_all(self) -> None:
        self.both("RESET ALL")

    @rule()
    def characteristics(self) -> None:
        self.both("SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL REPEATABLE READ")

    @rule()
    def begin(self) -> None:
        self.both("BEGIN")

    @rule(how=strategies.sampled_from(["COMMIT", "ROLLBACK"]))
    def end(self, how: str) -> None:
        self.both(how)

    @rule(name=SAVEPOINTS, how=strategies.sampled_from(["SAVEPOINT", "ROLLBACK TO", "RELEASE"]))
    def savepoint(self, name: str, how: str) -> None:
        self.both(f"{how} {name}")

    @rule()
    def fail(self) -> None:
        self.both("SELECT 1/0")

    @rule()
    def several(self) -> None:
        self.both("SET work_mem = '7MB'; SELECT 1; SET LOCAL TimeZone = 'UTC'; SHOW work_mem")

    @rule(user=strategies.sampled_from(["acme_app", "beta_app"]), name=NAMES, number=VALUE)
    def others(self, user: str, name: str, number: int) -> None:
        """Somebody uses the backend meanwhile, and leaves it otherwise."""
        if name == "search_path" or self.through.xact_status != "I":
            # no precondition: whether a transaction gets 40001 depends on what the tenant did before, so that
            # a sequence that is run again may be elsewhere
            return
        other: WireClient = self.places[user]
        other.query(f"SET {name} = {assigned(name, number)}")
        other.query("SELECT 1")
        self.said.append(f"{user}: SET {name} = {assigned(name, number)}")

    @invariant()
    def same(self) -> None:
        if not hasattr(self, "direct"):
            return
        assert self.through.xact_status == self.direct.xact_status, "\n".join(self.said)
        if self.through.xact_status != "E":
            for name in VALUES:
                # a custom setting that nobody has set is NULL, or '' once somebody has on this backend
                sql = f"SELECT coalesce(current_setting({quoted(name)}, true), '')"
                assert rows(self.through.query(sql)) == rows(self.direct.query(sql)), (
                    f"{name}:\n" + "\n".join(self.said)
                )
        for name in REPORTED:
            assert self.through.parameters[name] == self.direct.parameters[name], f"{name}:\n" + "\n".join(
                self.said
            )

    def teardown(self) -> None:
        if hasattr(self, "direct"):
            self.through.close()
            self.direct.close()


@pytest.fixture(params=["dedicated", "shared"])
def machine(
    request: pytest.FixtureRequest, proxies: Callable[..., Proxy], pg: Server
) -> Iterator[type[Sessions]]:
    with pg.connect() as conn:
        # as the proxy opens backends
        conn.execute("ALTER ROLE acme_app SET search_path = acme, public")
    if request.param == "shared":
        provide(pg)
        proxy = proxies(**shared_config(pg, 1))
    else:
        proxy = proxies(pool={"mode": "transaction", "max": 1})
    with proxy.wire() as acme, proxy.wire("beta_app") as beta:
        if request.param == "shared":
            shares_again(pg, acme)
        places = {"proxy": proxy, "server": pg, "acme_app": acme, "beta_app": beta}
        yield type("Machine", (Sessions,), {"places": places})


@pytest.mark.timeout(0)
def test_settings_are_those_of_a_session(machine):
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=25,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
