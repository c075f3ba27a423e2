"""Tables for the terminal and RESULTS.md, from a run's results."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.table import Table

from loadtests import goals
from loadtests.plots import plot_names
from loadtests.postgres import SETTINGS
from loadtests.results import BASE, DISTURBED_PCT, METRICS, NOISE_METRICS, Results, ScenarioResult
from loadtests.scenarios import GROUPS
from loadtests.stats import Spread, spread
from loadtests.targets import POOL_SIZE

#: figures of which the ratio to PgBouncer is shown beside
COMPARED = ("tps", "cpu_us", "per_cpu_s", "mb_s", "cpu_us_mb", "idle_bytes", "login_cpu_us", "quiet_p99_us")
#: in the tables of these groups a figure is left out, because another says it better
HIDDEN = {
    "select": ("per_cpu_s",),
    "tpcb": ("per_cpu_s",),
    "connect": (),
    "tls": ("per_cpu_s",),
}
#: rounds that differ by more than this are pointed out
NOISY = 0.15

Row = list[str]


def figure(found: Spread | None, name: str, *, spread: bool = True) -> str:
    """A median in the metric's unit, with its lowest and highest round."""
    if found is None:
        return "–"
    metric = METRICS[name]

    def one(value: float) -> str:
        return f"{value / metric.scale:,.{metric.digits}f}"

    if not spread or found.count < 2:
        return one(found.median)
    return f"{one(found.median)} ({one(found.low)}–{one(found.high)})"


def ratio_figure(found: Spread | None) -> str:
    if found is None:
        return "–"
    if found.count < 2:
        return f"{found.median:.2f}"
    return f"{found.median:.2f} ({found.low:.2f}–{found.high:.2f})"


def heading(name: str) -> str:
    metric = METRICS[name]
    return f"{metric.label}, {metric.unit}" if metric.unit else metric.label


def group_table(scenarios: list[ScenarioResult], *, narrow: bool = False) -> tuple[Row, list[Row]]:
    """Heading and rows of one group: a row for each scenario and target.

    `narrow` is for a terminal: short headings, and the rounds' range with ratios only.
    """
    hidden = HIDDEN.get(scenarios[0].group, ())
    present = {name for s in scenarios for name in s.metrics()}
    shown = [n for n in METRICS if n in present and n not in hidden and n not in NOISE_METRICS]
    head = ["scenario", "target"]
    for name in shown:
        head.append(METRICS[name].short if narrow else heading(name))
        if name in COMPARED:
            head.append("÷ pgb." if narrow else "÷ PgBouncer")
    rows = []
    for scenario in scenarios:
        for target in scenario.targets():
            row = [scenario.name if narrow else scenario.title, target]
            for name in shown:
                row.append(figure(scenario.spread(target, name), name, spread=not narrow))
                if name in COMPARED:
                    row.append(ratio_figure(scenario.ratio(target, name)) if target != BASE else "1")
            rows.append(row)
    return head, rows


def by_group(results: Results) -> dict[str, list[ScenarioResult]]:
    """The groups that have figures, in GROUPS' order."""
    return {
        group: found
        for group in GROUPS
        if (found := [s for s in results.scenarios if s.group == group and s.samples])
    }


def remarks(results: Results) -> list[str]:
    """What was left out, what failed, and where the figures are noisy."""
    found = []
    for scenario in results.scenarios:
        for target, why in scenario.failed.items():
            found.append(f"{scenario.name}: {target} failed: {why.splitlines()[0]}")
        for target, why in scenario.skipped.items():
            found.append(f"{scenario.name}: {target} left out: {why}")
    for scenario in results.scenarios:
        others = scenario.disturbance_pct()
        if others > DISTURBED_PCT:
            found.append(f"{scenario.name}: others used up to {others:.0f} % of the machine meanwhile")
        for target in scenario.targets():
            for name in ("tps", "mb_s"):
                measured = scenario.spread(target, name)
                if measured is not None and measured.noise > NOISY:
                    found.append(
                        f"{scenario.name}: rounds of {target} differ by {measured.noise:.0%} ({name})"
                    )
    return found


def noise(results: Results) -> dict[str, Spread | None]:
    """CPU that others used, over all rounds."""
    return {
        name: spread([x.metrics[name] for s in results.scenarios for x in s.samples if name in x.metrics])
        for name in NOISE_METRICS
    }


