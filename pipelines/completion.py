"""What a shell completes of a ``pfs`` command; in bash, ``eval "$(register-python-argcomplete pfs)"`` turns it on."""

import argparse
from collections.abc import Callable, Iterable, Iterator

COMPLETING = "_ARGCOMPLETE"
"""The environment variable with which a shell asks for completions."""


def complete(parser: argparse.ArgumentParser) -> None:
    """Print the completions that the shell asks for, and end the process."""
    import argcomplete
    from argcomplete.completers import DirectoriesCompleter

    names: dict[str, Callable[[], Iterable[str]]] = {
        "model": _models,
        "method": _methods,
        "recipe": _recipes,
        "settings": _settings,
        "stage": lambda: [name.partition(".")[0] for name in _settings()],
    }
    for action in _actions(parser):
        if action.dest in names:
            words = sorted(set(names[action.dest]()))
            action.completer = lambda words=words, **asked: words  # type: ignore[attr-defined]
        elif action.metavar in ("DIR", "FOLDER", "RUNDIR", "OUT"):
            action.completer = DirectoriesCompleter()  # type: ignore[attr-defined]
    argcomplete.autocomplete(parser, append_space=False)


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """The arguments of a parser and of all its subcommands."""
    for action in parser._actions:
        yield action
        if isinstance(action, argparse._SubParsersAction):
            for sub in set(action.choices.values()):
                yield from _actions(sub)


def _models() -> list[str]:
    from pfs_core.models.zoo import MODELS

    return list(MODELS)


def _methods() -> list[str]:
    from pfs_core.methods.registry import METHODS

    return list(METHODS)


def _recipes() -> list[str]:
    from pfs_core.config.recipes import RECIPES

    return list(RECIPES)


def _settings() -> list[str]:
    from pfs_pipelines.settings_commands import settings_of

    return [f"{row['setting']}=" for row in settings_of("", "standard")]
