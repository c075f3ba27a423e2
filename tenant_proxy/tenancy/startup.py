"""What a client may ask for in its startup packet, and what a backend is opened with.

`parse_options` reads the startup parameter `options` as PostgreSQL does: cut into arguments
(pg_split_opts), then read as switches (process_postgres_switches).  `startup_settings` judges
a client's settings by the same list as SET (`settings_policy`), and adds the tenant's own.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Final

from tenant_proxy import errors
from tenant_proxy.errors import ProxyError
from tenant_proxy.model import StartupRequest
from tenant_proxy.settings_policy import canonical_name, check_setting, join_identifiers, with_own_schema
from tenant_proxy.tenancy.registry import TENANT_SETTING, TenantInfo

#: startup parameters that are no settings (docs 54.7, StartupMessage)
NOT_SETTINGS: Final = frozenset({"user", "database", "options", "replication"})

#: parameters of protocol extensions begin so
PROTOCOL_PREFIX: Final = "_pq_."

#: how the proxy's parser reads SQL; a server configured otherwise is told so (DESIGN, invariant 4)
READING_SETTINGS: Final[Mapping[str, str]] = {
    "standard_conforming_strings": "on",
    "backslash_quote": "safe_encoding",
}

#: white space between arguments: isspace() in the C locale
_SPACE: Final = " \t\n\v\f\r"

#: planner methods that the switch -f takes
_PLANNER: Final[Mapping[str, str]] = {
    "s": "enable_seqscan",
    "i": "enable_indexscan",
    "o": "enable_indexonlyscan",
    "b": "enable_bitmapscan",
    "t": "enable_tidscan",
    "n": "enable_nestloop",
    "m": "enable_mergejoin",
    "h": "enable_hashjoin",
}

#: the server's single-letter switches with and without an argument (getopt string of
#: process_postgres_switches)
_WITH_ARGUMENT: Final = frozenset("BcCDdfhkNprStvW-")
_WITHOUT_ARGUMENT: Final = frozenset("bEeFijlnOPsT")


#: the words for no, of which PostgreSQL takes beginnings that are no other word's (parse_bool)
_NO: Final = re.compile(r"(?i:n|no|f|fa|fal|fals|false|of|off|0)|", re.ASCII)


def wants_replication(value: str | None) -> bool:
    """Whether the server may take the startup parameter `replication` for a wish.

    Such a connection is not guarded.
    """
    return value is not None and _NO.fullmatch(value) is None


def split_options(options: str) -> list[str]:
    """The arguments in `options`: cut at white space; a backslash takes the next character as it is."""
    arguments: list[str] = []
    at, end = 0, len(options)
    while True:
        while at < end and options[at] in _SPACE:
            at += 1
        if at == end:
            return arguments
        argument: list[str] = []
        while at < end and options[at] not in _SPACE:
            if options[at] == "\\":
                at += 1
                if at == end:
                    break
            argument.append(options[at])
            at += 1
        arguments.append("".join(argument))


def parse_options(options: str) -> dict[str, str]:
    """The settings in the startup parameter `options`, names in lower case; of a repeated one the last.

    Taken are -c name=value, --name=value, and of the single letters -e, -f and -S, which are
    settings too.  Raises ProxyError (FATAL): 42501 for the server's other switches, 42601 for what
    the server itself would not understand.
    """
    settings: dict[str, str] = {}
    arguments = split_options(options)
    while arguments:
        argument = arguments.pop(0)
        if argument == "--":  # ends the switches; nothing may follow
            if arguments:
                raise _not_understood(arguments[0])
            break
        if len(argument) < 2 or not argument.startswith("-"):
            raise _not_understood(argument)
        letters = argument[1:]
        while letters:
            letter, letters = letters[0], letters[1:]
            if letter in _WITH_ARGUMENT:
                if not letters and not arguments:
                    raise _not_understood(argument)
                value, letters = letters or arguments.pop(0), ""
                name, value = _switch(letter, value)
            elif letter in _WITHOUT_ARGUMENT:
                name, value = _switch(letter, "")
            else:
                raise _not_understood(argument)
            settings[name] = value
    return settings


def _switch(letter: str, argument: str) -> tuple[str, str]:
    """The setting that a switch stands for."""
    if letter in "c-":
        name, equals, value = argument.partition("=")
        if not equals:
            shown = f"--{name}" if letter == "-" else f"-c {name}"
            raise ProxyError("42601", f"{shown} requires a value", severity="FATAL", reason="options")
        return canonical_name(name.replace("-", "_")), value
    if letter == "f" and argument[:1] in _PLANNER:  # the server looks at one letter only
        return _PLANNER[argument[0]], "off"
    if letter == "f":
        raise _not_understood(f"-f {argument}")
    if letter == "e":
        return "datestyle", "euro"
    if letter == "S":
        return "work_mem", argument
    raise errors.switch_refused(f"-{letter}")


def _not_understood(argument: str) -> ProxyError:
    return ProxyError(
        "42601",
        f"invalid command-line argument for server process: {argument}",
        hint="The startup parameter options takes -c name=value and --name=value.",
        severity="FATAL",
        reason="options",
    )


def _unrecognized(name: str) -> ProxyError:
    return ProxyError(
        "42704", f'unrecognized configuration parameter "{name}"', severity="FATAL", reason="options"
    )


def request_settings(parameters: Mapping[str, str]) -> dict[str, str]:
    """The settings among a startup packet's parameters, with those in `options`; names in lower case.

    A parameter of its own wins over the same in `options`, as in PostgreSQL.  Raises as `parse_options`.
    """
    settings = parse_options(parameters.get("options", ""))
    for name, value in parameters.items():
        if name not in NOT_SETTINGS and not name.startswith(PROTOCOL_PREFIX):
            settings[canonical_name(name)] = value
    return settings


def startup_settings(
    request: StartupRequest, tenant: TenantInfo, locked: Mapping[str, str] | None = None
) -> dict[str, str]:
    """The settings that a backend for this connection is opened with: what RESET returns to.

    The tenant's own settings are defaults, the client's win over them; search_path is the client's
    if it stays inside the tenant, else the tenant's schema and what its policy allows besides; role
    is the tenant's.  `locked` are settings that no client changes; those of the tenant where it is None.
    Raises ProxyError (FATAL): 42501 for a setting that clients may not change, 22023 and 42602 for
    malformed ones.
    """
    if locked is None:
        locked = tenant.locked
    settings: dict[str, str] = {
        **READING_SETTINGS,
        "search_path": join_identifiers((tenant.schema, *tenant.policy.allowed_schemas)),
    }
    settings.update((canonical_name(name), value) for name, value in tenant.settings.items())
    for name, value in request.settings.items():
        if name == TENANT_SETTING:
            continue
        if canonical_name(name) in NOT_SETTINGS or name.startswith(PROTOCOL_PREFIX):
            # as in `-c user=…` or a parameter "Database"; no setting to PostgreSQL either
            raise _unrecognized(name)
        if canonical_name(name) == "search_path" and tenant.policy.public_is_own:
            value = with_own_schema(value, tenant.schema)
        refusal = check_setting(
            name,
            value,
            schema=tenant.schema,
            allowed_schemas=tenant.policy.allowed_schemas,
            denied=tenant.policy.denied_settings,
            locked=locked,
        )
        if refusal is not None:
            refusal.severity = "FATAL"
            raise refusal
        settings[canonical_name(name)] = value
    settings.update(locked)
    if tenant.role is not None:
        settings["role"] = tenant.role
    return settings | own_settings(tenant)


def own_settings(tenant: TenantInfo) -> dict[str, str]:
    """What the schemas that hide other tenants know of this one by (decision 10); none of it is a client's to
    change (`settings_policy.REFUSED_PREFIXES`).  Where they are not installed nobody asks for it."""
    return {
        "tenant_proxy.schema": tenant.schema,
        "tenant_proxy.space": tenant.space,
        "tenant_proxy.public": "on" if tenant.policy.public_is_own else "off",
        "tenant_proxy.readable": _array(tenant.policy.allowed_schemas),
    }


def _array(names: Iterable[str]) -> str:
    """As PostgreSQL's array_in takes it."""
    quoted = ('"' + name.replace("\\", "\\\\").replace('"', '\\"') + '"' for name in names)
    return "{" + ",".join(quoted) + "}"
