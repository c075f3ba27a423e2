"""Samples under deploy/ name only what exists."""

import re
from pathlib import Path

import yaml

from tenant_proxy.obs.metrics import PREFIX, SERIES

DEPLOY = Path(__file__).parent.parent.parent.parent / "deploy"

LABELS = {
    PREFIX + series.name + suffix: set(series.labels) | ({"le"} if suffix else set())
    for series in SERIES
    for suffix in (("_bucket", "_sum", "_count") if series.kind == "histogram" else ("",))
}
RULES = yaml.safe_load((DEPLOY / "alerts.yml").read_text())["groups"][0]["rules"]
OF_THE_SCRAPE = {"instance", "job"}


def test_alerts_are_complete():
    assert RULES
    for rule in RULES:
        assert rule["labels"]["severity"] in {"warning", "critical"}
        assert rule["annotations"]["summary"]
    assert len({rule["alert"] for rule in RULES}) == len(RULES)


def test_alerts_use_series_and_labels_that_exist():
    for rule in RULES:
        names = re.findall(rf"{PREFIX}\w+", rule["expr"])
        assert names or rule["expr"].startswith("up{")
        unknown = set(names) - set(LABELS)
        assert not unknown, rule["alert"]
        known = set().union(*(LABELS[name] for name in names)) | OF_THE_SCRAPE
        matched = set(re.findall(r"(\w+)=~?\"", rule["expr"]))
        kept = {name for group in re.findall(r"by \(([^)]*)\)", rule["expr"]) for name in group.split(", ")}
        shown = set(re.findall(r"\$labels\.(\w+)", str(rule["annotations"])))
        assert matched | kept | shown <= known, rule["alert"]
        if kept:  # an aggregation drops the other labels
            assert shown <= kept, rule["alert"]


def test_the_scrape_sample_uses_the_default_port_and_the_rules():
    sample = yaml.safe_load((DEPLOY / "prometheus.yml").read_text())
    assert sample["scrape_configs"][0]["static_configs"][0]["targets"] == ["127.0.0.1:9127"]
    assert sample["rule_files"] == ["alerts.yml"]


def test_the_unit_reloads_and_drains_by_signals_to_the_supervisor_alone():
    unit = (DEPLOY / "tenant-proxy.service").read_text()
    assert "Type=notify\n" in unit
    assert "ExecReload=/bin/kill -HUP $MAINPID\n" in unit
    assert "KillMode=mixed\n" in unit
