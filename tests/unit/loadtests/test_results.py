"""Results: saved, merged, judged and shown."""

import pytest
from rich.console import Console

from loadtests import goals, report
from loadtests.goals import Goal
from loadtests.plots import plot_names
from loadtests.results import METRICS, Results, Sample, ScenarioResult, load, merge
from loadtests.scenarios import GROUPS, SCENARIOS


def scenario(name, figures, group="select"):
    """A scenario from {target: {metric: [round 1, round 2, …]}}."""
    result = ScenarioResult(name, group, f"title of {name}", "transaction", "pgbench …")
    for target, metrics in figures.items():
        rounds = max(len(values) for values in metrics.values())
        for number in range(rounds):
            sample = {metric: values[number] for metric, values in metrics.items()}
            result.samples.append(Sample(target, number + 1, sample))
    return result


def results(*scenarios, quick=False):
    return Results(
        facts={"CPU": "2 × test"},
        versions={"PostgreSQL": "17.1"},
        command="python -m loadtests",
        started="2026-01-01 00:00 UTC",
        rounds=3,
        seconds=5,
        quick=quick,
        scenarios=list(scenarios),
    )


CHEAPER = scenario(
    "select-simple-16",
    {
        "direct": {"tps": [3000.0, 3100.0, 2900.0]},
        "pgbouncer": {"tps": [1000.0, 1100.0, 900.0], "cpu_us": [20.0, 22.0, 18.0]},
        "proxy": {"tps": [1200.0, 1000.0, 1100.0], "cpu_us": [18.0, 19.0, 17.0]},
    },
)


def test_results_survive_saving(tmp_path):
    found = results(CHEAPER)
    found.save(tmp_path / "x" / "results.json")
    assert load(tmp_path / "x" / "results.json") == found


def test_of_merged_runs_the_later_one_counts():
    older = results(scenario("idle", {"proxy": {"idle_bytes": [9999.0]}}, "idle"), CHEAPER)
    newer = results(scenario("idle", {"proxy": {"idle_bytes": [1000.0]}}, "idle"))
    both = merge([older, newer])
    idle = both.scenario("idle")
    assert idle is not None
    assert idle.values("proxy", "idle_bytes") == {1: 1000.0}
    assert both.scenario("select-simple-16") is CHEAPER
    with pytest.raises(ValueError):
        merge([])


def test_targets_and_metrics_of_a_scenario():
    assert CHEAPER.targets() == ["direct", "pgbouncer", "proxy"]
    assert CHEAPER.metrics() == ["tps", "cpu_us"]


GOAL = Goal("select-simple-16", "cpu_us", "at most", 1.0, True, "CPU")


def test_a_goal_that_is_met():
    [outcome] = goals.judge(results(CHEAPER), [GOAL])
    assert outcome.met is True
    assert outcome.figure() == "0.90 × (0.86 × – 0.94 ×)"
    assert outcome.bound() == "at most 1.00 × PgBouncer"


def test_a_goal_that_is_missed():
    [outcome] = goals.judge(
        results(CHEAPER), [Goal("select-simple-16", "tps", "at least", 1.2, True, "rate")]
    )
    assert outcome.met is False
    assert outcome.word() == "MISSED"


def test_a_quick_run_meets_and_misses_nothing():
    [outcome] = goals.judge(results(CHEAPER, quick=True), [GOAL])
    assert outcome.met is None
    assert outcome.word() == "not judged: --quick"


def test_an_outcome_says_that_others_disturbed_it():
    disturbed = scenario(
        "select-simple-16",
        {
            "pgbouncer": {"cpu_us": [20.0, 20.0], "foreign_pct": [1.0, 1.0]},
            "proxy": {"cpu_us": [18.0, 18.0], "foreign_pct": [1.0, 9.0]},
        },
    )
    [outcome] = goals.judge(results(disturbed), [GOAL])
    assert outcome.word() == "met (disturbed)"


def test_an_absolute_goal():
    run = results(scenario("idle", {"proxy": {"idle_bytes": [2000.0]}}, "idle"))
    [outcome] = goals.judge(run, [Goal("idle", "idle_bytes", "at most", 2048, False, "idle")])
    assert outcome.met is True
    assert outcome.figure() == "2,000"


def test_a_goal_without_figures_says_why():
    failed = scenario("select-simple-16", {"pgbouncer": {"cpu_us": [20.0]}})
    failed.failed["proxy"] = "it crashed\nwith a long log"
    [outcome] = goals.judge(results(failed), [GOAL])
    assert outcome.met is None
    assert outcome.figure() == "proxy: it crashed"
    [outcome] = goals.judge(results(), [GOAL])
    assert outcome.figure() == "select-simple-16 was not run"


def test_every_goal_is_about_a_scenario_and_a_figure_that_exist():
    names = {one.name for one in SCENARIOS}
    for goal in goals.GOALS:
        assert goal.scenario in names
        assert goal.metric in METRICS


def test_the_report_has_figures_ranges_ratios_goals_and_how_they_were_got():
    text = report.markdown(results(CHEAPER))
    assert "| title of select-simple-16 | proxy | 1,100 (1,000–1,200) | 1.10 (0.91–1.22) |" in text
    assert "18.0 (17.0–19.0) | 0.90 (0.86–0.94) |" in text
    assert GROUPS["select"] in text
    assert "`python -m loadtests`" in text
    assert "2 × test" in text
    assert "![select-cpu](plots/select-cpu.png)" in text
    assert "mean nothing" not in text


def test_a_quick_runs_report_says_that_it_means_nothing():
    assert "mean nothing" in report.markdown(results(CHEAPER, quick=True))


def test_what_was_left_out_failed_or_was_noisy_is_remarked():
    noisy = scenario(
        "tpcb-1", {"direct": {"tps": [100.0, 130.0], "foreign_pct": [30.0, 1.0], "steal_pct": [1.0, 0.0]}}
    )
    noisy.skipped["pgbouncer"] = "pgbouncer is not installed"
    noisy.failed["proxy"] = "it crashed"
    assert report.remarks(results(noisy)) == [
        "tpcb-1: proxy failed: it crashed",
        "tpcb-1: pgbouncer left out: pgbouncer is not installed",
        "tpcb-1: others used up to 31 % of the machine meanwhile",
        "tpcb-1: rounds of direct differ by 26% (tps)",
    ]


def test_the_terminals_tables_have_every_target():
    console = Console(width=140, record=True, quiet=True)
    with console.capture() as _:
        report.print_tables(results(CHEAPER), console)
    assert plot_names(results(CHEAPER), "select") == ["select-throughput", "select-cpu"]


def test_a_pipe_in_a_cell_does_not_end_it():
    assert report.markdown_table(["a", "b"], [["x|y", "z"]])[-1] == "| x\\|y | z |"
