"""Commands one of whose verbs may be left out: `sandreel turn TEXT` is `sandreel turn start TEXT`."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from typing import Any

from sandreel_core.cli.completion import ASKED


class Commands(argparse._SubParsersAction):  # type: ignore[type-arg]
    """For `add_subparsers`. The verb that may be left out is what `usual_verb` was told of a command's parser."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        given = list(values or [])
        command = self._name_parser_map.get(given[0]) if given else None
        usual = command.get_default(_USUAL) if command is not None else None
        if usual is not None and not self._has_verb(command, given[1:]):
            given.insert(1, usual)
        super().__call__(parser, namespace, given, option_string)

    @staticmethod
    def _has_verb(command: argparse.ArgumentParser | None, rest: list[Any]) -> bool:
        if not rest:
            return ASKED in os.environ  # tab behind the command offers its verbs
        actions = command._actions if command is not None else []
        return any(isinstance(each, argparse._SubParsersAction) and rest[0] in each.choices for each in actions)


_USUAL = "usual_verb"


def usual_verb(parser: argparse.ArgumentParser, verb: str) -> None:
    """What is meant where no verb stands behind this command."""
    parser.set_defaults(**{_USUAL: verb})
