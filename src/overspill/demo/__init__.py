"""The main job on real input: a live HLS mirror that loses nothing, shown in under a minute.

Four processes, as in production:

    encoder --(spool folder)--> mirror --(HTTP PUT)--> origin
                                  ^
                 supervisor: starts all, pulls the plugs, checks the result

- `encoder`     encodes moving pictures as live HLS (H.264 in MPEG-TS, a playlist a stream) and notes the
                SHA-256 of everything it makes in a manifest of its own *before* it hands it over.
- `mirror`      is the queue's process: `ingest` moves what lies in the spool into a `HybridQueue` with little
                memory, `uploader` leases from it and PUTs to the origin. It is killed with SIGKILL, twice.
- `origin`      is an HTTP server that is slow, says 503 now and then, and is down for a while.
- `supervisor`  runs the timeline of `plan`, listens to the `reports` of all three, and at the end lets
                `verify` compare what the encoder noted with what the origin holds.

What was produced is thus known without asking the queue, and what arrived without asking it either.
This module imports nothing, so that the mirror's peak memory is that of the queue and not of an encoder.
"""
