"""The bound of a tenant's prepared statements, and what is given up before one is refused."""

from tenant_proxy.pool.pool cimport Client, Pool, Server, ServerStmt, Stmt, Tenant, idle_remove
from tenant_proxy.relay.core cimport EVICTED, Burst, Relay
from tenant_proxy.relay.pairing cimport come_to_rest, server_end
from tenant_proxy.relay.preparing cimport write_close
from tenant_proxy.relay.statements cimport server_forget


cdef bint may_prepare(Relay e, Client *c, Burst *b, Server *s, size_t size) noexcept nogil:
    # Whether there is room for one more, perhaps after others have been given up: those that this server alone knows,
    # the least recently used first, then those of idle servers.
    cdef Tenant *owner = c.pool.owner
    if fits(owner, size):
        return True
    forget_here(e, c, b, s, size)
    if fits(owner, size):
        return True
    forget_idle(e, c.pool, size)
    return fits(owner, size)


cdef inline bint fits(Tenant *owner, size_t size) noexcept nogil:
    return owner.stmt_bytes + size <= owner.max_stmt_bytes


cdef void forget_here(Relay e, Client *c, Burst *b, Server *s, size_t size) noexcept nogil:
    cdef ServerStmt *one = s.oldest
    cdef ServerStmt *newer
    cdef Stmt *t
    while one != NULL and not fits(c.pool.owner, size):
        newer = one.newer
        t = one.stmt
        if t.refs == 1:
            write_close(e, b, s, t)
            server_forget(s, t)
            c.pool.prepared_evictions += 1
        one = newer


cdef void forget_idle(Relay e, Pool *p, size_t size) noexcept nogil:
    # One of its own is closed, and opened again when it is needed; one that tenants share becomes nobody's.
    cdef Server *s = p.idle_last
    cdef Server *newer
    while s != NULL and not fits(p.owner, size):
        newer = s.newer
        if s.stmts.count:
            server_end(e, s, EVICTED)
        s = newer
    s = p.group.idle_last if p.group != NULL else NULL
    while s != NULL and not fits(p.owner, size):
        newer = s.newer
        if s.stmts.count and s.tenant != NULL and s.tenant.owner == p.owner:
            idle_remove(p.group, s)
            come_to_rest(e, s)
        s = newer
