"""RESET ALL and DISCARD ALL: what drivers send when a connection goes back to their pool, in transaction mode.

A session's settings are those that it began with and those that it has changed (relay.settings).  So to reset
them is to forget the latter.  A shared backend can't do it by RESET ALL, which would lead it back to nobody's.
"""

from libc.stdint cimport uint32_t

from tenant_proxy.pool.pool cimport Client, Server
from tenant_proxy.relay.core cimport (
    EFF_DISCARDS_ALL, EFF_ESCALATES, EFF_MULTI, EFF_RESETS, EFF_SETTINGS, Relay,
    up_unlisten,
)
from tenant_proxy.relay.marks cimport is_proven
from tenant_proxy.relay.requests cimport tell_ready
from tenant_proxy.relay.statements cimport client_drop_unnamed, client_forget_all
from tenant_proxy.wire.consts cimport XACT_IDLE


cdef bint discarded(Relay e, Client *c, uint32_t effects) noexcept nogil:
    # Answers a DISCARD ALL of a client that has nothing on any server, and no settings of its own.
    if not c.tracks or effects & EFF_MULTI or c.server != NULL or c.begun != NULL or c.settings_id != c.reset_id:
        return False
    client_forget_all(c)
    client_drop_unnamed(c)
    c.touched = 0
    if c.listens:
        up_unlisten(e, c)
    e.send(&c.link, b"C\0\0\0\x10DISCARD ALL\0", 17)
    tell_ready(e, c)
    return True


cdef uint32_t reset_effects(Relay e, Client *c, uint32_t effects) noexcept nogil:
    # Of a text with EFF_RESETS whose client may have shared servers: EFF_RESETS stays where settings are reset by what the
    # next switch brings, so that the text must not reset any.  Otherwise it runs on a server of the tenant's own.
    cdef Server *s = c.server
    if s == NULL and c.begun == NULL and is_proven(e, c.pool):
        if c.settings_id != c.reset_id:
            c.settings_id = c.reset_id
            c.tells = 1
        return effects & ~<uint32_t> EFF_SETTINGS
    if (s != NULL and s.pool.is_group and s.settings_id == c.reset_id and c.settings_id == c.reset_id
            and s.ring.count == 0 and not s.batch_open and s.xact_status == XACT_IDLE and not s.settings_changed):
        return effects & ~<uint32_t> EFF_SETTINGS
    return effects & ~<uint32_t> EFF_RESETS | EFF_ESCALATES
