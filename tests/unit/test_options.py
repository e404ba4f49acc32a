"""Every option, every way to get it wrong, and the files it can be read from."""

import dataclasses
import json
import math
from collections import OrderedDict
from datetime import timedelta
from pathlib import Path

import pytest

from overspill.config import load_config
from overspill.errors import InvalidOption
from overspill.options import (
    DISK_SIZE_MIN,
    Durability,
    GiB,
    KiB,
    MiB,
    Options,
    OverflowStrategy,
    RateLimit,
    WhenFull,
    check_thresholds,
    disk_size_for,
    parse_duration,
    parse_size,
    seconds,
    validate_name,
)

ON_DISK = {"name": "jobs", "disk_path": "/q"}


def test_the_defaults_are_those_of_the_contract():
    options = Options.build(**ON_DISK)
    assert dataclasses.asdict(options) == {
        "name": "jobs",
        "disk_path": "/q",
        "memory_size": 1000,
        "memory_limit": 512 * MiB,
        "max_items": None,
        "overflow_ratio": 1.0,
        "overflow_strategy": OverflowStrategy.OLDEST,
        "max_disk_size": 10 * GiB,
        "when_full": WhenFull.RAISE,
        "durability": Durability.PROCESS,
        "sync_interval": 1.0,
        "serializer": "auto",
        "compression": None,
        "ttl": None,
        "max_item_size": 64 * MiB,
        "default_batch_size": 100,
        "rate_limit": None,
        "lease_timeout": 30.0,
        "max_attempts": None,
        "dead_letter_limit": None,
        "on_expired": None,
        "on_dropped": None,
        "metrics": False,
    }
    assert type(options.max_item_size) is int


def test_units():
    assert (KiB, MiB, GiB) == (2**10, 2**20, 2**30)


def test_durabilities_are_ordered_by_what_they_survive():
    assert Durability.MEMORY < Durability.PROCESS < Durability.POWER


BAD = [
    *(("name", value) for value in ("", "a/b", "..", ".hidden", "a..b", "a\n", "a\0b", "ä", "x" * 129, 5, b"jobs", "a\\b")),
    *(("name", value) for value in ("CON", "con", "nul.log", "COM1", "lpt9.x.y", "-a", "_a", "a.")),
    *(("disk_path", value) for value in ("", 5, b"/q", "/q\0", True)),
    *(("memory_size", value) for value in (0, -1, True, 1.0, "10", None, 2**41)),
    *(("memory_limit", value) for value in (0, -1, True, 1.5, "1MiB")),
    *(("overflow_ratio", value) for value in (0, -0.1, 1.01, math.nan, math.inf, True, "1", None, 10**400)),
    *(("overflow_strategy", value) for value in ("oldest", None, 0, WhenFull.RAISE)),
    *(("max_disk_size", value) for value in (0, -1, 256 * KiB - 1, None, True, 1e9, "1GiB", 2**61)),
    *(("when_full", value) for value in ("raise", None, 1, OverflowStrategy.OLDEST)),
    *(("durability", value) for value in ("power", None, 2, True)),
    *(("sync_interval", value) for value in (0, -1, math.nan, math.inf, True, "1s", timedelta(0), timedelta(-1))),
    *(("serializer", value) for value in ("yaml", None, 5, "", ...)),
    *(("compression", value) for value in ("gzip", "", "none", 1, True, "ZSTD")),
    *(("ttl", value) for value in (0, -1, math.nan, math.inf, True, "5m", timedelta(0))),
    *(("max_item_size", value) for value in (0, -1, None, True, 1.0, 2 * GiB + 1)),
    *(("default_batch_size", value) for value in (0, -1, None, True, 1.0)),
    *(("rate_limit", value) for value in (0, 100, "100/s", {"rate": 5}, True)),
    *(("lease_timeout", value) for value in (0, -1, None, math.inf, True, "30s")),
    *(("max_attempts", value) for value in (0, -1, 256, True, 1.0, "3")),
    *(("on_expired", value) for value in (5, "print", True)),
    *(("on_dropped", value) for value in (5, "print", True)),
    *(("metrics", value) for value in (1, 0, None, "yes")),
]


