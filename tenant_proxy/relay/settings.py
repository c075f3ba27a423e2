"""Sets of settings, interned: the engine compares two sessions' settings by their numbers.

In transaction mode a client's settings are those that it changed since its login (its server's own
log-in values are the base).  They are read from the server itself after a transaction that may have
changed some, rather than followed by parsing: rollbacks, savepoints and functions are then right by
themselves.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from tenant_proxy.settings_policy import client_encoding_codec
from tenant_proxy.wire.messages import query

#: settings of a transaction, not of a session
TRANSACTION_SETTINGS = ("transaction_isolation", "transaction_read_only", "transaction_deferrable")


def _changed(relation: str) -> str:
    """Operators with their schema, as it runs where the client's search_path may put its own first."""
    names = ",".join(TRANSACTION_SETTINGS)
    return (
        f"SELECT s.name, s.setting FROM {relation} s WHERE s.source OPERATOR(pg_catalog.=) 'session'"
        f" AND s.name OPERATOR(pg_catalog.<>) ALL ('{{{names}}}'::pg_catalog.text[])"
    )


#: the server's and the client's, in the first row
_ENCODINGS = (
    "SELECT '', pg_catalog.concat(pg_catalog.current_setting('server_encoding'), '/',"
    " pg_catalog.current_setting('client_encoding')) UNION ALL "
)
_ASK = _ENCODINGS + _changed("pg_catalog.pg_settings")
_ASK_BOTH = (
    "WITH known AS MATERIALIZED (SELECT p.name, p.setting, p.source FROM pg_catalog.pg_settings p) "
    f"{_ENCODINGS}{_changed('known')}"
    " UNION ALL SELECT c.name, pg_catalog.current_setting(c.name, true) FROM (VALUES "
)
_UNKNOWN = ") AS c (name) WHERE NOT EXISTS (SELECT FROM known k WHERE k.name OPERATOR(pg_catalog.=) c.name)"

Settings = tuple[tuple[str, str], ...]

#: sets kept before those that nobody has any more are looked for
COLLECT_AT = 2_000
#: of one set, names and values together; who has more keeps its server
MAX_SET_BYTES = 65_536
MAX_CHANGES = 10_000


class SettingsTable:
    """Numbers for sets of settings; number 0 is the empty set.

    Clients choose their settings, so sets that nobody has any more are dropped: `wants_collection`
    says when, `collect` does it.  A number is given again only after that.
    """

    def __init__(self) -> None:
        self._ids: dict[Settings, int] = {(): 0}
        self._sets: dict[int, Settings] = {0: ()}
        self._changes: dict[tuple[int, int], bytes] = {}
        self._free: list[int] = []
        self._collect_at = COLLECT_AT

    def __len__(self) -> int:
        return len(self._sets)

    def intern(self, settings: Mapping[str, str]) -> int:
        key: Settings = tuple(sorted(settings.items()))
        number = self._ids.get(key)
        if number is None:
            number = self._free.pop() if self._free else len(self._sets)
            self._ids[key] = number
            self._sets[number] = key
        return number

    def get(self, number: int) -> dict[str, str]:
        return dict(self._sets[number])

    def change(self, have: int, want: int) -> bytes:
        """The Query message that brings a session from one set to another."""
        found = self._changes.get((have, want))
        if found is None:
            if len(self._changes) >= MAX_CHANGES:
                self._changes.clear()
            found = query(change_sql(dict(self._sets[have]), dict(self._sets[want])))
            self._changes[have, want] = found
        return found

    def matters(self, have: int, want: int) -> bool:
        """Whether statements may not run before the change: more than a name in lists of sessions differs."""
        return bool({name for name, _ in {*self._sets[have]} ^ {*self._sets[want]}} - {"application_name"})

    def wants_collection(self) -> bool:
        return len(self._sets) >= self._collect_at

    def collect(self, in_use: Collection[int]) -> None:
        """Drops all sets but these numbers' (and 0)."""
        for number in [number for number in self._sets if number and number not in in_use]:
            del self._ids[self._sets.pop(number)]
            self._free.append(number)
        self._changes.clear()
        self._collect_at = max(COLLECT_AT, 2 * len(self._sets))


def too_large(settings: Mapping[str, str]) -> bool:
    """Whether a set is more than should be carried from server to server."""
    return sum(len(name) + len(value) for name, value in settings.items()) > MAX_SET_BYTES


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

    pg_settings does not show settings of unknown extensions (app.user): those are asked for by name.  It does
    show them where their extension is loaded, as PL/pgSQL is by the first function; they then have values
    that nobody has set.
    """
    names = ", ".join(f"({literal(name)})" for name in custom_names)
    return f"{_ASK_BOTH}{names}{_UNKNOWN}" if names else _ASK


def read_settings(rows: Mapping[bytes, bytes]) -> dict[str, str]:
    """The answer to `ask_sql`, which is in the client's encoding.

    A byte that stands for no character there, or any of a server that knows none (SQL_ASCII), is kept as half
    of a surrogate pair.
    """
    server, _, client = rows.get(b"", b"UTF8/UTF8").decode().partition("/")
    codec = client_encoding_codec(server if client == "SQL_ASCII" else client) or "utf-8"
    if server == "SQL_ASCII":
        codec = "ascii"
    decoded = (
        (name.decode(codec, "surrogateescape"), value.decode(codec, "surrogateescape"))
        for name, value in rows.items()
        if name
    )
    return {name: value for name, value in decoded if name not in TRANSACTION_SETTINGS}


def literal(text: str) -> str:
    """A string constant that reads the same in every client encoding (standard_conforming_strings on)."""
    if text.isascii():
        return "'" + text.replace("'", "''") + "'"
    if has_bytes(text):
        return "E'" + "".join(map(_byte_escape, text)) + "'"
    escaped = "".join(_unicode_escape(ch) for ch in text)
    return "U&'" + escaped + "'"


def has_bytes(text: str) -> bool:
    """Whether there is something in it that stands for no character."""
    return not text.isascii() and any("\udc80" <= ch <= "\udcff" for ch in text)


def _byte_escape(ch: str) -> str:
    if ch in "'\\":
        return ch * 2
    if ch.isascii():
        return ch
    code = ord(ch)
    return f"\\{code - 0xDC00:03o}" if 0xDC80 <= code <= 0xDCFF else f"\\U{code:08x}"


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
