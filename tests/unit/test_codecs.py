"""Compression: kept only where it pays, undone only within bounds."""

import os
import random
import subprocess
import sys
import textwrap

import cramjam
import pytest
from hypothesis import given
from hypothesis import strategies as st

from overspill.codecs import CODEC_NUMBERS, codec_number, compress, decompress
from overspill.errors import CorruptedData, UnknownFormat

MiB = 1024 * 1024
CODECS = sorted(CODEC_NUMBERS.values())
TEXT = b'{"user": "ann", "path": "/live/segment-000123.ts", "status": 200}' * 40
NAMES = {number: name for name, number in CODEC_NUMBERS.items()}

every_codec = pytest.mark.parametrize("codec", CODECS, ids=NAMES.get)


def packed(codec, data=TEXT):
    smaller = compress(codec, data)
    assert smaller is not None
    return smaller


def test_the_numbers_are_those_of_the_format_page():
    assert [codec_number(name) for name in (None, "snappy", "lz4", "zstd")] == [0, 1, 2, 3]


@every_codec
@pytest.mark.parametrize("wrap", [bytes, bytearray, memoryview])
def test_what_was_compressed_comes_back(codec, wrap):
    smaller = packed(codec, wrap(TEXT))
    assert type(smaller) is bytes and len(smaller) < len(TEXT) * 15 // 16
    again = decompress(codec, wrap(smaller), len(TEXT), MiB)
    assert type(again) is bytes and again == TEXT


@every_codec
@given(data=st.binary(max_size=2000), times=st.integers(1, 20))
def test_any_bytes_come_back(codec, data, times):
    data = data * times
    smaller = compress(codec, data)
    if smaller is not None:
        assert len(data) - len(smaller) >= max(16, len(data) // 16)
        assert decompress(codec, smaller, len(data), len(data)) == data


@every_codec
def test_what_does_not_pay_is_not_compressed(codec):
    assert compress(codec, b"") is None
    assert compress(codec, b"a" * 31) is None
    assert compress(codec, os.urandom(100_000)) is None
    # A little is saved, but less than a sixteenth.
    assert compress(codec, os.urandom(10_000) + b"a" * 300) is None


def test_no_codec_means_as_it_is():
    assert compress(0, TEXT) is None
    assert decompress(0, TEXT, len(TEXT), MiB) == TEXT
    with pytest.raises(CorruptedData):
        decompress(0, TEXT, len(TEXT) + 1, MiB)


def test_an_unknown_codec_is_no_damage():
    with pytest.raises(UnknownFormat, match="newer version"):
        decompress(17, TEXT, len(TEXT), MiB)
    with pytest.raises(ValueError):
        compress(17, TEXT)


@every_codec
@pytest.mark.parametrize("off_by", [-1, 1, -len(TEXT), 1000])
def test_the_length_must_be_exact(codec, off_by):
    with pytest.raises(CorruptedData):
        decompress(codec, packed(codec), len(TEXT) + off_by, MiB)


@every_codec
def test_the_limit_comes_first(codec):
    with pytest.raises(CorruptedData, match="longer than allowed"):
        decompress(codec, packed(codec), len(TEXT), len(TEXT) - 1)


@every_codec
def test_cut_or_continued_data_is_damage(codec):
    smaller = packed(codec)
    for cut in range(len(smaller)):
        with pytest.raises(CorruptedData):
            decompress(codec, smaller[:cut], len(TEXT), MiB)
    for tail in (b"\0", b"xx", smaller):
        with pytest.raises(CorruptedData):
            decompress(codec, smaller + tail, len(TEXT), MiB)


@every_codec
def test_flipped_bits_give_corrupted_data_or_bytes_of_the_right_length(codec):
    # None of the three checks its contents; that is the record's check code's business.
    smaller = packed(codec)
    for position in range(len(smaller) * 8):
        damaged = bytearray(smaller)
        damaged[position // 8] ^= 1 << position % 8
        try:
            assert len(decompress(codec, damaged, len(TEXT), MiB)) == len(TEXT)
        except CorruptedData:
            pass


@every_codec
def test_random_bytes_never_raise_anything_else(codec):
    dice = random.Random(7)
    magic = b"\x28\xb5\x2f\xfd" if NAMES[codec] == "zstd" else b""
    for _ in range(3000):
        noise = magic + dice.randbytes(dice.randrange(60))
        try:
            assert len(decompress(codec, noise, 1000, MiB)) == 1000
        except CorruptedData:
            pass


BOMB = """
    import cramjam
    from overspill.codecs import decompress
    from overspill.errors import CorruptedData

    GiB = 2**30
    def forget_the_peak():
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")

    def peak():
        with open("/proc/self/status") as file:
            return next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmHWM"))

    def varint(n):
        out = bytearray()
        while n > 127:
            out.append(n & 127 | 128); n >>= 7
        return bytes(out + bytes([n]))

    small = bytes(cramjam.snappy.compress_raw(b"a" * 5000))
    zeros = bytes(1000)
    zstd = b"\\x28\\xb5\\x2f\\xfd" + b"\\xe0" + (10 * GiB).to_bytes(8, "little")       # claims 10 GiB
    # 8-byte content size of 10 GiB, then run-length blocks of 128 KiB that really expand
    block = ((128 * 1024) << 3 | 1 << 1).to_bytes(3, "little") + b"a"
    running = b"\\x28\\xb5\\x2f\\xfd" + b"\\x80" + b"\\x58" + (2**32 - 1).to_bytes(4, "little") + block * 256
    silent = b"\\x28\\xb5\\x2f\\xfd" + b"\\x00" + b"\\x58" + block * 256                # expands, claims nothing
    lz4 = b"\\x1fa\\x01\\x00" + b"\\xff" * 1000
    bombs = []
    for raw_length in (1000, 10 * GiB):
        bombs += [
            (1, varint(2**32 - 1) + zeros, raw_length),
            (1, small, raw_length),
            (2, lz4, raw_length),
            (3, zstd + zeros, raw_length),
            (3, running, raw_length),
            (3, silent, raw_length),
        ]
    bombs += [(2, lz4, 64 * 2**20), (3, running, 64 * 2**20), (1, varint(64 * 2**20 + 1) + zeros, 64 * 2**20)]
    try:  # imports, error paths and the allocator are warm before measuring
        decompress(3, b"warm", 10, 10)
    except CorruptedData:
        pass
    for codec, data, raw_length in bombs:
        forget_the_peak()
        before = peak()
        try:
            decompress(codec, data, raw_length, 64 * 2**20)
        except CorruptedData:
            grown = peak() - before  # not only what is left, but what was ever there
            assert grown < 2**20, (codec, raw_length, len(data), grown)
        else:
            raise SystemExit(f"codec {codec} gave {raw_length} bytes")
"""


def test_a_bomb_is_refused_before_it_grows():
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(BOMB)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_zstd_frame_without_its_length_is_read_within_bounds():
    block = (1000 << 3 | 1 << 1 | 1).to_bytes(3, "little") + b"a"
    frame = b"\x28\xb5\x2f\xfd" + b"\x00" + b"\x58" + block
    assert bytes(cramjam.zstd.decompress(frame)) == b"a" * 1000
    assert decompress(3, frame, 1000, MiB) == b"a" * 1000
    with pytest.raises(CorruptedData):
        decompress(3, frame, 999, MiB)
