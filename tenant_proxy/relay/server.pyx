"""The server's side of the relay: replies are matched to the outstanding requests and go on unread.

Messages that a client is owed are forwarded as one run of the buffer, however many they are; only
what the proxy asked for itself is cut out of it.  Large messages go through in pieces.
"""

from libc.stdint cimport int32_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free

from tenant_proxy.guard.edits cimport Rewrite
from tenant_proxy.net.reactor cimport Link, Reactor
from tenant_proxy.pool.pool cimport (
    ACT_AHEAD, ACT_ALIKE, ACT_ASK, ACT_BEGIN, ACT_DISCARD, ACT_FAKE, ACT_REFUSED, ACT_REWRITTEN, ACT_SKIP, ACT_SYNC, CL_CLOSING, CL_WAITING, R_BIND, R_CLOSE, R_COPY_END, R_DESCRIBE,
    R_EXECUTE, R_FUNCTION, R_PARSE, R_QUERY, R_SYNC, SV_ACTIVE, SV_CLEANING, SV_CLOSING, SV_CONNECT, SV_IDLE,
    SV_LISTENING, SV_LOGIN, SWALLOWED, TOLD_TO_END, Client, ClientStmt, Outstanding, Pool, Server, Stmt, count_query, ring_at, ring_head, ring_pop, ring_remove_at,
)
from tenant_proxy.relay.ahead cimport ahead_ready, ask_again, part
from tenant_proxy.relay.begins cimport begun, set_unseen
from tenant_proxy.relay.core cimport (
    CONNECT_FAILED, GONE, KILLED, LOGIN_FAILED, PROTOCOL, RESET_FAILED, SETTINGS_FAILED, Relay, drop_object, send_object,
    send_refusal, up_ask_done, up_ask_row, up_error, up_notice, up_server_connected,
    up_server_message, up_switch_failed, up_unlisten,
)
from tenant_proxy.relay.declared cimport ACT_DECLARED, up_declared_answer
from tenant_proxy.relay.hearing cimport hears_first, tell_notes, tell_renamed, tell_tag
from tenant_proxy.relay.lanes cimport moved
from tenant_proxy.relay.marks cimport count_pin, define
from tenant_proxy.relay.pairing cimport (
    keep_together, make_available, maybe_release, server_end, settled, switch_undone,
)
from tenant_proxy.relay.readings cimport note_reading
from tenant_proxy.relay.rewriting cimport names_own, prefix_of_channel
from tenant_proxy.relay.stale cimport asked_anew, is_described, is_stale, retire_statements
from tenant_proxy.relay.statements cimport client_confirm, client_stmt_free, stmt_unref
from tenant_proxy.relay.said cimport is_wrong, reads_otherwise, stale_plan
from tenant_proxy.relay.told cimport ACT_TOLD, described, note_stale
from tenant_proxy.relay.turns cimport turn_made
from tenant_proxy.relay.undone cimport drop_request
from tenant_proxy.wire.buf cimport buf_len
from tenant_proxy.wire.consts cimport (
    B_AUTHENTICATION, B_BIND_COMPLETE, B_CLOSE_COMPLETE, B_COMMAND_COMPLETE, B_COPY_BOTH, B_COPY_DATA,
    B_COPY_DONE, B_COPY_IN, B_COPY_OUT, B_DATA_ROW, B_EMPTY_QUERY, B_ERROR, B_FUNCTION_RESULT, B_NO_DATA,
    B_NOTICE, B_NOTIFICATION, B_PARAMETER_DESC, B_PARAMETER_STATUS, B_PARSE_COMPLETE, B_READY,
    B_ROW_DESCRIPTION, B_SUSPENDED, LARGE_MESSAGE_LIMIT, XACT_FAILED, XACT_IDLE, XACT_OPEN, put_u32, read_u32,
)
from tenant_proxy.wire.ptrmap cimport map_free

