"""tenant-proxy check"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated

import typer
from rich import box
from rich.table import Table
from rich.text import Text

from tenant_proxy.cli import catalog_check
from tenant_proxy.cli.clusters import SEVERITIES, Finding, examine
from tenant_proxy.cli.output import STYLES, ConfigOption, console, print_json, print_problems
from tenant_proxy.config.load import load
from tenant_proxy.config.problems import ConfigError, Problem
from tenant_proxy.config.schema import Config


def check(
    config: ConfigOption,
    offline: Annotated[bool, typer.Option("--offline", help="Looks at the file only.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Prints JSON.")] = False,
) -> None:
    """Validates the file, then logs in to the clusters and the catalog and says what is missing there.

    Every problem is shown with its line and the allowed values, every finding with the SQL that mends it.
    Nothing is changed.  Warnings alone leave the exit status at 0.
    """
    built: Config | None = None
    problems: Sequence[Problem]
    findings: list[Finding] = []
    try:
        loaded = load(config)
        built, problems = loaded.config, loaded.warnings
    except ConfigError as failed:
        problems = failed.problems
    if built is not None and not offline:
        findings = asyncio.run(_examine(built))
    good = built is not None and not any(finding.severity == "error" for finding in findings)
    if as_json:
        print_json(
            {
                "ok": good,
                "problems": [problem.to_json() for problem in problems],
                "findings": [asdict(finding) for finding in findings],
            }
        )
    else:
        print_problems(problems)
        if built is not None:
            out = console()
            out.print(f"{config}: the file is valid", soft_wrap=True, markup=False)
            if not offline:
                _print_findings(built, findings)
    raise typer.Exit(0 if good else 1)


async def _examine(config: Config) -> list[Finding]:
    of_catalog, of_clusters = await asyncio.gather(catalog_check.examine(config), examine(config))
    return of_catalog + of_clusters


def _print_findings(config: Config, findings: Sequence[Finding]) -> None:
    out = console()
    if config.catalog.dsn is not None:
        said = _summary(findings, "")
        out.print(Text(f"catalog ({catalog_check.place(config)}): {said}"), soft_wrap=True)
    for cluster in config.clusters:
        tenants = _count(sum(tenant.cluster == cluster.name for tenant in config.tenants), "tenant")
        where = f"{cluster.host}:{cluster.port}, database {cluster.database}"
        said = _summary(findings, cluster.name)
        out.print(Text(f"{cluster.name} ({where}), {tenants}: {said}"), soft_wrap=True)
    if not findings:
        return
    table = Table(box=box.SIMPLE_HEAD, show_edge=False)
    for title in ("severity", "cluster", "tenant"):
        table.add_column(title, no_wrap=True)
    table.add_column("finding", overflow="fold")
    for finding in findings:
        severity = Text(finding.severity, STYLES[finding.severity])
        table.add_row(severity, Text(finding.cluster), Text(finding.tenant), Text(finding.message))
    out.print()
    out.print(table)
    _print_sql(config, findings)


def _summary(findings: Sequence[Finding], cluster: str) -> str:
    counts = Counter(finding.severity for finding in findings if finding.cluster == cluster)
    said = ", ".join(_count(counts[severity], severity) for severity in SEVERITIES if counts[severity])
    return said or "all is well"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("s" if number != 1 and noun != "info" else "")


def _print_sql(config: Config, findings: Sequence[Finding]) -> None:
    """Unwrapped and in one piece per cluster, to be copied."""
    out = console()
    for cluster in config.clusters:
        statements = dict.fromkeys(f.sql for f in findings if f.cluster == cluster.name and f.sql)
        if statements:
            text = f"\n-- what mends it, for a superuser of {cluster.name}, in database {cluster.database}:"
            out.print(Text(text, "dim"), soft_wrap=True)
            for statement in statements:
                out.print(Text(statement), soft_wrap=True)
