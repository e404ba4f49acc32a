"""The compiled core: what runs once per operation, and nothing else.

`record` is the record codec, `segmap` a segment's memory (append, settle marks, attempt counts), `lane` one priority's line, `hot` the
verbs. Nothing here opens a file, starts a thread or decides a policy; nothing here imports the rest of the package.
"""
