"""Lists as spreadsheets and contests leave them: blank rows, a line for Excel, a column per class, other formats."""

import pytest

from pfs_core.data.open import open_source
from pfs_core.errors import UserError
from tests.data.test_lists import CLASSES, NAMES, classes, csv, flat

ROWS = list(zip(NAMES, CLASSES, strict=True))


@pytest.mark.parametrize("blank", [",\n", ",\n,\n\n", " , \n"])
def test_rows_in_which_nothing_is_written_are_passed_over(tmp_path, blank):
    flat(tmp_path)
    csv(tmp_path / "labels.csv", "id,label", ROWS)
    with (tmp_path / "labels.csv").open("a") as file:
        file.write(blank)
    assert classes(open_source(str(tmp_path))) == dict(ROWS)


def test_the_line_that_tells_excel_the_delimiter_is_read(tmp_path):
    flat(tmp_path)
    text = "\r\n".join(["sep=;", "id;label", *(f"{name};{label}" for name, label in ROWS)])
    (tmp_path / "labels.csv").write_text(text)
    assert classes(open_source(str(tmp_path))) == dict(ROWS)


@pytest.mark.parametrize(("no", "yes"), [("0", "1"), ("0.0", "1.0")])
def test_a_column_for_each_class_is_called_so(tmp_path, no, yes):
    """To name one of them as the labels would train a network to tell one class from all others."""
    flat(tmp_path)
    csv(tmp_path / "labels.csv", "id,cat,dog", [(n, *((yes, no) if c == "cat" else (no, yes))) for n, c in ROWS])
    said = r"labels.csv has a column of 0 and 1 for each class \(cat, dog\); write one column label with their names$"
    with pytest.raises(UserError, match=said):
        open_source(str(tmp_path))


@pytest.mark.parametrize("name", ["labels.json", "train.txt", "labels.csv.gz", "image_list.ndjson"])
def test_a_list_in_a_form_that_is_not_read_is_named_in_the_refusal(tmp_path, name):
    flat(tmp_path)
    (tmp_path / "README.txt").write_text("pets")
    (tmp_path / name).write_text("")
    with pytest.raises(UserError, match="has a single class, images/") as error:
        open_source(str(tmp_path))
    assert str(error.value).endswith(f"; {name} is not read, as lists are read as .csv, .tsv, .jsonl or .parquet")
