"""Where decisions, bytes and time meet.

`parts` is what a queue is made of; `putting`, `taking`, `batching`, `leasing` and `looking` are the slow halves of the verbs, `apart` is what waits for its
time or was given up; `spilling` moves items out of memory, `keeping` is everything that happens beside the verbs, `assemble` opens and closes. `waiting` is how
a verb waits, `commit` the group commit, `pump` the background thread, `standby` those that do what another thread must not, `clock` the time.
"""
