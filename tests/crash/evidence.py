"""What a failing case leaves for whoever looks into it: its folders and what was said, in a place of its own that outlives the test.

Of its own: two runs on one machine must not write into each other's evidence, let alone fail because of it.
"""
from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

from faults import State, lay_out


def keep(label: str, states: Mapping[str, State], said: str) -> Path:
    """Lay the states out side by side, each under its name, with `said` in a file beside them; returns where."""
    place = Path(tempfile.mkdtemp(prefix=f"overspill-{label}-"))
    for name, state in states.items():
        lay_out(state, place / name)
    (place / "said").write_text(said)
    return place
