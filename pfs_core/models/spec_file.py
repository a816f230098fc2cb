"""The argument MODEL of the command line: a network's name, or a file that specifies a network."""

from pathlib import Path
from typing import Any

from pfs_core.config.spec import ModelSpec
from pfs_core.storage.artifacts import read_json, read_yaml

SUFFIXES = (".json", ".yaml", ".yml")


def model_fields(model: str) -> dict[str, Any]:
    """Return the fields of :class:`ModelSpec` that ``model`` specifies: those in a spec file, or the name alone.

    Raises:
        UserError: the file does not exist, is not JSON or YAML, or has anything but such fields in it.

    >>> model_fields("resnet20")
    {'name': 'resnet20'}
    """
    path = Path(model)
    if path.suffix not in SUFFIXES:
        return {"name": model}
    values = read_json(path) if path.suffix == ".json" else read_yaml(path)
    return ModelSpec.parse(values, model).model_dump(mode="json", exclude_unset=True)