cdef enum:
    LOGIN_LIMIT = 65536             # a message of a server's login
    WHOLE_LIMIT = 1048576           # messages that are needed whole: errors, ReadyForQuery …
    CHANNEL_LIMIT = 65536           # a NotificationResponse above this is none of PostgreSQL's
    RING_LOW = 32768                # outstanding requests below which a held client is read again
    COPY_BOTH = 2                   # Server.copy_in where it sends as well (replication)

cdef enum:
    BROKEN = -1


cdef int server_bytes(Reactor r, Link *l, char *data, size_t n, size_t *used) noexcept nogil:
    return server_work(<Relay> r, <Server *> l, data, n, used)


cdef int server_work(Relay e, Server *s, char *data, size_t n, size_t *used) noexcept nogil:
    cdef size_t pos = 0             # what is done with
    cdef size_t sent = 0            # what has gone to the client, or is dropped
    cdef size_t k, total
    cdef uint32_t length
    cdef int code, r
    cdef bint whole
    cdef bint done = False          # nothing is outstanding any more
    s.link.need = 0
    if s.phase == SV_CONNECT or s.phase == SV_LOGIN or s.phase == SV_LISTENING:
        r = login_bytes(e, s, data, n, &pos)
        if r != 0:
            return -1
        used[0] = pos
        if pos == n or s.phase == SV_LOGIN or s.phase == SV_CONNECT or s.phase == SV_LISTENING:
            return 0
        sent = pos
    while pos < n:
        if s.stream_left:
            k = n - pos if n - pos < s.stream_left else s.stream_left
            if not s.relaying:
                forward(e, s, data, sent, pos)
                sent = pos + k
            s.stream_left -= k
            pos += k
            if s.stream_left == 0 and s.ring.count and ring_head(&s.ring).action & ACT_FAKE:
                forward(e, s, data, sent, pos)
                sent = pos
                drain_fakes(e, s)
            continue
        if n - pos < 5:
            break
        code = data[pos]
        length = read_u32(data + pos + 1)
        if length < 4 or length > LARGE_MESSAGE_LIMIT:
            return broken(e, s, data, sent, pos)
        total = <size_t> length + 1
        if code == B_DATA_ROW or code == B_COPY_DATA:
            if s.ring.count == 0 or ring_head(&s.ring).action & ~(ACT_DISCARD | ACT_REWRITTEN):
                # rows of the proxy's own requests
                if s.ring.count == 0 and not s.copy_in:
                    return broken(e, s, data, sent, pos)
                if n - pos < total:
                    if total > WHOLE_LIMIT:
                        return broken(e, s, data, sent, pos)
                    s.link.need = total
                    break
                forward(e, s, data, sent, pos)
                if s.ring.count and ring_head(&s.ring).action & ACT_ASK:
                    up_ask_row(e, s, data + pos, total)
                pos += total
                sent = pos
                continue
            if n - pos < total:
                s.stream_left = total - (n - pos)
                s.relaying = 1
                pos = n
                break
            pos += total
            continue
        whole = n - pos >= total
        if not whole:
            if (code == B_ROW_DESCRIPTION and not is_noted(s)) or code == B_FUNCTION_RESULT or (
                    code == B_NOTIFICATION and total > CHANNEL_LIMIT):
                # may be large, and only its head matters
                pass
            elif total > WHOLE_LIMIT:
                return broken(e, s, data, sent, pos)
            else:
                s.link.need = total
                break
        if code == B_PARAMETER_DESC and s.asked_size:
            r = is_described(e, s, data + pos, n - pos, total)
            if r < 0:
                break
            if r:
                retire_statements(s)
                forward(e, s, data, sent, pos)
                pos += total + read_u32(data + pos + total + 1) + 1
                sent = pos
                continue
        if code == B_READY and s.awaits and hears_first(e, s, data[pos + 5]):
            # what its client has notified itself comes first, and what others have before its statement
            break
        r = server_message(e, s, code, data, pos, total, whole, &sent)
        if r < 0:
            return broken(e, s, data, sent, pos) if s.phase != SV_CLOSING else -1
        # r: 1 goes to the client, 0 is dropped
        if not whole:
            s.relaying = r
            s.stream_left = total - (n - pos)
            if r == 0:
                sent = n
            pos = n
            break
        pos += total
        if r == 0:
            sent = pos
        if code == B_READY:
            if s.ring.count and ring_head(&s.ring).action & ACT_FAKE:
                forward(e, s, data, sent, pos)
                sent = pos
                drain_fakes(e, s)
            if s.arming and s.ring.count == (0 if s.turn else 1):
                forward(e, s, data, sent, pos)
                sent = pos
                part(e, s)
                if s.phase == SV_CLOSING:
                    return -1
            if s.ring.count == 0 and (s.xact_status == XACT_IDLE or s.phase == SV_CLEANING or is_awaited(s)):
                forward(e, s, data, sent, pos)
                sent = pos
                done = True
    forward(e, s, data, sent, pos)
    used[0] = pos
    if s.batch_open and s.ring.count == 0 and s.client != NULL:
        # what it has asked for by a Flush is answered: from now on the server waits for it
        s.client.active_us = e.now_us
    if done and let_go(e, s) != 0:
        return -1
    if s.client != NULL and s.client.link.paused and s.ring.count < RING_LOW \
            and (s.link.unsent or buf_len(&s.link.out) == 0):
        e.unpause(&s.client.link)
    return 0


