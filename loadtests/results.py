"""What a run has found, as plain data: written to and read from JSON, never recomputed."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from loadtests.stats import Spread, ratio, spread

#: everything is related to this target
BASE = "pgbouncer"


@dataclass(frozen=True, slots=True)
class Metric:
    """How a figure is shown.  Values in samples are in the unit named here."""

    #: heading in a terminal
    short: str
    label: str
    unit: str
    digits: int = 0
    #: divide by this to show (bytes as KiB, microseconds as milliseconds)
    scale: float = 1.0


METRICS = {
    "tps": Metric("tx/s", "transactions", "/s"),
    "p50_us": Metric("p50 ms", "p50", "ms", 3, 1000),
    "p99_us": Metric("p99 ms", "p99", "ms", 3, 1000),
    "cpu_us": Metric("CPU µs", "proxy CPU", "µs/transaction", 1),
    "server_cpu_us": Metric("server µs", "server CPU", "µs/transaction", 1),
    "per_cpu_s": Metric("tx/CPU s", "rate", "per CPU second of the proxy"),
    "mb_s": Metric("MB/s", "throughput", "MB/s"),
    "cpu_us_mb": Metric("CPU µs/MB", "proxy CPU", "µs/MB"),
    "idle_bytes": Metric("KiB/client", "memory of an idle client", "KiB", 2, 1024),
    "empty_bytes": Metric("empty MiB", "memory before the clients", "MiB", 1, 1024 * 1024),
    "login_cpu_us": Metric("login CPU µs", "proxy CPU of a login and a query", "µs"),
    "idle_cpu_pct": Metric("idle CPU %", "CPU while all are idle", "% of a core", 2),
    "growth_bytes": Metric("growth KiB", "growth after the first tenth", "KiB", 0, 1024),
    "final_bytes": Metric("end MiB", "memory at the end", "MiB", 1, 1024 * 1024),
    "slope_bytes": Metric("trend KiB", "trend per million transactions", "KiB", 0, 1024),
    "alone_p50_us": Metric("alone p50", "quiet tenant alone, p50", "ms", 3, 1000),
    "alone_p99_us": Metric("alone p99", "quiet tenant alone, p99", "ms", 3, 1000),
    "quiet_p50_us": Metric("beside p50", "quiet tenant beside the flood, p50", "ms", 3, 1000),
    "quiet_p99_us": Metric("beside p99", "quiet tenant beside the flood, p99", "ms", 3, 1000),
    "flood_tps": Metric("flood tx/s", "the flood", "transactions/s"),
    "share": Metric("share", "two equal tenants: slower ÷ faster", "", 2),
    "logins_s": Metric("logins s", "all clients' logins, 32 at a time", "s", 1),
    "reload_us": Metric("reload ms", "longest time from a reload to its effect", "ms", 0, 1000),
    "dedicated_tps": Metric("dedicated", "on dedicated backends", "transactions/s"),
    "dedicated_cpu_us": Metric("ded. CPU", "proxy CPU on dedicated backends", "µs/transaction", 1),
    "to_dedicated_pct": Metric("of ded. %", "shared ÷ dedicated", "%"),
    "beside_pct": Metric("beside %", "quiet tenants' p99 beside the flood ÷ alone", "%"),
    "server_bytes": Metric("server MiB", "private memory of the server's backends", "MiB", 0, 1024 * 1024),
    "hit_ns": Metric("hit ns", "lookup of 200 bytes that hits", "ns"),
    "miss_point_us": Metric("point µs", "judgement of a point query", "µs", 1),
    "miss_orm_us": Metric("ORM µs", "judgement of an ORM's SELECT of 1 kB", "µs", 1),
    "normal_us": Metric("alone p50", "round trip alone, p50", "ms", 3, 1000),
    "normal_max_us": Metric("alone max", "round trip alone, longest", "ms", 3, 1000),
    "holdup_us": Metric("held up ms", "hold-up beside them, queues for processors left out", "ms", 3, 1000),
    "holdup_clock_us": Metric("beside max", "longest round trip beside them by the clock", "ms", 3, 1000),
    "answer_us": Metric("answer ms", "longest answer to one of them", "ms", 0, 1000),
    "shapes_bytes": Metric("shapes MiB", "memory that the statements took", "MiB", 1, 1024 * 1024),
    "foreign_pct": Metric("others %", "CPU used by others", "% of the machine", 1),
    "steal_pct": Metric("steal %", "CPU stolen by the hypervisor", "% of the machine", 1),
}

#: of the machine, not of the target
NOISE_METRICS = ("foreign_pct", "steal_pct")
#: more of both than this, in percent of the machine's CPU, is pointed out
DISTURBED_PCT = 5


@dataclass(frozen=True, slots=True)
class Sample:
    """One round of one scenario on one target."""

    target: str
    round: int
    metrics: dict[str, float]
    #: curves, e.g. memory over time: [[x, y], …]
    series: dict[str, list[list[float]]] = field(default_factory=dict)


@dataclass(slots=True)
class ScenarioResult:
    """All rounds of a scenario, and why a target has none."""

    name: str
    group: str
    title: str
    mode: str
    #: what was run, without connection parameters
    command: str
    samples: list[Sample] = field(default_factory=list)
    #: target -> why it was not measured (not installed, can't do it)
    skipped: dict[str, str] = field(default_factory=dict)
    #: target -> what went wrong
    failed: dict[str, str] = field(default_factory=dict)

    def targets(self) -> list[str]:
        """In the order in which they were first measured."""
        return list(dict.fromkeys(sample.target for sample in self.samples))

    def values(self, target: str, metric: str) -> dict[int, float]:
        """A figure by round."""
        return {
            s.round: s.metrics[metric] for s in self.samples if s.target == target and metric in s.metrics
        }

    def spread(self, target: str, metric: str) -> Spread | None:
        return spread(list(self.values(target, metric).values()))

    def ratio(self, target: str, metric: str, base: str = BASE) -> Spread | None:
        """A target's figure in relation to another's."""
        return ratio(self.values(target, metric), self.values(base, metric))

    def disturbance_pct(self) -> float:
        """The most of the machine's CPU that was not ours in any round."""
        return max((sum(s.metrics.get(n, 0.0) for n in NOISE_METRICS) for s in self.samples), default=0.0)

    def metrics(self) -> list[str]:
        """Which figures there are, in METRICS' order."""
        present = {name for sample in self.samples for name in sample.metrics}
        return [name for name in METRICS if name in present]


