"""`completion`: what a shell needs to complete commands, options and folders."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from .program import command, main

__all__ = ["completion"]


@command(example="overspill completion bash > ~/.overspill-complete.bash")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the shell completion for bash, zsh or fish.

    For bash, put `. ~/.overspill-complete.bash` into ~/.bashrc; for zsh the same with its file into ~/.zshrc; for fish write to ~/.config/fish/completions/overspill.fish.
    """
    kind = get_completion_class(shell)
    assert kind is not None
    click.echo(kind(main, {}, "overspill", "_OVERSPILL_COMPLETE").source())
