"""Runs of pgbench, and what its transaction log says of them."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from loadtests.stats import Reading
from loadtests.wire import Endpoint
from tenant_proxy.devel import installs
from tenant_proxy.devel.postgres import client_environment

#: how often a run's counter is read
READ_EVERY_S = 0.1
#: PBKDF2 and a new backend, on a machine that does other things besides
LOGIN_S = 0.01
#: logins of many clients and the last transactions may take this much longer than the run itself
GRACE_S = 60.0


class PgbenchError(Exception):
    """pgbench failed, or was not there."""


@dataclass(frozen=True, slots=True)
class Job:
    """What one pgbench does.  Exactly one of `seconds` and `transactions` (per client) is not 0."""

    builtin: str
    protocol: str = "simple"
    clients: int = 1
    seconds: float = 0
    transactions: int = 0
    #: a connection for each transaction (-C)
    connect: bool = False
    #: write a line for each transaction; costs pgbench about a microsecond each
    log: bool = True

    def threads(self) -> int:
        # -C connects synchronously: without a thread for each client they would take turns
        return self.clients if self.connect else min(self.clients, os.cpu_count() or 1)

    def arguments(self) -> list[str]:
        """The command line without the connection and the log, as it is shown in reports."""
        parts = ["pgbench", "-n", "-b", self.builtin, "-M", self.protocol]
        parts += ["-c", str(self.clients), "-j", str(self.threads())]
        if self.connect:
            parts.append("-C")
        if self.transactions:
            return [*parts, "-t", str(self.transactions)]
        return [*parts, "-T", str(max(1, round(self.seconds + self.logins_s())))]

    def logins_s(self) -> float:
        """What the clients' logins may take: -T counts from before them."""
        return 0 if self.connect else self.clients * LOGIN_S


@dataclass(frozen=True, slots=True)
class Transaction:
    """One line of the log: who, when it was done (seconds since the epoch) and how long it took."""

    client: int
    done_at: float
    latency_us: float


@dataclass(frozen=True, slots=True)
class Summary:
    """What pgbench prints at its end."""

    processed: int
    failed: int
    tps: float


@dataclass(frozen=True, slots=True)
class Run:
    """A run that went well: its log in order of completion, and the counter read meanwhile."""

    transactions: list[Transaction]
    readings: list[Reading]
    summary: Summary


def program() -> str:
    """The pgbench of the PostgreSQL that the tests run."""
    try:
        return str(installs.find().tool("pgbench"))
    except LookupError as error:  # a FileNotFoundError passes as it is
        raise PgbenchError(str(error)) from error


def parse_log(lines: Sequence[str]) -> list[Transaction]:
    """Reads lines of pgbench --log: client, number, time in µs, script, epoch seconds, microseconds …

    Failed and skipped transactions have a word in place of the time and are left
    out, as is a last line that is not whole.
    """
    found = []
    for line in lines:
        fields = line.split()
        if len(fields) >= 6 and fields[2].isdigit():
            done_at = int(fields[4]) + int(fields[5]) / 1e6
            found.append(Transaction(int(fields[0]), done_at, float(fields[2])))
    found.sort(key=lambda t: t.done_at)
    return found


def cycles(transactions: Sequence[Transaction]) -> list[Transaction]:
    """The same with the time since the same client's last one: with -C, connect, query and disconnect.

    (pgbench's own latency starts when the connection stands.)  A client's first is left out.
    """
    last: dict[int, float] = {}
    found = []
    for one in transactions:
        if one.client in last:
            found.append(Transaction(one.client, one.done_at, (one.done_at - last[one.client]) * 1e6))
        last[one.client] = one.done_at
    return found


def parse_summary(text: str) -> Summary:
    """Reads pgbench's last words."""
    processed = re.search(r"^number of transactions actually processed: (\d+)", text, re.MULTILINE)
    tps = re.search(r"^tps = ([\d.]+)", text, re.MULTILINE)
    failed = re.search(r"^number of failed transactions: (\d+)", text, re.MULTILINE)
    if processed and not int(processed[1]):
        raise PgbenchError("pgbench completed no transaction in its time")
    if not processed or not tps:
        raise PgbenchError(f"pgbench's output is not understood: {text[-500:]}")
    return Summary(int(processed[1]), int(failed[1]) if failed else 0, float(tps[1]))


def environment(endpoint: Endpoint) -> dict[str, str]:
    """libpq's variables: the password is on no command line."""
    return client_environment() | {
        "PGHOST": endpoint.host,
        "PGPORT": str(endpoint.port),
        "PGUSER": endpoint.user,
        "PGPASSWORD": endpoint.password,
        "PGDATABASE": endpoint.database,
        "PGSSLMODE": "require" if endpoint.tls else "disable",
        "PGGSSENCMODE": "disable",
        "PGCONNECT_TIMEOUT": "20",
    }


class _Process:
    """One pgbench and the folder its log and output go to."""

    def __init__(self, job: Job, endpoint: Endpoint, folder: Path) -> None:
        self.job = job
        self.folder = folder
        command = [program(), *job.arguments()[1:]]
        if job.log:
            command += ["--log", "--log-prefix", str(folder / "log")]
        with (folder / "out").open("wb") as out, (folder / "err").open("wb") as err:
            self.process = subprocess.Popen(
                command, env=environment(endpoint), stdin=subprocess.DEVNULL, stdout=out, stderr=err
            )

    def result(self, readings: list[Reading]) -> Run:
        err = (self.folder / "err").read_text(errors="replace")
        if self.process.returncode != 0:
            raise PgbenchError(f"pgbench ended with {self.process.returncode}: {err.strip()[-800:]}")
        lines: list[str] = []
        for path in self.folder.glob("log.*"):
            lines += path.read_text().splitlines()
        summary = parse_summary((self.folder / "out").read_text())
        return Run(parse_log(lines), readings, summary)


def run(
    work: Sequence[tuple[Job, Endpoint]],
    read: Callable[[], float] = lambda: 0.0,
    every_s: float = READ_EVERY_S,
) -> list[Run]:
    """Runs the jobs at the same time and reads a counter (CPU seconds, bytes) while they do.

    Every job gets the same readings.  Raises PgbenchError if one fails or does not
    end; none is left running.
    """
    limit = time.monotonic() + GRACE_S + max(job.seconds or 600 for job, _ in work)
    readings: list[Reading] = []
    with tempfile.TemporaryDirectory(prefix="loadtests-") as top:
        processes: list[_Process] = []
        try:
            for number, (job, endpoint) in enumerate(work):
                folder = Path(top) / str(number)
                folder.mkdir()
                processes.append(_Process(job, endpoint, folder))
            while any(p.process.poll() is None for p in processes):
                readings.append(Reading(time.time(), read()))
                if time.monotonic() > limit:
                    raise PgbenchError(f"pgbench did not end in time: {work}")
                time.sleep(every_s)
            return [p.result(readings) for p in processes]
        finally:
            for one in processes:
                if one.process.poll() is None:
                    one.process.kill()
                    one.process.wait()


def initialize(endpoint: Endpoint, scale: int) -> None:
    """pgbench's tables in the login's default schema."""
    done = subprocess.run(
        [program(), "-i", "-q", "-I", "dtgvp", "-s", str(scale)],
        env=environment(endpoint),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    if done.returncode != 0:
        raise PgbenchError(f"pgbench -i failed: {done.stderr.strip()[-800:]}")
