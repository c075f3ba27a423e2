# What the reactor asks of the system: sockets, and epoll where there is one.

cdef extern from *:
    """
    #include <errno.h>
    #include <sys/types.h>
    #include <sys/socket.h>
    #include <sys/time.h>
    #include <netinet/in.h>
    #include <netinet/tcp.h>
    #include <arpa/inet.h>
    #include <stdint.h>
    #include <unistd.h>
    #include <fcntl.h>
    #ifdef __linux__
    #include <sys/epoll.h>
    static int tp_accept(int fd) { return accept4(fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC); }
    #define TP_HAS_EPOLL 1
    #define TP_INHERITS 1
    #else
    #define TP_HAS_EPOLL 0
    #define TP_INHERITS 0
    #define EPOLLIN 1u
    #define EPOLLOUT 4u
    #define EPOLLERR 8u
    #define EPOLLHUP 16u
    #define EPOLLRDHUP 8192u
    #define EPOLLEXCLUSIVE 0u
    #define EPOLL_CTL_ADD 1
    #define EPOLL_CTL_DEL 2
    #define EPOLL_CTL_MOD 3
    #define EPOLL_CLOEXEC 0
    typedef union { void *ptr; } epoll_data_t;
    struct epoll_event { unsigned int events; epoll_data_t data; };
    static int epoll_create1(int f) { (void)f; errno = ENOSYS; return -1; }
    static int epoll_ctl(int e, int o, int f, struct epoll_event *v)
    { (void)e; (void)o; (void)f; (void)v; return -1; }
    static int epoll_wait(int e, struct epoll_event *v, int n, int t)
    { (void)e; (void)v; (void)n; (void)t; return 0; }
    static int tp_accept(int fd) {
        int s = accept(fd, NULL, NULL);
        if (s >= 0) { fcntl(s, F_SETFL, O_NONBLOCK); fcntl(s, F_SETFD, FD_CLOEXEC); }
        return s;
    }
    #endif
    #ifndef MSG_NOSIGNAL
    #define MSG_NOSIGNAL 0
    #endif
    static unsigned long long tp_now_us(void) {
        struct timeval t; gettimeofday(&t, NULL);
        return (unsigned long long)t.tv_sec * 1000000ull + (unsigned long long)t.tv_usec;
    }
    static int tp_bits(unsigned char b) { int n = 0; for (; b; b &= (unsigned char)(b - 1)) n++; return n; }
    static void tp_nodelay(int fd) {
        int one = 1;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof one);
    }
    /* the address of one end of a TCP connection: 0, or -1 for other kinds of sockets */
    static int tp_address(int fd, int peer, char *host, int size, int *port) {
        struct sockaddr_storage a;
        socklen_t n = sizeof a;
        const void *where;
        if (peer ? getpeername(fd, (struct sockaddr *)&a, &n) : getsockname(fd, (struct sockaddr *)&a, &n))
            return -1;
        if (a.ss_family == AF_INET) {
            where = &((struct sockaddr_in *)&a)->sin_addr;
            *port = ntohs(((struct sockaddr_in *)&a)->sin_port);
        } else if (a.ss_family == AF_INET6) {
            where = &((struct sockaddr_in6 *)&a)->sin6_addr;
            *port = ntohs(((struct sockaddr_in6 *)&a)->sin6_port);
        } else
            return -1;
        return inet_ntop(a.ss_family, where, host, (socklen_t)size) == NULL ? -1 : 0;
    }
    static int tp_connect_error(int fd) {
        int e = 0; socklen_t n = sizeof e;
        return getsockopt(fd, SOL_SOCKET, SO_ERROR, &e, &n) ? errno : e;
    }
    """
    ctypedef union epoll_data_t:
        void *ptr
    struct epoll_event:
        unsigned int events
        epoll_data_t data
    enum: EPOLLIN
    enum: EPOLLOUT
    enum: EPOLLERR
    enum: EPOLLHUP
    enum: EPOLLRDHUP
    enum: EPOLLEXCLUSIVE
    enum: EPOLL_CTL_ADD
    enum: EPOLL_CTL_DEL
    enum: EPOLL_CTL_MOD
    enum: EPOLL_CLOEXEC
    enum: MSG_NOSIGNAL
    enum: SHUT_WR
    enum: TP_HAS_EPOLL
    enum: TP_INHERITS
    int epoll_create1(int flags) nogil
    int epoll_ctl(int epfd, int op, int fd, epoll_event *event) nogil
    int epoll_wait(int epfd, epoll_event *events, int maxevents, int timeout) nogil
    int tp_accept(int fd) nogil
    unsigned long long tp_now_us() nogil
    int tp_bits(unsigned char b) nogil
    void tp_nodelay(int fd) nogil
    int tp_connect_error(int fd) nogil
    int tp_address(int fd, int peer, char *host, int size, int *port) nogil
    ssize_t recv(int fd, void *buf, size_t n, int flags) nogil
    ssize_t c_send "send"(int fd, const void *buf, size_t n, int flags) nogil
    int c_close "close"(int fd) nogil
    int c_shutdown "shutdown"(int fd, int how) nogil
