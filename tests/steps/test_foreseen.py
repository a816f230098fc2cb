"""What later steps would refuse is refused before the first one."""

import pytest

from pfs_core.config.request import CompressRequest
from pfs_core.errors import UserError
from pfs_core.steps.preflight import check
from tests.data.folders import images, png, write
from tests.models.factories import FACTORIES


def request(**changes):
    values = {"model": "resnet20", "dataset": "digits", "budgets": ["macs=0.5"], **changes}
    return CompressRequest.parse(values, "request")


@pytest.fixture
def colours(tmp_path):
    """A dataset of which nothing is known before it is read."""
    (tmp_path / "data").mkdir()
    write(tmp_path / "data" / "train.parquet", [png(image) for image in images(4)], [0, 1, 0, 1])
    return str(tmp_path / "data")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (
            {"budgets": ["macs=0.05"], "extract_settings": {"channel_multiple": 16, "blocks": 1}},
            "macs=0.5998 or more",
        ),
        (
            {"budgets": ["params=0.3"], "extract_settings": {"floor": 0.9}},
            "params=0.3 .* or lower extract.floor$",
        ),
        ({"budgets": ["latency=0.01"]}, "budget latency=0.01 cannot be reached; .* so ask for latency=0.0"),
        ({"budgets": ["macs=0.5", "macs=9G"]}, "is over the dense network's"),
        ({"split_settings": {"image_size": 16}}, "split.image_size: digits is a set of small images .*image_size=None"),
        ({"recipe": "imagenet-resnet"}, "split.image_size: digits is a set of small images .*, or take a recipe that"),
        ({"latency_settings": {"runtimes": ["openvino"]}}, "latency.runtimes: openvino: not installed"),
        ({"extract_settings": {"runtime": "openvino"}}, "extract.runtime=openvino: not installed"),
        ({"budgets": ["latency=0.5"], "extract_settings": {"runtime": "openvino", "blocks": 1}}, "not installed"),
    ],
)
def test_what_no_cut_reaches_and_what_is_not_installed_is_known_first(monkeypatch, changes, says):
    monkeypatch.setattr("pfs_core.latency.runtimes.missing", lambda name: "not installed" * (name == "openvino"))
    with pytest.raises(UserError, match=says):
        check(request(**changes))


def test_a_runtime_that_is_not_used_need_not_be_there(monkeypatch):
    monkeypatch.setattr("pfs_core.latency.runtimes.missing", lambda name: "absent" if name == "openvino" else "")
    check(request(extract_settings={"runtime": "openvino", "blocks": 1}))
    check(request(latency_settings={"runtimes": ["openvino", "eager"]}))


def test_by_images_that_are_not_known_only_what_is_far_out_of_reach_is_refused(colours):
    near = {"dataset": colours, "extract_settings": {"channel_multiple": 16, "blocks": 1}}
    with pytest.raises(UserError, match="the smallest structure has some"):
        check(request(budgets=["macs=0.05"], **near))
    with pytest.raises(UserError, match=r"budget params=1000 .* of the params"):
        check(request(budgets=["params=1000"], **near))
    with pytest.raises(UserError, match="budget latency=0.05 .* of the macs"):
        check(request(budgets=["latency=0.05"], **near))
    with pytest.raises(UserError, match="some .*; ask for more, or lower extract.channel_multiple$"):
        check(request(budgets=["macs=0.05"], **near))
    with pytest.raises(UserError, match="some .*; ask for more$"):
        check(request(budgets=["macs=0.001"], dataset=colours))
    check(request(budgets=["macs=0.59"], **near))
    check(request(budgets=["macs=1000"], **near))  # what that is in images of their size is not known


def test_parameters_are_counted_for_as_few_classes_as_there_may_be(colours):
    smallest = {"model": "torchvision:resnet18", "dataset": colours}
    check(request(budgets=["params=222622"], **smallest))  # there are so few for 10 classes, and not for 1,000
    with pytest.raises(UserError, match="params=100000 cannot be reached"):
        check(request(budgets=["params=100000"], **smallest))


@pytest.mark.parametrize("channels", [1, 3])
def test_the_digits_are_foreseen_with_the_channels_that_they_are_read_with(channels, tmp_path, monkeypatch):
    (tmp_path / "rgb.py").write_text(FACTORIES)
    monkeypatch.syspath_prepend(tmp_path)
    asked = request(model="rgb:rgb", budgets=["macs=0.6"], split_settings={"channels": channels})
    if channels == 3:
        check(asked)
    else:
        with pytest.raises(UserError, match="1, 8, 8"):
            check(asked)