@pytest.mark.parametrize(("key", "value"), BAD, ids=lambda part: repr(part)[:30])
def test_a_bad_value_names_the_option_the_value_and_what_is_allowed(key, value):
    with pytest.raises(InvalidOption) as caught:
        Options.build(**{**ON_DISK, key: value})
    assert caught.value.option == key
    assert str(caught.value).startswith(f"{key}=")
    assert "must be" in str(caught.value) and caught.value.allowed


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("name", value) for value in ("a", "0", "live-720p_v2.1", "x" * 128, "CONSOLE", "com", "com10")),
        ("disk_path", "relative/dir"),
        ("memory_size", 1),
        ("memory_limit", None),
        ("memory_limit", 1),
        ("overflow_ratio", 1),
        ("overflow_ratio", 0.001),
        ("max_disk_size", DISK_SIZE_MIN),
        ("sync_interval", None),
        ("ttl", 0.001),
        ("max_item_size", 1),
        ("max_attempts", 255),
        ("on_expired", print),
        ("compression", "snappy"),
        ("compression", "lz4"),
        ("compression", "zstd"),
        *(("serializer", value) for value in ("raw", "str", "json", "msgpack", "pickle", dict, list[int])),
        *(("durability", value) for value in Durability),
        *(("when_full", value) for value in WhenFull),
        *(("overflow_strategy", value) for value in OverflowStrategy),
    ],
)
def test_values_at_the_edge_are_taken(key, value):
    assert getattr(Options.build(**{**ON_DISK, key: value}), key) == value


def test_times_are_float_seconds_whatever_was_given():
    options = Options.build(ttl=timedelta(minutes=5), sync_interval=2, lease_timeout=timedelta(milliseconds=1))
    assert (options.ttl, options.sync_interval, options.lease_timeout) == (300.0, 2.0, 0.001)
    assert {type(options.ttl), type(options.sync_interval), type(options.lease_timeout)} == {float}


def test_a_path_object_is_a_path():
    assert Options.build(name="a", disk_path=Path("/var/q")).disk_path == "/var/q"


def test_an_unknown_option_is_a_type_error_that_guesses():
    with pytest.raises(TypeError, match="'max_disk_sise'.*did you mean 'max_disk_size'"):
        Options.build(max_disk_sise=1)


def test_options_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Options.build().memory_size = 5  # type: ignore[misc]


# What may not be together.


def test_a_disk_path_needs_a_name():
    with pytest.raises(InvalidOption, match="name=None"):
        Options.build(disk_path="/q")


def test_power_needs_a_disk_and_without_one_the_default_becomes_memory():
    with pytest.raises(InvalidOption, match="durability.*disk_path"):
        Options.build(durability=Durability.POWER)
    assert Options.build().durability is Durability.MEMORY
    assert Options.build(**ON_DISK).durability is Durability.PROCESS


