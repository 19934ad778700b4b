"""What the stack's gateway is told, and nobody else: the operator's `[gateway]`, and the providers' keys.

Keys that an operator has for the providers' own programs (`ANTHROPIC_API_KEY` and the like) are taken as well. They are in the
environment, or in the settings directory, of the gateway alone: no other role and no session is told them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sandreel_core.errors import Misconfigured

PREFIX = "SANDREEL_GATEWAY_"
# Of the providers' own programs, and ours.
PROVIDER_KEYS: Mapping[str, str] = {
    "ANTHROPIC_API_KEY": "anthropic_api_key",
    "OPENAI_API_KEY": "openai_api_key",
    "GEMINI_API_KEY": "gemini_api_key",
}

# Where sessions find it, and where its own files lie, is the stack's to say.
_OURS = ("listen", "networks", "port", "state_directory")


def is_gateways(variable: str) -> bool:
    """Whether only the gateway may see it."""
    return variable.startswith(PREFIX) or variable in PROVIDER_KEYS


@dataclass(frozen=True, slots=True)
class GatewayWiring:
    """`table`: the operator's `[gateway]`; `environ`: the variables that are the gateway's."""

    table: Mapping[str, Any]
    environ: Mapping[str, str]

    @classmethod
    def read(cls, environ: Mapping[str, str], table: Mapping[str, Any]) -> GatewayWiring:
        """A provider's own variable counts for less than what was set for the gateway. Raises Misconfigured."""
        for key in _OURS:
            if table.get(key) or environ.get(PREFIX + key.upper(), "").strip():
                raise Misconfigured(
                    f"[gateway] {key} is for a gateway that is run by itself: `sandreel up` says it to its own; leave it out"
                )
        own = {name: value for name, value in environ.items() if name.startswith(PREFIX) and value.strip()}
        for name, key in PROVIDER_KEYS.items():
            set_already = any(table.get(each) for each in (key, f"{key}_file")) or any(
                f"{PREFIX}{key.upper()}{end}" in own for end in ("", "_FILE")
            )
            if environ.get(name, "").strip() and not set_already:
                own[PREFIX + key.upper()] = environ[name].strip()
        return cls(table, own)

    @property
    def wanted(self) -> bool:
        """Whether any provider has a key: without one there is nothing to be a gateway to."""
        return any(
            self.table.get(f"{key}{end}") or self.environ.get(f"{PREFIX}{key.upper()}{end.upper()}")
            for key in PROVIDER_KEYS.values()
            for end in ("", "_file")
        )

    def contained(self) -> tuple[dict[str, Any], dict[str, str], dict[str, str]]:
        """(its table, its variables, files) for a container that sees nothing of the host but one directory: what the
        settings name is read now, and put there under names of its own. Raises Misconfigured."""
        table, environ = dict(self.table), dict(self.environ)
        files: dict[str, str] = {}
        for key in PROVIDER_KEYS.values():
            variable = PREFIX + key.upper()
            text = environ.pop(variable, "") or str(table.pop(key, ""))
            path = environ.pop(f"{variable}_FILE", "") or str(table.pop(f"{key}_file", ""))
            if text or path:
                files[f"{key}.secret"] = text or _read(path, key)
                table[f"{key}_file"] = f"{key}.secret"
        for key in ("orgs_file", "prices_file"):
            path = environ.pop(PREFIX + key.upper(), "") or str(table.pop(key, ""))
            if path:
                files[f"{key}.toml"] = _read(path, key)
                table[key] = f"{key}.toml"
        return table, environ, files


def _read(path: str, key: str) -> str:
    try:
        return Path(path).read_text()
    except (OSError, UnicodeDecodeError) as error:
        why = (error.strerror or "error").lower() if isinstance(error, OSError) else "it is not UTF-8"
        raise Misconfigured(f"[gateway] {key} names {path}, which cannot be read: {why}") from error
