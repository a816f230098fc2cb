"""Groups that fail are found by halving."""

from hypothesis import given
from hypothesis import strategies as st

from pfs_core.channels.proof import _refuted

NAMES = [f"blocks.{block}.{layer}" for block in range(6) for layer in ("conv1", "conv2", "shortcut")]


@given(st.sets(st.sampled_from(NAMES)))
def test_those_that_fail_alone_are_found_and_no_other(alone):
    def trial(groups):
        wrong = sorted(alone & set(groups))
        return f"{wrong[0]} fails" if wrong else ""

    found = _refuted(NAMES, [trial])
    assert list(found) == [name for name in NAMES if name in alone]
    assert all(reason == f"{name} fails" for name, reason in found.items())


@given(st.sets(st.sampled_from(NAMES), min_size=2, max_size=3))
def test_what_is_left_passes_where_groups_fail_only_together(together):
    def trial(groups):
        return "together" if together <= set(groups) else ""

    found = _refuted(NAMES, [trial])
    assert set(found.values()) == {"together"}
    assert not trial([name for name in NAMES if name not in found])


@given(st.sampled_from(NAMES))
def test_one_that_fails_takes_few_trials(name):
    tried = []

    def trial(groups):
        tried.append(groups)
        return "fails" if name in groups else ""

    assert list(_refuted(NAMES, [trial])) == [name]
    assert len(tried) <= 12
