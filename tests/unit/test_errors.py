"""Errors say whose fault, where, and what next; they survive pickling and are what `queue`'s users catch."""

import copy
import os
import pickle
import queue

import pytest

from overspill import errors as e

EVERY_ERROR = [
    e.QueueError("odd", where="queue 'jobs'", hint="look"),
    e.QueueError(),
    e.QueueEmpty(),
    e.QueueEmpty("nothing within 2 s"),
    e.QueueFull("full", hint="wait"),
    e.QueueClosed(),
    e.QueueBroken("fdatasync failed", where="/q/1.seg"),
    e.QueueLocked("/q", pid=4242),
    e.QueueLocked("/q", pid=os.getpid()),
    e.QueueLocked("/q"),
    e.RateLimited(retry_after=0.25),
    e.ItemRejected(),
    e.ItemTooLarge(size=70, limit=64),
    e.NotSerializable("no", place='item["a"]'),
    e.LeaseExpired(),
    e.CorruptedData("/q/1.seg", offset=8192, found=0xDEADBEEF, expected=0xCAFEBABE, hint="run verify on this folder"),
    e.CorruptedData(what="cut short"),
    e.UnknownFormat("/q/1.seg", found=2, expected=1),
    e.InvalidOption("ttl", -1, "seconds above 0"),
    e.UnsafeFolder("/q", "anybody may write to it"),
]


@pytest.mark.parametrize("error", EVERY_ERROR, ids=lambda error: type(error).__name__)
def test_an_error_survives_pickling_and_copying_with_all_it_knows(error):
    for again in (*(pickle.loads(pickle.dumps(error, protocol)) for protocol in range(2, 6)), copy.copy(error)):
        assert type(again) is type(error)
        assert again.args == error.args
        assert again.__dict__ == error.__dict__
        assert str(again) == str(error)


@pytest.mark.parametrize("name", e.__all__)
def test_every_error_is_of_the_family_and_explained(name):
    kind = getattr(e, name)
    assert issubclass(kind, e.QueueError)
    assert kind.__doc__


@pytest.mark.parametrize("error", EVERY_ERROR, ids=lambda error: type(error).__name__)
def test_every_error_has_something_to_say(error):
    assert str(error).strip()
    assert error.message in str(error)


def test_the_standard_names_catch_ours():
    assert issubclass(e.QueueEmpty, queue.Empty)
    assert issubclass(e.QueueFull, queue.Full)
    assert issubclass(e.NotSerializable, TypeError)
    assert issubclass(e.NotSerializable, e.ItemRejected)
    assert issubclass(e.ItemTooLarge, e.ItemRejected)
    assert issubclass(e.InvalidOption, ValueError)
    assert issubclass(e.UnsafeFolder, PermissionError)


def test_what_cannot_be_read_here_is_not_damage():
    # Else it would be set aside in quarantine although another version could read it.
    assert not issubclass(e.UnknownFormat, e.CorruptedData)


def test_corrupted_data_says_file_offset_both_values_and_what_next():
    error = e.CorruptedData("/q/1.seg", offset=8192, found=0xDEADBEEF, expected=7, hint="run verify on this folder")
    assert str(error) == (
        "/q/1.seg, offset 8192: damaged, expected 7, found 3735928559 (0xdeadbeef) (run verify on this folder)"
    )


def test_a_layer_further_up_may_add_where_it_happened():
    error = e.CorruptedData(what="cut short")
    error.path, error.offset, error.where = "/q/1.seg", 72, "queue 'jobs'"
    assert str(error) == "queue 'jobs': /q/1.seg, offset 72: cut short"


def test_locked_names_the_holder():
    error = e.QueueLocked("/q", pid=4242)
    assert error.pid == 4242
    assert "/q" in str(error) and "4242" in str(error)
    assert "in this process" in str(e.QueueLocked("/q", pid=os.getpid()))


def test_too_large_says_by_how_much():
    error = e.ItemTooLarge(size=70_000, limit=65_536)
    assert (error.size, error.limit) == (70_000, 65_536)
    assert "70,000" in str(error) and "65,536" in str(error) and "max_item_size" in str(error)


def test_an_unsafe_folder_looks_like_a_permission_error():
    error = e.UnsafeFolder("/q", "anybody may write to it")
    assert error.errno == 1
    assert str(error).startswith("/q is not safe to use: anybody may write to it")


def test_an_unprintable_value_does_not_hide_the_error():
    class Rude:
        def __repr__(self):
            raise RuntimeError("no")

    assert "<Rude>" in str(e.InvalidOption("ttl", Rude(), "seconds"))
    assert len(str(e.InvalidOption("ttl", "x" * 10_000, "seconds"))) < 300
