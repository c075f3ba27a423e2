"""Log lines: their shape, what is masked, what is cut, and that a reload reaches every logger."""

import asyncio
import json
import logging
import os

import pytest

from tenant_proxy.obs import log as obs_log


@pytest.fixture
def lines(capfd):
    """What a block of the test has written, as lines; leaves the logger as it was."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level

    def read():
        return capfd.readouterr().err.splitlines()

    yield read
    obs_log.configure("warning", "text")
    obs_log._Settings.process = {}
    root.handlers[:] = handlers
    root.setLevel(level)


def test_text_is_for_people(lines):
    obs_log.configure("info", "text", worker=3)
    obs_log.get_logger("relay").info("client connected", client=12, tenant="acme", application="my app")
    (line,) = lines()
    assert line.split(" ", 2)[2] == (
        'INFO    relay: client connected client=12 tenant=acme application="my app" worker=3'
    )


def test_json_is_for_machines(lines):
    obs_log.configure("info", "json", worker=3)
    obs_log.get_logger("relay").warning("slow", client=12, wait_s=0.5, tenant=None)
    (line,) = lines()
    event = json.loads(line)
    assert event.pop("time").endswith("Z")
    assert event == {
        "level": "warning", "event": "slow", "part": "relay", "client": 12, "wait_s": 0.5, "tenant": None,
        "worker": 3,
    }  # fmt: skip


def test_levels_and_format_change_for_loggers_that_exist(lines):
    obs_log.configure("error", "text")
    log = obs_log.get_logger("relay").bind(client=1)
    log.info("unheard")
    obs_log.configure("debug", "json")
    log.debug("heard")
    (line,) = lines()
    assert json.loads(line)["event"] == "heard"
    assert obs_log.enabled("debug")
    obs_log.configure("warning", "text")
    log.info("unheard again")
    assert lines() == []
    assert not obs_log.enabled("info")


@pytest.mark.parametrize(
    "field", ["password", "server_password", "client_secret", "verifier", "access_token", "Password"]
)
@pytest.mark.parametrize("style", ["text", "json"])
def test_what_is_called_a_secret_is_masked(lines, field, style):
    obs_log.configure("info", style)
    obs_log.get_logger("auth").info("login", **{field: "hunter2"})
    (line,) = lines()
    assert "hunter2" not in line
    assert "***" in line


@pytest.mark.parametrize("style", ["text", "json"])
def test_nobody_can_write_a_line_of_the_log_through_a_value(lines, style):
    obs_log.configure("info", style)
    obs_log.get_logger("relay").info(
        "client connected", application='x\n2026-01-01 ERROR forged\r\x1b[31m "q" \u2028', user="a=b"
    )
    (line,) = lines()
    assert "\x1b" not in line
    assert "\r" not in line


@pytest.mark.parametrize("style", ["text", "json"])
def test_lines_are_bounded(lines, style):
    obs_log.configure("info", style)
    obs_log.get_logger("relay").info("x", sql="y" * 100_000, raw=b"z" * 100_000, items=list(range(100_000)))
    (line,) = lines()
    assert len(line) < 4 * obs_log.MAX_VALUE
    obs_log.get_logger("relay").info("x", **{f"f{n}": n for n in range(1000)})
    (line,) = lines()
    assert "fields_dropped" in line
    assert len(line) < 1000


def test_an_exception_comes_with_its_traceback(lines):
    obs_log.configure("info", "text")
    try:
        raise ValueError("broken\npipe")
    except ValueError:
        obs_log.get_logger("relay").exception("bug")
    first, *rest = lines()
    assert first.endswith("ERROR   relay: bug")
    assert rest[-1] == "    pipe"
    assert all(line.startswith("    ") for line in rest)


def test_other_packages_logs_come_out_in_the_same_shape(lines):
    obs_log.configure("info", "json", worker=1)
    logging.getLogger("asyncio").warning("slow callback: %s", "x")
    logging.getLogger("asyncio").debug("unheard")
    (line,) = lines()
    event = json.loads(line)
    assert (event["part"], event["event"], event["level"], event["worker"]) == (
        "asyncio", "slow callback: x", "warning", 1,
    )  # fmt: skip


def test_unhandled_errors_of_tasks_are_logged_too(lines):
    obs_log.configure("info", "json")

    async def main():
        asyncio.get_running_loop().call_exception_handler({"message": "lost", "exception": KeyError("k")})

    asyncio.run(main())
    (line,) = lines()
    assert "KeyError" in json.loads(line)["traceback"]


def test_values_that_can_not_be_shown_are_no_error(lines):
    class Broken:
        def __str__(self):
            raise RuntimeError

    obs_log.configure("info", "text")
    obs_log.get_logger("relay").info("x", value=Broken(), surrogate="\udcff")
    assert len(lines()) == 1


def test_a_log_that_nobody_reads_is_no_error(lines):
    obs_log.configure("info", "text")
    reader, writer = os.pipe()
    os.close(reader)
    saved = os.dup(2)
    os.dup2(writer, 2)
    try:
        obs_log.get_logger("relay").info("into the void")
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(writer)
