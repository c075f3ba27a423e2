"""Small configuration files for the tests of the loader."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent

import pytest

from tenant_proxy.config.load import load_text
from tenant_proxy.config.problems import ConfigError, Problem
from tenant_proxy.config.schema import Config

#: stands before most files below, so that a test shows what it is about; three lines
CLUSTER = "clusters:\n  - {name: main, host: localhost, database: app}\n#\n"


def config(text: str, base: Path | None = None, environ: dict[str, str] | None = None) -> Config:
    """The configuration in `text`, which has no cluster of its own and no problems."""
    return load_text(CLUSTER + dedent(text), base=base, environ=environ or {}).config


def problems(text: str, base: Path | None = None, environ: dict[str, str] | None = None) -> list[Problem]:
    """All problems of `text`, with a cluster if it has none; lines count from its own first one."""
    text = dedent(text).lstrip("\n")
    head = "" if "clusters:" in text else CLUSTER
    try:
        found = list(load_text(head + text, "f.yaml", base=base, environ=environ or {}).warnings)
    except ConfigError as error:
        found = error.problems
    shift = head.count("\n")
    return [
        Problem(p.file, p.line - shift, p.column, p.key, p.message, p.allowed, p.hint, p.severity)
        for p in found
    ]


def only_problem(text: str, base: Path | None = None, environ: dict[str, str] | None = None) -> Problem:
    found = problems(text, base, environ)
    if len(found) != 1:
        pytest.fail("one problem was expected, not:\n" + "\n".join(map(str, found)))
    return found[0]
