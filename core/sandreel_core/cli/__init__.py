"""The command line. A command is a module with `add(subparsers)`, which sets `run`, a function or coroutine
function from the parsed arguments to the exit code; what is heavy to import is imported when it runs.

The law of this folder: what an operator can mend is one line on stderr and exit code 2, never a traceback;
stdout carries the job's own bytes, or one JSON object a line, and nothing else.
"""

from sandreel_core.cli.entry import main

__all__ = ["main"]
