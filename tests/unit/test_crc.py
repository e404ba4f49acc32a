"""The check code is the same however the processor computes it: by folding, in three streams, by words, by bytes."""
from __future__ import annotations

import random
from pathlib import Path

import pytest

from overspill._core.record import crc32c

ALIGNMENTS = 64
FOLDED_FROM = 1024
"""Inputs of so many bytes are folded where the processor multiplies polynomials 256 bits at a time (see `crc32c.h`)."""


def _table() -> list[int]:
    table = []
    for byte in range(256):
        crc = byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
        table.append(crc)
    return table


TABLE = _table()


def expected(data: bytes, seed: int) -> list[int]:
    """The check codes of the first 0, 1, 2, … bytes, a byte at a time."""
    crc, codes = seed ^ 0xFFFFFFFF, [seed]
    for byte in data:
        crc = TABLE[(crc ^ byte) & 0xFF] ^ crc >> 8
        codes.append(crc ^ 0xFFFFFFFF)
    return codes


def agree(lengths: range, alignments: range) -> None:
    rng = random.Random(1)
    area = bytearray(rng.randbytes(lengths.stop + ALIGNMENTS))
    for start in alignments:
        seed = rng.randrange(1 << 32)
        view = memoryview(area)[start:]
        codes = expected(bytes(view[: lengths.stop]), seed)
        wrong = [n for n in lengths if crc32c(view[:n], seed) != codes[n]]
        assert not wrong, f"at {start} bytes behind the buffer's beginning, seed {seed}: {wrong[:5]}…"


def folds() -> bool:
    flags = next((line.split() for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("flags")), [])
    return "vpclmulqdq" in flags and "avx2" in flags


def test_known_answers() -> None:
    assert crc32c(b"") == 0
    assert crc32c(b"123456789") == 0xE3069283
    assert crc32c(bytes(32)) == 0x8A9136AA  # RFC 3720, B.4
    assert crc32c(b"\xff" * 32) == 0x62A8AB43


def test_short_inputs_of_every_length_at_every_alignment() -> None:
    agree(range(FOLDED_FROM), range(ALIGNMENTS))


@pytest.mark.skipif(not folds(), reason="this processor has no VPCLMULQDQ: nothing is folded here")
def test_folded_inputs_of_every_length_at_every_alignment() -> None:
    """Every remainder behind the last 128 folded bytes, behind one and behind several rounds of folding."""
    agree(range(FOLDED_FROM, FOLDED_FROM + 3 * 128), range(ALIGNMENTS))


def test_long_inputs() -> None:
    """Over 3 × 4,096 bytes there are three streams of their own where nothing is folded; what is behind them is for the shorter ways."""
    agree(range(12_288, 12_288 + 3 * 256 + 16), range(0, ALIGNMENTS, 13))
    agree(range(40_000, 40_016), range(0, ALIGNMENTS, 7))


def test_it_goes_on_from_where_it_stopped() -> None:
    rng = random.Random(2)
    data = rng.randbytes(9000)
    whole = crc32c(data, 7)
    for _ in range(200):
        at = rng.randrange(len(data))
        assert crc32c(memoryview(data)[at:], crc32c(memoryview(data)[:at], 7)) == whole
