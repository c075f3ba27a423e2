"""The pools of a worker: one a login of a tenant, made when first used, kept over reloads."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from tenant_proxy.auth.scram import ScramKeys
from tenant_proxy.config.schema import Catalogs, Cluster, GuardMode, Isolation, Policy, PoolMode
from tenant_proxy.pool.budget import CODE_COUNTERS, DEFINED, PINS, TURNS, WAITS
from tenant_proxy.relay.facts import key_of
from tenant_proxy.relay.session import PoolRecord
from tenant_proxy.relay.switch import BASE
from tenant_proxy.relay.wayback import Names
from tenant_proxy.tenancy.registry import Registry, Route, TenantInfo, group_name
from tenant_proxy.wire import messages

if TYPE_CHECKING:
    from tenant_proxy.worker import Worker

_GUARD_MODES = {GuardMode.ENFORCE: 0, GuardMode.OBSERVE: 1, GuardMode.OFF: 2}

#: tenant, login on the server, role in place of the tenant's own, mode, names of locked settings
Key = tuple[str, str, str | None, str, frozenset[str]]


class Pools:
    """Pool records by `Key` and by the engine's id."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._by_key: dict[Key, PoolRecord] = {}
        self._by_id: dict[int, PoolRecord] = {}
        #: the pool whose servers it listens beside -> an ear's
        self._ears: dict[int, PoolRecord] = {}
        self._ears_by_id: dict[int, PoolRecord] = {}
        #: the engine's numbers of tenants, by name
        self._tenants: dict[str, int] = {}
        #: cluster -> tenants with pools on it -> shared backends that they have reserved
        self._reserved: dict[str, dict[str, int]] = {}

    def __iter__(self) -> Iterator[PoolRecord]:
        return iter(self._by_id.values())

    def get(self, pool_id: int) -> PoolRecord | None:
        return self._by_id.get(pool_id) or self._ears_by_id.get(pool_id)

    def of(
        self, route: Route, keys: ScramKeys | None, *, replication: bool, by_previous: bool = False
    ) -> PoolRecord:
        """The pool of an authenticated client; `keys` are what its login left for pass-through.

        `by_previous`: it has logged in with the password that is being replaced.

        Replication commands are no SQL that the guard could read, so replication connections have a pool
        of their own without it; policy.allow_replication says so.
        """
        login, tenant = route.login, route.tenant
        server_user = login.server_user if login is not None else route.user
        password = login.server_password if login is not None else None
        if by_previous and login is not None and login.previous_user != server_user:
            server_user = login.previous_user
        elif by_previous:
            # the server knows the new password alone
            keys = None
        locked = frozenset(route.locked)
        mode = "replication" if replication else tenant.pool.mode.value
        role = login.roles.get(tenant.name) if login is not None else None
        key = (tenant.name, server_user, role, mode, locked)
        record = self._by_key.get(key)
        if record is None:
            record = PoolRecord(
                id=0,
                tenant=tenant,
                server_user=server_user,
                password=password,
                role=role,
                session_mode=tenant.pool.mode is PoolMode.SESSION,
                replication=replication,
                locked=locked,
            )
            self._open(key, record)
            self._join(record)
        if keys is not None:
            record.keys = keys
        record.password = password
        if login is not None:
            record.logins.add(login.name)
        return record

    def _open(self, key: Key, record: PoolRecord) -> None:
        self._make(record)
        self._meter(record)
        self._by_key[key] = record
        self._by_id[record.id] = record
        self._worker.stopped.apply(record)

    def _make(self, record: PoolRecord) -> None:
        number = self._tenants.setdefault(record.tenant.name, len(self._tenants) + 1)
        record.id = self._worker.engine.pool_open(number, **self._limits(record))

    def _join(self, record: PoolRecord) -> None:
        """Gives a pool a part in its tenant's share of the cluster's shared backends, or takes it away, as
        configured."""
        tenant, worker = record.tenant, self._worker
        record.shared = tenant.isolation is Isolation.SHARED and not record.replication
        if not record.shared:
            self._part(record)
            worker.engine.pool_proven(record.id, 0, 0)
            return
        self._reserve(tenant.name, tenant.cluster.name, tenant.pool.reserved)
        indexes = {name: worker.budget.index(f"{name}:{tenant.code}") for name in CODE_COUNTERS}
        worker.engine.pool_join(
            record.id,
            self._group(tenant.cluster).id,
            weight=tenant.pool.weight,
            reserved=tenant.pool.reserved,
            max=tenant.pool.max,
            mark_index=indexes["code"],
            active_index=indexes["sharing"],
            coded_index=indexes["coding"],
            turns_index=worker.budget.index(f"{TURNS}:{tenant.name}"),
        )
        worker.code.tell(record.id, worker.code.of(tenant.name))

    def _part(self, record: PoolRecord) -> None:
        self._worker.engine.pool_part(record.id)
        name = record.tenant.name
        if not any(one.tenant.name == name and one.shared and one is not record for one in self):
            self._reserve(name, "", 0)

    def _reserve(self, tenant: str, cluster: str, count: int) -> None:
        """Has other workers leave a tenant so many shared backends of its cluster, and none of another."""
        if count:
            self._reserved.setdefault(cluster, {})
        for name, counts in self._reserved.items():
            before = counts.pop(tenant, 0)
            if count and name == cluster:
                counts[tenant] = count
            if before or counts.get(tenant):
                self._worker.budget.reserve(name, sum(counts.values()))

    def _group(self, cluster: Cluster) -> PoolRecord:
        """The pool of the backends that a cluster's tenants share."""
        service = cluster.service
        assert service.user is not None
        key = (group_name(cluster.name), service.user, None, PoolMode.TRANSACTION.value, frozenset[str]())
        record = self._by_key.get(key)
        if record is None:
            record = PoolRecord(
                id=0,
                tenant=self._worker.state.registry.group_of(cluster),
                server_user=service.user,
                password=None,
                session_mode=False,
                is_group=True,
            )
            self._open(key, record)
            self._group_limits(record)
        record.password = service.password.reveal() if service.password is not None else None
        return record

    def ear_of(self, record: PoolRecord) -> PoolRecord:
        """The pool of the ear of a pool's clients."""
        base = self._group(record.tenant.cluster) if record.shared else record
        ear = self._ears.get(base.id)
        if ear is None:
            ear = PoolRecord(
                id=0,
                tenant=base.tenant,
                server_user=base.server_user,
                password=None,
                is_ear=True,
                base=base.id,
            )
            self._make(ear)
            self._ears[base.id] = self._ears_by_id[ear.id] = ear
        ear.keys, ear.password = base.keys, base.password
        return ear

    def _renew_ears(self) -> None:
        """After a reload: where the clients' servers are elsewhere now, nothing is heard of there.  An ear
        of a tenant that is stopped follows it, when it goes on (`Ears.follow`).
        """
        for base_id, ear in self._ears.items():
            base = self._by_id[base_id]
            if base.stopped:
                continue
            if _opened_by(base.tenant)[0] != ear.tenant.cluster:
                self._worker.ears.leave(ear.id)
            ear.tenant, ear.keys, ear.password = base.tenant, base.keys, base.password

    def _group_limits(self, record: PoolRecord) -> None:
        worker, service = self._worker, record.tenant.cluster.service
        worker.engine.pool_group(
            record.id, worker.settings.intern(BASE), service.max_tenants, service.narrows, service.yields
        )

    def _tenant(self, registry: Registry, record: PoolRecord) -> TenantInfo | None:
        """What a configuration says of a pool's tenant; None if it no longer has it."""
        if not record.is_group:
            return registry.tenant_as(record.tenant.name, record.role)
        name = record.tenant.cluster.name
        cluster = next((one for one in registry.config.clusters if one.name == name), None)
        if cluster is None or cluster.service.user != record.server_user:
            return None
        record.password = cluster.service.password.reveal() if cluster.service.password is not None else None
        return registry.group_of(cluster)

    def _limits(self, record: PoolRecord) -> dict[str, Any]:
        tenant = record.tenant
        pool = tenant.pool
        return {
            **self._names(record),
            "guard_mode": _GUARD_MODES[_policy(record).mode],
            # of the clients that are in, it does not change
            "session_mode": record.session_mode,
            "max": pool.max,
            "min": pool.min,
            "queue_limit": pool.queue_limit,
            "fail_when_down": pool.when_down == "fail",
            "max_prepared": pool.max_prepared_statements,
            "max_prepared_bytes": pool.max_prepared_bytes,
            "max_pins": pool.max_pins,
            "defers": pool.defer_begin,
            "defined_index": self._worker.budget.index(f"{DEFINED}:{tenant.code}"),
            "pins_index": self._worker.budget.index(f"{PINS}:{tenant.name}"),
            "waits_index": self._worker.budget.index(f"{WAITS}:{tenant.name}"),
            # Where a role was set by the startup packet, some minor releases (16.2 was seen to) let
            # DISCARD ALL fall back to the login: such a backend is closed when it is dirty.
            "reset_query": messages.query(pool.reset_query) if pool.reset_query and not tenant.role else b"",
            "queue_timeout_s": pool.queue_timeout_s,
            "query_timeout_s": pool.query_timeout_s,
            "idle_in_transaction_timeout_s": pool.idle_in_transaction_timeout_s,
            "client_idle_timeout_s": pool.client_idle_timeout_s,
            "server_idle_timeout_s": pool.server_idle_timeout_s,
            "connect_timeout_s": pool.connect_timeout_s,
        }

    def _names(self, record: PoolRecord) -> dict[str, Any]:
        """The scope that statements are judged in, 0 while it is not known what the cluster has installed;
        and what servers' messages are turned back by."""
        tenant, policy = record.tenant, _policy(record)
        installed = self._worker.facts.installed(tenant.cluster)
        if record.replication or policy.catalogs is Catalogs.SHOW:
            installed = bool(installed)
        record.names = Names(
            space=tenant.space,
            schema=tenant.schema,
            hides=bool(installed) and policy.catalogs is not Catalogs.SHOW,
            public_is_own=policy.public_is_own,
        )
        roles = self._worker.state.registry.roles_of(tenant)
        scope = 0
        if installed is not None:
            scope = self._worker.judging.scope_of(
                tenant,
                policy,
                record.server_user,
                roles,
                installed=installed,
                locked=record.locked,
                folding=self._worker.facts.folding(tenant.cluster),
            )
        return {
            "scope": scope,
            "translates": record.names.translates,
            "prefix": record.names.prefix,
            "own": record.names.own,
        }

    def learnt(self, cluster: Cluster) -> None:
        """It is known now what a cluster has installed, or is known otherwise than before."""
        for record in self:
            if key_of(record.tenant.cluster) == key_of(cluster):
                self._worker.engine.pool_names(record.id, **self._names(record))

    def neighbours(self, pool: PoolRecord) -> list[int]:
        """Ids of the other pools on the same cluster."""
        cluster = pool.tenant.cluster.name
        return [one.id for one in self if one.tenant.cluster.name == cluster and one is not pool]

    def group_of(self, cluster: str) -> PoolRecord | None:
        """The pool of the backends that a cluster's tenants share, if it has been made."""
        return next((one for one in self if one.is_group and one.tenant.cluster.name == cluster), None)

    def of_cluster(self, cluster: str) -> list[int]:
        return [one.id for one in self if one.tenant.cluster.name == cluster]

    def of_host(self, key: tuple[str, int]) -> list[PoolRecord]:
        return [one for one in self if (one.tenant.cluster.host, one.tenant.cluster.port) == key]

    def reload(self, registry: Registry) -> None:
        """Takes a new configuration's limits; servers that were opened by an older idea of their tenant
        (its cluster, schema, role, settings or login) are not used again."""
        engine, facts = self._worker.engine, self._worker.facts
        # where something ought to be hidden and can't be, the operator may just have seen to it
        wanting = {
            key_of(one.cluster): one.cluster
            for one in registry.tenants.values()
            if one.policy.catalogs is Catalogs.HIDE and facts.installed(one.cluster) is False
        }
        for cluster in wanting.values():
            facts.forget(cluster)
        for record in list(self):
            self._renew(registry, record)
            if key_of(record.tenant.cluster) in wanting:
                engine.expire_servers(record.id)
        self._renew_ears()

    def update(self, registry: Registry, tenants: Iterable[str]) -> None:
        """As `reload`, of these tenants alone."""
        names = set(tenants)
        for record in list(self):
            if record.tenant.name in names:
                self._renew(registry, record)
        self._renew_ears()

    def meter(self) -> None:
        """After a change of which tenants are over their storage."""
        for record in self:
            self._meter(record)

    def _meter(self, record: PoolRecord) -> None:
        worker, pool = self._worker, record.tenant.pool
        worker.engine.pool_meter(
            record.id,
            worker.budget.index(f"tenant:{record.tenant.name}"),
            statements_per_s=0 if record.is_group else pool.statements_per_s,
            burst=pool.statements_burst or math.ceil(pool.statements_per_s),
            full=record.tenant.full or record.tenant.name in worker.full,
        )

    def _renew(self, registry: Registry, record: PoolRecord) -> None:
        engine = self._worker.engine
        tenant = self._tenant(registry, record)
        if tenant is None:
            engine.pool_retire(record.id)
            record.shared = False
            self._part(record)
            return
        before = record.tenant
        record.tenant = tenant
        engine.pool_update(record.id, **self._limits(record))
        if _opened_by(before) != _opened_by(tenant):
            record.welcomes.clear()
            engine.expire_servers(record.id)
        self._meter(record)
        record.backoff.retry_at = 0.0
        if record.is_group:
            self._group_limits(record)
        else:
            self._join(record)
        self._worker.stopped.apply(record)
        engine.pool_demand(record.id)


def _policy(record: PoolRecord) -> Policy:
    policy = record.tenant.policy
    return policy.model_copy(update={"mode": GuardMode.OFF}) if record.replication else policy


def _opened_by(tenant: TenantInfo) -> tuple[object, ...]:
    return (
        tenant.cluster,
        tenant.schema,
        tenant.space,
        tenant.role,
        tenant.settings,
        tenant.locked,
        tenant.policy.allowed_schemas,
        tenant.policy.public_is_own,
    )
