"""The demo's tour: a few steps that anybody can repeat by hand, each shown and each checked."""

from __future__ import annotations

import contextlib
import csv
import http.client
import io
import re
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import urlsplit

from prometheus_client.parser import text_string_to_metric_families
from rich.console import Console
from rich.markup import escape
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from tenant_proxy.devel.postgres import client_environment

_ERROR_LINE = re.compile(r"ERROR:|FATAL:|psql: error|LINE \d+:|\s+\^$|DETAIL:|HINT:")

#: a psql of the tour that takes longer is stuck
_PSQL_TIMEOUT_S = 60
#: by when a proxy has surely heard of a change
_FOLLOWED_S = 10


#: the samples that the tour shows
METRICS_SHOWN = (
    "tenant_proxy_logins_total",
    "tenant_proxy_transactions_total",
    "tenant_proxy_queries_total",
    "tenant_proxy_guard_verdicts_total",
    "tenant_proxy_guard_cache_hits_total",
    "tenant_proxy_guard_cache_misses_total",
    "tenant_proxy_server_connects_total",
)

#: of SHOW POOLS, which has too many for a terminal
POOL_COLUMNS = ("database", "user", "cl_active", "cl_waiting", "sv_active", "sv_idle", "pool_mode")

#: metric, labels it must have, and what a value above zero means
METRICS_CHECKED = (
    ("tenant_proxy_queries_total", ('tenant="acme"',), "acme's queries are counted"),
    ("tenant_proxy_queries_total", ('tenant="beta"',), "beta's queries are counted"),
    (
        "tenant_proxy_guard_verdicts_total",
        ('reason="cross_schema"', 'tenant="acme"'),
        "so is what the guard refused to acme",
    ),
)


@dataclass(frozen=True, slots=True)
class Addresses:
    """Everything that `.demo/env` holds but the process id."""

    dsn_acme: str
    dsn_beta: str
    admin_dsn: str
    #: the embedded server's superuser, past the proxy
    direct_dsn: str
    metrics_url: str
    #: acme's login on the server, past the proxy: what it may do by PostgreSQL's own grants
    acme_direct_dsn: str
    #: of the tenant that the tour makes
    dsn_gamma: str = ""


