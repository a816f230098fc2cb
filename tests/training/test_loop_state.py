"""A loop that diverged is stopped, with the first bad step named."""

import pytest
import torch

from pfs_core.errors import UserError
from pfs_core.training.loop_state import LoopState

GOOD = torch.tensor([1.0, 2.0])


def advanced(*sums, epoch=2, before=10):
    progress = LoopState(torch.device("cpu"), torch.Generator())
    progress.step = before
    progress.begin(epoch)
    for value in sums:
        progress.add(torch.tensor([value, 1.0]), 4)
    return progress


def line(progress, *tensors):
    with pytest.raises(UserError) as stopped:
        progress.check(tensors, "search", "a lower search.lr")
    return str(stopped.value)


def test_finite_sums_and_tensors_pass():
    advanced(1.0, 2.0).check([GOOD], "search", "nothing")
    advanced().check([GOOD], "search", "nothing")


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_the_first_step_that_is_not_finite_is_named(bad):
    assert line(advanced(1.0, 2.0, bad, 3.0, bad), GOOD) == (
        "search diverged in epoch 2 at step 13: the loss or what is learned is no longer finite; "
        "the same settings would end here again, try a lower search.lr"
    )


def test_weights_that_are_not_finite_before_the_loss_is():
    assert "in epoch 2 at step 12: " in line(advanced(1.0, 2.0), GOOD, torch.tensor([0.0, torch.nan]))


def test_the_count_goes_on_after_a_resume():
    first = advanced(1.0, 2.0)
    second = LoopState(torch.device("cpu"), torch.Generator())
    second.load_state_dict(first.state_dict())
    assert second.begin(2) == 2
    second.add(GOOD, 4)
    second.add(torch.tensor([torch.inf, 0.0]), 4)
    assert "in epoch 2 at step 14: " in line(second, GOOD)
