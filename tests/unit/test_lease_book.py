"""The book of leases: what it keeps, and for how long."""

import sys
import threading

from overspill._engine.leases import _ENDED_MOST, Leases


def test_leases_that_end_in_time_leave_nothing_behind_however_long_they_might_have_lasted():
    book = Leases()
    first = book.grant("held all the while", 3600.0)
    for n in range(50_000):
        book.end(book.grant(n, 3600.0 + n))
    assert len(book._deadlines) <= _ENDED_MOST + 2
    assert book.next_deadline() == 3600.0
    assert list(book.overdue(3600.0)) == ["held all the while"] and book.end(first) is None


def test_no_deadline_is_lost_while_those_of_ended_leases_are_forgotten():
    book, kept = Leases(), []

    def work(mine):
        for n in range(10_000):
            token = book.grant((mine, n), 1e6 - n)
            if n % 50 == 0:
                kept.append((mine, n))
                book.extend(token, 1e6 + n)
            else:
                book.end(token)

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        threads = [threading.Thread(target=work, args=(mine,)) for mine in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(before)
    assert sorted(book.overdue(2e6)) == sorted(kept)
    assert len(book) == 0
