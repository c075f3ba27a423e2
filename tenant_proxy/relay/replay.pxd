# What was on its way to a server that refused to become its client's tenant's.

from tenant_proxy.pool.pool cimport Client, Replay, Server

cdef void clear_ring(Server *s) noexcept nogil
cdef Replay *replay_take(Server *s) noexcept nogil
cdef void replay_put(Client *c, Server *s) noexcept nogil
cdef void replay_drop(Client *c) noexcept nogil
cdef bint kept_room(Server *s, size_t n) noexcept nogil
cdef void kept_drop(Server *s) noexcept nogil
