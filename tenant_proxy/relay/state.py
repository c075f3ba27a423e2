"""What a worker's parts share: one configuration at a time, and what is made of it.

`State` is replaced piece by piece by a reload (`worker.Worker.reload`), in one go from the loop's view.
"""

from __future__ import annotations

import functools
import gc
import hashlib
import ssl
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from tenant_proxy.auth.rules import RuleSet, compile_rules
from tenant_proxy.auth.secret import Secret, SecretKind
from tenant_proxy.auth.tls import server_end_point
from tenant_proxy.config.schema import Config
from tenant_proxy.net.tls import client_context
from tenant_proxy.tenancy.records import Served
from tenant_proxy.tenancy.registry import Changed, Registry

if TYPE_CHECKING:
    from tenant_proxy.auth.jwt import LoginTokens

#: tenants and logins at once
LARGE = 1000


@dataclass(slots=True)
class State:
    """One configuration, ready for use."""

    config: Config
    registry: Registry
    rules: RuleSet
    client_tls: ssl.SSLContext | None
    #: channel binding data of the certificate shown to clients
    end_point: bytes | None
    #: what unknown users' salts are made of: the same in all workers, and over restarts
    mock_key: bytes
    #: the kind of secret that most logins have: unknown ones seem to have it too
    mock_kind: SecretKind
    #: whether a rule needs to know the proxy's own address
    samehost_rules: bool
    #: what the tokens of logins by method jwt must be
    tokens: LoginTokens | None = None
    #: login's name -> its secret, kept for the keys that it caches
    secrets: dict[str, Secret | None] = field(default_factory=dict)
    #: … the one that is being replaced
    previous: dict[str, Secret] = field(default_factory=dict)

    @classmethod
    def build(cls, config: Config, served: Served | None = None) -> State:
        """Raises OSError and ssl.SSLError for certificates, ValueError for rules."""
        tls = client_context(config.listen.tls)
        registry = Registry.build(config)
        kinds = Counter(
            SecretKind.SCRAM if login.verifier else SecretKind.PLAIN for login in registry.logins.values()
        )
        state = cls(
            config=config,
            registry=registry,
            rules=compile_rules(config.auth.rules),
            client_tls=tls,
            end_point=_end_point(config) if tls is not None else None,
            mock_key=_mock_key(config, registry),
            mock_kind=kinds.most_common(1)[0][0] if kinds else SecretKind.SCRAM,
            tokens=_tokens(config),
            samehost_rules=any(rule.address == "samehost" for rule in config.auth.rules),
        )
        for login in registry.logins.values():
            state.note_secrets(login.name)
        if served is not None:
            state.serve(served)
        return state

    def serve(self, served: Served) -> Changed:
        """Takes what the catalog has to say (`Registry.serve`)."""
        large = gc.isenabled() and len(served.tenants) + len(served.logins) > LARGE
        if large:
            # looking for garbage in what stays would take a third of the time
            gc.disable()
        changed = self.registry.serve(served)
        for name in changed.logins:
            self.note_secrets(name)
        if large:
            gc.freeze()
            gc.enable()
        return changed

    def note_secrets(self, name: str) -> None:
        """The secrets of a login that is new, other than before, or gone."""
        self.secrets.pop(name, None)
        self.previous.pop(name, None)
        login = self.registry.logins.get(name)
        if login is None:
            return
        self.secrets[name] = Secret.parse(login.verifier) if login.verifier else _plain(login.password)
        if login.previous is not None:
            self.previous[name] = Secret.parse_verifier(login.previous)


def _tokens(config: Config) -> LoginTokens | None:
    """OSError and ValueError where the keys can't be read."""
    given = config.auth.jwt
    if given.keys is None:
        return None
    from tenant_proxy.auth.jwt import LoginTokens, Tokens

    try:
        tokens = Tokens(Path(given.keys).read_text("utf-8"), given.issuer or "", given.audience or "")
    except ValueError as error:
        raise ValueError(f"auth.jwt.keys: {given.keys}: {error}") from None
    return LoginTokens(tokens, given.login_claim, given.tenant_claim)


def _plain(password: str | None) -> Secret | None:
    return Secret.plain(password) if password else None


def _end_point(config: Config) -> bytes | None:
    assert config.listen.tls.cert is not None
    with open(config.listen.tls.cert, encoding="ascii") as file:
        text = file.read()
    start = text.index("-----BEGIN CERTIFICATE-----")
    end = text.index("-----END CERTIFICATE-----") + len("-----END CERTIFICATE-----")
    return server_end_point(ssl.PEM_cert_to_DER_cert(text[start:end]))


def _mock_key(config: Config, registry: Registry) -> bytes:
    """Secret as long as one login's secret is.

    Anybody gets salts made of it, without a login: so guessing passwords by them must be slow.  Logins of the
    catalog are no part of it: salts of unknown names must not change whenever one of those does.
    """
    digest = hashlib.sha256(b"tenant_proxy mock key")
    for login in sorted(registry.logins.values(), key=lambda one: one.name):
        digest.update(repr((login.name, login.verifier, login.password)).encode())
    for ref in (config.secret, config.catalog.dsn):
        if ref is not None:
            digest.update(ref.reveal().encode("utf-8", "surrogateescape"))
    return _slowly(digest.digest())


@functools.lru_cache(maxsize=2)
def _slowly(digest: bytes) -> bytes:
    return hashlib.scrypt(digest, salt=b"salts of unknown users", n=1 << 14, r=8, p=1, dklen=32)
