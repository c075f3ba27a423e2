"""What runs against what: scenarios, targets, their configuration, and the order of rounds."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import yaml

from loadtests.__main__ import chosen_targets, parse
from loadtests.bench import Plan, Runner
from loadtests.pgbench import Transaction
from loadtests.postgres import Login
from loadtests.procfs import busiest
from loadtests.results import Sample
from loadtests.scenarios import GROUPS, SCENARIOS, UnknownScenario, choose
from loadtests.targets import PgBouncer, parse_version, pgbouncer_ini, proxy_config
from loadtests.work import Effort, MeasureError, Pgbench, evenly, latencies, overlap, rate
from tenant_proxy.config.schema import Config

LOGINS = {
    "acme": Login("acme", "s1", "SCRAM-SHA-256$4096:c2FsdA==$a:b"),
    "beta": Login("beta", "s2", "SCRAM-SHA-256$4096:c2FsdA==$c:d"),
}


def test_names_are_unique_and_groups_known():
    assert len({one.name for one in SCENARIOS}) == len(SCENARIOS)
    assert {one.group for one in SCENARIOS} == set(GROUPS)


def test_modes_do_not_alternate():
    modes = [one.mode for one in SCENARIOS]
    assert modes == sorted(modes, reverse=True)


def test_scenarios_are_chosen_by_name_pattern_or_group_in_the_lists_order():
    assert [one.name for one in choose(["copy-in", "select-simple-1"])] == ["select-simple-1", "copy-in"]
    assert {one.name for one in choose(["select-*-16"])} == {
        "select-simple-16",
        "select-extended-16",
        "select-prepared-16",
        "select-prepared-tx-16",
    }
    assert {one.group for one in choose(["bulk"])} == {"bulk"}
    assert choose([]) == list(SCENARIOS)
    with pytest.raises(UnknownScenario, match="nosuch"):
        choose(["idle", "nosuch"])


def test_run_may_be_left_out_of_the_command_line():
    options = parse(["idle", "--rounds", "5", "--targets", "direct,proxy"])
    assert (options.do, options.scenario, options.rounds) == ("run", ["idle"], 5)
    assert parse([]).do == "run"
    assert parse(["list"]).do == "list"
    assert chosen_targets(options.targets) == ["direct", "proxy"]
    with pytest.raises(UnknownScenario, match="odyssey"):
        chosen_targets("direct,odyssey")


@pytest.mark.parametrize("guard", ["enforce", "off"])
def test_the_proxys_configuration_is_valid(guard):
    raw = proxy_config(
        port=6432, metrics_port=9127, server_port=5432, mode="transaction", guard=guard, logins=LOGINS
    )
    config = Config.model_validate(yaml.safe_load(yaml.safe_dump(raw)))
    assert config.workers == 1
    assert config.policy.mode == guard
    assert config.clusters[0].max_backends == 40
    assert {user.tenant for user in config.users} == {"acme", "beta"}


def test_no_secret_is_in_the_proxys_file():
    raw = proxy_config(port=1, metrics_port=2, server_port=3, mode="session", guard="enforce", logins=LOGINS)
    assert "SCRAM" not in yaml.safe_dump(raw)


def test_pgbouncer_keeps_prepared_statements_from_its_release_on():
    def ini(version):
        return pgbouncer_ini(port=1, server_port=2, mode="session", users="u", version=version)

    assert "max_prepared_statements" not in ini((1, 18))
    assert "max_prepared_statements = 200" in ini((1, 21))
    assert "default_pool_size = 100" in ini((1, 21))


def test_versions():
    assert parse_version("PgBouncer 1.18.0\nlibevent 2.1") == (1, 18)
    assert parse_version("?") == (0, 0)


def test_prepared_statements_in_transaction_mode_are_not_for_old_pgbouncers():
    [scenario] = choose(["select-prepared-tx-16"])
    old = PgBouncer.__new__(PgBouncer)
    old.prepares_in_transactions = False
    assert "1.21" in (scenario.unable(old) or "")
    old.prepares_in_transactions = True
    assert scenario.unable(old) is None


def test_latencies_are_of_the_measured_time_only():
    log = [Transaction(0, float(at), at * 10.0) for at in range(1, 101)]
    assert latencies(log, 51.0, 100.0) == {"p50_us": 750.0, "p99_us": 1000.0}
    with pytest.raises(MeasureError):
        latencies(log, 200.0, 300.0)


def test_two_logs_overlap_after_the_later_start_until_the_earlier_end():
    one = [Transaction(0, at, 1.0) for at in (1.0, 2.0, 3.0, 9.0)]
    other = [Transaction(0, at, 1.0) for at in (1.5, 6.0)]
    assert overlap([one, other], 0.5) == (2.0, 6.0)
    assert rate(one, 2.0, 6.0) == pytest.approx(0.5)
    with pytest.raises(MeasureError):
        overlap([one, []], 0.5)
    with pytest.raises(MeasureError):
        overlap([one, other], 10)


def test_readings_are_spread_over_the_transactions_of_their_run():
    assert evenly(100, 50, [1.0, 2.0, 3.0]) == [(100.0, 1.0), (125.0, 2.0), (150.0, 3.0)]
    assert evenly(0, 50, []) == []


def test_the_busiest_process_is_the_one_whose_time_grew_most():
    assert busiest({1: 10.0, 2: 0.5}, {1: 10.1, 2: 0.9, 3: 0.3}) == 2


class FakeFleet:
    """Targets by name that only know what they can't do."""

    def __init__(self, missing=()):
        self.missing = {}
        self._absent = set(missing)
        self.stopped = []

    def available(self, name, mode):
        if name in self._absent:
            self.missing[name] = f"{name} is not installed"
        return name not in self._absent

    def get(self, name, mode):
        return SimpleNamespace(name=name, prepares_in_transactions=name != "pgbouncer")

    def stop(self, name=None):
        self.stopped.append(name)


