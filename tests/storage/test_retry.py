"""A fault that may pass is waited out, for longer each time; any other is raised at once."""

import pytest

from pfs_core.storage import retry
from pfs_core.storage.retry import retried


@pytest.fixture
def waits(monkeypatch):
    """The seconds that were waited for."""
    found = []
    monkeypatch.setattr(retry, "sleep", found.append)
    return found


def failing(*errors):
    """A call that raises these errors one by one, and then returns 7."""
    left = list(errors)

    def call():
        if left:
            raise left.pop(0)
        return 7

    return call


def passes(error):
    return isinstance(error, ConnectionError)


def test_a_call_is_made_until_it_succeeds(waits):
    assert retried(failing(ConnectionError(), ConnectionError()), passes, 3, 0.5) == 7
    assert waits == [0.5, 1.0]


def test_the_last_error_is_raised(waits):
    errors = [ConnectionError(str(number)) for number in range(3)]
    with pytest.raises(ConnectionError, match="2"):
        retried(failing(*errors), passes, 3, 0.5)
    assert len(waits) == 2


def test_a_fault_that_stays_is_raised_at_once(waits):
    with pytest.raises(KeyError):
        retried(failing(ConnectionError(), KeyError("x"), ConnectionError()), passes, 9, 0.5)
    assert waits == [0.5]


def test_waits_grow_up_to_a_limit(waits):
    assert retried(failing(*[ConnectionError() for _ in range(9)]), passes, 10, 1.0) == 7
    assert waits == [1, 2, 4, 8, 16, 30, 30, 30, 30]


def test_one_attempt_is_one_call(waits):
    with pytest.raises(ConnectionError):
        retried(failing(ConnectionError()), passes, 1, 0.5)
    assert waits == []
