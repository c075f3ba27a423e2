"""What the supervisor does for a configuration before it is in force, or when it is."""

from __future__ import annotations

from tenant_proxy.config.reload import changes
from tenant_proxy.config.schema import Config
from tenant_proxy.listeners import Listener, open_listeners
from tenant_proxy.obs.log import get_logger
from tenant_proxy.system import raise_fd_limit

log = get_logger("supervisor")

#: lines that one reload may log about what is new
MAX_CHANGES_LOGGED = 100
#: files of a process beside its clients and backends: mailboxes, listeners, libraries
FD_RESERVE = 256


def log_changes(old: Config, new: Config) -> None:
    for number, change in enumerate(changes(old, new)):
        if number == MAX_CHANGES_LOGGED:
            log.info("there are more changes, which are not logged")
            break
        log.info("configuration changed", change=change)


def needs_control(config: Config) -> bool:
    limited = any(tenant.storage_bytes for tenant in config.tenants)
    return config.metrics.enabled or config.catalog.dsn is not None or limited


def http_of(config: Config) -> tuple[object, ...]:
    metrics = config.metrics
    return metrics.enabled, metrics.address, metrics.port


def open_http(config: Config) -> list[Listener]:
    if not config.metrics.enabled:
        return []
    return open_listeners([config.metrics.address], config.metrics.port, backlog=128)


def check_fd_limit(config: Config) -> None:
    limit = raise_fd_limit()
    # one worker may have to hold nearly all of them
    needed = config.limits.max_clients + sum(c.max_backends for c in config.clusters) + FD_RESERVE
    if limit is not None and limit < needed:
        log.warning(
            "the limit of open files is below what the configuration may need", limit=limit, needed=needed
        )