@pytest.mark.parametrize("disk", [DISK_SIZE_MIN, DISK_SIZE_MIN + 1, MiB, 100 * MiB, 128 * MiB, GiB])
def test_an_item_size_that_nobody_chose_gives_way_to_a_small_disk(disk):
    options = Options.build(**ON_DISK, max_disk_size=disk)
    assert options.max_item_size == min(64 * MiB, disk // 2)
    assert disk_size_for(options.max_item_size) <= disk


def test_an_item_size_that_was_chosen_must_fit():
    with pytest.raises(InvalidOption, match="max_item_size=67108864.*max_disk_size=1048576"):
        Options.build(**ON_DISK, max_disk_size=MiB, max_item_size=64 * MiB)
    with pytest.raises(InvalidOption, match="max_item_size"):  # its own size is not all that it needs
        Options.build(**ON_DISK, max_disk_size=MiB, max_item_size=MiB)
    size = 900 * KiB
    Options.build(**ON_DISK, max_disk_size=disk_size_for(size), max_item_size=size)
    with pytest.raises(InvalidOption):
        Options.build(**ON_DISK, max_disk_size=disk_size_for(size) - 1, max_item_size=size)


def test_without_a_disk_an_item_must_fit_into_memory():
    assert Options.build(memory_limit=1000).max_item_size == 1000
    assert Options.build(memory_limit=None).max_item_size == 64 * MiB
    with pytest.raises(InvalidOption, match="memory_limit=1000"):
        Options.build(memory_limit=1000, max_item_size=1001)
    # Where there is a disk it goes there.
    Options.build(**ON_DISK, memory_limit=1000, max_item_size=1001)
    # And what the disk's size is does not matter where there is none.
    Options.build(max_disk_size=DISK_SIZE_MIN, max_item_size=MiB)


# RateLimit.


def test_a_rate_limit_has_one_second_of_burst_unless_told():
    assert RateLimit(10_000, burst=1000) == RateLimit(10_000.0, burst=1000, on_limit="raise")
    assert RateLimit(10_000).burst == 10_000 and type(RateLimit(10_000).burst) is int
    assert RateLimit(0.1).burst == 1


@pytest.mark.parametrize(
    ("rate", "more"),
    [
        (0, {}),
        (-1, {}),
        (True, {}),
        ("10", {}),
        (math.inf, {}),
        (math.nan, {}),
        (None, {}),
        (10, {"burst": 0}),
        (10, {"burst": -1}),
        (10, {"burst": 1.5}),
        (10, {"burst": True}),
        (10, {"on_limit": "drop"}),
        (10, {"on_limit": None}),
    ],
)
def test_a_bad_rate_limit_says_which_part(rate, more):
    with pytest.raises(InvalidOption, match=rf"^rate_limit\.{next(iter(more), 'rate')}="):
        RateLimit(rate, **more)


# Single values.


def test_names():
    assert validate_name("segments") == "segments"
    with pytest.raises(InvalidOption, match="^stream_id="):
        validate_name("../etc", "stream_id")


def test_seconds_for_a_call():
    assert seconds("delay", 0) == 0.0
    assert seconds("delay", timedelta(seconds=1.5)) == 1.5
    for bad in (-1, math.nan, True, "1", None):
        with pytest.raises(InvalidOption, match="^delay="):
            seconds("delay", bad)
    with pytest.raises(InvalidOption, match="above 0"):
        seconds("ttl", 0, above_0=True)


def test_thresholds():
    assert check_thresholds((0.7, 0.9)) == (0.7, 0.9)
    assert check_thresholds([1]) == (1.0,)
    for bad in ((), (0,), (0.9, 0.7), (0.7, 0.7), (1.1,), (True,), ("0.7",), (math.nan,), 0.7, "0.7", None):
        with pytest.raises(InvalidOption, match="^thresholds="):
            check_thresholds(bad)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("4096", 4096),
        ("512MiB", 512 * MiB),
        ("512 mib", 512 * MiB),
        ("1.5GiB", 3 * GiB // 2),
        ("10 GB", 10**10),
        ("1kB", 1000),
        ("2TiB", 2048 * GiB),
        ("1_000_000", 10**6),
        ("7B", 7),
    ],
)
def test_sizes_in_words(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "MiB", "-1", "1 M", "1e9", "1,5GiB", "5 apples", "٣MiB", "9" * 50, "1MiB\n5"])
def test_bad_sizes_in_words(text):
    with pytest.raises(InvalidOption, match="512MiB"):
        parse_size(text)


@pytest.mark.parametrize(
    ("text", "time_s"),
    [("30s", 30), ("5m", 300), ("250ms", 0.25), ("1h30m", 5400), ("1h 30m", 5400), ("2d", 172_800), ("2.5", 2.5), ("1.5 h", 5400)],
)
def test_times_in_words(text, time_s):
    assert parse_duration(text) == pytest.approx(time_s)


@pytest.mark.parametrize("text", ["", "s", "-5s", "5 weeks", "5s later", "1e3s", "inf", "nan", "5m5"])
def test_bad_times_in_words(text):
    with pytest.raises(InvalidOption, match="5m"):
        parse_duration(text)


# From a mapping or a file.