cdef int let_go(Relay e, Server *s) noexcept nogil:
    # Its last answer is out: to the pool, once all that came with it has been read, which is no one else's.
    if s.ring.count:
        return 0
    if s.client != NULL and s.moving:
        return moved(e, s)
    if s.client != NULL and s.client.phase == CL_WAITING:
        settled(e, s)
        if s.client != NULL and s.client.replay != NULL:
            ask_again(e, s.client, s)
            if s.phase != SV_CLOSING and s.ring.count and ring_head(&s.ring).action & ACT_FAKE:
                drain_fakes(e, s)
    elif s.client != NULL:
        maybe_release(e, s)
    elif s.phase == SV_CLEANING:
        if s.failed or s.xact_status != XACT_IDLE:
            server_end(e, s, RESET_FAILED)
        else:
            make_available(e, s)
    return -1 if s.phase == SV_CLOSING else 0


cdef inline Pool *whose(Server *s) noexcept nogil:
    return s.client.pool if s.client != NULL else s.pool


cdef inline bint is_owed(Server *s) noexcept nogil:
    # whether what the server says unasked is its client's: not while the client only happens to hold it
    cdef Client *c = s.client
    return c != NULL and (c.pinned or s.ring.count > 0 or s.batch_open or s.xact_status != XACT_IDLE
                          or (c.stream_left > 0 and not c.skip_stream))


cdef inline bint is_awaited(Server *s) noexcept nogil:
    # by a client that waits for its settings, or for a BEGIN
    return s.client != NULL and s.client.phase == CL_WAITING


cdef inline bint is_noted(Server *s) noexcept nogil:
    # whether what is described next must be known whole
    return s.ring.count and ring_head(&s.ring).request == R_DESCRIBE and ring_head(&s.ring).arg != NULL


cdef inline bint is_told(Server *s) noexcept nogil:
    return s.client != NULL and s.client.tells


cdef int broken(Relay e, Server *s, char *data, size_t sent, size_t pos) noexcept nogil:
    # what came before the broken message is the client's: answers, and it may be the rest of a row
    forward(e, s, data, sent, pos)
    server_end(e, s, PROTOCOL)
    return -1


cdef inline void forward(Relay e, Server *s, char *data, size_t start, size_t end) noexcept nogil:
    if end > start and s.client != NULL:
        if e.send(&s.client.link, data + start, end - start) == 1:
            e.pause(&s.link)


