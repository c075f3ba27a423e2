"""`python -m loadtests`: see README.md."""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from loadtests import bench, goals, machine, plots, report, results
from loadtests.process import StartError
from loadtests.profile import ProfileError, profile
from loadtests.scenarios import GROUPS, SCENARIOS, UnknownScenario, choose
from loadtests.targets import DEFAULT_TARGETS, TARGETS
from loadtests.work import Effort

HERE = Path(__file__).parent
OUT = HERE / "out"
COMMANDS = ("run", "list", "report", "check", "profile")


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The command line; `run` may be left out."""
    top = argparse.ArgumentParser(
        prog="python -m loadtests",
        description="Measures PostgreSQL, PgBouncer and tenant_proxy side by side.",
        epilog="Without a command, the rest is taken as arguments of `run`.",
    )
    commands = top.add_subparsers(dest="do", required=True)

    run = commands.add_parser("run", help="measure; prints a table, writes JSON, plots and a report to out/")
    run.add_argument(
        "scenario", nargs="*", help="names, shell patterns or groups; all without any (see `list`)"
    )
    run.add_argument("--rounds", type=int, default=3, help="alternating rounds, default %(default)s")
    run.add_argument("--seconds", type=float, default=5, help="of each round of pgbench, default %(default)s")
    run.add_argument("--quick", action="store_true", help="does everything work? 1 round, 1 s, little data")
    run.add_argument(
        "--targets",
        default=",".join(DEFAULT_TARGETS),
        help=f"of {', '.join(TARGETS)}; default %(default)s",
    )
    run.add_argument("--idle-clients", type=int, default=10_000)
    run.add_argument("--growth-transactions", type=int, default=1_000_000)
    run.add_argument("--output", type=Path, help="folder for the results, default out/<time>")

    commands.add_parser("list", help="names and titles of the scenarios")

    again = commands.add_parser("report", help="table, report and plots again from results")
    again.add_argument("results", nargs="+", type=Path, help="results.json files; later ones win")
    again.add_argument("--publish", action="store_true", help="write RESULTS.md and plots/ of the repository")

    check = commands.add_parser("check", help="are the goals met? exit status 1 if one is missed")
    check.add_argument("results", nargs="+", type=Path)

    look = commands.add_parser("profile", help="where a worker's CPU goes during a pgbench scenario (perf)")
    look.add_argument("scenario", nargs="?", default="select-simple-16")
    look.add_argument("--seconds", type=float, default=10)
    look.add_argument("--top", type=int, default=40, help="symbols to print, default %(default)s")
    look.add_argument("--target", default="proxy", choices=[name for name in TARGETS if name != "direct"])
    look.add_argument("--callers", action="store_true", help="record call graphs and print who calls")

    given = list(arguments)
    if not given or (given[0] not in COMMANDS and given[0] not in ("-h", "--help")):
        given.insert(0, "run")
    return top.parse_args(given)


def chosen_targets(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    unknown = [name for name in names if name not in TARGETS]
    if unknown or not names:
        raise UnknownScenario(f"unknown target {', '.join(unknown)}; there are: {', '.join(TARGETS)}")
    return names


def run(options: argparse.Namespace, console: Console, command: str) -> int:
    effort = Effort(options.seconds, options.idle_clients, options.growth_transactions)
    rounds = options.rounds
    if options.quick:
        effort = Effort(1, min(500, options.idle_clients), 20_000, 10_000_000, quick=True)
        rounds = 1
    # the clients' ends are in this process, the servers' inherit the limit
    machine.raise_file_limit(effort.idle_clients + 2000)
    folder = options.output or OUT / time.strftime("%Y%m%d-%H%M%S")
    plan = bench.Plan(
        choose(options.scenario),
        chosen_targets(options.targets),
        rounds,
        effort,
        command,
        folder / "results.json",
    )
    found = bench.run(plan, lambda text: console.print(text, highlight=False, markup=False, soft_wrap=True))
    console.print()
    report.print_tables(found, console)
    report.write(found, folder)
    plots.draw(found, folder / "plots")
    console.print(f"raw figures, report and plots: {_shown(folder)}", highlight=False)
    return 1 if any(scenario.failed for scenario in found.scenarios) else 0


def _shown(folder: Path) -> str:
    try:
        return str(folder.resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(folder)


def main(arguments: Sequence[str] | None = None) -> int:
    given = list(sys.argv[1:] if arguments is None else arguments)
    options = parse(given)
    console = Console()
    if not console.is_terminal:
        console = Console(width=140)  # a log or a pipe has no width of its own
    try:
        if options.do == "run":
            return run(options, console, shlex.join(["python", "-m", "loadtests", *given]))
        if options.do == "list":
            for scenario in SCENARIOS:
                console.print(f"{scenario.name:<24} {scenario.title}", highlight=False)
            console.print(f"groups: {', '.join(GROUPS)}", highlight=False)
            return 0
        if options.do == "profile":
            effort = Effort(options.seconds)
            console.print(
                profile(options.scenario, options.target, effort, options.top, callers=options.callers),
                highlight=False,
                markup=False,
                soft_wrap=True,
            )
            return 0
        found = results.merge([results.load(path) for path in options.results])
        if options.do == "check":
            report.print_goals(found, console)
            return 1 if any(outcome.met is not True for outcome in goals.judge(found)) else 0
        report.print_tables(found, console)
        folder = HERE if options.publish else options.results[-1].parent
        report.write(found, folder)
        plots.draw(found, folder / "plots")
        return 0
    except (UnknownScenario, StartError, ProfileError) as error:
        console.print(f"error: {error}", highlight=False, markup=False)
        return 2


if __name__ == "__main__":
    sys.exit(main())
