"""What the stand-in does when nobody says what: it mends a failing test, so that a demo has something to show. Pure."""

from __future__ import annotations

from tests.support.model_api.script import Edit, Read, Reply, Say, Script, Shell, Think, Tokens, by_prompt, steps

TEST = "python3 test_prices.py"
# The little project is made where it is missing, so that an empty session will do.
_PROJECT = """\
test -e prices.py || printf '%s\\n' 'def total(prices, discount=0):' '    return sum(prices) + discount' > prices.py
test -e test_prices.py || printf '%s\\n' 'from prices import total' \
  'assert total([3, 4]) == 7' 'assert total([3, 4], discount=2) == 5, total([3, 4], discount=2)' 'print("2 passed")' > test_prices.py
"""

MEND: tuple[Reply, ...] = (
    Reply(Think("First see what fails."), Say("I'll run the test first."), Shell(_PROJECT + TEST)),
    Reply(
        Say("The discount is added instead of taken off. Let me look at it."),
        Read("prices.py"),
        tokens=Tokens(output=60),
    ),
    Reply(
        Edit("prices.py", "return sum(prices) + discount", "return sum(prices) - discount"),
        tokens=Tokens(cache_read=900, output=90),
    ),
    Reply(Say("And again:"), Shell(TEST), tokens=Tokens(cache_read=1200, output=30)),
    Reply(
        "The test passes now: `total` added the discount where it had to take it off. I changed one line of `prices.py`.",
        tokens=Tokens(cache_read=1400, output=70),
    ),
)


def scenario(every_s: float = 0) -> Script:
    """The repair for a prompt that says "fix" or "test"; a word of greeting for any other."""
    first, *others = MEND
    there = Reply(*first.blocks[:-1], Shell(TEST), tokens=first.tokens)  # whoever names the test has it
    paced, shorter = (
        [Reply(*reply.blocks, tokens=reply.tokens, every_s=every_s) for reply in (beginning, *others)]
        for beginning in (first, there)
    )
    greeting = "Hello! I am a stand-in of a model: ask me to fix the failing test."
    return by_prompt({"test_prices.py": shorter, "Fix": paced, "fix": paced, "test": paced}, steps(greeting))
