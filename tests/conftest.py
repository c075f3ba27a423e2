"""Fixtures are in `fix_*.py`, by what they give."""

from __future__ import annotations

import gc

import pytest

# asserts of its own, and imported by more than its folder
pytest.register_assert_rewrite("tests.protocol.stage")

pytest_plugins = (
    "tests.fix_pg",
    "tests.fix_proxy",
    "tests.fix_shared",
    "tests.fix_tls",
    "tests.fix_catalog",
    "tests.fix_lifecycle",
)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--direct",
        action="store_true",
        help="tests the tests: where they want a shared proxy they get PostgreSQL itself",
    )
    parser.addoption(
        "--matrix",
        action="store_true",
        help="conformance in every combination of version, pool mode and workers",
    )


def pytest_collection_finish() -> None:
    """Twelve thousand tests live until the end: each collection of garbage would go through them all."""
    gc.collect()
    gc.freeze()
