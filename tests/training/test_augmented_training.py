"""What changes the images, the labels and the loss of a training reaches it, in every step anew."""

import torch

from pfs_core.config.stages import RetrainConfig
from pfs_core.training.fit import fit, training_images
from pfs_core.training.mixing import Mixing
from tests.training.factories import separate

SETTINGS = [
    {},
    {"augment": "randaugment"},
    {"augment": "trivialaugment"},
    {"random_erasing": 0.5},
    {"mixup": 0.2},
    {"cutmix": 1.0},
    {"class_weights": "balanced"},
    {"balanced_sampling": True},
]


def config(**changes):
    return RetrainConfig(epochs=2, batch_size=512, precision="fp32", lr=0.01, scratch_b=False, **changes)


def losses(data, **changes):
    torch.manual_seed(0)
    fitted = fit(separate(), "training", data, config(**changes), 2, 0, lambda row: None)
    return tuple(row["loss"] for row in fitted.history)


def test_every_setting_changes_the_training_and_the_seed_repeats_it(digits_data):
    found = [losses(digits_data, **settings) for settings in SETTINGS]
    assert len(set(found)) == len(SETTINGS)
    assert found == [losses(digits_data, **settings) for settings in SETTINGS]


def test_every_step_mixes_anew(digits_data, monkeypatch):
    keys, mix = [], Mixing.__call__

    def noted(self, images, labels, *key):
        keys.append(key)
        return mix(self, images, labels, *key)

    monkeypatch.setattr(Mixing, "__call__", noted)
    losses(digits_data, mixup=0.2)
    steps = 2 * training_images(digits_data, config()).steps(512)
    assert keys == [(0, step, 0) for step in range(steps)]


def test_the_search_and_the_validation_see_no_such_images(digits_data):
    for part in ("train", "validation", "test"):
        images = digits_data.part(part)
        assert (images.augment, images.balanced) == (None, False)
