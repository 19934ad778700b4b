"""Text that matches a regular expression, in bounded time whatever the expression (docs/decisions/0012). Pure."""

from __future__ import annotations

from collections.abc import Callable

from sandreel_core.errors import Malformed, Misconfigured

# RE2 is linear in the line; what it multiplies with is the size of the compiled expression. With this limit (in its
# instructions) the worst that was found took 0.3 s for a line of 64 KiB; what people type has a few dozen.
MAX_PROGRAM = 1000
MAX_PATTERN_CHARACTERS = 1000


def matcher(pattern: str, *, ignore_case: bool = False, of: str = "--grep") -> Callable[[bytes], bool]:
    """Whether UTF-8 matches somewhere; `of` is what the person calls it. Raises Malformed for what is no expression of
    RE2 or too large, Misconfigured when RE2 is not installed."""
    try:
        import re2
    except ImportError as error:
        raise Misconfigured(f"{of} needs RE2: pip install 'sandreel[cli]'") from error
    if len(pattern) > MAX_PATTERN_CHARACTERS:
        raise Malformed(f"{of} has {len(pattern)} characters; the limit is {MAX_PATTERN_CHARACTERS}")
    options = re2.Options()
    options.log_errors = False
    options.case_sensitive = not ignore_case
    try:
        compiled = re2.compile(pattern.encode("utf-8", "surrogateescape"), options)
    except re2.error as error:
        said = error.args[0] if error.args else error
        text = said.decode("utf-8", "replace") if isinstance(said, bytes) else str(said)
        raise Malformed(f"{of} '{pattern[:80]}' is no expression of RE2: {text}") from error
    if compiled.programsize > MAX_PROGRAM:
        raise Malformed(
            f"{of} '{pattern[:80]}' is too large: it compiles to {compiled.programsize} instructions, the limit is {MAX_PROGRAM}"
        )
    search = compiled.search
    return lambda text: search(text) is not None
