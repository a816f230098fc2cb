"""The model card says what the folders of the run say."""

import dataclasses

from pfs_core.registry.request import PREFIX, Request
from pfs_core.report.card import FILES, model_card, model_files, version_tags


def test_the_card_has_what_a_user_needs(results):
    card = model_card(results, "pfs-resnet20")
    pruned = results.row("pruned")
    low, high = pruned.test_accuracy_interval
    for text in (
        "macs=0.5",
        results.split.fingerprint,
        f"{pruned.macs:,}",
        f"{pruned.params:,}",
        f"{pruned.test_accuracy:.2%} [{low:.2%}, {high:.2%}]",
        f"{pruned.latency_ratio:.3f}",
        "[N, 1, 8, 8], pixels in 0-255",
        "0, 1, 2, 3, 4, 5, 6, 7, 8, 9.",
        'load_model("models:/pfs-resnet20@newest")',
        f"mean [{results.split.mean[0]:.6g}] and the std [{results.split.std[0]:.6g}]",
    ):
        assert text in card, text


def test_a_version_that_a_run_has_registered_may_ask_to_be_compressed(results):
    tags = {f"{PREFIX}{name}": value for name, value in version_tags(results).items()}
    assert Request.of_tags({**tags, "pfs.model": "resnet20"}, "pfs-resnet20/1").budget == "macs=0.5"


def test_a_thousand_classes_fit_in_mlflows_description(results):
    names = [f"class {i}" for i in range(1000)]
    many = dataclasses.replace(results, split=results.split.model_copy(update={"class_names": names}))
    card = model_card(many, "pfs-resnet50")
    assert "class 19, ... (`metrics.json` has all)" in card
    assert "class 20" not in card
    assert len(card) < 5000


def test_the_files_of_the_card_exist(results):
    files = model_files(results)
    assert [path.name for path in files] == [name for name in FILES if (results.model_dir / name).exists()]
    assert {"model.safetensors", "structure.json", "metrics.json"} <= {path.name for path in files}
