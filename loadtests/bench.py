"""Rounds of scenarios over targets: A B C, A B C, … so that the machine's moods meet all alike."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from loadtests import machine
from loadtests.pgbench import PgbenchError
from loadtests.postgres import Postgres
from loadtests.process import StartError
from loadtests.results import METRICS, NOISE_METRICS, Results, Sample, ScenarioResult
from loadtests.targets import TARGETS, Target
from loadtests.wire import WireError
from loadtests.work import Effort, MeasureError, Scenario

#: what a target may do wrong without ending the run for the others
TROUBLE = (MeasureError, PgbenchError, StartError, WireError, OSError)

#: rows of pgbench_accounts are 100,000 times this
SCALE = 10
QUICK_SCALE = 1

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be run."""

    scenarios: Sequence[Scenario]
    targets: Sequence[str]
    rounds: int
    effort: Effort
    #: as the caller typed it, for the report
    command: str
    #: raw results are written here after each scenario
    output: Path


class Fleet:
    """The targets that are up, by (name, mode).  Those of another mode are ended before one is started."""

    def __init__(self, postgres: Postgres, say: Say) -> None:
        self._postgres = postgres
        self._say = say
        self._up: dict[str, Target] = {}
        self._mode = ""
        #: targets that are not there at all -> why
        self.missing: dict[str, str] = {}

    def get(self, name: str, mode: str) -> Target:
        """The target, started if need be."""
        if mode != self._mode:
            self.stop()
            self._mode = mode
        if name not in self._up:
            target = TARGETS[name](self._postgres, mode)
            target.start()
            self._up[name] = target
        return self._up[name]

    def available(self, name: str, mode: str) -> bool:
        """Whether the program exists; says so once if not."""
        if name in self.missing:
            return False
        try:
            TARGETS[name](self._postgres, mode)
        except FileNotFoundError as error:
            self.missing[name] = str(error)
            self._say(f"skipping {name}: {error}")
            return False
        return True

    def stop(self, name: str | None = None) -> None:
        """Ends one target or all."""
        for one in [name] if name else list(self._up):
            target = self._up.pop(one, None)
            if target is not None:
                target.stop()


class Runner:
    """Runs a plan's scenarios; what a target can't do or fails at is noted, and the rest goes on."""

    def __init__(self, plan: Plan, postgres: Postgres, fleet: Fleet, say: Say) -> None:
        self._plan = plan
        self._postgres = postgres
        self._fleet = fleet
        self._say = say

    def run(self, scenario: Scenario) -> ScenarioResult:
        """All rounds of one scenario over all targets that can do it."""
        result = ScenarioResult(
            scenario.name,
            scenario.group,
            scenario.title,
            scenario.mode,
            scenario.command(self._plan.effort),
        )
        able = [name for name in self._plan.targets if self._prepare(name, scenario, result)]
        for number in range(1, self._plan.rounds + 1):
            for name in able:
                if name not in result.failed:
                    self._round(name, number, scenario, result)
        return result

    def _prepare(self, name: str, scenario: Scenario, result: ScenarioResult) -> bool:
        """Starts and warms a target up; False if it is to be left out."""
        if not self._fleet.available(name, scenario.mode):
            result.skipped[name] = self._fleet.missing[name]
            return False
        try:
            target = self._fleet.get(name, scenario.mode)
            reason = scenario.unable(target)
            if reason is not None:
                result.skipped[name] = reason
                return False
            if not scenario.fresh():
                scenario.warm_up(target, self._plan.effort)
        except TROUBLE as error:
            self._fail(name, result, error)
            return False
        return True

    def _round(self, name: str, number: int, scenario: Scenario, result: ScenarioResult) -> None:
        effort = self._plan.effort
        try:
            if scenario.fresh():
                self._fleet.stop(name)
            target = self._fleet.get(name, scenario.mode)
            if scenario.fresh():
                scenario.warm_up(target, effort)
            sample = scenario.round(target, self._postgres, effort, number)
        except TROUBLE as error:
            self._fail(name, result, error)
            return
        result.samples.append(sample)
        self._say(f"  {number}/{self._plan.rounds} {name}: {describe(sample)}")

    def _fail(self, name: str, result: ScenarioResult, error: Exception) -> None:
        """Notes the failure; the next scenario gets a new start of the target."""
        result.failed[name] = str(error)
        self._say(f"  {name} FAILED: {error}")
        self._fleet.stop(name)


def describe(sample: Sample) -> str:
    """The round's figures in one line."""
    parts = []
    for name, value in sample.metrics.items():
        metric = METRICS[name]
        if name not in NOISE_METRICS:
            parts.append(f"{name} {value / metric.scale:,.{metric.digits}f}")
    return ", ".join(parts)


def run(plan: Plan, say: Say) -> Results:
    """Runs the plan on a PostgreSQL of its own; the results are saved after each scenario."""
    postgres = Postgres()
    say("starting PostgreSQL and filling two tenants' tables")
    postgres.start(QUICK_SCALE if plan.effort.quick else SCALE)
    fleet = Fleet(postgres, say)
    try:
        results = Results(
            facts=machine.facts(),
            versions=machine.versions(postgres, list(plan.targets)),
            command=plan.command,
            started=datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
            rounds=plan.rounds,
            seconds=plan.effort.seconds,
            quick=plan.effort.quick,
        )
        runner = Runner(plan, postgres, fleet, say)
        for number, scenario in enumerate(plan.scenarios, 1):
            say(f"[{number}/{len(plan.scenarios)}] {scenario.name}: {scenario.title}")
            results.scenarios.append(runner.run(scenario))
            results.save(plan.output)
    finally:
        fleet.stop()
        postgres.stop()
    return results