cdef int login_bytes(Relay e, Server *s, char *data, size_t n, size_t *used) noexcept nogil:
    # one message after the other to Python, until the login is done; -1 when the server has ended
    cdef size_t pos = 0
    cdef uint32_t length
    while pos < n and s.phase == SV_CONNECT:
        # the answer to SSLRequest is a single byte
        up_server_message(e, s, data + pos, 1)
        pos += 1
        if s.phase == SV_CLOSING:
            return -1
        used[0] = pos
    while pos < n and (s.phase == SV_LOGIN or s.phase == SV_LISTENING):
        if n - pos < 5:
            break
        length = read_u32(data + pos + 1)
        if length < 4 or length > LOGIN_LIMIT:
            server_end(e, s, PROTOCOL)
            return -1
        if n - pos < length + 1:
            s.link.need = length + 1
            break
        up_server_message(e, s, data + pos, length + 1)
        pos += length + 1
        if s.phase == SV_CLOSING:
            return -1
        used[0] = pos
    used[0] = pos
    return 0


# --- one message ------------------------------------------------------------------------


cdef int server_message(Relay e, Server *s, int code, char *data, size_t pos, size_t total, bint whole,
                        size_t *sent) noexcept nogil:
    # 1: to the client; 0: dropped; -1: the server broke the protocol or has ended.
    # What lies before `pos` is forwarded first where the order matters.
    cdef Outstanding *o = ring_head(&s.ring)
    cdef uint16_t action = o.action if o != NULL else 0
    cdef char status
    cdef int keep = 1
    if code == B_ERROR:
        return on_error(e, s, data, pos, total, sent)
    if code == B_PARAMETER_STATUS and s.pool.guard_mode == 0 and reads_otherwise(data + pos, total):
        server_end(e, s, SETTINGS_FAILED)
        return -1
    if code == B_NOTICE or code == B_PARAMETER_STATUS:
        keep = is_owed(s) and not (action & ACT_SKIP and not (code == B_PARAMETER_STATUS and is_told(s)))
        if keep and code == B_NOTICE:
            if (whose(s).translates and names_own(whose(s), data + pos, total)) or action & ACT_REWRITTEN:
                keep = turn_back(e, s, data, pos, total, sent, o.rewrite if action & ACT_REWRITTEN else NULL)
        elif keep and s.client != NULL:
            note_reading(e, s.client, data + pos, total)
            if not action & ACT_SKIP and not whose(s).session_mode:
                s.settings_changed = 1  # by a statement, perhaps in a function: what else, is asked for
                set_unseen(s.client, action)
    elif code == B_NOTIFICATION:
        keep = s.client != NULL and s.client.pinned
        if keep and whole and s.pid == <int32_t> read_u32(data + pos + 5):
            # its own, by the process id that it knows as its own
            put_u32(data + pos + 5, <uint32_t> s.client.pid)
        if keep and whole and prefix_of_channel(whose(s), data + pos, total):
            forward(e, s, data, sent[0], pos)
            sent[0] = pos
            tell_renamed(e, s, data + pos, total)
            keep = 0
    elif o == NULL and not (code == B_READY and s.skipping):
        return -1
    elif code == B_READY:
        # without a request when a Sync that seemed to be swallowed by a COPY was read after that had failed
        if total != 6 or not (o == NULL or o.request == R_QUERY and s.completed or o.request == R_SYNC
                              or o.request == R_FUNCTION):
            return -1
        s.completed = 0
        status = data[pos + 5]
        if status != XACT_IDLE and status != XACT_OPEN and status != XACT_FAILED:
            return -1
        s.xact_status = status
        s.query_failed = status == XACT_FAILED and (s.query_failed or o == NULL or o.request == R_QUERY)
        s.copy_in = 0
        if o != NULL:
            answered(s)
        if s.ring.count == 0:
            # so all of the last batch was read, whether or not its Sync has come
            s.batch_open = s.batch_runs = s.unsettled = 0
            s.skipping = 0
        if action & ACT_SKIP:
            keep = 0
            if action & ACT_AHEAD and ahead_ready(e, s) != 0:
                return -1
            if action & ACT_BEGIN:
                begun(s, s.failed)
                s.failed = 0
            if action & ACT_SYNC and (s.failed or status != XACT_IDLE):
                forward(e, s, data, sent[0], pos)
                sent[0] = pos
                if s.pool.is_group and status == XACT_IDLE and not s.close_needed:
                    switch_undone(e, s)
                    return 0 if s.phase != SV_CLOSING else -1
                server_end(e, s, SETTINGS_FAILED)
                return -1
            if action & ACT_ASK and not action & ACT_SYNC:
                if s.failed or up_ask_done(e, s, s.client) != 0:
                    keep_together(e, s)
                s.failed = 0
            elif not action & ACT_SYNC and s.client != NULL:
                s.failed = 0
        else:
            finish_query(e, s, status)
            if status == XACT_IDLE and s.client != NULL and buf_len(&s.client.notes):
                forward(e, s, data, sent[0], pos)
                sent[0] = pos
                tell_notes(e, s.client)
            if action & ACT_DISCARD:
                unpin(e, s)
    elif code == B_COMMAND_COMPLETE or code == B_EMPTY_QUERY or code == B_SUSPENDED:
        s.completed = 1
        if action & ACT_REWRITTEN and o.rewrite.tags_size and tell_tag(e, s, o.rewrite, data, pos, total, sent):
            action |= ACT_SKIP
        if action & ACT_DECLARED:
            up_declared_answer(e, s, data + pos + 5, total - 5)
        if o.request == R_EXECUTE:
            if action & ACT_AHEAD:
                turn_made(s)
            answered(s)
        elif o.request != R_QUERY:
            return -1
        elif s.copied and s.ring.count > 1 and ring_at(&s.ring, 1).request == R_COPY_END:
            # the query may have another COPY, with an end of its own
            ring_remove_at(&s.ring, 1)
        s.copied = 0
        s.copy_in = 0
        keep = not (action & ACT_SKIP)
    elif code == B_PARSE_COMPLETE:
        if o.request != R_PARSE:
            return -1
        keep = not (action & (ACT_SKIP | ACT_ALIKE))
        if o.arg != NULL and not (action & ACT_REFUSED):
            if keep and s.client != NULL:
                client_confirm(s.client, o.name_hash, <Stmt *> o.arg)
            stmt_unref(<Stmt *> o.arg)
        answered(s)
    elif code == B_BIND_COMPLETE:
        if o.request != R_BIND:
            return -1
        keep = not (action & (ACT_SKIP | ACT_ALIKE))
        answered(s)
    elif code == B_CLOSE_COMPLETE:
        if o.request != R_CLOSE:
            return -1
        keep = not (action & ACT_SKIP)
        answered(s)
    elif code == B_NO_DATA:
        if o.request != R_DESCRIBE:
            return -1
        keep = not (action & (ACT_SKIP | ACT_ALIKE))
        if o.arg != NULL:
            described(e, s, o, NULL, 0)
        answered(s)
    elif code == B_ROW_DESCRIPTION:
        if o.request == R_DESCRIBE:
            if o.arg != NULL:
                described(e, s, o, data + pos, total)
            answered(s)
        keep = not (action & ACT_SKIP)
    elif code == B_PARAMETER_DESC:
        keep = not (action & ACT_SKIP)
    elif code == B_COPY_IN or code == B_COPY_BOTH:
        s.copied = 1
        s.copy_in = 1 if code == B_COPY_IN else COPY_BOTH
        drop_swallowed_syncs(s)
    elif code == B_COPY_OUT or code == B_COPY_DONE or code == B_FUNCTION_RESULT:
        pass
    else:
        return -1
    if not keep:
        forward(e, s, data, sent[0], pos)
        sent[0] = pos
    o = ring_head(&s.ring)
    if code != B_READY and whole and o != NULL and o.action & ACT_FAKE:
        # what the proxy answers itself comes behind this message
        if keep:
            forward(e, s, data, sent[0], pos + total)
            sent[0] = pos + total
        drain_fakes(e, s)
        return 0
    return keep


