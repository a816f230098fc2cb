"""JSON and YAML as whoever wrote them means them: a name that is there twice, or NaN for a number, is an error."""

import json
from collections import Counter
from collections.abc import Hashable, Sequence
from functools import cache
from typing import Any, NoReturn

_DEEP = "it is nested too deeply"
_DEEPEST = 100
"""The most levels of YAML."""


def json_value(text: str | bytes) -> Any:
    """Return the value that a JSON text stands for.

    Raises:
        ValueError: it is not JSON, or not UTF-8; the message is one line.

    >>> json_value('{"seed": 1, "seed": 2}')
    Traceback (most recent call last):
    ValueError: 'seed' is there twice
    """
    decoded = text.decode() if isinstance(text, bytes) else text
    try:
        return json.loads(decoded.removeprefix("\ufeff"), object_pairs_hook=_object, parse_constant=_no_number)
    except RecursionError:
        raise ValueError(_DEEP) from None


def yaml_value(text: str | bytes) -> Any:
    """Return the value that a YAML text stands for, which is data alone.

    Raises:
        ValueError: it is not YAML, or not UTF-8; the message is one line.
    """
    import yaml

    try:
        depth = 0
        for event in yaml.parse(text, yaml.SafeLoader):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > _DEEPEST:  # where PyYAML is libyaml's, its recursion would end the process
                raise ValueError(_DEEP)
        return yaml.load(text, _loader())  # noqa: S506 - a SafeLoader
    except yaml.YAMLError as e:
        raise ValueError(" ".join(str(e).split())) from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    _check_once([name for name, _ in pairs])
    return dict(pairs)


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number")


def _check_once(names: Sequence[Hashable]) -> None:
    """Raise ValueError if one of the names of an object is there twice."""
    if len(set(names)) < len(names):
        (name, _), *_ = Counter(names).most_common(1)
        raise ValueError(f"{name!r} is there twice")


@cache
def _loader() -> Any:
    """Return a SafeLoader of YAML that refuses names that are there twice; importing YAML takes a while."""
    import yaml

    class Loader(yaml.SafeLoader):
        """Data alone, and every name once."""

        def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
            """Return an object; a ``<<`` is no name."""
            merged = "tag:yaml.org,2002:merge"
            if isinstance(node, yaml.MappingNode):
                names = [self.construct_object(name, deep=True) for name, _ in node.value if name.tag != merged]
                _check_once([name for name in names if isinstance(name, Hashable)])
            return super().construct_mapping(node, deep)

    return Loader
