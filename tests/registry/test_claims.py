"""Whatever the order of their steps, of several claimants one gets the claim and never two have it."""

import itertools
import json
import threading
from datetime import UTC, datetime, timedelta
from types import MappingProxyType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pfs_core.registry.claims import ASKING_FOR, LOOKS, PREFIX, Claim

START = datetime(2026, 1, 1, tzinfo=UTC)


class Memory:
    """Tags in memory."""

    def __init__(self):
        self.tags = {}

    def read(self):
        return dict(self.tags)

    def write(self, key, value):
        self.tags[key] = value

    def delete(self, key):
        self.tags.pop(key, None)

    def holders(self):
        claims = {key: json.loads(text) for key, text in self.tags.items()}
        return [
            key
            for key, claim in claims.items()
            if claim["state"] == "held" and datetime.fromisoformat(claim["expires"]) > START
        ]


class Stepped:
    """A claimant in a thread of its own that does one operation on the tags at a time, when it is told to."""

    def __init__(self, memory, run):
        self.memory, self.result = memory, None
        self._go, self._done = threading.Semaphore(0), threading.Semaphore(0)
        self._thread = threading.Thread(target=self._work, args=(run,), daemon=True)
        self._thread.start()
        self.over = False

    def _work(self, run):
        self._go.acquire()
        self.result = Claim(self, run, 1, lambda: START, lambda seconds: None).take()
        self.over = True
        self._done.release()

    def step(self):
        """Let it go on to its next operation, or its end."""
        self._go.release()
        self._done.acquire()

    def _wait(self):
        self._done.release()
        self._go.acquire()

    def read(self):
        self._wait()
        return self.memory.read()

    def write(self, key, value):
        self._wait()
        self.memory.write(key, value)

    def delete(self, key):
        self._wait()
        self.memory.delete(key)


def raced(runs, order, tags):
    """The claimants after they made their steps in this order, and then in turns until all are through."""
    memory = Memory()
    memory.tags = dict(tags)
    claimants = {run: Stepped(memory, run) for run in runs}
    for run in itertools.chain(order, itertools.cycle(runs)):
        if all(claimant.over for claimant in claimants.values()):
            return memory, claimants
        if not claimants[run].over:
            claimants[run].step()
            assert len(memory.holders()) <= 1
    raise AssertionError("unreachable")


def check_one_winner(runs, order, tags=MappingProxyType({})):
    memory, claimants = raced(runs, order, tags)
    winners = [run for run, claimant in claimants.items() if claimant.result]
    assert len(winners) == 1
    assert memory.holders() == [PREFIX + winners[0]]
    assert len(memory.tags) == 1  # the others left nothing


@pytest.mark.parametrize("order", [*itertools.product("ab", repeat=8)], ids="".join)
def test_every_order_of_two_claimants_has_one_winner(order):
    check_one_winner("ab", order)


@given(st.lists(st.sampled_from("abc"), max_size=24))
def test_any_order_of_three_claimants_has_one_winner(order):
    check_one_winner("abc", order)


class Clock:
    """A clock that is set by hand."""

    def __init__(self):
        self.time = START

    def __call__(self):
        return self.time


def claim(memory, run, clock=lambda: START):
    return Claim(memory, run, 1, clock, lambda seconds: None)


def test_a_claim_stays_with_its_run_until_it_is_given_back():
    memory = Memory()
    assert claim(memory, "b").take()
    assert claim(memory, "b").take()  # a step that is tried again
    assert not claim(memory, "a").take()
    assert claim(memory, "b").held()
    claim(memory, "b").drop()
    assert not claim(memory, "b").held()
    assert claim(memory, "a").take()


def test_a_claim_expires_and_its_owner_notices_who_took_over():
    memory, clock = Memory(), Clock()
    assert claim(memory, "a", clock).take()
    clock.time += timedelta(minutes=59)
    assert not claim(memory, "b", clock).take()
    clock.time += timedelta(minutes=1)
    assert claim(memory, "a", clock).held()  # nobody else wanted it
    assert claim(memory, "b", clock).take()
    assert not claim(memory, "a", clock).held()


def test_a_claimant_that_died_asking_is_waited_for_and_then_left():
    memory = Memory()
    memory.write(PREFIX + "z", json.dumps({"state": "asking", "expires": (START + timedelta(hours=1)).isoformat()}))
    waits = []
    assert not Claim(memory, "a", 1, lambda: START, waits.append).take()
    assert len(waits) == LOOKS
    assert list(memory.tags) == [PREFIX + "z"]
    assert claim(memory, "a", lambda: START + timedelta(hours=1)).take()


def test_asking_lasts_for_minutes_however_long_the_claim_would():
    memory, clock = Memory(), Clock()

    class Killed(Memory):
        def read(self):
            if self.tags:
                raise KeyboardInterrupt
            return super().read()

    dying = Killed()
    with pytest.raises(KeyboardInterrupt):
        Claim(dying, "b", 1000, clock, lambda seconds: None).take()
    memory.tags = dying.tags
    assert not claim(memory, "c", clock).take()
    clock.time += ASKING_FOR
    assert claim(memory, "c", clock).take()


def test_a_claimant_that_asked_for_too_long_takes_nothing():
    memory, clock = Memory(), Clock()

    class Slow(Memory):
        def write(self, key, value):
            super().write(key, value)
            clock.time += ASKING_FOR

    slow = Slow()
    assert not claim(slow, "a", clock).take()
    assert slow.tags == memory.tags == {}


def test_taking_again_renews_the_claim():
    memory, clock = Memory(), Clock()
    for _ in range(3):
        assert claim(memory, "a", clock).take()
        clock.time += timedelta(minutes=59)
        assert not claim(memory, "b", clock).take()


def test_an_expired_claim_is_taken_anew_by_its_owner_if_nobody_was_quicker():
    memory, clock = Memory(), Clock()
    assert claim(memory, "a", clock).take()
    clock.time += timedelta(hours=2)
    assert claim(memory, "a", clock).take()
    assert not claim(memory, "b", clock).take()


@pytest.mark.parametrize("order", [*itertools.product("ab", repeat=8)], ids="".join)
def test_an_expired_claim_has_one_winner_too(order):
    expired = json.dumps({"state": "held", "expires": (START - timedelta(hours=1)).isoformat()})
    check_one_winner("ab", order, {PREFIX + "a": expired})


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        "[]",
        "null",
        '{"state": "held"}',
        '{"state": "held", "expires": 3}',
        '{"state": "held", "expires": "soon"}',
        '{"state": "held", "expires": "2030-01-01T00:00:00"}',
        '{"state": ["held"], "expires": "2030-01-01T00:00:00+00:00"}',
        '{"state": "mine", "expires": "2030-01-01T00:00:00+00:00"}',
    ],
)
def test_a_claim_that_cannot_be_read_has_expired(text):
    memory = Memory()
    memory.write(PREFIX + "b", text)
    assert not claim(memory, "b").held()
    assert claim(memory, "a").take()
    assert list(memory.tags) == [PREFIX + "a"]


def test_other_tags_are_left_alone():
    memory = Memory()
    memory.write("pfs.compress", "requested")
    assert claim(memory, "a").take()
    claim(memory, "a").drop()
    assert memory.tags == {"pfs.compress": "requested"}
