"""A stand-in of Claude Code that does what the prompt says, for measurements. Standard library alone; runs in a session.

say                 one text, and a result
tick RATE COUNT     so many texts at so many a second, each saying when it was written, then a result
fill LINES          so many lines as fast as they are taken, fifty pieces of text to a whole one, then one a tenth of a second
flood COUNT         so many texts as fast as they are taken, then a result
hold                one text, and nothing more until its input ends
"""

import json
import sys
import time

_PIECES = 50  # to a text, as a model's stream has them


def out(**line: object) -> None:
    sys.stdout.write(json.dumps(line) + "\n")


class Program:
    def __init__(self) -> None:
        self.messages = 0

    def text(self, text: str) -> None:
        self.messages += 1
        content = [{"type": "text", "text": text}]
        message = {"id": f"m{self.messages}", "role": "assistant", "model": "bench", "content": content}
        out(type="assistant", message=message, parent_tool_use_id=None, session_id="bench")
        sys.stdout.flush()

    def piece(self, text: str) -> None:
        event = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}}
        out(type="stream_event", event=event, parent_tool_use_id=None, session_id="bench")

    def ticks(self, rate: float, count: int) -> None:
        due = time.perf_counter()
        for _ in range(count):
            due += 1 / rate
            time.sleep(max(0.0, due - time.perf_counter()))
            self.text(f"{time.time():.6f}")

    def flood(self, count: int) -> None:
        for number in range(count):
            self.text(f"{number:099d}")

    def run(self, prompt: str) -> None:
        out(type="system", subtype="init", session_id="bench", model="bench", tools=[], permissionMode="default")
        verb, *words = prompt.split()
        if verb == "tick":
            self.ticks(float(words[0]), int(words[1]))
        elif verb == "flood":
            self.flood(int(words[0]))
        elif verb == "fill":
            for number in range(int(words[0])):
                if number % _PIECES == _PIECES - 1:
                    self.text("x" * 20 * (_PIECES - 1))
                else:
                    self.piece("x" * 20)
            self.text("filled")
            self.ticks(10, 36_000)
        else:
            self.text("here")
            if verb == "hold":
                sys.stdin.read()
        used = {"bench": {"inputTokens": 1, "outputTokens": 1}}
        out(type="result", subtype="success", is_error=False, terminal_reason="completed", result="done", session_id="bench", duration_ms=1, model_usage_since_last_result=used)  # fmt: skip
        sys.stdout.flush()


if __name__ == "__main__":
    Program().run(json.loads(sys.stdin.readline())["message"]["content"])
