"""What the constructors of all faces but the stream's do: check the options, open the queue, and show it if it is to be measured."""
from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from ._runtime.assemble import Assembled
from .errors import InvalidOption
from .options import Options

__all__ = ["open_with"]

_PRIVATE: Final = ("_clock", "_disk_class", "_plain", "_background")


def open_with(queue: Assembled, **options: Any) -> None:
    """Open a queue with the options of `Options`, and the tests' ways in (see `Assembled._open`). One that cannot be shown although `metrics=True` says so is closed again.

    Raises `InvalidOption`, before there is a folder, and what opening raises.
    """
    private = {key[1:]: options.pop(key) for key in _PRIVATE if key in options}
    checked = Options.build(**options)
    register = _registration(checked.name) if checked.metrics else None
    queue._open(checked, **private)
    if register is not None:
        try:
            register(queue)
        except BaseException:
            queue.close()
            raise


def _registration(name: str | None) -> Callable[[Any], None]:
    """What `metrics=True` calls with the open queue. Whether it can be measured at all is said before there is a folder."""
    if name is None:
        raise InvalidOption("name", None, "given with metrics=True", hint="it is the label that tells one queue from another")
    try:
        from .metrics import register
    except ImportError as missing:
        raise InvalidOption("metrics", True, "False where prometheus-client is not installed", hint='pip install "overspill[metrics]"') from missing
    return register
