"""HTTP to addresses that somebody else has named: webhooks.

Who may set a webhook could otherwise have this process ask whatever it can reach, such as the metadata
service of a cloud or a database's port.  So a host's addresses are looked up here, each must be a public one
or of `webhooks.allowed_networks`, and the connection goes to the very address that was looked at; redirects
are not followed.  Outside of these networks it must be https.
"""

from __future__ import annotations

import http.client
import ipaddress
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from tenant_proxy.catalog.failures import Failure

if TYPE_CHECKING:
    from tenant_proxy.config.schema import Webhooks

MAX_ANSWER_BYTES: Final = 64 * 1024

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    body: bytes


def check(url: str) -> None:
    """Failure (invalid) where it can't be posted to; whether it may be is seen when it is used."""
    parts = urlsplit(url)
    try:
        port = parts.port
    except ValueError:
        port = 0
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        raise Failure("invalid", f"{url!r} is no address for a webhook", hint="https://HOST[:PORT]/PATH")
    if parts.username is not None or not url.isprintable() or " " in url:
        raise Failure("invalid", "a webhook's address has no login and no blanks in it")


def post(url: str, body: bytes, headers: Mapping[str, str], config: Webhooks) -> Answer:
    """Blocks.  Failure (refused) where it is not allowed, (unavailable) where nobody answers."""
    check(url)
    parts = urlsplit(url)
    assert parts.hostname is not None
    host, port = parts.hostname, parts.port or (443 if parts.scheme == "https" else 80)
    address = _allowed(host, port, parts.scheme, config)
    connection = _Pinned(host, port, address, parts.scheme == "https", config.timeout_s)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    try:
        connection.request("POST", target, body, dict(headers))
        response = connection.getresponse()
        return Answer(response.status, response.read(MAX_ANSWER_BYTES))
    except (OSError, http.client.HTTPException) as error:
        text = str(error) or type(error).__name__
        raise Failure("unavailable", f"the webhook {url} can't be reached: {text}") from None
    finally:
        connection.close()


def _allowed(host: str, port: int, scheme: str, config: Webhooks) -> str:
    """The address to connect to; all that the host has must be allowed: their order means nothing."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise Failure("unavailable", f'the webhook\'s host "{host}" is not known') from None
    networks = [ipaddress.ip_network(one, strict=False) for one in config.allowed_networks]
    for entry in found:
        address = _plain(str(entry[4][0]))
        named = any(address.version == network.version and address in network for network in networks)
        if not named and not address.is_global:
            raise Failure(
                "refused",
                f'the webhook\'s host "{host}" is at {address}, which is no public address',
                hint="webhooks.allowed_networks in the configuration names those that may be asked",
            )
        if not named and scheme != "https":
            raise Failure("refused", "a webhook outside of webhooks.allowed_networks must be https")
    return str(found[0][4][0])


def _plain(text: str) -> _Address:
    address = ipaddress.ip_address(text.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address):
        # an IPv4 address in the clothes of IPv6
        return address.ipv4_mapped or address.sixtofour or (address.teredo or (None, None))[1] or address
    return address


class _Pinned(http.client.HTTPConnection):
    """Connects to an address that was looked at, in the host's name."""

    def __init__(self, host: str, port: int, address: str, tls: bool, timeout_s: float) -> None:
        super().__init__(host, port, timeout=timeout_s)
        self._address = address
        if tls:
            self.default_port = http.client.HTTPS_PORT
        self._tls = ssl.create_default_context() if tls else None

    def connect(self) -> None:
        sock = socket.create_connection((self._address, self.port), self.timeout)
        self.sock = sock if self._tls is None else self._tls.wrap_socket(sock, server_hostname=self.host)
