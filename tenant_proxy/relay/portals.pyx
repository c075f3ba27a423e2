"""Portals that a server must not be asked to run.

PostgreSQL runs a simple Query in the unnamed portal.  Where that fails within a transaction block, the portal
stays until the block ends, and what it points to is gone with the message (exec_simple_query in
src/backend/tcop/postgres.c; AtAbort_Portals in src/backend/utils/mmgr/portalmem.c takes away no more than cached
plans).  An Execute of the unnamed portal then reads freed memory: of the versions that were tried (15, 17, 18) it
ends the backend by SIGSEGV, and with it all sessions of the whole server.  No driver does that, anybody may.

A Bind of the unnamed portal in the same batch takes the place of the portal, or makes the server skip the Execute;
any other Execute of it is let through where no simple Query has failed in the transaction.
"""

from libc.stdint cimport uint32_t

from tenant_proxy.pool.pool cimport R_QUERY, Client, Server, ring_at
from tenant_proxy.relay.core cimport Relay, up_failed_transaction


cdef int portal_check(Relay e, Client *c, Server *s) noexcept nogil:
    # before an Execute of the unnamed portal without a Bind in its batch
    cdef uint32_t i
    if s.query_failed:
        # as the server would say
        up_failed_transaction(e)
        return PORTAL_REFUSED
    for i in range(s.ring.count):
        if ring_at(&s.ring, i).request == R_QUERY:
            if s.copy_in:
                # It would end the COPY, and the session with it, as what goes in its place does too; but the COPY
                # may have failed by now, by data that are ahead of it.
                up_failed_transaction(e)
                return PORTAL_REFUSED
            e.pause(&c.link)
            return PORTAL_HELD
    return PORTAL_GOES
