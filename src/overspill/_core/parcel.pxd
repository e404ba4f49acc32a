from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

cdef class Parcel:
    cdef public object item          # what the memory tier keeps: the item itself (direct) or its encoding
    cdef public bint direct
    cdef public uint8_t kind
    cdef public uint8_t codec
    cdef public bytes payload        # as stored: encoded, compressed where it pays
    cdef public uint32_t nbytes      # encoded, before compression: what the item counts in memory
    cdef public int64_t expiry_ns
    cdef public uint8_t priority
    cdef public uint8_t attempts
    cdef public uint64_t sequence    # 0: a new one is given
    cdef public bytes id             # None: a new one is given
    cdef public int64_t enqueued_ns  # 0: now
    cdef public uint8_t flags
    cdef public uint8_t extension    # how many units of 8 bytes at the front of `payload` are not the item's
    cdef public int64_t time_ns      # its place in a line ordered by time
