"""What a provider's reply counted, in the parts that cost differently: tokens, and searches of the web that it has run. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from sandreel_core.contract.turn import Usage


@dataclass(frozen=True, slots=True)
class Tokens:
    """`input`: those that no cache had. `cache_write`: written for the provider's ordinary time, `cache_write_1h` for an
    hour. `output`: all that came out, thoughts among them. `searches`: what they have found is in `input`."""

    input: int = 0
    output: int = 0
    cache_read: int = 0
    cache_write: int = 0
    cache_write_1h: int = 0
    searches: int = 0

    @property
    def all_input(self) -> int:
        return self.input + self.cache_read + self.cache_write + self.cache_write_1h

    def usage(self, cost_micro_usd: int | None) -> Usage:
        """As the contract counts: input includes what was read from and written to a cache."""
        return Usage(
            input_tokens=self.all_input,
            output_tokens=self.output,
            cache_read_input_tokens=self.cache_read,
            cache_creation_input_tokens=self.cache_write + self.cache_write_1h,
            cost_micro_usd=cost_micro_usd,
        )
