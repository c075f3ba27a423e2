"""Portals that a server must not be asked to run, and what may not come inside of a COPY.

PostgreSQL runs a simple Query in the unnamed portal.  Where that fails within a transaction block, the portal
stays until the block ends, and what it points to is gone with the message (exec_simple_query in
src/backend/tcop/postgres.c; AtAbort_Portals in src/backend/utils/mmgr/portalmem.c takes away no more than cached
plans).  An Execute of the unnamed portal then reads freed memory: of the versions that were tried (15, 17, 18) it
ends the backend by SIGSEGV, and with it all sessions of the whole server.  No driver does that, anybody may.

A Bind of the unnamed portal in the same batch takes the place of the portal, or makes the server skip the Execute;
any other Execute of it is let through where no simple Query has failed in the transaction.

A server that takes the data of a COPY ends the session at any message of another kind.  So does what goes in the
place of a refused one, and nothing runs of that if the COPY has failed by now: by data that are just ahead of it, which
a client that waits for no answer does not know either.  Were such a message judged as any other, it could wait here for
an answer of the server, which waits for the client.
"""

from libc.stdint cimport uint8_t, uint32_t

from tenant_proxy.pool.pool cimport R_QUERY, Client, Server, ring_at
from tenant_proxy.relay.core cimport Relay, up_failed_transaction
from tenant_proxy.wire.consts cimport F_BIND, F_CLOSE, F_DESCRIBE, F_EXECUTE, F_FUNCTION_CALL, F_PARSE, F_QUERY


cdef int portal_check(Relay e, Client *c, Server *s) noexcept nogil:
    # before an Execute of the unnamed portal without a Bind in its batch
    cdef uint32_t i
    if s.query_failed:
        # as the server would say
        up_failed_transaction(e)
        return PORTAL_REFUSED
    for i in range(s.ring.count):
        if ring_at(&s.ring, i).request == R_QUERY:
            e.pause(&c.link)
            return PORTAL_HELD
    return PORTAL_GOES


cdef bint breaks_copy(Relay e, Server *s, int code) noexcept nogil:
    # whether a message is to be refused as its client's server takes the data of a COPY
    if s.copy_in != 1 or not (code == F_QUERY or code == F_PARSE or code == F_BIND or code == F_EXECUTE
                              or code == F_DESCRIBE or code == F_CLOSE or code == F_FUNCTION_CALL):
        return False
    with gil:
        e.refusal = e.hooks.broken_copy(<uint8_t> code)
    return True