class FakeScenario(Pgbench):
    """Measures nothing; `log` has who was asked, `bad` fails in its second round."""

    __slots__ = ()
    log: list[tuple[str, int]] = []  # noqa: RUF012
    bad = ""

    def warm_up(self, target, effort):
        self.log.append((target.name, 0))

    def round(self, target, postgres, effort, number):
        self.log.append((target.name, number))
        if target.name == self.bad and number == 2:
            raise MeasureError("no")
        return Sample(target.name, number, {"tps": 1.0})


def run_fake(targets, *, missing=(), bad="", mode="transaction"):
    FakeScenario.log = []
    FakeScenario.bad = bad
    scenario = FakeScenario("x", "select", "x", mode, "select-only", "prepared", 1)
    fleet = FakeFleet(missing)
    plan = Plan([scenario], targets, 3, Effort(), "", Path("unused"))
    said: list[str] = []
    result = Runner(plan, cast("Any", None), cast("Any", fleet), said.append).run(scenario)
    return result, FakeScenario.log, fleet, said


def test_rounds_alternate_after_a_warm_up_of_each():
    _, log, _, _ = run_fake(["direct", "proxy"])
    warm = [("direct", 0), ("proxy", 0)]
    assert log == warm + [(name, number) for number in (1, 2, 3) for name in ("direct", "proxy")]


def test_a_target_that_is_missing_or_unable_is_skipped_with_the_reason():
    result, _, _, _ = run_fake(["direct", "pgbouncer", "proxy"], missing=["proxy"])
    assert set(result.skipped) == {"pgbouncer", "proxy"}
    assert result.skipped["proxy"] == "proxy is not installed"
    assert result.targets() == ["direct"]


def test_a_target_that_fails_is_left_out_and_the_others_go_on():
    result, log, fleet, said = run_fake(["direct", "proxy"], bad="direct")
    assert result.failed == {"direct": "no"}
    assert ("direct", 3) not in log
    assert len(result.values("proxy", "tps")) == 3
    assert fleet.stopped == ["direct"]
    assert any("FAILED" in line for line in said)
