"""`serializer="auto"`: identity is promised, the same type and the same value, however deep."""

from __future__ import annotations

from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

from ..errors import NotSerializable, QueueError
from ..item import KIND_AUTO, KIND_RAW, KIND_STR
from .codec import Codec
from .faults import WAY_OUT, fault_in
from .fresh_stack import on_fresh_stack
from .lowering import DEPTH_MAX, PLAIN, PLAIN_BUT_INT, lower, packed

SCALARS_KEPT: Final = frozenset(
    [type(None), bool, int, float, complex, str, bytes, datetime, date, time, timedelta, UUID, Decimal]
)


class Auto(Codec):
    name, kind, keeps = "'auto'", KIND_AUTO, SCALARS_KEPT

    def encode(self, item: Any) -> tuple[int, bytes]:
        kind = type(item)
        if kind is bytes:
            return KIND_RAW, item
        try:
            if kind is str:
                return KIND_STR, item.encode()
            return KIND_AUTO, packed(item if kind in PLAIN else lower(item, PLAIN, DEPTH_MAX))
        except (QueueError, MemoryError):
            raise
        except RecursionError:
            return on_fresh_stack(self._encode_with_care, item)
        except Exception:
            try:
                return self._encode_with_care(item)
            except RecursionError:
                return on_fresh_stack(self._encode_with_care, item)

    def _encode_with_care(self, item: Any) -> tuple[int, bytes]:
        """Once more, with every int looked at; if it still fails, find out why."""
        try:
            return KIND_AUTO, packed(lower(item, PLAIN_BUT_INT, DEPTH_MAX))
        except (QueueError, MemoryError, RecursionError):
            raise
        except Exception as error:
            fault = fault_in(item, "item", ())
            if fault is None:
                # Every part is fine by itself: too large for MessagePack, or changed by another thread meanwhile.
                fault = NotSerializable(f"the item cannot be encoded: {error or type(error).__name__}", hint=WAY_OUT)
            raise fault from None
