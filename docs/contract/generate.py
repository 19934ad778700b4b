"""Writes the generated documents beside this file: `python docs/contract/generate.py`."""

from pathlib import Path

from sandreel_core import __version__
from sandreel_core.contract.document import documents

if __name__ == "__main__":
    for name, text in documents(__version__).items():
        (Path(__file__).parent / name).write_text(text)
