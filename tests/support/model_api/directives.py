"""Replies that the prompt itself asks for, so that a real program can be led anywhere from its command line. Pure.

[[text WORDS…]]   says that                         [[think]]       thinks, then answers
[[bash COMMAND]]  runs it, then answers             [[multi COMMAND]]  two commands in one message
[[steps N]]       N commands, one after the other   [[loop]]        commands for ever
[[write PATH]]    writes a file                     [[agent]]       a sub-agent that runs a command
[[slow SECONDS]]  twenty words over that time       [[maxtok]]      is cut off at its limit
[[error STATUS]]  the API's error                   [[hang]]        begins to answer and falls silent
[[cut]]           begins to answer, then the connection is reset
[[plan TEXT]]     proposes that plan: by Claude Code's tool for it, else as its answer
"""

from __future__ import annotations

import re

from tests.support.model_api.asked import Asked
from tests.support.model_api.script import Call, Delegate, Failure, Reply, Say, Script, Shell, Think, Write

_DIRECTIVE = re.compile(r"\[\[(\w+)(?:\s+([^\]]*))?\]\]")
_PLANS = "ExitPlanMode"
_WORDS = " ".join(f"w{number}" for number in range(20))


def directives(otherwise: Script) -> Script:
    """The newest directive decides, also when text without one came later; `otherwise` if there is none."""

    def script(asked: Asked) -> Reply | Failure:
        for index in reversed(range(len(asked.items))):
            if asked.items[index].role == "user" and (found := _DIRECTIVE.findall(asked.items[index].text)):
                name, argument = found[-1]
                return _reply(name, argument.strip(), asked.rounds_after(index), asked.tools)
        return otherwise(asked)

    return script


def _reply(name: str, argument: str, step: int, tools: tuple[str, ...]) -> Reply | Failure:
    match name:
        case "text":
            return Reply(argument or "Hello from the stand-in.")
        case "think":
            return Reply(Think("Let me think about that."), "Thought about it.")
        case "slow":
            return Reply(_WORDS, every_s=float(argument or 5) / 20)
        case "maxtok":
            return Reply("A truncated answer", stop="max_tokens")
        case "error":
            return Failure(int(argument or 529))
        case "hang":
            return Reply(_WORDS, hang_after=5)
        case "cut":
            return Reply(_WORDS, cut_after=5)
        case "loop":
            return Reply(Shell(f"echo loop {step}"))
        case "steps" if step < int(argument or 3):
            return Reply(f"Step {step + 1}.", Shell(f"echo step {step + 1}"))
        case "bash" if step == 0:
            return Reply(Say("I will run it."), Shell(argument or "echo hello"))
        case "multi" if step == 0:
            return Reply(Think("Two commands."), Say("Running two."), Shell(argument or "echo one"), Shell("echo two"))
        case "agent" if step == 0:
            return Reply("Delegating.", Delegate("[[bash echo from-the-sub-agent]]"))
        case "plan" if step == 0:
            plan = argument or "1. Look. 2. Mend."
            return Reply(Call(_PLANS, {"plan": plan}) if _PLANS in tools else plan)
        case "write" if step == 0:
            return Reply(Write(argument or "out.txt", "hello\n"))
    return Reply("Done.")