def print_tables(results: Results, console: Console) -> None:
    for group, scenarios in by_group(results).items():
        head, rows = group_table(scenarios, narrow=True)
        table = Table(title=group, title_justify="left")
        for number, text in enumerate(head):
            table.add_column(text, justify="left" if number < 2 else "right")
        last = ""
        for row in rows:
            if last and row[0] != last:
                table.add_section()
            table.add_row("" if row[0] == last else row[0], *row[1:])
            last = row[0]
        console.print(table)
    print_goals(results, console, everything=False)
    for line in remarks(results):
        console.print(f"note: {line}", highlight=False, markup=False)


def print_goals(results: Results, console: Console, *, everything: bool = True) -> None:
    """The goals and their outcomes; without `everything` only those whose scenario was run."""
    outcomes = [o for o in goals.judge(results) if everything or results.scenario(o.goal.scenario)]
    if not outcomes:
        return
    table = Table(title="goals", title_justify="left")
    for text in ("goal", "bound", "found", ""):
        table.add_column(text)
    colours = {True: "green", False: "bold red", None: "dim"}
    for outcome in outcomes:
        word = f"[{colours[outcome.met]}]{outcome.word()}[/]"
        table.add_row(outcome.goal.text, outcome.bound(), outcome.figure(), word)
    console.print(table)


def markdown_table(head: Row, rows: list[Row]) -> list[str]:
    lines = ["| " + " | ".join(head) + " |"]
    lines.append("| " + " | ".join("---" if n < 2 else "---:" for n in range(len(head))) + " |")
    lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return lines


def markdown(results: Results) -> str:
    """RESULTS.md."""
    lines = ["# Load test results", ""]
    if results.quick:
        lines += [
            "**From a run with `--quick`: it shows that everything works; the figures mean nothing.**",
            "",
        ]
    lines += [
        f"Written by `python -m loadtests` from a run of {results.started}; do not edit. "
        "[README.md](README.md) says how it is measured.",
        "",
        "## Goals",
        "",
    ]
    outcomes = goals.judge(results)
    lines += markdown_table(
        ["goal", "bound", "found", "outcome"],
        [[o.goal.text, o.bound(), o.figure(), o.word()] for o in outcomes],
    )
    lines += ["", "## How they were got", "", f"- Command: `{results.command}`"]
    lines.append(
        f"- {results.rounds} alternating round(s) of {results.seconds:g} s for each target, after a warm-up. "
        "Figures are medians of the rounds, in brackets the lowest and highest. A ratio is that of the "
        "medians, in brackets the lowest and highest ratio within a round."
    )
    lines += [f"- {label}: {text}" for label, text in results.facts.items()]
    lines.append(f"- Versions: {', '.join(f'{name} {text}' for name, text in results.versions.items())}")
    lines.append(
        "- Clients, proxies and server share the machine and talk by TCP on the loopback, without TLS but "
        "where it is named. All logins are SCRAM-SHA-256; both proxies hold the server's own verifier and "
        "pass the client's proof through. "
        f"Pools hold up to {POOL_SIZE['transaction']} backends in transaction mode and "
        f"{POOL_SIZE['session']} in session mode. tenant_proxy runs one worker; its supervisor and control "
        "process are counted."
    )
    lines.append(f"- PostgreSQL: {', '.join(f'{k} = {v}' for k, v in SETTINGS.items() if v)}")
    others = [
        f"{METRICS[name].label} {figure(found, name)} {METRICS[name].unit}"
        for name, found in noise(results).items()
        if found is not None
    ]
    if others:
        lines.append(f"- Noise during the rounds: {'; '.join(others)}")
    for group, scenarios in by_group(results).items():
        lines += ["", f"## {group}", "", GROUPS[group], ""]
        lines += markdown_table(*group_table(scenarios))
        for name in plot_names(results, group):
            lines += ["", f"![{name}](plots/{name}.png)"]
        lines += ["", "Commands:", ""]
        lines += [f"- {s.title}: `{s.command}`" for s in scenarios]
    notes = remarks(results)
    if notes:
        lines += ["", "## Remarks", "", *(f"- {line}" for line in notes)]
    return "\n".join(lines) + "\n"


def write(results: Results, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "RESULTS.md").write_text(markdown(results))