cdef int turn_back(Relay e, Server *s, char *data, size_t pos, size_t total, size_t *sent,
                   Rewrite *rewrite) noexcept nogil:
    # a notice with the names and positions that the client knows; 1: it may go as it is
    if not up_notice(e, s, data + pos, total, rewrite):
        return 1
    forward(e, s, data, sent[0], pos)
    sent[0] = pos
    send_refusal(e, &s.client.link)
    return 0


cdef void unpin(Relay e, Server *s) noexcept nogil:
    # DISCARD ALL has taken away what the client had on its server alone, if nothing has followed.
    cdef Client *c = s.client
    if c != NULL and c.listens:
        up_unlisten(e, c)
    if (c != NULL and c.tracks and c.pinned and s.ring.count == 0 and s.xact_status == XACT_IDLE
            and not s.close_needed):
        c.pinned = 0
        count_pin(e, c.pool, -1)
        s.dirty = 0


cdef void finish_query(Relay e, Server *s, char status) noexcept nogil:
    cdef Client *c = s.client
    cdef Pool *p = whose(s)
    p.queries += 1
    p.usage.queries += 1
    if c == NULL:
        return
    c.xact_status = status
    if c.request_us and e.now_us >= c.request_us:
        count_query(p, e.now_us - c.request_us)
    c.request_us = e.now_us if s.ring.count else 0
    c.active_us = e.now_us
    if status == XACT_IDLE:
        if s.defines:
            s.defines = 0
            define(e, p)
        p.xacts += 1
        p.usage.xacts += 1
        p.xact_us += e.now_us - c.xact_start_us
        c.xact_start_us = e.now_us


