# What clients were told the rows of their statements are, and whether that still holds.

from tenant_proxy.pool.pool cimport Client, ClientStmt, Outstanding, Server, ServerStmt, Stmt
from tenant_proxy.relay.core cimport Burst, Relay

cdef enum:
    # told_check()
    TOLD_GOES = 0                   # it may be used
    TOLD_HELD = 1                   # its server is asked first: the message stays
    TOLD_OTHERWISE = 2              # `refusal` holds the ErrorResponse

    # besides pool.ACT_…, of a Bind or Describe of a named statement: its client knows what the rows are, and
    # `name_hash` is the statement's id
    ACT_TOLD = 1024


cdef inline bint may_be_other(ClientStmt *cs, ServerStmt *ss, Stmt *t) noexcept nogil:
    # whether a statement's rows may be others on its server than its client knows (`cs` NULL: the unnamed one)
    if cs == NULL:
        return t.told != 0
    return ss == NULL or ss.generation != cs.generation


cdef int told_check(
    Relay e, Client *c, Burst *b, Server *s, ClientStmt *cs, Stmt *t, ServerStmt *ss
) noexcept nogil
cdef void tell(Relay e, Client *c, Server *s, ClientStmt *cs, Stmt *t) noexcept nogil
cdef void tell_portal(Client *c, Server *s) noexcept nogil
cdef void described(Relay e, Server *s, Outstanding *o, char *message, size_t total) noexcept nogil
cdef void not_described(Server *s, Outstanding *o) noexcept nogil
cdef void note_stale(Relay e, Server *s, Outstanding *o) noexcept nogil
cdef void untell(Client *c, Stmt *t) noexcept nogil
