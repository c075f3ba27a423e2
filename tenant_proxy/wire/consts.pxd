# Message codes of protocol 3 (PostgreSQL docs 54.7; src/include/libpq/protocol.h).
# A code means different things by direction, so the two directions are apart.

cdef enum:
    # from the frontend
    F_BIND = 66              # 'B'
    F_CLOSE = 67             # 'C'
    F_DESCRIBE = 68          # 'D'
    F_EXECUTE = 69           # 'E'
    F_FUNCTION_CALL = 70     # 'F'
    F_FLUSH = 72             # 'H'
    F_PARSE = 80             # 'P'
    F_QUERY = 81             # 'Q'
    F_SYNC = 83              # 'S'
    F_TERMINATE = 88         # 'X'
    F_COPY_DONE = 99         # 'c'
    F_COPY_DATA = 100        # 'd'
    F_COPY_FAIL = 102        # 'f'
    F_PASSWORD = 112         # 'p': password, SASL or GSS response

cdef enum:
    # from the backend
    B_PARSE_COMPLETE = 49    # '1'
    B_BIND_COMPLETE = 50     # '2'
    B_CLOSE_COMPLETE = 51    # '3'
    B_NOTIFICATION = 65      # 'A'
    B_COMMAND_COMPLETE = 67  # 'C'
    B_DATA_ROW = 68          # 'D'
    B_ERROR = 69             # 'E'
    B_COPY_IN = 71           # 'G'
    B_COPY_OUT = 72          # 'H'
    B_EMPTY_QUERY = 73       # 'I'
    B_KEY_DATA = 75          # 'K'
    B_NOTICE = 78            # 'N'
    B_AUTHENTICATION = 82    # 'R'
    B_PARAMETER_STATUS = 83  # 'S'
    B_ROW_DESCRIPTION = 84   # 'T'
    B_FUNCTION_RESULT = 86   # 'V'
    B_COPY_BOTH = 87         # 'W'
    B_READY = 90             # 'Z'
    B_COPY_DONE = 99         # 'c'
    B_COPY_DATA = 100        # 'd'
    B_NO_DATA = 110          # 'n'
    B_SUSPENDED = 115        # 's'
    B_PARAMETER_DESC = 116   # 't'
    B_NEGOTIATE = 118        # 'v'

cdef enum:
    XACT_IDLE = 73           # 'I'
    XACT_OPEN = 84           # 'T'
    XACT_FAILED = 69         # 'E'

cdef enum:
    # PQ_SMALL_MESSAGE_LIMIT and PQ_LARGE_MESSAGE_LIMIT (src/include/libpq/libpq.h), length word included
    SMALL_MESSAGE_LIMIT = 10000
    LARGE_MESSAGE_LIMIT = 0x3fffffff


# The largest length word that a frontend message of this type may have; 0: no such type
# (SocketBackend in src/backend/tcop/postgres.c).
cdef inline int frontend_limit(int code) noexcept nogil:
    if (code == F_QUERY or code == F_PARSE or code == F_BIND or code == F_COPY_DATA
            or code == F_FUNCTION_CALL or code == F_COPY_FAIL):
        return LARGE_MESSAGE_LIMIT
    if (code == F_EXECUTE or code == F_SYNC or code == F_DESCRIBE or code == F_CLOSE or code == F_FLUSH
            or code == F_TERMINATE or code == F_COPY_DONE):
        return SMALL_MESSAGE_LIMIT
    return 0


cdef inline unsigned int read_u32(const char *p) noexcept nogil:
    cdef const unsigned char *u = <const unsigned char *> p
    return (<unsigned int> u[0] << 24) | (<unsigned int> u[1] << 16) | (<unsigned int> u[2] << 8) | u[3]


cdef inline void put_u32(char *p, unsigned int v) noexcept nogil:
    cdef unsigned char *u = <unsigned char *> p
    u[0] = (v >> 24) & 255
    u[1] = (v >> 16) & 255
    u[2] = (v >> 8) & 255
    u[3] = v & 255
