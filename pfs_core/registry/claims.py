"""Mutual exclusion between pipeline runs, by tags alone.

A tag can be written, read and deleted; there is no compare-and-swap. A claimant writes its own tag, ``asking``, and
reads all. Seeing no other, it writes ``held`` and has the claim. Seeing one that holds, or one that asks and comes
before it by name, it withdraws; else it waits until the others have withdrawn or hold.

Of two claimants the second to write reads after both have written: it sees the first, and cannot take what it sees. So
the two never hold at once, whatever the order of their steps, as long as no claim expires while its owner is between
reading and writing. Of claimants that all see each other the first by name stays, so somebody gets it.

Asking lasts for minutes only, so that a claimant that dies meanwhile does not block the others. A claim that cannot be
parsed counts as expired.
"""

import json
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Protocol

PREFIX = "pfs.claim."
ASKING_FOR = timedelta(minutes=2)
ASKING, HELD = "asking", "held"
EXPIRED = datetime.min.replace(tzinfo=UTC)
LOOKS, EVERY = 20, 0.5
"""How often a claimant looks at the others that ask before it gives up, and the seconds between two looks."""


class Tags(Protocol):
    """The tags of the thing that is claimed."""

    def read(self) -> Mapping[str, str]:
        """All of them."""

    def write(self, key: str, value: str) -> None:
        """Set one."""

    def delete(self, key: str) -> None:
        """Remove one, if it is there."""


def utc_now() -> datetime:
    """The time."""
    return datetime.now(UTC)


class Claim:
    """The claim of one run on one thing.

    Args:
        tags: the tags of the thing.
        run: the claimant's id, which no other claimant has.
        hours: how long the claim holds if it is not dropped.
        now: a clock.
        sleep: waits for a number of seconds.
    """

    def __init__(
        self,
        tags: Tags,
        run: str,
        hours: float,
        now: Callable[[], datetime] = utc_now,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._tags, self._run, self._hours, self._now, self._sleep = tags, run, timedelta(hours=hours), now, sleep

    def take(self) -> bool:
        """Try to get the claim; returns whether this run has it. One that it had holds for ``hours`` from now."""
        mine = _claims(self._tags.read()).get(self._run)
        if mine and mine[0] == HELD and mine[1] > self._now():
            self._write(HELD, self._hours)
            return True
        expires = self._write(ASKING, ASKING_FOR)
        for _ in range(LOOKS):
            others = self._others()
            if self._now() >= expires:
                break
            if not others:
                self._write(HELD, self._hours)
                return True
            if HELD in others.values() or min(others) < self._run:
                break
            self._sleep(EVERY)
        self.drop()
        return False

    def held(self) -> bool:
        """Whether this run has the claim, even an expired one as long as no other run has taken it over."""
        claims = _claims(self._tags.read())
        state, _ = claims.pop(self._run, ("", EXPIRED))
        return state == HELD and not any(other == HELD and end > self._now() for other, end in claims.values())

    def drop(self) -> None:
        """Give the claim back."""
        self._tags.delete(PREFIX + self._run)

    def _write(self, state: str, lasts: timedelta) -> datetime:
        expires = self._now() + lasts
        self._tags.write(PREFIX + self._run, json.dumps({"state": state, "expires": expires.isoformat()}))
        return expires

    def _others(self) -> dict[str, str]:
        """The states of the other claims by run; expired claims are removed."""
        others = {}
        for run, (state, expires) in _claims(self._tags.read()).items():
            if run == self._run:
                continue
            if expires <= self._now():
                self._tags.delete(PREFIX + run)
            else:
                others[run] = state
        return others


def _claims(tags: Mapping[str, str]) -> dict[str, tuple[str, datetime]]:
    """State and end of every claim by run."""
    return {key.removeprefix(PREFIX): _parsed(text) for key, text in tags.items() if key.startswith(PREFIX)}


def _parsed(text: str) -> tuple[str, datetime]:
    try:
        value = json.loads(text)
        state, expires = value["state"], datetime.fromisoformat(value["expires"])
    except (ValueError, TypeError, KeyError):
        return "", EXPIRED
    return (state, expires) if state in (ASKING, HELD) and expires.tzinfo else ("", EXPIRED)
