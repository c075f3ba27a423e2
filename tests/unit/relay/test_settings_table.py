"""Sets of settings are numbered, and forgotten when nobody has them any more."""

from __future__ import annotations

from tenant_proxy.relay import settings
from tenant_proxy.relay.settings import SettingsTable, too_large


def test_equal_sets_have_one_number() -> None:
    table = SettingsTable()
    first = table.intern({"timezone": "UTC", "work_mem": "4096"})
    assert table.intern({"work_mem": "4096", "timezone": "UTC"}) == first
    assert table.intern({}) == 0


def test_what_nobody_has_is_dropped_and_its_number_given_again() -> None:
    table = SettingsTable()
    kept = table.intern({"application_name": "kept"})
    dropped = table.intern({"application_name": "dropped"})
    table.collect({kept})
    assert table.get(kept) == {"application_name": "kept"}
    assert len(table) == 2
    assert table.intern({"application_name": "new"}) == dropped
    assert table.get(dropped) == {"application_name": "new"}


def test_a_change_is_not_remembered_beyond_the_sets_it_was_between() -> None:
    table = SettingsTable()
    old = table.intern({"application_name": "old"})
    assert b"'old'" in table.change(0, old)
    table.collect(())
    assert table.intern({"application_name": "other"}) == old
    assert b"'other'" in table.change(0, old)


def test_names_by_the_thousand_ask_for_a_collection() -> None:
    table = SettingsTable()
    for number in range(settings.COLLECT_AT):
        table.intern({"application_name": f"worker-{number}"})
    assert table.wants_collection()
    table.collect(())
    assert not table.wants_collection()
    assert len(table) == 1


def test_a_set_beyond_the_bound_is_too_large() -> None:
    assert not too_large({"a.b": "x" * 60_000})
    assert too_large({"a.b": "x" * 60_000, "a.c": "x" * 10_000})
