"""pgbench's command line, log and last words."""

import pytest

from loadtests.pgbench import Job, PgbenchError, Transaction, cycles, environment, parse_log, parse_summary
from loadtests.wire import Endpoint

SUMMARY = """\
pgbench (17.10)
transaction type: <builtin: select only>
scaling factor: 1
query mode: simple
number of clients: 16
number of threads: 2
maximum number of tries: 1
duration: 5 s
number of transactions actually processed: 91234
number of failed transactions: 3 (0.003%)
latency average = 0.876 ms
initial connection time = 61.234 ms
tps = 18246.812345 (without initial connection time)
"""


def test_a_job_as_a_command_line():
    job = Job("select-only", "prepared", 1, seconds=4.6)
    assert " ".join(job.arguments()) == "pgbench -n -b select-only -M prepared -c 1 -j 1 -T 5"


def test_a_job_by_transactions():
    assert Job("tpcb-like", transactions=100).arguments()[-2:] == ["-t", "100"]


def test_connecting_clients_have_a_thread_each():
    job = Job("select-only", clients=16, seconds=1, connect=True)
    assert job.threads() == 16
    assert "-C" in job.arguments()


def test_pgbench_takes_no_part_of_a_second_and_not_none():
    assert Job("select-only", seconds=0.2).arguments()[-2:] == ["-T", "1"]


def test_many_clients_get_time_to_log_in():
    assert Job("select-only", clients=16, seconds=5).arguments()[-1] == "5"
    assert Job("select-only", clients=100, seconds=5).arguments()[-1] == "6"
    assert Job("select-only", clients=100, seconds=5, connect=True).arguments()[-1] == "5"


def test_the_password_is_in_the_environment_only():
    job = Job("select-only", seconds=1)
    endpoint = Endpoint("127.0.0.1", 6432, "acme", "sesame", "bench")
    assert environment(endpoint)["PGPASSWORD"] == "sesame"
    assert "sesame" not in " ".join(job.arguments())


def test_the_log_is_read_in_order_of_completion():
    log = parse_log(["1 0 500 0 1000 250000", "0 0 1500 0 999 900000 0"])
    assert log == [Transaction(0, 999.9, 1500.0), Transaction(1, 1000.25, 500.0)]


def test_failed_skipped_and_torn_lines_are_no_transactions():
    assert parse_log(["0 1 failed 0 1000 1", "0 2 skipped 0 1000 2", "0 3 500 0 10", ""]) == []


def test_a_cycle_is_the_time_between_one_clients_completions():
    log = [Transaction(0, 10.0, 1.0), Transaction(1, 10.5, 1.0), Transaction(0, 12.0, 1.0)]
    assert cycles(log) == [Transaction(0, 12.0, 2e6)]


def test_the_summary():
    summary = parse_summary(SUMMARY)
    assert (summary.processed, summary.failed) == (91234, 3)
    assert summary.tps == pytest.approx(18246.812345)


def test_a_summary_of_before_15_has_no_failures():
    lines = [line for line in SUMMARY.splitlines() if "failed" not in line]
    assert parse_summary("\n".join(lines)).failed == 0


def test_a_run_without_a_transaction():
    text = "number of transactions actually processed: 0\nnumber of failed transactions: 0 (NaN%)\n"
    with pytest.raises(PgbenchError, match="no transaction"):
        parse_summary(text)


def test_output_that_is_not_understood():
    with pytest.raises(PgbenchError, match="connection refused"):
        parse_summary("connection refused")