@dataclass(slots=True)
class Results:
    """A run: the machine's facts, how it was called, and what each scenario gave."""

    #: ordered facts (label -> text), without names or paths of this machine
    facts: dict[str, str]
    versions: dict[str, str]
    command: str
    started: str
    rounds: int
    seconds: float
    quick: bool
    scenarios: list[ScenarioResult] = field(default_factory=list)

    def scenario(self, name: str) -> ScenarioResult | None:
        return next((s for s in self.scenarios if s.name == name), None)

    def save(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n")


def load(path: Path) -> Results:
    """Reads what `Results.save` wrote."""
    data = json.loads(path.read_text())
    scenarios = [
        ScenarioResult(**{**one, "samples": [Sample(**sample) for sample in one["samples"]]})
        for one in data.pop("scenarios")
    ]
    return Results(**data, scenarios=scenarios)


def merge(parts: Sequence[Results]) -> Results:
    """Several runs as one: of a scenario that is in more than one, the last counts; facts are the last's."""
    if not parts:
        raise ValueError("no results to merge")
    last = parts[-1]
    scenarios: dict[str, ScenarioResult] = {}
    for part in parts:
        scenarios.update({s.name: s for s in part.scenarios})
    commands = " ; ".join(dict.fromkeys(part.command for part in parts))
    return Results(
        facts=last.facts,
        versions=merged(part.versions for part in parts),
        command=commands,
        started=parts[0].started,
        rounds=last.rounds,
        seconds=last.seconds,
        quick=any(part.quick for part in parts),
        scenarios=list(scenarios.values()),
    )


def merged(maps: Iterable[dict[str, str]]) -> dict[str, str]:
    """One map of several; the later value of a key counts."""
    return {key: value for one in maps for key, value in one.items()}
