"""Where decisions, bytes and time meet.

`parts` is what a queue is made of, `putting` and `taking` the slow halves of the verbs, `spilling` moves items out of memory, `keeping` is everything that happens
beside the verbs, `assemble` opens and closes. `commit` is the group commit, `pump` the background thread, `waiters` who waits, `gate` what turns the hot way
off while a lock is held, `clock` the time.
"""
