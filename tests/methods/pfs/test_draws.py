"""Gates of several draws of the weights: the mean of as many searches, sorted."""

import pyarrow.parquet as pq
import pytest
import torch

from pfs_core.config.recipes import recipe
from pfs_core.config.spec import Budget
from pfs_core.errors import UserError
from pfs_core.methods.gates_folder import load_gates
from pfs_core.methods.pfs.config import PfsConfig, describe
from pfs_core.methods.registry import METHODS, method_config
from pfs_core.methods.run import search
from pfs_core.steps.extraction import extract_structures
from pfs_core.training.checkpoints import SECONDS, Checkpoints
from tests.budgets import PAPERS_CUT

HALF = Budget(target=0.5)
ONE = PfsConfig(epochs=2, batch_size=256, precision="fp32")
TWO = ONE.updated({"draws": 2}, "search")


def rows_of(folder):
    return pq.read_table(folder / "history.parquet").to_pylist()


@pytest.fixture(scope="module")
def two(digits, narrow, tmp_path_factory):
    """A search of two draws, seed 3, and the rows that were recorded."""
    out, rows = tmp_path_factory.mktemp("draws") / "two", []
    search(narrow, digits, out, HALF, TWO, seed=3, record=rows.append)
    return out, rows


@pytest.fixture(scope="module")
def singles(digits, narrow, tmp_path_factory):
    """The searches of one draw that it should be the mean of: seeds 6 and 7."""
    folder = tmp_path_factory.mktemp("singles")
    for seed in (6, 7):
        search(narrow, digits, folder / str(seed), HALF, ONE, seed=seed)
    return [folder / "6", folder / "7"]


def test_the_gates_are_the_mean_of_sorted_searches(two, singles):
    (one, _), (other, _) = (load_gates(folder) for folder in singles)
    found, _ = load_gates(two[0])
    assert found.keys() == one.keys()
    for group, gates in found.items():
        falling = [scores[group].sort(descending=True).values for scores in (one, other)]
        assert torch.equal(gates, (falling[0] + falling[1]) / 2), group
        assert not torch.equal(gates, falling[0]), group


def test_the_history_is_that_of_each_draw_counted_on(two, singles):
    first, second = (rows_of(folder) for folder in singles)
    expected = [{"draw": 1, **row} for row in first]
    expected += [{"draw": 2, **row, "epoch": row["epoch"] + 2, "step": row["step"] + 12} for row in second]
    assert rows_of(two[0]) == two[1] == expected


def test_search_json_has_what_was_kept_of_each_draw(two, singles):
    infos = [load_gates(folder)[1] for folder in singles]
    gates, info = load_gates(two[0])
    assert (info.kept_epoch, info.kept_step) == (None, None)
    assert info.kept_epochs == (infos[0].kept_epoch, infos[1].kept_epoch + 2)
    assert info.kept_steps == (infos[0].kept_step, infos[1].kept_step + 12)
    assert info.steps == 24
    assert info.validation_accuracy == pytest.approx(sum(i.validation_accuracy for i in infos) / 2)
    assert info.nonzero == pytest.approx(float((torch.cat(list(gates.values())) > 0).double().mean()))
    for key in ("forward_images", "backward_images"):
        assert getattr(info.cost["search"], key) == sum(getattr(i.cost["search"], key) for i in infos)
    kept = ", ".join(map(str, info.kept_epochs))
    assert describe(info, two[1][-1]) == (
        f"2 epochs on each of 2 draws of random weights, target ratio 0.5; gates of epochs {kept} sorted and averaged"
    )


def test_the_mean_is_cut_to_the_budget(two, tmp_path):
    found = extract_structures(two[0], tmp_path / "structures", HALF, PAPERS_CUT)["pruned"]
    assert 0.4 < found.budget.achieved <= 0.5


def test_one_draw_is_the_search_as_it_is(singles, digits, narrow, tmp_path):
    search(narrow, digits, tmp_path / "one", HALF, ONE.updated({"draws": 1}, "search"), seed=6)
    for name in ("gates.safetensors", "history.parquet"):
        assert (tmp_path / "one" / name).read_bytes() == (singles[0] / name).read_bytes()


@pytest.mark.parametrize(
    "stop",
    [
        pytest.param(10**9 + 4, marks=pytest.mark.slow),
        10**9 + 12,  # the last step of the first draw
        pytest.param(2 * 10**9 + 1, marks=pytest.mark.slow),
        2 * 10**9 + 7,
    ],
)
def test_a_search_goes_on_in_the_draw_where_it_was_stopped(two, digits, narrow, tmp_path, monkeypatch, stop):
    monkeypatch.setenv(SECONDS, "0")
    save, first, second = Checkpoints.save, [], []

    def stopping(self, number, state):
        save(self, number, state)
        if number == stop:
            self._writing.result()
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "save", stopping)
        with pytest.raises(KeyboardInterrupt):
            search(narrow, digits, tmp_path / "out", HALF, TWO, seed=3, record=first.append)
    assert not (tmp_path / "out").exists()
    search(narrow, digits, tmp_path / "out", HALF, TWO, seed=3, record=second.append)
    for name in ("gates.safetensors", "history.parquet"):
        assert (tmp_path / "out" / name).read_bytes() == (two[0] / name).read_bytes()
    assert second == two[1]
    assert first == two[1][: len(first)]


def test_log_lines_name_the_draw(digits, narrow, tmp_path, capsys):
    search(narrow, digits, tmp_path / "out", HALF, TWO.updated({"epochs": 1}, "search"))
    said = capsys.readouterr().out
    assert "search draw 1/2 epoch 1/1" in said
    assert "search draw 2/2 takes the gates of step 6" in said


@pytest.mark.parametrize("method", [method for method in METHODS if method != "pfs"])
def test_other_methods_have_no_draws(method):
    with pytest.raises(UserError, match=r"search\.draws"):
        method_config(recipe("demo"), {"method": method, "draws": 2})


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"draws": 0}, "search.draws: "),
        ({"draws": 2, "pretrain_epochs": 1}, "search.draws: must be 1 where pretrain_epochs trains the weights"),
    ],
)
def test_what_cannot_be_is_said_in_a_line(settings, said):
    with pytest.raises(UserError) as refused:
        method_config(recipe("demo"), settings)
    assert said in str(refused.value)
    assert len(str(refused.value).splitlines()) == 1
