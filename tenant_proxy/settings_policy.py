"""Which settings (GUCs) a client may change, and to what: one list for SET and for the startup packet.

PostgreSQL takes a setting from a client in four places: the startup packet, its
`options`, SET and set_config().  The guard (`guard/`) reads the last two out of
SQL, `tenancy/startup.py` the first two, and both ask `check_setting` here, so
that what is refused in one place is refused in all (DESIGN, sections 5 and 6).

Three things are kept from clients: who they are (role, session_authorization),
where names lead (search_path outside the tenant), and how the server reads text
(DESIGN, invariant 4: the proxy and the server must read SQL the same way).
Everything else PostgreSQL itself judges, and an operator may deny more by
`policy.denied_settings`.

Names of settings are compared without regard to ASCII case, as guc.c does.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType
from typing import Final

from tenant_proxy import errors
from tenant_proxy.errors import ProxyError

#: PostgreSQL cuts identifiers at NAMEDATALEN - 1 bytes
MAX_IDENTIFIER_BYTES: Final = 63

#: schemas of the system that every tenant may name
SYSTEM_SCHEMAS: Final = frozenset({"pg_catalog", "information_schema"})

#: the session's own temporary schema (never pg_temp_N, which may be another session's)
TEMP_SCHEMA: Final = "pg_temp"

#: who the session is; only the proxy decides that
IDENTITY_SETTINGS: Final = frozenset({"role", "session_authorization", "is_superuser"})

#: settings kept from clients whatever the value -> what to tell them
REFUSED_SETTINGS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "role": "The proxy sets the role of a tenant's connections; connect with another login instead.",
        "session_authorization": "The proxy sets the user of a tenant's connections.",
        "is_superuser": "This parameter can only be read.",
        # the proxy arms backends with it (DESIGN, invariant 1)
        "exit_on_error": "The proxy uses this parameter itself.",
        # switches triggers and foreign keys off
        "session_replication_role": "Connect to the server directly for replication roles.",
        # load code into the backend
        "local_preload_libraries": "Libraries are loaded by the server's own configuration.",
        "session_preload_libraries": "Libraries are loaded by the server's own configuration.",
        "shared_preload_libraries": "Libraries are loaded by the server's own configuration.",
        "dynamic_library_path": "Libraries are loaded by the server's own configuration.",
        "extension_control_path": "Extensions are found by the server's own configuration.",
        "jit_provider": "Libraries are loaded by the server's own configuration.",
        # stays with the backend; the guard pins who sets it by a statement that it reads
        "seed": "Set it by SET or setseed(), and with constants.",
        # reach past what rights and catalogs guard, or stall a backend of everybody's
        "allow_system_table_mods": "System tables can only be changed over a direct connection.",
        "ignore_system_indexes": "Connect to the server directly to repair system indexes.",
        "zero_damaged_pages": "Connect to the server directly to repair damaged tables.",
        "ignore_checksum_failure": "Connect to the server directly to repair damaged tables.",
        "lo_compat_privileges": "Rights on large objects are checked for all tenants.",
        # the server lets anybody set it before the first function runs, and no one after that
        "plpgsql.variable_conflict": "Write #variable_conflict in the function.",
        "pre_auth_delay": "Developer options are not for clients of the proxy.",
        "post_auth_delay": "Developer options are not for clients of the proxy.",
    }
)

#: names that begin so are the proxy's own, or those of the wall inside the server (set_user)
REFUSED_PREFIXES: Final = ("tenant_proxy.", "set_user.")

#: settings of which only these values are taken (lower case) -> values; the rest would change how the server
#: reads a statement's text.  parse_bool() takes any unambiguous beginning of a word.
FIXED_SETTINGS: Final[Mapping[str, frozenset[str]]] = MappingProxyType(
    {
        "standard_conforming_strings": frozenset({"on", "true", "tru", "tr", "t", "yes", "ye", "y", "1"}),
        "backslash_quote": frozenset({"safe_encoding"}),
    }
)

#: settings whose value is the name of an object in a schema
OBJECT_NAME_SETTINGS: Final = frozenset({"default_text_search_config"})

#: settings by which literals and expressions are read when a statement is parsed, and that no server reports
LITERAL_SETTINGS: Final = frozenset(
    {"array_nulls", "isn.weak", "lc_monetary", "timezone_abbreviations", "transform_null_equals", "xmloption"}
)

#: older names that guc.c still takes -> what they mean today (map_old_guc_names)
OLD_NAMES: Final[Mapping[str, str]] = MappingProxyType(
    {"sort_mem": "work_mem", "vacuum_mem": "maintenance_work_mem"}
)

#: client encodings as PostgreSQL compares their names (lower case, letters and digits only) -> Python's
#: codec. Left out are those in which a byte of a multibyte character may be an ASCII quote or backslash
#: (SJIS, BIG5, GBK, UHC, GB18030, JOHAB, SHIFT_JIS_2004: PostgreSQL calls them client-only), and those
#: that Python can't read (EUC_TW, MULE_INTERNAL), as the guard then could not.
CLIENT_ENCODINGS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "utf8": "utf_8",
        "unicode": "utf_8",
        "sqlascii": "utf_8",
        "latin1": "iso8859_1",
        "iso88591": "iso8859_1",
        "latin2": "iso8859_2",
        "iso88592": "iso8859_2",
        "latin3": "iso8859_3",
        "iso88593": "iso8859_3",
        "latin4": "iso8859_4",
        "iso88594": "iso8859_4",
        "latin5": "iso8859_9",
        "iso88599": "iso8859_9",
        "latin6": "iso8859_10",
        "iso885910": "iso8859_10",
        "latin7": "iso8859_13",
        "iso885913": "iso8859_13",
        "latin8": "iso8859_14",
        "iso885914": "iso8859_14",
        "latin9": "iso8859_15",
        "iso885915": "iso8859_15",
        "latin10": "iso8859_16",
        "iso885916": "iso8859_16",
        "iso88595": "iso8859_5",
        "iso88596": "iso8859_6",
        "iso88597": "iso8859_7",
        "iso88598": "iso8859_8",
        "koi8": "koi8_r",
        "koi8r": "koi8_r",
        "koi8u": "koi8_u",
        "win": "cp1251",
        "alt": "cp866",
        "abc": "cp1258",
        "tcvn": "cp1258",
        "tcvn5712": "cp1258",
        "vscii": "cp1258",
        **{
            f"{prefix}{page}": f"cp{page}"
            for prefix in ("win", "windows")
            for page in (866, 874, *range(1250, 1259))
        },
        "eucjp": "euc_jp",
        "eucjis2004": "euc_jis_2004",
        "euccn": "gb2312",
        "euckr": "euc_kr",
    }
)

_SETTING_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_$]*(?:\.[A-Za-z_][A-Za-z0-9_$]*)*", re.ASCII)
_MAX_SETTING_NAME = 256

#: what scanner_isspace() skips in every PostgreSQL version; \v is new in some, and refused
_SPACE = " \t\n\r\f"


def canonical_name(name: str) -> str:
    """The name as the tables above hold it: lower case, older names mapped to today's."""
    name = name.translate(_ASCII_LOWER)
    return OLD_NAMES.get(name, name)


