"""What is held, for whom, and for how long; a clock that the test moves."""

from types import SimpleNamespace

import pytest

from situs.web.limits import Limits
from situs.web.store import NotFoundError, Store, TooManyError, pick


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def scan(n_bytes=1):
    return SimpleNamespace(n_bytes=n_bytes)


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def store(clock):
    return Store(Limits(keep_s=60, client_scans=2, scans=3, held_bytes=100, results=2), clock)


def test_a_scan_is_dropped_when_nobody_asked_for_it_in_time(store, clock):
    old, new = store.add("a", scan()), store.add("a", scan())
    clock.now = 59
    store.find("a", new)
    clock.now = 61
    store.drop_old()
    assert len(store) == 1
    with pytest.raises(NotFoundError, match="there is no scan"):
        store.find("a", old)
    store.find("a", new)


def test_another_clients_scan_is_not_found(store):
    name = store.add("a", scan())
    for attempt in (store.find, store.remove):
        with pytest.raises(NotFoundError):
            attempt("b", name)
    store.remove("a", name)
    assert not len(store)


def test_room_counts_the_scans_that_are_being_read(store):
    with store.room("a"), store.room("a"):
        with pytest.raises(TooManyError) as error, store.room("a"):
            pass
        assert error.value.own
        with store.room("b"), pytest.raises(TooManyError) as error, store.room("c"):
            pass
        assert not error.value.own
    with store.room("a"):
        pass


def test_scans_and_results_together_stay_below_the_limit(store):
    held = store.find("a", store.add("a", scan(60)))
    with pytest.raises(TooManyError):
        store.add("b", scan(41))
    first = store.keep(held.regions, scan(20))
    with pytest.raises(TooManyError):
        store.keep(held.findings, scan(21))
    store.keep(held.regions, scan(10))
    store.keep(held.regions, scan(10))
    with pytest.raises(NotFoundError, match="regions"):
        pick(held.regions, first, "regions")


def test_ids_cannot_be_guessed(store):
    held = store.find("a", store.add("a", scan()))
    names = {store.keep(held.regions, scan(0)) for _ in range(50)}
    assert len(names) == 50 and all(len(name) >= 16 for name in names)
