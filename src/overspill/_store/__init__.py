"""Bytes at rest: folders, segments, the log, recovery. No policy, no waiting, nothing of the engine.

`files` is the only door to the disk, `layout` the only place that knows which byte means what (docs/format.md).
"""
