"""Sets of settings, interned: the engine compares two sessions' settings by their numbers.

In transaction mode a client's settings are those that it changed since its login (its server's own
log-in values are the base).  They are read from the server itself after a transaction that may have
changed some, rather than followed by parsing: rollbacks, savepoints and functions are then right by
themselves.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from tenant_proxy.wire.messages import query

#: settings of a transaction, not of a session
TRANSACTION_SETTINGS = ("transaction_isolation", "transaction_read_only", "transaction_deferrable")

_ASK = (
    "SELECT s.name, s.setting FROM pg_catalog.pg_settings s WHERE s.source = 'session'"
    " AND s.name NOT IN ('transaction_isolation', 'transaction_read_only', 'transaction_deferrable')"
)

Settings = tuple[tuple[str, str], ...]


class SettingsTable:
    """Numbers for sets of settings; number 0 is the empty set."""

    def __init__(self) -> None:
        self._ids: dict[Settings, int] = {(): 0}
        self._sets: list[Settings] = [()]
        self._changes: dict[tuple[int, int], bytes] = {}

    def intern(self, settings: Mapping[str, str]) -> int:
        key: Settings = tuple(sorted(settings.items()))
        number = self._ids.get(key)
        if number is None:
            number = len(self._sets)
            self._ids[key] = number
            self._sets.append(key)
        return number

    def get(self, number: int) -> dict[str, str]:
        return dict(self._sets[number])

    def change(self, have: int, want: int) -> bytes:
        """The Query message that brings a session from one set to another."""
        found = self._changes.get((have, want))
        if found is None:
            if len(self._changes) > 10_000:
                self._changes.clear()
            found = query(change_sql(dict(self._sets[have]), dict(self._sets[want])))
            self._changes[have, want] = found
        return found


def change_sql(have: Mapping[str, str], want: Mapping[str, str]) -> str:
    """SQL from one set of session settings to another.

    set_config takes a list setting (search_path …) in the text form in which pg_settings shows it,
    which SET does not.
    """
    calls = [
        f"pg_catalog.set_config({literal(name)}, {literal(value)}, false)"
        for name, value in want.items()
        if have.get(name) != value
    ]
    resets = [f"RESET {_quoted_name(name)}" for name in have if name not in want]
    statements = resets
    if calls:
        statements.append("SELECT " + ", ".join(calls))
    return "; ".join(statements)


def ask_sql(custom_names: Iterable[str]) -> str:
    """SQL that returns (name, value) of all settings changed in the session.

    pg_settings does not show settings of unknown extensions (app.user): those are asked for by name.
    """
    parts = [_ASK]
    parts += [
        f"SELECT {literal(name)}, pg_catalog.current_setting({literal(name)}, true)" for name in custom_names
    ]
    return " UNION ALL ".join(parts)


def literal(text: str) -> str:
    """A string constant that reads the same in every client encoding (standard_conforming_strings on)."""
    if text.isascii():
        return "'" + text.replace("'", "''") + "'"
    escaped = "".join(_unicode_escape(ch) for ch in text)
    return "U&'" + escaped + "'"


def _unicode_escape(ch: str) -> str:
    if ch == "'":
        return "''"
    if ch == "\\":
        return "\\\\"
    if ch.isascii():
        return ch
    code = ord(ch)
    return f"\\{code:04x}" if code < 0x10000 else f"\\+{code:06x}"


def _quoted_name(name: str) -> str:
    return ".".join('"' + part.replace('"', '""') + '"' for part in name.split("."))
