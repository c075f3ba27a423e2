import enum

from tenant_proxy.net.reactor import Reactor

class Reason(enum.IntEnum):
    UNKNOWN = 0
    TERMINATED = 1
    GONE = 2
    PROTOCOL = 3
    LOGIN_FAILED = 4
    LOGIN_TIMEOUT = 5
    QUEUE_TIMEOUT = 6
    QUEUE_FULL = 7
    QUERY_TIMEOUT = 8
    IDLE_IN_TRANSACTION = 9
    IDLE = 10
    SERVER_LOST = 11
    SERVER_UNAVAILABLE = 12
    KILLED = 13
    SHUTDOWN = 14
    INTERNAL = 15
    HANDED_OVER = 16
    CANCEL = 17
    CONNECT_FAILED = 18
    LIFETIME = 19
    UNCLEAN = 20
    RESET_FAILED = 21
    SETTINGS_FAILED = 22
    EVICTED = 23
    RETIRED = 24
    TOO_MANY = 25
    OUTGROWN = 26
    YIELDED = 27
    DEAF = 28
    REASONS = 29

class Relay(Reactor): ...
