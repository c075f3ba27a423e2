"""PNG plots of a run: bars for each group with the rounds' range, and memory over transactions."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from loadtests.results import METRICS, Results, ScenarioResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: one colour for each target in all plots
COLOURS = {
    "direct": "#8c8c8c",
    "pgbouncer": "#4c72b0",
    "proxy": "#dd8452",
    "proxy-noguard": "#f0c49b",
    "proxy-shared": "#55a868",
}

#: bars: group -> plots, each (name, metric, logarithmic)
BARS: dict[str, tuple[tuple[str, str, bool], ...]] = {
    "select": (
        ("select-throughput", "tps", False),
        ("select-cpu", "cpu_us", False),
        ("select-latency", "p99_us", True),
    ),
    "tpcb": (("tpcb-throughput", "tps", False), ("tpcb-cpu", "cpu_us", False)),
    "connect": (("connect-rate", "per_cpu_s", False),),
    "tls": (("tls-cpu", "cpu_us", False),),
    "bulk": (("bulk-throughput", "mb_s", False), ("bulk-cpu", "cpu_us_mb", False)),
    "idle": (("idle-memory", "idle_bytes", False),),
    "tenants": (("tenants-latency", "quiet_p99_us", True),),
}
CURVES = {"growth": "growth-memory"}


def plot_names(results: Results, group: str) -> list[str]:
    """Names of the plots that a group has figures for."""
    scenarios = [s for s in results.scenarios if s.group == group]
    found = [name for name, metric, _ in BARS.get(group, ()) if any(metric in s.metrics() for s in scenarios)]
    if group in CURVES and any(sample.series for s in scenarios for sample in s.samples):
        found.append(CURVES[group])
    return found


def draw(results: Results, folder: Path) -> None:
    """Writes every plot that there are figures for into `folder`."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    folder.mkdir(parents=True, exist_ok=True)

    def save(name: str, width: float) -> Axes:
        figure, axes = pyplot.subplots(figsize=(width, 3.6), layout="constrained")
        figure.set_label(name)
        return axes

    for group in dict.fromkeys(s.group for s in results.scenarios):
        wanted = plot_names(results, group)
        scenarios = [s for s in results.scenarios if s.group == group]
        for name, metric, logarithmic in BARS.get(group, ()):
            if name in wanted:
                bars(save(name, 2.5 + 0.9 * len(scenarios)), scenarios, metric, logarithmic=logarithmic)
        if group in CURVES and CURVES[group] in wanted:
            curves(save(CURVES[group], 7), scenarios)
    for number in pyplot.get_fignums():
        figure = pyplot.figure(number)
        # without the date and version that matplotlib adds, equal figures give equal files
        figure.savefig(folder / f"{figure.get_label()}.png", dpi=100, metadata={"Software": None})
        pyplot.close(figure)


def bars(axes: Axes, scenarios: list[ScenarioResult], metric: str, *, logarithmic: bool) -> None:
    """A cluster of bars for each scenario; whiskers from the lowest to the highest round."""
    meaning = METRICS[metric]
    shown = [s for s in scenarios if metric in s.metrics()]
    targets = [t for t in COLOURS if any(s.spread(t, metric) is not None for s in shown)]
    width = 0.8 / max(1, len(targets))
    for index, target in enumerate(targets):
        at, heights, below, above = [], [], [], []
        for place, scenario in enumerate(shown):
            found = scenario.spread(target, metric)
            if found is None:
                continue
            at.append(place + (index - (len(targets) - 1) / 2) * width)
            heights.append(found.median / meaning.scale)
            below.append((found.median - found.low) / meaning.scale)
            above.append((found.high - found.median) / meaning.scale)
        axes.bar(
            at, heights, width, label=target, color=COLOURS[target], yerr=[below, above], error_kw={"lw": 0.8}
        )
    if logarithmic:
        axes.set_yscale("log")
    axes.set_ylabel(f"{meaning.label}, {meaning.unit}")
    axes.set_xticks(range(len(shown)), [s.name for s in shown], rotation=30, ha="right", fontsize=8)
    axes.legend(fontsize=8, frameon=False, loc="lower left", bbox_to_anchor=(0, 1), ncols=4)
    axes.spines[["top", "right"]].set_visible(False)


def curves(axes: Axes, scenarios: list[ScenarioResult]) -> None:
    """Memory over transactions, a line for each target and round."""
    named: set[str] = set()
    for scenario in scenarios:
        for sample in scenario.samples:
            points = sample.series.get("memory", [])
            label = None if sample.target in named else sample.target
            named.add(sample.target)
            axes.plot(
                [x for x, _ in points],
                [y / 1024**2 for _, y in points],
                color=COLOURS.get(sample.target),
                label=label,
                lw=1,
            )
    axes.set_xlabel("transactions")
    axes.set_ylabel("own memory of the process tree, MiB")
    axes.set_ylim(bottom=0)
    axes.legend(fontsize=8, frameon=False, loc="lower left", bbox_to_anchor=(0, 1), ncols=4)
    axes.spines[["top", "right"]].set_visible(False)