cdef inline void answered(Server *s) noexcept nogil:
    s.asked_size = 0
    ring_pop(&s.ring)
    skip_markers(s)


cdef inline void skip_markers(Server *s) noexcept nogil:
    cdef Outstanding *o = ring_head(&s.ring)
    while o != NULL and o.request == R_COPY_END:
        ring_pop(&s.ring)
        o = ring_head(&s.ring)


cdef void drop_swallowed_syncs(Server *s) noexcept nogil:
    # A Sync that reaches a server which takes CopyData gets no answer, so libpq sends another behind the
    # data; those behind the end of the data are real.  If the COPY fails, nobody knows which it had read.
    cdef uint32_t i = 1
    while i < s.ring.count:
        if ring_at(&s.ring, i).request == R_COPY_END:
            s.copy_in = 0
            return
        if ring_at(&s.ring, i).request == R_SYNC:
            ring_remove_at(&s.ring, i)
            s.batch_open = 1
            s.copied = SWALLOWED
        else:
            i += 1


cdef int on_error(Relay e, Server *s, char *data, size_t pos, size_t total, size_t *sent) noexcept nogil:
    cdef Outstanding *o
    cdef Outstanding *head = ring_head(&s.ring)
    cdef void *refusal = NULL
    cdef Client *c = s.client
    cdef uint16_t action = head.action if head != NULL else 0
    cdef bint turned
    if s.asked_size and asked_anew(e, s, data + pos, total):
        forward(e, s, data, sent[0], pos)
        sent[0] = pos
        retire_statements(s)
        return 0
    turned = up_error(e, s, data + pos, total, head.rewrite if action & ACT_REWRITTEN else NULL)
    if action & ACT_DISCARD or s.copied == SWALLOWED:
        # what it still has is not known; nor whether it will answer a Sync that the COPY had not read yet
        s.close_needed = 1
    s.copy_in = s.copied = 0
    s.completed = 1
    if head != NULL and head.action & ACT_REFUSED:
        refusal = head.arg
        head.arg = NULL
    elif action & ACT_BEGIN:
        if s.told_fatal:
            # nothing of the client's has run, so another server is tried
            s.told_fatal = 0
            forward(e, s, data, sent[0], pos)
            sent[0] = pos
            return 0
        # else it is the answer to the statement that waits
        s.failed = 1
    elif action & ACT_SKIP and (head.request == R_QUERY or action & ACT_AHEAD):
        # the proxy's own statement failed, which is nothing to tell a client
        if action & ACT_DECLARED:
            up_declared_answer(e, s, NULL, 0)
        s.failed = 1
        # what was to make it forget the values of sequences, perhaps
        s.touched_by = 0
        # a turn that is refused takes all that is behind it along
        s.refused = action & ACT_AHEAD and (s.told_fatal or s.turn)
        s.told_fatal = 0
        if action & (ACT_SYNC | ACT_AHEAD) and c != NULL and s.pool.is_group:
            up_switch_failed(e, c, data + pos, total)
            if not is_wrong(data + pos, total):
                # it may have come before the server forgot what it knew of its tenant
                s.close_needed = 1
        forward(e, s, data, sent[0], pos)
        sent[0] = pos
        if s.refused:
            server_end(e, s, SETTINGS_FAILED)
            return -1
        return 0
    if head != NULL and head.request != R_QUERY and head.request != R_FUNCTION:
        if stale_plan(data + pos, total):
            if head.action & ACT_TOLD and is_stale(data + pos, total):
                note_stale(e, s, head)
            retire_statements(s)
        # the server ignores everything up to Sync, so none of it gets an answer
        while True:
            o = ring_head(&s.ring)
            if o == NULL:
                s.skipping = 1
                break
            if o.request == R_SYNC:
                break
            drop_request(e, s, o)
            ring_pop(&s.ring)
    if refusal != NULL:
        forward(e, s, data, sent[0], pos)
        sent[0] = pos
        if c != NULL:
            send_object(e, &c.link, refusal)
        drop_object(refusal)
        s.told_fatal = 0
        return 0
    if head == NULL and not is_owed(s):
        # an idle server says goodbye; the end of its connection may be some time off
        forward(e, s, data, sent[0], pos)
        sent[0] = pos
        s.told_fatal = 0
        server_end(e, s, GONE)
        return -1
    if turned and c != NULL:
        forward(e, s, data, sent[0], pos)
        sent[0] = pos
        send_refusal(e, &c.link)
        if s.told_fatal == TOLD_TO_END:
            server_end(e, s, KILLED)
            return -1
        return 0
    return 1