_ASCII_LOWER: Final = {upper: upper + 32 for upper in range(ord("A"), ord("Z") + 1)}


def is_setting_name(name: str) -> bool:
    """Whether `name` can be that of a setting: parts of letters, digits, _ and $, separated by dots."""
    return len(name) <= _MAX_SETTING_NAME and _SETTING_NAME.fullmatch(name) is not None


def client_encoding_codec(value: str) -> str | None:
    """Python's codec for a client_encoding that is let through, else None.

    PostgreSQL drops everything but letters and digits from an encoding's name before comparing (encnames.c).
    """
    return CLIENT_ENCODINGS.get(re.sub(r"[^A-Za-z0-9]", "", value).lower())


def split_identifiers(value: str) -> list[str] | None:
    """The names of a comma separated list as PostgreSQL's SplitIdentifierString reads it; None if malformed.

    Quoted names keep their case and may hold doubled quotes; others end at a comma or white space and are
    folded to lower case.  None also where versions of PostgreSQL or the server's encoding would decide:
    names past 63 bytes (cut), vertical tabs, unquoted capitals outside ASCII.
    """
    if "\v" in value or "\0" in value:
        return None
    names: list[str] = []
    at, end = _skip_space(value, 0), len(value)
    if at == end:
        return names
    while True:
        if value.startswith('"', at):
            match = _QUOTED.match(value, at)
            if match is None:
                return None
            name = match[1].replace('""', '"')
            at = match.end()
        else:
            start = at
            while at < end and value[at] != "," and value[at] not in _SPACE:
                at += 1
            name = value[start:at].translate(_ASCII_LOWER)
            if not name or name != name.lower():
                return None
        if len(name.encode("utf-8", "surrogatepass")) > MAX_IDENTIFIER_BYTES:
            return None
        names.append(name)
        at = _skip_space(value, at)
        if at == end:
            return names
        if value[at] != ",":
            return None
        at = _skip_space(value, at + 1)


_QUOTED = re.compile(r'"((?:[^"]|"")*)"')


def _skip_space(value: str, at: int) -> int:
    while at < len(value) and value[at] in _SPACE:
        at += 1
    return at


