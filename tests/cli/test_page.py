"""The page about the command line names every command; that its blocks run is seen by tests/docs, as for every page."""

from __future__ import annotations

from pathlib import Path

import click

from overspill.cli import main

PAGE = Path(__file__).parents[2] / "docs" / "command-line.md"
TEXT = PAGE.read_text(encoding="utf-8")


def test_every_command_of_the_salvage_kit_is_on_the_page() -> None:
    for name in ("put", "get", "pipe", *main.sections["Look, beside a running owner too"], *main.sections["Salvage"]):
        if not isinstance(main.commands[name], click.Group):
            assert f"overspill {name} " in TEXT, name
