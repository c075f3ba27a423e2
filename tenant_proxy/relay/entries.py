"""What the compiled login (relay.entry) is told: the configuration's names, and packets once admitted."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tenant_proxy.auth import scram
from tenant_proxy.auth.secret import Secret, SecretKind
from tenant_proxy.config.schema import MappingRule
from tenant_proxy.tenancy.registry import TenantInfo

if TYPE_CHECKING:
    from tenant_proxy.relay.login import Admission
    from tenant_proxy.relay.session import PoolRecord
    from tenant_proxy.worker import Worker

#: the one method that is compiled
METHOD = "scram-sha-256"


def home_of(tenant: TenantInfo, workers: int) -> int:
    """The worker that a tenant's connections are passed to: the same for all who ask."""
    return zlib.crc32(tenant.name.encode()) % workers


class Entries:
    """A worker's say to its engine's logins."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker

    def configure(self) -> None:
        """Takes the worker's configuration; what was admitted before is forgotten.

        Logins begin in compiled code only where every plain connection is asked for SCRAM, whoever it is:
        a rule for some would show, by the time it takes, who they are.
        """
        worker, state = self._worker, self._worker.state
        config, registry = state.config, state.registry
        anybody = scram.mock_verifier(state.mock_key, "", config.auth.scram_iterations)
        worker.engine.entry_configure(
            tcp=config.listen.tls.mode != "require" and state.rules.method_for_all("tcp") == METHOD,
            local=state.rules.method_for_all("local") == METHOD,
            suffixes=MappingRule.USER_SUFFIX in config.mapping,
            asks=any(tenant.cluster.auth_query.enabled for tenant in registry.tenants.values()),
            log_starts=config.log.connections,
            log_ends=config.log.disconnections,
            mock_key=state.mock_key,
            mock_challenge=anybody.challenge,
            tenants=[name.encode() for name in registry.tenants],
        )
        for name, secret in state.secrets.items():
            self._tell(name, secret)
        if worker.draining:
            worker.engine.entry_stop()

    def _tell(self, name: str, secret: Secret | None) -> None:
        state = self._worker.state
        tenants = state.registry.logins[name].tenants
        home = -1
        if len(tenants) == 1 and tenants[0] in state.registry.tenants:
            home = home_of(state.registry.tenants[tenants[0]], self._worker.workers)
        verifier = None
        hopeless = secret is None or secret.kind is SecretKind.MD5
        if secret is not None and not hopeless:
            salt = scram.mock_salt(state.mock_key, name)
            verifier = secret.cached_verifier(salt, state.config.auth.scram_iterations)
        self._worker.engine.entry_login(
            name.encode("utf-8", "surrogateescape"),
            home,
            hopeless,
            verifier.stored_key if verifier is not None else b"",
            verifier.server_key if verifier is not None else b"",
            verifier.challenge if verifier is not None else b"",
        )

    def admitted(
        self, packet: bytes, admission: Admission, pool: PoolRecord, parameters: Sequence[bytes]
    ) -> None:
        """A plain connection with this packet has been let in and greeted with these parameters."""
        worker = self._worker
        login = admission.login
        if login is None or admission.replication or pool.session_mode:
            return
        secret = worker.state.secrets.get(login.name)
        if secret is not None and secret.kind is SecretKind.PLAIN:
            # its keys are derived by now
            self._tell(login.name, secret)
        home = home_of(admission.tenant, worker.workers)
        indexes = worker.budget.indexes
        worker.engine.entry_admit(
            packet,
            admission,
            pool.id if home == worker.slot else 0,
            admission.startup_id,
            admission.settings_id,
            b"".join(parameters),
            [(indexes[name], limit) for name, limit in admission.places.items() if name in indexes],
        )