def join_identifiers(names: Sequence[str]) -> str:
    """A list that `split_identifiers` reads back as `names`; quoted where they need it."""
    return ", ".join(
        name if _PLAIN_NAME.fullmatch(name) else '"' + name.replace('"', '""') + '"' for name in names
    )


_PLAIN_NAME = re.compile(r"[a-z_][a-z0-9_$]*", re.ASCII)


def check_search_path(
    names: Sequence[str], *, schema: str, allowed_schemas: Collection[str], setting: str = "search_path"
) -> ProxyError | None:
    """Judges a search_path that is a list of names, as SET's grammar or `split_identifiers` gives it.

    `setting` is what the error calls it.
    """
    for name in names:
        # an empty name is what SET search_path = '' leaves: no schema at all
        if name in ("", schema, TEMP_SCHEMA) or name in SYSTEM_SCHEMAS or name in allowed_schemas:
            continue
        return errors.search_path_refused(name, schema, setting)
    return None


def with_own_schema(value: str, schema: str) -> str:
    """A search_path in which `public` is the tenant's own schema (policy.public_is_own)."""
    names = split_identifiers(value)
    if names is None or "public" not in names:
        return value
    return join_identifiers([schema if name == "public" else name for name in names])


def check_setting(
    name: str,
    value: str | None,
    *,
    schema: str,
    allowed_schemas: Collection[str],
    denied: Collection[str],
    locked: Collection[str] = (),
) -> ProxyError | None:
    """Judges one setting of a client of the tenant whose schema is `schema`; None lets it pass.

    `value` is the text as the server would get it (for search_path the unsplit list), None for RESET and
    SET … TO DEFAULT.  `denied` are the policy's denied_settings; a name ending in * stands for all that
    begin so.  `locked` are names that the operator has given values for good.
    Identity settings are refused with any value, also None: a caller that knows RESET ROLE to be harmless
    asks not. The error's severity is ERROR; the startup packet's reader makes it FATAL.
    """
    if not is_setting_name(name):
        return errors.invalid_setting_name(name)
    key = canonical_name(name)
    if key in IDENTITY_SETTINGS or (value is not None and key in REFUSED_SETTINGS):
        return errors.setting_refused(key, REFUSED_SETTINGS[key])
    if key.startswith(REFUSED_PREFIXES):
        return errors.setting_refused(key, "Parameters of this prefix belong to the proxy.")
    if key in locked or f"default_{key}" in locked:
        # transaction_read_only would undo default_transaction_read_only for a transaction
        return errors.setting_refused(key, "The operator has locked this parameter by locked_settings.")
    if value is None:
        return None
    if any(_denies(entry, key) for entry in denied):
        return errors.setting_refused(
            key, "The operator has denied this parameter by policy.denied_settings."
        )
    if key in FIXED_SETTINGS and value.lower() not in FIXED_SETTINGS[key]:
        fixed = "on" if "on" in FIXED_SETTINGS[key] else "safe_encoding"
        return errors.setting_refused(
            key, f'Leave "{key}" at "{fixed}".', "The proxy must read statements as the server does."
        )
    if key == "client_encoding" and client_encoding_codec(value) is None:
        return errors.setting_refused(
            key, "Use UTF8.", f'In encoding "{value}" the proxy can\'t read statements as the server does.'
        )
    if key == "search_path":
        names = split_identifiers(value)
        if names is None:
            return errors.invalid_setting_value(key, "List syntax is invalid.")
        return check_search_path(names, schema=schema, allowed_schemas=allowed_schemas)
    if key in OBJECT_NAME_SETTINGS:
        return _check_object_name(key, value, schema, allowed_schemas)
    return None


def _denies(entry: str, key: str) -> bool:
    entry = canonical_name(entry)
    return key.startswith(entry[:-1]) if entry.endswith("*") else key == entry


def _check_object_name(
    key: str, value: str, schema: str, allowed_schemas: Collection[str]
) -> ProxyError | None:
    """A possibly qualified name; without a qualifier search_path decides, which is checked itself."""
    parts = _split_qualified(value)
    if parts is None:
        return errors.invalid_setting_value(key, "The name's syntax is invalid.")
    if len(parts) == 1:
        return None
    return check_search_path(parts[:-1], schema=schema, allowed_schemas=allowed_schemas, setting=key)


def _split_qualified(value: str) -> list[str] | None:
    """a.b or "A"."b" (stringToQualifiedNameList) as names; None if malformed or of more than two."""
    if "," in value:
        return None
    parts: list[str] = []
    for part in re.findall(r'(?:"(?:[^"]|"")*"|[^."])+|\.', value):
        if part != ".":
            name = split_identifiers(part)
            if name is None or len(name) != 1:
                return None
            parts += name
    dotted = re.sub(r'"(?:[^"]|"")*"', "x", value).count(".")
    return parts if parts and len(parts) == dotted + 1 and len(parts) <= 2 else None
