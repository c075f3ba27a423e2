"""Upcalls about what makes shared servers tenants' (relay.shared_hooks); like those of core they never raise."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport uint32_t
from libc.stdlib cimport realloc
from libc.string cimport memcpy

from tenant_proxy.pool.pool cimport ACT_ASK, ACT_SKIP, ACT_SYNC, R_QUERY, Client, Pool, Server, ring_push
from tenant_proxy.relay.core cimport Relay, get_object


cdef int up_switch(Relay e, Server *s, Client *c) noexcept nogil:
    # makes a shared server the client's tenant's, with the client's settings; -1: failed
    cdef bint other = s.tenant != c.pool
    cdef bint forget = (other or c.replay != NULL) and s.stmts.count > 0
    if forget:
        s.turns = 0
    with gil:
        try:
            message = e.hooks.switch_message(c.pool.id, c.startup_id, c.settings_id, s.tenant != NULL,
                                             forget, other and s.touched)
            if not c.greeted:
                # it is asked what it would have told at a login
                message = e.hooks.greeting_message(s.link.id, get_object(s.info), message)
            ring_push(&s.ring, R_QUERY, ACT_SKIP | ACT_SYNC | (0 if c.greeted else ACT_ASK), NULL, 0)
            e.send(&s.link, PyBytes_AS_STRING(<bytes> message), PyBytes_GET_SIZE(<bytes> message))
            return 0
        except Exception:
            e.log.exception("composing a switch")
            return -1


cdef int keep_message(char **where, uint32_t *size, bytes message) except -1:
    cdef char *kept = <char *> realloc(where[0], len(message))
    if kept == NULL:
        raise MemoryError
    memcpy(kept, PyBytes_AS_STRING(message), len(message))
    where[0] = kept
    size[0] = <uint32_t> len(message)
    return 0


cdef int up_ahead(Relay e, Client *c) noexcept nogil:
    # has the client's switch at hand in its pool: it is that of most of the pool's clients; -1: failed
    cdef Pool *p = c.pool
    if p.ahead != NULL and p.ahead_startup == c.startup_id and p.ahead_settings == c.settings_id:
        return 0
    with gil:
        try:
            message = e.hooks.ahead_message(p.id, c.startup_id, c.settings_id)
            keep_message(&p.ahead, &p.ahead_size, message)
            p.turn_number = 0
            number, parse, turn = e.hooks.turn_messages(p.id, c.startup_id, c.settings_id)
            if number:
                keep_message(&p.turn, &p.turn_size, turn)
                keep_message(&p.turn_parse, &p.turn_parse_size, parse)
                p.turn_number = number
            p.ahead_startup = c.startup_id
            p.ahead_settings = c.settings_id
            return 0
        except Exception:
            e.log.exception("composing a switch")
            return -1
