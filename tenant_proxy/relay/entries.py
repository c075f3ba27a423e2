"""What the compiled login (relay.entry) is told: the configuration's names, and packets once admitted."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tenant_proxy.auth import scram
from tenant_proxy.auth.rules import Origin
from tenant_proxy.auth.scram import Verifier
from tenant_proxy.auth.secret import Secret, SecretKind
from tenant_proxy.config.schema import MappingRule
from tenant_proxy.tenancy.registry import Changed, TenantInfo

if TYPE_CHECKING:
    from tenant_proxy.relay.login import Admission
    from tenant_proxy.relay.session import PoolRecord
    from tenant_proxy.relay.state import State
    from tenant_proxy.worker import Worker

#: the one method that is compiled
METHOD = "scram-sha-256"
#: longest ",s=…,i=…" that it keeps (relay/entry.pxd); PostgreSQL's own have about 35 bytes
MAX_CHALLENGE = 160
#: iterations of PBKDF2 spent at once on plain passwords: some 10 s
MAX_DERIVATIONS = 40_000_000


def home_of(tenant: TenantInfo, workers: int) -> int:
    """The worker that a tenant's connections are passed to: the same for all who ask."""
    return zlib.crc32(tenant.name.encode()) % workers


class Entries:
    """A worker's say to its engine's logins."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._derivation: asyncio.Task[None] | None = None

    def configure(self) -> None:
        """Takes the worker's configuration; what was admitted before is forgotten.

        Logins begin in compiled code only where every connection that comes as this one (plain, with TLS, on
        a unix socket, from its address) is asked for SCRAM, whoever it is, and the keys of all logins are
        known: what is done for some only would show, by the time it takes, who they are.
        """
        worker, state = self._worker, self._worker.state
        config, registry = state.config, state.registry
        anybody = scram.mock_verifier(state.mock_key, "", config.auth.scram_iterations)
        verifiers = {name: self._verifier(name, secret) for name, secret in state.secrets.items()}
        missing = [name for name, verifier in verifiers.items() if verifier is None]
        usable = not missing and all(len(v.challenge) <= MAX_CHALLENGE for v in verifiers.values() if v)
        worker.engine.entry_configure(
            origins=self._origins() if usable else [],
            binding=scram.bound_to(state.end_point) if state.end_point is not None else b"",
            suffixes=MappingRule.USER_SUFFIX in config.mapping,
            asks=any(cluster.auth_query.enabled for cluster in config.clusters),
            log_starts=config.log.connections,
            log_ends=config.log.disconnections,
            mock_key=state.mock_key,
            mock_challenge=anybody.challenge,
            tenants=[name.encode() for name in registry.tenants],
        )
        for name, verifier in verifiers.items():
            if verifier is not None:
                self._tell(name, verifier)
        if worker.draining:
            worker.engine.entry_stop()
        elif 0 < len(missing) <= MAX_DERIVATIONS // config.auth.scram_iterations:
            loop = asyncio.get_running_loop()
            self._derivation = loop.create_task(self._derive(state, missing))

    def _origins(self) -> list[Origin]:
        state = self._worker.state
        tls = state.config.listen.tls
        # refused where TLS is required; known by certificates that Python looks at
        others = (4 if tls.mode == "require" else 0) | (2 if tls.client_ca is not None else 0)
        return [Origin(others, b"", b"", holds=False), *state.rules.origins(METHOD)]

    def update(self, changed: Changed) -> None:
        """Takes what the catalog has changed."""
        worker, state = self._worker, self._worker.state
        for name in changed.tenants:
            worker.engine.entry_tenant(name.encode(), name in state.registry.tenants)
        for name in changed.logins:
            if name not in state.registry.logins:
                worker.engine.entry_login_gone(_bytes(name))
                continue
            verifier = self._verifier(name, state.secrets[name])
            if verifier is None or len(verifier.challenge) > MAX_CHALLENGE:
                # one that is not like the others
                self.configure()
                return
            self._tell(name, verifier)

    def _verifier(self, name: str, secret: Secret | None) -> Verifier | None:
        """A login's; None if it must be derived first.  Who can't log in by SCRAM has an unknown name's."""
        state = self._worker.state
        iterations = state.config.auth.scram_iterations
        if secret is None or secret.kind is SecretKind.MD5:
            return scram.mock_verifier(state.mock_key, name, iterations)
        return secret.cached_verifier(scram.mock_salt(state.mock_key, name), iterations)

    async def _derive(self, state: State, names: list[str]) -> None:
        """Derives the keys of plain passwords, in a thread, and begins anew."""
        iterations = state.config.auth.scram_iterations

        def work() -> None:
            for name in names:
                secret = state.secrets[name]
                assert secret is not None
                secret.derive(scram.mock_salt(state.mock_key, name), iterations)

        await asyncio.get_running_loop().run_in_executor(None, work)
        if self._worker.state is state:
            self.configure()

    def _tell(self, name: str, verifier: Verifier) -> None:
        registry = self._worker.state.registry
        tenants = registry.logins[name].tenants
        home = -1
        if len(tenants) == 1 and tenants[0] in registry.tenants:
            home = home_of(registry.tenants[tenants[0]], self._worker.workers)
        self._worker.engine.entry_login(
            _bytes(name),
            home,
            verifier.stored_key,
            verifier.server_key,
            verifier.challenge,
        )

    def admitted(
        self,
        packet: bytes,
        admission: Admission,
        pool: PoolRecord,
        parameters: Sequence[bytes],
        *,
        tls: bool,
    ) -> None:
        """A connection with this packet, with TLS or without, has been let in and greeted with these.

        With TLS it stays where it is: its handshake can't be moved to the tenant's worker.
        """
        worker = self._worker
        login = admission.login
        if login is None or admission.replication or pool.session_mode:
            return
        if login.addresses is not None:
            # where it comes from is looked at in Python
            return
        greeting = b"".join(parameters)
        encoding = greeting.partition(b"client_encoding\0")[2].partition(b"\0")[0]
        if encoding and encoding != b"UTF8":
            # its texts are read in that encoding, which is noted in Python
            return
        home = home_of(admission.tenant, worker.workers)
        indexes = worker.budget.indexes
        worker.engine.entry_admit(
            packet,
            admission,
            pool.id if tls or home == worker.slot else 0,
            admission.startup_id,
            admission.settings_id,
            greeting,
            [(indexes[name], limit) for name, limit in admission.places.items() if name in indexes],
            tls,
        )


def _bytes(name: str) -> bytes:
    return name.encode("utf-8", "surrogateescape")
