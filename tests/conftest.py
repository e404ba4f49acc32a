"""What holds for every test."""
from __future__ import annotations

import signal

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell starts what it puts into the background (`make test &`) with interrupts ignored, and every process that a test starts and interrupts would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