@dataclass(slots=True)
class Tour:
    console: Console
    psql_path: Path
    addresses: Addresses
    #: tenant-proxy, and the demo's configuration
    command: list[str]
    config: Path
    #: texts of the checks that failed
    failures: list[str] = field(default_factory=list)

    def run(self) -> bool:
        """Every step, whatever fails; true when every check held."""
        steps: list[tuple[str, Callable[[], None]]] = [
            ("The same SQL, as each tenant", self._same_sql),
            ("DDL stays at home", self._ddl),
            ("Another tenant's table is refused, and the session goes on", self._refused),
            ("Other tenants are not in the catalogs", self._catalogs),
            ("What the metrics counted", self._metrics),
            ("The admin console", self._admin),
            ("A new tenant, by command", self._new_tenant),
        ]
        for number, (title, step) in enumerate(steps, start=1):
            self.console.print()
            self.console.print(Rule(f"[bold]{number}. {title}", align="left", style="cyan"))
            try:
                step()
            except (OSError, ValueError, http.client.HTTPException, subprocess.SubprocessError) as error:
                self._check(f"step {number} runs", False, str(error))
        return not self.failures

    # --- steps ---------------------------------------------------------------

    def _same_sql(self) -> None:
        sql = "SELECT current_user, current_schema, id, item, price FROM orders ORDER BY id"
        acme = self._psql("DSN_ACME", sql)
        beta = self._psql("DSN_BETA", sql)
        self._check("acme sees its three rows", "anvil" in acme and "(3 rows)" in acme)
        self._check("beta sees its two rows", "teapot" in beta and "(2 rows)" in beta)
        self._check("neither sees a row of the other", "teapot" not in acme and "anvil" not in beta)

    def _ddl(self) -> None:
        made = self._psql(
            "DSN_ACME",
            "CREATE TABLE notes (id int GENERATED ALWAYS AS IDENTITY, body text)",
            "INSERT INTO notes (body) VALUES ('made through the proxy') RETURNING *",
        )
        self._check("acme has a new table", "made through the proxy" in made and "INSERT 0 1" in made)
        other = self._psql("DSN_BETA", "TABLE notes")
        self._check("for beta there is none", 'relation "notes" does not exist' in other)

    def _refused(self) -> None:
        refused = self._psql(
            "DSN_ACME",
            "SELECT * FROM beta.orders",
            r"\echo SQLSTATE :SQLSTATE",
            "SELECT count(*) FROM orders",
        )
        # the server's own refusal, below, has no hint
        self._check(
            "refused by the guard with 42501 and a hint", "SQLSTATE 42501" in refused and "HINT:" in refused
        )
        self._check("no row came with it", "teapot" not in refused)
        self._check("the session is still good", refused.rstrip().endswith("(1 row)"))
        self.console.print("\n[dim]Past the proxy, with acme's own login, PostgreSQL's grants hold as well:")
        direct = self._psql("ACME_DIRECT_DSN", "SELECT * FROM beta.orders")
        self._check("refused by PostgreSQL itself", "permission denied for schema beta" in direct)

    def _catalogs(self) -> None:
        shown = self._psql("DSN_ACME", r"\dn")
        self._check(
            "acme finds its own schema, and beta's is not there", "acme" in shown and "beta" not in shown
        )

    def _metrics(self) -> None:
        url = self.addresses.metrics_url
        self.console.print(Text.assemble(("$ ", "dim"), f'curl -s "$METRICS_URL"   # {url}'))
        text = _get(url)
        counted: dict[tuple[str, str], float] = {}
        for name, labels, value in _samples(text, METRICS_SHOWN):
            counted[name, labels] = value
            if value:
                shown = f"{name}{{{labels}}}" if labels else name
                self.console.print(Text(f"{shown} {value:g}"), soft_wrap=True)
        for metric, wanted, what in METRICS_CHECKED:
            total = sum(
                value
                for (name, labels), value in counted.items()
                if name == metric and all(label in labels for label in wanted)
            )
            self._check(what, total > 0)

    def _admin(self) -> None:
        self._show_command("ADMIN_DSN", "SHOW POOLS")
        printed = self._run_psql("ADMIN_DSN", "--csv", "-c", "SHOW POOLS")
        rows = list(csv.DictReader(io.StringIO(printed)))
        shown = [column for column in POOL_COLUMNS if rows and column in rows[0]]
        table = Table(*shown, box=None, pad_edge=False)
        for row in rows:
            table.add_row(*(escape(row[column] or "") for column in shown))
        self.console.print(table)
        if rows:
            self.console.print(f"[dim]({len(rows)} rows, {len(rows[0]) - len(shown)} more columns)")
        pools = {row.get("tenant") for row in rows}
        self._check("there is a pool of each tenant", {"acme", "beta"} <= pools)

    def _new_tenant(self) -> None:
        self._tenant_proxy("plan", "set", "standard", "--set", "max_clients=50")
        self._tenant_proxy("tenant", "create", "gamma", "--plan", "standard", "--label", "tier=gold")
        self._tenant_proxy("tenant", "set", "gamma", "--set", "pool.max=5")
        self._tenant_proxy("tenant", "provision", "gamma")
        dsn = self._tenant_proxy("access", "grant", "gamma", "gamma_app", "--role", "owner").strip()
        self._tenant_proxy("tenant", "activate", "gamma")
        self._check("a DSN came of it", dsn.startswith("postgresql://gamma_app:"))
        self.addresses = replace(self.addresses, dsn_gamma=dsn)
        self._until_served("DSN_GAMMA")
        made = self._psql(
            "DSN_GAMMA",
            "CREATE TABLE orders (id int, item text)",
            "INSERT INTO orders VALUES (1, 'a lamp') RETURNING current_user, current_schema, item",
        )
        self._check("the proxy serves it, and was told by the catalog", "a lamp" in made)
        self._tenant_proxy("tenant", "suspend", "gamma", "--reason", "unpaid")
        self._until(lambda: "unpaid" in self._run_psql("DSN_GAMMA", "-c", "SELECT 1"))
        refused = self._psql("DSN_GAMMA", "SELECT 1")
        self._check("suspended, it is told why", "unpaid" in refused)
        onboarded = self._tenant_proxy("tenant", "onboard", "delta", "--plan", "standard")
        self._check("the five steps in one", "postgresql://delta:" in onboarded)

    # --- helpers -------------------------------------------------------------

    def _tenant_proxy(self, *arguments: str) -> str:
        """Runs a command as a person would who has set TENANT_PROXY_CONFIG; passwords are not shown."""
        self.console.print(Text.assemble(("$ ", "dim"), (f"tenant-proxy {' '.join(arguments)}", "bold")))
        done = subprocess.run(
            [*self.command, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=client_environment() | {"TENANT_PROXY_CONFIG": str(self.config)},
            timeout=_PSQL_TIMEOUT_S,
            check=False,
        )
        shown = re.sub(r"(://\w+:)[^@]+@", r"\1…@", done.stdout.rstrip("\n"))
        self.console.print(Text(shown, style="" if done.returncode == 0 else "red"), soft_wrap=True)
        if done.returncode != 0:
            self._check(f"tenant-proxy {arguments[0]} {arguments[1]} succeeds", False)
        return done.stdout

    def _until_served(self, dsn_name: str) -> None:
        self._until(lambda: "(1 row)" in self._run_psql(dsn_name, "-c", "SELECT 1"))

    def _until(self, holds: Callable[[], bool]) -> None:
        """Proxies follow the catalog within a second; the check that comes next tells if one does not."""
        deadline = time.monotonic() + _FOLLOWED_S
        while not holds() and time.monotonic() < deadline:
            time.sleep(0.05)

    def _psql(self, dsn_name: str, *commands: str) -> str:
        """Runs each command in one session and shows what a person would type and see; returns that."""
        self._show_command(dsn_name, *commands)
        options = [argument for command in commands for argument in ("-c", command)]
        printed = self._run_psql(dsn_name, *options)
        for line in printed.rstrip("\n").split("\n"):
            self.console.print(Text(line, style="red" if _ERROR_LINE.match(line) else ""))
        return printed

    def _show_command(self, dsn_name: str, *commands: str) -> None:
        shown = f'psql "${dsn_name}"' + "".join(f" \\\n    -c {_quoted(command)}" for command in commands)
        self.console.print(Text.assemble(("$ ", "dim"), (shown, "bold")))

    def _run_psql(self, dsn_name: str, *options: str) -> str:
        done = subprocess.run(
            [
                str(self.psql_path),
                "-X",
                "-P",
                "pager=off",
                *options,
                getattr(self.addresses, dsn_name.lower()),
            ],
            stdout=subprocess.PIPE,
            # psql keeps the order of both, as on a terminal
            stderr=subprocess.STDOUT,
            text=True,
            env=client_environment() | {"PGCONNECT_TIMEOUT": "15"},
            timeout=_PSQL_TIMEOUT_S,
            check=False,
        )
        return done.stdout

    def _check(self, what: str, held: bool, otherwise: str = "") -> None:
        mark, style = ("✓", "green") if held else ("✗", "bold red")
        self.console.print(Text(f"  {mark} {what}", style=style))
        if not held:
            self.failures.append(what)
            if otherwise:
                self.console.print(Text(otherwise, style="red"))


def _quoted(command: str) -> str:
    return f'"{command}"' if '"' not in command and "\\" not in command else f"'{command}'"


def _samples(text: str, names: Sequence[str]) -> Iterator[tuple[str, str, float]]:
    """The samples of those names from Prometheus' text format: name, labels, value."""
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name in names:
                labels = ",".join(f'{key}="{value}"' for key, value in sorted(sample.labels.items()))
                yield sample.name, labels, sample.value


def _get(url: str) -> str:
    """Without urllib, which would ask the machine's web proxy for an address of our own."""
    parts = urlsplit(url)
    assert parts.hostname is not None
    with contextlib.closing(http.client.HTTPConnection(parts.hostname, parts.port, timeout=10)) as connection:
        connection.request("GET", parts.path)
        answer = connection.getresponse()
        if answer.status != 200:
            raise OSError(f"{url} answers {answer.status} {answer.reason}")
        return answer.read().decode()
