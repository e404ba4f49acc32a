"""Decisions: who is let in, what spills, who waits, what has expired. No file, no clock, no thread of its own.

Time is handed in, bytes are somebody else's (`_store`), and where both meet is `_runtime`. This package imports leaves
only, and a test says so.
"""
