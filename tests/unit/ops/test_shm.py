"""The shared counters: one row a worker slot, given back by the supervisor alone."""

import mmap
import struct

from tenant_proxy import shm
from tenant_proxy.shm import SharedCounters


def test_rows_do_not_overlap_and_fill_the_memory():
    assert shm.offset(0, 0) == 0
    assert shm.offset(0, shm.MAX_TENANTS - 1) + shm.COUNTER_BYTES == shm.offset(1, 0)
    assert shm.offset(shm.MAX_SLOTS - 1, shm.MAX_TENANTS - 1) + shm.COUNTER_BYTES == shm.SIZE_BYTES


def test_clearing_a_row_leaves_the_others():
    counters = SharedCounters()
    with mmap.mmap(counters.fd, shm.SIZE_BYTES) as worker:
        for slot in range(3):
            for tenant in (0, shm.MAX_TENANTS - 1):
                struct.pack_into("i", worker, shm.offset(slot, tenant), 10 + slot)
        counters.clear_row(1)
        assert [
            struct.unpack_from("i", worker, shm.offset(slot, tenant))[0]
            for slot in range(3)
            for tenant in (0, shm.MAX_TENANTS - 1)
        ] == [10, 10, 0, 0, 12, 12]
    counters.close()
