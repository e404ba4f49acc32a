"""What all commands share: how one is declared, how it ends, and what becomes of an error.

Exit codes: 0 fine, 1 found damage or nothing to get, 2 misuse, or it could not be done (somebody else has the queue, the disk is full); 130 Ctrl-C. An error that a
user can meet is one line on stderr, never a traceback. A reader that goes away (`| head`) ends a command quietly: what it left is still in the queue.
"""

from __future__ import annotations

import errno
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from ..errors import QueueError, counted
from ..hybrid import HybridQueue

__all__ = ["FOUND", "INTERRUPTED", "MISUSE", "Failure", "Program", "command", "epilog", "json_option", "main", "print_json", "require_extra", "telling_how_many"]

FOUND: Final = 1
"""Damage was found, or there was nothing to get."""
MISUSE: Final = 2
INTERRUPTED: Final = 128 + signal.SIGINT
"""As a shell says it of a command ended by Ctrl-C."""

F = TypeVar("F", bound=Callable[..., Any])


class Failure(click.ClickException):
    """Something a user can act on: one line, exit code 2."""

    exit_code = MISUSE

    def show(self, file: Any = None) -> None:
        click.echo(f"overspill: {self.format_message()}", file=file, err=file is None)


class Program(click.Group):
    """`overspill`: commands under headings, and one place where every way to end is dealt with."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.sections: dict[str, list[str]] = {}

    def add_section(self, title: str, *commands: click.Command) -> None:
        """Add commands below a heading of the help; a heading that is there already is gone on with."""
        for each in commands:
            self.add_command(each)
            assert each.name is not None
            self.sections.setdefault(title, []).append(each.name)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [name for names in self.sections.values() for name in names]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for title, names in self.sections.items():
            with formatter.section(title):
                formatter.write_dl([(name, self.commands[name].get_short_help_str(limit=1000)) for name in names])  # the whole sentence: a narrow terminal breaks it, and nothing is cut

    def main(self, *args: Any, **kwargs: Any) -> Any:
        _hold_standard_files()
        try:
            return super().main(*args, **kwargs)
        except OSError as error:  # from outside of every command: help that could not be printed
            Failure(_said(error)).show()
            raise SystemExit(MISUSE) from None

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as stopped:
            click.echo("\n".join(["stopped", *getattr(stopped, "__notes__", [])]), err=True)
            raise SystemExit(INTERRUPTED) from None
        except click.UsageError as error:
            if type(error).__name__ == "NoArgsIsHelpError":
                raise
            told_by = error.ctx.command_path if error.ctx else ctx.command_path
            told = " ".join(error.format_message().split())  # a list of choices comes on lines of its own
            raise Failure(f"{told.rstrip('.')} (see {told_by} --help)") from None
        except QueueError as error:
            raise Failure(str(error)) from None
        except OSError as error:
            if error.errno == errno.EPIPE:
                leave_quietly()
            if error.filename is None:
                _forget_output()
            raise Failure(_said(error)) from None


def leave_quietly() -> None:
    """Whoever read our output has gone."""
    _forget_output()
    raise SystemExit(0)


def _forget_output() -> None:
    """Nothing is written to stdout any more, not even by the interpreter on its way out."""
    if sys.stdout is sys.__stdout__ and sys.stdout is not None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _hold_standard_files() -> None:
    """Whoever started us may have closed stdin, stdout or stderr. The next files to be opened would get their numbers: a queue's lock, a segment, and what is meant for
    the reader of our output would be written there. So they are held, the first two by what can only fail: nothing is taken out of a queue for nobody."""
    for fd, flags, name, mode in ((0, os.O_WRONLY, "stdin", "r"), (1, os.O_RDONLY, "stdout", "w"), (2, os.O_WRONLY, "stderr", "w")):
        try:
            os.fstat(fd)
        except OSError:
            held = os.open(os.devnull, flags)
            assert held == fd, (held, fd)
            stream = open(fd, mode, encoding="utf-8", closefd=False)
            setattr(sys, name, stream)
            setattr(sys, f"__{name}__", stream)


def _said(error: OSError) -> str:
    """Whatever belongs to a queue names its file; the rest is what we were started with."""
    if error.filename is not None:
        return f"{os.fsdecode(error.filename)}: {error.strerror}"
    if error.errno == errno.EBADF:
        return "standard input or output is closed"
    return f"{error.strerror or error} (standard input or output)"


class Command(click.Command):
    """A command whose help ends in an example."""

    def __init__(self, *args: Any, example: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.example = example
        self.epilog = epilog(example)


def epilog(example: str) -> str:
    """The last words of the help of a group; a `command` has them by itself."""
    return "\b\nExample:\n" + "\n".join(f"  {line}" for line in example.splitlines())


def command(name: str | None = None, *, example: str) -> Callable[[Callable[..., Any]], Command]:
    """Declare a command. `example`: the last lines of its help, a shell command that a test runs."""

    def declare(function: Callable[..., Any]) -> Command:
        return click.command(name, cls=Command, example=example)(function)

    return declare


def json_option(function: F) -> F:
    return click.option("--json", "as_json", is_flag=True, help="Print JSON for machines.")(function)


def print_json(value: object) -> None:
    """One JSON document on stdout."""
    click.echo(json.dumps(value, indent=2))


@contextmanager
def telling_how_many(q: HybridQueue, folder: Path, *, to_go_on: str = "") -> Iterator[Callable[[], int]]:
    """What ends a command that puts items into a queue, Ctrl-C or an error, says how many were in by then, and how to go on behind them if there is a way.

    Gives what tells how many. The queue is asked: between a batch that is in and a count of our own there is room for a signal.
    """
    before = q.stats().enqueued

    def put() -> int:
        return q.stats().enqueued - before

    try:
        yield put
    except KeyboardInterrupt as stopped:
        n = put()
        stopped.add_note(f"{counted(n, 'item')} put into {folder}" + (f": {to_go_on}" if n and to_go_on else ""))
        raise
    except QueueError as error:
        if n := put():
            error.args = (f"after {counted(n, 'item')}, put before: {error.message}",)
        raise


def require_extra(extra: str, *modules: str) -> None:
    """Say which extra has what a command needs beyond the command line's own, if it is not there."""
    if missing := [module for module in modules if find_spec(module) is None]:
        raise Failure(f'this command needs {", ".join(missing)}: pip install "overspill[{extra}]"')


@click.group(cls=Program, context_settings={"help_option_names": ["-h", "--help"]}, epilog=epilog("overspill demo"))
@click.version_option(package_name="overspill", message="%(prog)s %(version)s")
def main() -> None:
    """Look at, feed, drain and repair Overspill queues.

    A queue is named by its folder, DIR: <disk_path>/<name>. Exit codes: 0 fine, 1 found damage or nothing to get, 2 misuse or could not be done.
    """
