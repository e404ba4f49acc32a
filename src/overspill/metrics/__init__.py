"""Metrics: Prometheus, OpenTelemetry, an endpoint over HTTP, alert rules and a board.

    >>> from overspill import metrics
    >>> metrics.register(q)                       # doctest: +SKIP
    >>> with metrics.serve([q], port=9464): ...   # doctest: +SKIP

Everything is read from `stats()` at the moment somebody looks; nothing is paid per operation. Which metrics there are is in `catalogue.py`. The packages behind the faces come
with the extra `metrics`, and are imported when a face is used for the first time.
"""
from __future__ import annotations

from importlib import import_module
from importlib.resources import files
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .endpoint import serve
    from .opentelemetry import instrument, uninstrument
    from .prometheus import register, unregister

__all__ = ["board", "instrument", "register", "rules", "serve", "uninstrument", "unregister"]

_HOMES = {"instrument": "opentelemetry", "register": "prometheus", "serve": "endpoint", "uninstrument": "opentelemetry", "unregister": "prometheus"}


def rules() -> str:
    """Alert rules for Prometheus, as the text of a rules file."""
    return _shipped("alerts.yml")


def board() -> str:
    """A board for Grafana, as the JSON that its import dialog takes."""
    return _shipped("board.json")


def _shipped(name: str) -> str:
    return files(__package__).joinpath("shipped", name).read_text(encoding="utf-8")


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        module = import_module(f".{home}", __name__)
    except ModuleNotFoundError as missing:
        if missing.name is None or missing.name.startswith(__package__):
            raise
        raise ImportError(f'{__name__}.{name} needs one more package, {missing.name}: pip install "overspill[metrics]"', name=missing.name) from missing
    return getattr(module, name)
