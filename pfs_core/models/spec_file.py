"""A MODEL of the command line: a network's name, or a file that specifies one."""

from pathlib import Path
from typing import Any

from pfs_core.config.spec import ModelSpec
from pfs_core.storage.artifacts import read_json, read_yaml

SUFFIXES = (".json", ".yaml", ".yml")


def model_fields(model: str) -> dict[str, Any]:
    """The fields of :class:`ModelSpec` that ``model`` gives: all that a spec file holds, or the name alone.

    Raises:
        UserError: the file is not there, is not JSON or YAML, or holds anything else than such fields.
    """
    path = Path(model)
    if path.suffix not in SUFFIXES:
        return {"name": model}
    values = read_json(path) if path.suffix == ".json" else read_yaml(path)
    return ModelSpec.parse(values, model).model_dump(mode="json", exclude_unset=True)
