from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from cpython.ref cimport PyObject
from .lane cimport Entry, Lane, Run
from .segmap cimport SegmentMap