WORDS = {
    "name": "segments",
    "disk_path": "/var/lib/mirror",
    "memory_limit": "64MiB",
    "max_disk_size": "1GiB",
    "durability": "Power",
    "when_full": "drop-oldest",
    "overflow_strategy": "BY_PRIORITY",
    "ttl": "5m",
    "sync_interval": "none",
    "lease_timeout": 10,
    "rate_limit": {"rate": 10000, "burst": 1000, "on_limit": "wait"},
    "compression": "zstd",
}
MEANT = {
    "name": "segments",
    "disk_path": "/var/lib/mirror",
    "memory_limit": 64 * MiB,
    "max_disk_size": GiB,
    "durability": Durability.POWER,
    "when_full": WhenFull.DROP_OLDEST,
    "overflow_strategy": OverflowStrategy.BY_PRIORITY,
    "ttl": 300.0,
    "sync_interval": None,
    "lease_timeout": 10,
    "rate_limit": RateLimit(10_000, burst=1000, on_limit="wait"),
    "compression": "zstd",
}
TOML = """
name = "segments"
disk_path = "/var/lib/mirror"
memory_limit = "64MiB"
max_disk_size = "1GiB"
durability = "Power"
when_full = "drop-oldest"
overflow_strategy = "BY_PRIORITY"
ttl = "5m"
sync_interval = "none"
lease_timeout = 10
compression = "zstd"
[rate_limit]
rate = 10000
burst = 1000
on_limit = "wait"
"""


def test_a_mapping_a_toml_and_a_json_file_say_the_same(tmp_path):
    (tmp_path / "q.toml").write_text(TOML)
    (tmp_path / "q.json").write_text(json.dumps(WORDS))
    for source in (WORDS, OrderedDict(WORDS), MEANT, tmp_path / "q.toml", str(tmp_path / "q.json")):
        given = load_config(source)
        assert given == MEANT
        Options.build(**given)


def test_what_a_config_does_not_say_stays_a_default():
    assert load_config({}) == {}
    assert "max_item_size" not in load_config({**ON_DISK, "max_disk_size": "1MiB"})


def test_as_dict_reads_back():
    options = Options.build(**MEANT)
    assert Options.build(**load_config(options.as_dict())) == options
    assert options.as_dict()["durability"] == "power"
    json.dumps(options.as_dict())


def test_repr_shows_what_was_chosen():
    assert repr(Options.build(**ON_DISK, memory_size=10)) == "Options(name='jobs', disk_path='/q', memory_size=10)"


def test_a_config_may_hold_callbacks_and_types():
    given = load_config({"on_dropped": print, "serializer": list[int]})
    assert given["on_dropped"] is print


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"tll": 5}, "tll=5.*no such option.*did you mean 'ttl'"),
        ({"zzzz": 5}, "zzzz=5.*no such option"),
        ({5: 5}, "5=5.*no such option"),
        ({"durability": "forever"}, "durability='forever'.*'memory' or 'process' or 'power'"),
        ({"memory_limit": "a lot"}, "memory_limit='a lot'.*512MiB"),
        ({"ttl": "soon"}, "ttl='soon'"),
        ({"ttl": "0s"}, "ttl=0.0"),
        ({"memory_size": "1000"}, "memory_size='1000'"),
        ({"rate_limit": {"rate": 5, "bust": 1}}, "rate_limit.bust.*did you mean 'burst'"),
        ({"rate_limit": {}}, "rate_limit=.*mapping with rate"),
        ({"rate_limit": {"rate": 0}}, "rate_limit.rate=0"),
        ({"on_expired": "print"}, "on_expired"),
        ({"name": "../etc", "disk_path": "/q"}, "name='../etc'"),
        ({"lease_timeout": "none"}, "lease_timeout='none'"),
    ],
)
def test_what_is_wrong_in_a_file_names_the_file_and_the_key(tmp_path, words, said):
    with pytest.raises(InvalidOption, match=said):
        load_config(words)
    path = tmp_path / "queue.json"
    path.write_text(json.dumps(words))
    with pytest.raises(InvalidOption, match=said) as caught:
        load_config(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("q.yaml", b"a: 1"),
        ("q", b"{}"),
        ("q.json", b"{"),
        ("q.json", b"[1]"),
        ("q.json", b"\xff\xfe"),
        ("q.json", b'{"ttl": 1, "ttl": 2}'),
        ("q.json", b"[" * 100_000),
        ("q.toml", b"a = "),
        ("q.toml", b"a = 1\na = 2"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(tmp_path, name, text):
    (tmp_path / name).write_bytes(text)
    with pytest.raises(InvalidOption, match=r"config=.*" + name.replace(".", r"\.")):
        load_config(tmp_path / name)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(InvalidOption, match="No such file"):
        load_config(tmp_path / "q.toml")
    for no_source in (None, 5, b"q.toml", ["q.toml"]):
        with pytest.raises(InvalidOption, match="config="):
            load_config(no_source)
