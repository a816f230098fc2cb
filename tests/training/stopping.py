"""Stops a step at a checkpoint."""

from pfs_core.training.checkpoints import Checkpoints


class Stopped(BaseException):
    """As a process that is killed."""


def stop_at(monkeypatch, step):
    """Stop right after the checkpoint of a step has been written."""
    save = Checkpoints.save

    def stopping(self, number, state):
        save(self, number, state)
        if number == step:
            self._writing.result()
            raise Stopped

    monkeypatch.setattr(Checkpoints, "save", stopping)
