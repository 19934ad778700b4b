"""Writes the golden file of every message that has none yet; never touches one that is there."""

from pathlib import Path

import msgspec

from sandreel_core.contract import codec
from tests.support import samples

if __name__ == "__main__":
    for name, envelope in samples.ALL.items():
        path = Path(__file__).parent / "golden" / f"{name}.json"
        if not path.exists():
            path.write_bytes(msgspec.json.format(codec.encode(envelope), indent=1) + b"\n")
