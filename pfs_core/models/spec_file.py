"""A MODEL of the command line: a network's name, or a file that specifies one."""

from pathlib import Path
from typing import Any

import yaml

from pfs_core.errors import UserError
from pfs_core.files import read_json
from pfs_core.spec import ModelSpec

SUFFIXES = (".json", ".yaml", ".yml")


def model_fields(model: str) -> dict[str, Any]:
    """The fields of :class:`ModelSpec` that ``model`` gives: all that a spec file holds, or the name alone.

    Raises:
        UserError: the file is not there, is not JSON or YAML, or holds anything else than such fields.
    """
    path = Path(model)
    if path.suffix not in SUFFIXES:
        return {"name": model}
    values = read_json(path) if path.suffix == ".json" else _read_yaml(path)
    return ModelSpec.parse(values, model).model_dump(mode="json", exclude_unset=True)


def _read_yaml(path: Path) -> Any:
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as e:
        raise UserError(f"{path} cannot be read: {e.strerror}") from None
    except (UnicodeDecodeError, yaml.YAMLError) as e:
        raise UserError(f"{path} is not YAML: {' '.join(str(e).split())}") from None
