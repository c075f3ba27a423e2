"""What of a configuration a running proxy can't change."""

from __future__ import annotations

from tenant_proxy.config.schema import Config

#: keys of `listen` whose sockets are bound once and inherited by all workers
_FIXED_LISTEN = ("addresses", "port", "backlog", "unix_socket_dir")
#: dotted names, for SHOW CONFIG's "changeable"
FIXED_KEYS = frozenset(("workers", *(f"listen.{key}" for key in _FIXED_LISTEN)))


def keep_fixed(old: Config, new: Config) -> tuple[Config, list[str]]:
    """`new` with the values of `old` where only a restart can change them, and a warning for each."""
    warnings = []
    if new.workers != old.workers:
        warnings.append(f"workers: {old.workers} stays in force, a change needs a restart")
    fixed = {}
    for key in _FIXED_LISTEN:
        before, after = getattr(old.listen, key), getattr(new.listen, key)
        if before != after:
            fixed[key] = before
            warnings.append(f"listen.{key}: {before} stays in force, a change needs a restart")
    if warnings:
        new = new.model_copy(update={"workers": old.workers, "listen": new.listen.model_copy(update=fixed)})
    return new, warnings
