"""A stand-in of the model APIs (Anthropic Messages, OpenAI Responses and Chat Completions, Gemini), for tests and demos.

In a test:

    async with ModelApi(steps(Reply(Shell("pytest -q")), Reply(Say("It passes.")))) as api:
        ...  # api.url; api.seen

From a terminal: `python -m tests.support.model_api --port 18080`, whose replies follow the directives of the prompt
(`directives.py`), or without one a short repair of a failing test (`scenario.py`).
"""

from tests.support.model_api.script import (
    Call,
    Delegate,
    Edit,
    Failure,
    Read,
    Reply,
    Say,
    Script,
    Shell,
    Think,
    Tokens,
    Write,
    by_prompt,
    steps,
)
from tests.support.model_api.server import ModelApi, Seen

__all__ = [
    "Call",
    "Delegate",
    "Edit",
    "Failure",
    "ModelApi",
    "Read",
    "Reply",
    "Say",
    "Script",
    "Seen",
    "Shell",
    "Think",
    "Tokens",
    "Write",
    "by_prompt",
    "steps",
]
