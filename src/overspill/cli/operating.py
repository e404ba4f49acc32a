"""`serve-metrics`, `metrics` and `config`: for whoever runs queues rather than uses them."""

from __future__ import annotations

import ipaddress
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from ..config import Problem, load_queues, problems_in
from .program import FOUND, Failure, command, epilog, json_option, print_json, require_extra
from .words import FOLDER

__all__ = ["config", "metrics", "serve_metrics"]

if TYPE_CHECKING:
    ParamType = click.ParamType[Any]
else:
    ParamType = click.ParamType  # which older versions of click have without a type of its own


class _Address(ParamType):
    """`HOST:PORT`, an IPv6 address in brackets."""

    name = "address"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, int]:
        if isinstance(value, tuple):
            return value
        host, colon, port = str(value).rpartition(":")
        bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
        if not colon or not bare or (":" in bare and bare == host) or not port.isdecimal() or int(port) > 65535:
            self.fail(f"{value!r} is not an address such as 127.0.0.1:9464 or [::1]:9464", param, ctx)
        return bare, int(port)


ADDRESS: Final = _Address()


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


@command("serve-metrics", example="overspill serve-metrics queues --listen 127.0.0.1:9464")
@click.argument("folders", metavar="DIR...", nargs=-1, required=True, type=FOLDER)
@click.option("--listen", type=ADDRESS, default="127.0.0.1:9464", show_default=True, help="HOST:PORT; port 0 takes a free one.")
@click.option("--public", is_flag=True, help="Allow an address that other machines can reach.")
@json_option
def serve_metrics(folders: tuple[Path, ...], listen: tuple[str, int], public: bool, as_json: bool) -> None:
    """Serve metrics and health of queues over HTTP.

    Each DIR is a queue, or a folder of queues. Looks only: it runs beside whoever has the queues open, changes nothing, and shows what the folders tell. Rates, memory
    and leases only the owner knows: overspill.metrics.serve() in its own process shows those, too.

    /metrics is for Prometheus; /healthz answers 200, or 503 and which queue is damaged or unreadable, in JSON. There is no password, so it listens on this machine only,
    unless --public is given.
    """
    host, port = listen
    if not public and not _is_loopback(host):
        raise Failure(f"other machines could reach {host}, and there is no password: anybody there could read the names and figures of the queues (add --public if that is meant)")
    require_extra("metrics", "prometheus_client")
    from prometheus_client import CollectorRegistry

    from ..metrics.endpoint import Endpoint
    from ..metrics.folder import Folders

    watched = Folders(folders)
    registry = CollectorRegistry()
    registry.register(watched)
    try:
        endpoint = Endpoint(registry, watched.health, host, port)
    except OSError as error:
        raise Failure(f"cannot listen on {host}:{port}: {error.strerror or error}") from None
    signal.signal(signal.SIGTERM, _end)
    with endpoint:
        if as_json:
            print_json({"url": endpoint.url, "paths": endpoint.paths})
        else:
            click.echo(f"listening on {endpoint.url} ({', '.join(endpoint.paths)}); Ctrl-C ends it")
        endpoint.join()


def _end(*_: object) -> None:
    raise SystemExit(0)


@click.group(epilog=epilog("overspill metrics rules > /etc/prometheus/overspill.yml"))
def metrics() -> None:
    """Print alert rules for Prometheus, or a board for Grafana."""


@command("rules", example="overspill metrics rules > overspill-alerts.yml")
def rules() -> None:
    """Print alert rules for Prometheus (a rules file)."""
    from ..metrics import rules as text

    click.echo(text(), nl=False)


@command("board", example="overspill metrics board > overspill-board.json")
def board() -> None:
    """Print a board for Grafana (JSON, for its import dialog)."""
    from ..metrics import board as text

    click.echo(text(), nl=False)


metrics.add_command(rules)
metrics.add_command(board)


@click.group(epilog=epilog("overspill config check queues.toml"))
def config() -> None:
    """Check configuration files."""


@command("check", example="overspill config check queues.toml")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@json_option
def check(file: Path, as_json: bool) -> None:
    """Say everything that is wrong with a configuration file.

    A TOML or JSON file of one queue, or of several below [queues.NAME]. Opens nothing and creates nothing. Exits with 0 if the file can be used, 1 if not.
    """
    problems = problems_in(file)
    names = [] if problems else list(_named(file))
    if as_json:
        print_json({"file": os.fspath(file), "ok": not problems, "queues": names, "problems": [_as_dict(problem) for problem in problems]})
    elif problems:
        for problem in problems:
            click.echo(_line(file, problem))
    else:
        click.echo(f"{file}: {', '.join(names) or 'one queue without a name'}: nothing is wrong")
    raise SystemExit(FOUND if problems else 0)


def _named(file: Path) -> list[str]:
    try:
        return list(load_queues(file))
    except ValueError:
        return []  # one queue that gets its name when it is opened


def _as_dict(problem: Problem) -> dict[str, Any]:
    error = problem.error
    return {"line": problem.line, "key": problem.key, "option": error.option, "allowed": error.allowed, "message": str(error)}


def _line(file: Path, problem: Problem) -> str:
    section = ".".join(problem.place[:2] if problem.place[:1] == ("queues",) else problem.place[:1] if problem.place[:1] == ("defaults",) else ())
    return f"{file}{f':{problem.line}' if problem.line else ''}: {f'[{section}] ' if section else ''}{problem.error}"


config.add_command(check)
