"""The page about the command line: every block of it runs."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import click

from overspill.cli import main

PAGE = Path(__file__).parents[2] / "docs" / "command-line.md"
TEXT = PAGE.read_text(encoding="utf-8")


def test_every_block_runs(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    script = tmp_path / "bin" / "overspill"
    script.write_text(f'#!/bin/sh\nexec {sys.executable} -m overspill.cli "$@"\n')
    script.chmod(0o755)
    blocks = re.findall(r"^```console\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
    lines = [line[2:] for block in blocks for line in block.splitlines() if line.startswith("$ ")]
    assert len(lines) > 15
    for line in lines:
        ran = subprocess.run(["bash", "-c", line], cwd=tmp_path, env=os.environ | {"PATH": f"{script.parent}:{os.environ['PATH']}"}, capture_output=True, text=True, timeout=60)
        expected = {"overspill repair queues/numbers": (0, 1)}.get(line, (0,))
        assert ran.returncode in expected and "Traceback" not in ran.stderr, (line, ran)


def test_every_command_of_the_salvage_kit_is_on_the_page() -> None:
    for name in ("put", "get", "pipe", *main.sections["Look, beside a running owner too"], *main.sections["Salvage"]):
        if not isinstance(main.commands[name], click.Group):
            assert f"overspill {name} " in TEXT, name
