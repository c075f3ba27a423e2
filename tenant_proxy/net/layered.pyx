"""Links whose bytes pass through TLS (net.tls.TlsLayer): what is received, sent, and said at the end."""

from cpython.object cimport PyObject

from tenant_proxy.net.reactor cimport Link, Reactor
from tenant_proxy.wire.buf cimport buf_append


cdef void tls_readable(Reactor r, Link *l, ssize_t n) noexcept with gil:
    """Received records -> plain bytes behind `inb`; the layer's own answers are sent."""
    cdef bytes plain
    try:
        layer = <object> <PyObject *> l.tls
        plain = layer.feed(r.scratch[:n])
        pending = layer.take_out()
        if pending:
            r.send_raw(l, pending, len(pending))
        if plain and buf_append(&l.inb, plain, len(plain)) != 0:
            raise MemoryError
        if layer.closed:
            # what came before the end counts
            r.process_inb(l)
            if not l.dead and not l.closing:
                r.roles[l.kind].on_eof(r, l)
    except Exception as error:
        r.log.debug("TLS failed", link=l.id, error=str(error))
        tls_last_words(r, l)
        r.roles[l.kind].on_eof(r, l)


cdef void tls_last_words(Reactor r, Link *l) noexcept:
    """An alert says why the handshake failed."""
    try:
        pending = (<object> <PyObject *> l.tls).take_out()
        if pending:
            r.send_raw(l, pending, len(pending))
    except Exception as error:
        r.log.debug("TLS failed", link=l.id, error=str(error))


cdef void tls_say_goodbye(Reactor r, Link *l) noexcept with gil:
    """Without close_notify the peer can't tell this end from a cut connection."""
    try:
        (<object> <PyObject *> l.tls).close()
    except Exception as error:
        r.log.debug("TLS failed", link=l.id, error=str(error))
    tls_last_words(r, l)


cdef int tls_send(Reactor r, Link *l, const char *data, size_t n) noexcept with gil:
    cdef bytes sealed
    try:
        sealed = (<object> <PyObject *> l.tls).seal(data[:n])
        return r.send_raw(l, sealed, len(sealed)) if sealed else 0
    except Exception as error:
        r.log.debug("TLS failed", link=l.id, error=str(error))
        return -1