cdef void drain_fakes(Relay e, Server *s) noexcept nogil:
    # Answers that no server gives: their turn has come when all before them is answered, to the last byte.
    cdef Outstanding *o
    cdef char m[6]
    cdef Client *c = s.client
    if s.stream_left:
        return
    while s.ring.count and ring_head(&s.ring).action & ACT_FAKE:
        o = ring_head(&s.ring)
        if o.request == R_PARSE or o.request == R_CLOSE:
            m[0] = B_PARSE_COMPLETE if o.request == R_PARSE else B_CLOSE_COMPLETE
            put_u32(&m[1], 4)
            if c != NULL:
                e.send(&c.link, m, 5)
            if o.arg != NULL and o.request == R_CLOSE:
                client_stmt_free(<ClientStmt *> o.arg)
            elif o.arg != NULL:
                if c != NULL:
                    client_confirm(c, o.name_hash, <Stmt *> o.arg)
                stmt_unref(<Stmt *> o.arg)
            ring_pop(&s.ring)
        else:
            if c != NULL:
                send_object(e, &c.link, o.arg)
                m[0] = B_READY
                put_u32(&m[1], 5)
                m[5] = s.xact_status
                e.send(&c.link, m, 6)
            drop_object(o.arg)
            ring_pop(&s.ring)
            finish_query(e, s, s.xact_status)
        skip_markers(s)


# --- the other events of a server's link ---------------------------------------------------


cdef void server_eof(Reactor r, Link *l) noexcept nogil:
    cdef Server *s = <Server *> l
    server_end(<Relay> r, s, CONNECT_FAILED if s.phase == SV_CONNECT else
               LOGIN_FAILED if s.phase == SV_LOGIN else GONE)


cdef void server_drained(Reactor r, Link *l) noexcept nogil:
    # connected, or the server reads again: so may its client be
    cdef Server *s = <Server *> l
    if s.phase == SV_CONNECT and not s.connected:
        s.connected = 1
        up_server_connected(<Relay> r, s)
    elif s.client != NULL:
        r.unpause(&s.client.link)


cdef void server_free(Reactor r, Link *l) noexcept nogil:
    cdef Server *s = <Server *> l
    if s.ring.items != NULL:
        free(s.ring.items)
    map_free(&s.served)
    free(s.kept)
    free(s.asked)
    free(l)
