"""Fixtures are in `fix_*.py`, by what they give."""

pytest_plugins = ("tests.fix_pg", "tests.fix_proxy")
