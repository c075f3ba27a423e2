"""The ordered rules that name a connection's authentication method, as pg_hba.conf does.

The first rule that fits decides; where none fits, the connection is refused
(`errors.no_auth_rule`), it does not fall through.

- `database`: names, `all`, or `sameuser` (the database is named as the user);
- `user`: names or `all`;
- `address`: `all`, `samehost`, an address, or a network in CIDR form; bits to the right
  of the prefix don't matter.  IPv4 networks fit IPv4 clients only, as in PostgreSQL,
  and an IPv4 client of a dual-stack socket (::ffff:a.b.c.d) is an IPv4 client.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Sequence
from typing import NamedTuple, final

from tenant_proxy.config.schema import AuthRule

_MAPPED = b"\0" * 10 + b"\xff\xff"


class Origin(NamedTuple):
    """How and from where connections come."""

    #: bits: 1 unix socket, 2 TLS, 4 TCP without
    connections: int
    #: an address fits that is as long and has these bits where the mask has any; empty: all
    network: bytes
    mask: bytes
    holds: bool


@final
class RuleSet:
    """Rules made ready to be matched; never changes."""

    __slots__ = ("_compiled", "rules")

    def __init__(self, rules: Sequence[AuthRule]) -> None:
        """ValueError names the rule (by index from 0) and what is wrong with it."""
        self.rules = tuple(rules)
        self._compiled = tuple(_Compiled(rule, f"auth.rules[{index}]") for index, rule in enumerate(rules))

    def match(
        self, *, kind: str, tls: bool, address: str, user: str, database: str, local_address: str = ""
    ) -> AuthRule | None:
        """See `match_rule`."""
        connection = 1 if kind == "local" else 2 if tls else 4
        packed: bytes | None = None
        for compiled in self._compiled:
            if not compiled.connections & connection:
                continue
            if compiled.users is not None and user not in compiled.users:
                continue
            if (
                compiled.databases is not None
                and database not in compiled.databases
                and not (compiled.same_user and database == user)
            ):
                continue
            if connection != 1 and not compiled.any_address:
                if packed is None:
                    packed = _pack(address)
                if not compiled.fits(packed, local_address):
                    continue
            return compiled.rule
        return None

    def origins(self, method: str) -> list[Origin]:
        """Where connections come from that are all asked for the same, whoever they are: the first that fits
        says whether that is this method.  False also where it depends on the user or the database."""
        found = []
        for compiled in self._compiled:
            for_all = compiled.users is None and compiled.databases is None and not compiled.same_host
            network, mask = compiled.network()
            found.append(
                Origin(compiled.connections, network, mask, for_all and compiled.rule.method == method)
            )
        return found


@final
class _Compiled:
    __slots__ = (
        "_mask",
        "_network",
        "_size",
        "any_address",
        "connections",
        "databases",
        "rule",
        "same_host",
        "same_user",
        "users",
    )

    def __init__(self, rule: AuthRule, where: str) -> None:
        self.rule = rule
        #: bits: 1 unix socket, 2 TLS, 4 plain TCP
        self.connections = {"local": 1, "host": 6, "hostssl": 2, "hostnossl": 4}[rule.type]
        #: None: all
        self.users = None if "all" in rule.user else frozenset(rule.user)
        self.databases = None if "all" in rule.database else frozenset(rule.database) - {"sameuser"}
        self.same_user = "sameuser" in rule.database
        self.any_address = rule.type == "local" or rule.address == "all"
        self.same_host = rule.address == "samehost"
        #: bytes of an address that the rule is for; 0 fits none
        self._size = 0
        self._mask = self._network = 0
        if rule.method == "cert" and rule.type in ("local", "hostnossl"):
            raise ValueError(f"{where}: method cert needs TLS, so type hostssl")
        if not self.any_address and not self.same_host:
            try:
                network = ipaddress.ip_network(rule.address, strict=False)
            except ValueError:
                raise ValueError(
                    f'{where}: address "{rule.address}" is none of all, samehost, an IP address, '
                    "or a network such as 10.0.0.0/8 or fd00::/8"
                ) from None
            self._size = network.max_prefixlen // 8
            self._mask = int(network.netmask)
            self._network = int(network.network_address)

    def network(self) -> tuple[bytes, bytes]:
        """With its mask; both empty where there is none to compare with (all, samehost)."""
        return self._network.to_bytes(self._size, "big"), self._mask.to_bytes(self._size, "big")

    def fits(self, packed: bytes, local_address: str) -> bool:
        if self.same_host:
            return _is_loopback(packed) or (packed != b"" and packed == _pack(local_address))
        return len(packed) == self._size and int.from_bytes(packed, "big") & self._mask == self._network


def compile_rules(rules: Sequence[AuthRule]) -> RuleSet:
    """ValueError where a rule makes no sense; see `RuleSet`."""
    return RuleSet(rules)


def match_rule(
    rules: RuleSet | Sequence[AuthRule],
    *,
    kind: str,
    tls: bool,
    address: str,
    user: str,
    database: str,
    local_address: str = "",
) -> AuthRule | None:
    """The first rule that fits, or None: refuse.

    `kind` is "local" (unix socket) or "tcp".  `address` is the client's; `local_address`
    that of the proxy's end of the connection: `samehost` fits when they are equal, or the
    client's is a loopback address.  An address that cannot be read fits only `all`.
    """
    if not isinstance(rules, RuleSet):
        rules = RuleSet(rules)
    return rules.match(
        kind=kind, tls=tls, address=address, user=user, database=database, local_address=local_address
    )


def _pack(address: str) -> bytes:
    """4 or 16 bytes, or none if it is no address."""
    try:
        if ":" not in address:
            return socket.inet_pton(socket.AF_INET, address)
        packed = socket.inet_pton(socket.AF_INET6, address.partition("%")[0])
    except (OSError, ValueError):
        return b""
    return packed[12:] if packed.startswith(_MAPPED) else packed


def _is_loopback(packed: bytes) -> bool:
    return packed[:1] == b"\x7f" if len(packed) == 4 else packed == b"\0" * 15 + b"\1"
