"""What becomes of a value inside a sandbox, as data: a new integration is one more line of `RECIPES`. Pure.

A program gets a value in one of three ways: git asks for it (host and user name), a variable holds it, or a variable holds
the path of a file with it. An operator's options stand above what a recipe says.
"""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct

from sandreel_core.environment import is_denied
from sandreel_core.errors import Malformed

_COMMON = ("variable", "host", "username", "scheme")


class Recipe(Struct, frozen=True, kw_only=True):
    """What a kind of credential is for.

    variables      under which programs look for the value; `{SLUG}` is the credential's name in capitals
    host           of git, with a port where it is not the usual one; empty: git never gets it
    username       what git sends beside it
    scheme         git gets it for nothing else
    file_variable  holds the path of a file with the value, whose name is `file_name`
    mints          the value is not handed out: a short-lived token is made with it (`github_app.py`)
    options        what `--set` takes beside the common ones; of those in `required`, none may be missing
    """

    what: str
    variables: tuple[str, ...] = ()
    host: str = ""
    username: str = ""
    scheme: str = "https"
    file_variable: str = ""
    file_name: str = ""
    mints: bool = False
    options: tuple[str, ...] = ()
    required: tuple[str, ...] = ()

    @property
    def takes(self) -> tuple[str, ...]:
        """Every option there is."""
        return (*_COMMON, *self.options, *(name for name in self.required if name not in self.options))


_GITHUB_VARIABLES = ("GH_TOKEN", "GITHUB_TOKEN")

RECIPES: dict[str, Recipe] = {
    "generic": Recipe(what="one value in one variable", variables=("{SLUG}_TOKEN",)),
    "github": Recipe(
        what="a personal or fine-grained token; a copy of it outlives its revocation here",
        variables=_GITHUB_VARIABLES,
        host="github.com",
        username="x-access-token",
    ),
    "github-app": Recipe(
        what="an app's private key: every lease is a token of its own that lives for an hour at most, and ends with the lease",
        variables=_GITHUB_VARIABLES,
        host="github.com",
        username="x-access-token",
        mints=True,
        options=("api", "repositories", "permissions"),
        required=("app_id", "installation_id"),
    ),
    "gitlab": Recipe(what="a token of GitLab", variables=("GITLAB_TOKEN",), host="gitlab.com", username="oauth2"),
    "git": Recipe(what="a password or token of any git server", username="git", required=("host",)),
    "npmrc": Recipe(what="an .npmrc", file_variable="NPM_CONFIG_USERCONFIG", file_name=".npmrc"),
    "kubeconfig": Recipe(what="a kubeconfig", file_variable="KUBECONFIG", file_name="config"),
    "file": Recipe(what="any file", file_name="credential", required=("variable",)),
}


class Use(Struct, frozen=True, kw_only=True):
    """A recipe with an entry's options: what a sandbox is told."""

    variables: tuple[str, ...] = ()
    host: str = ""
    username: str = ""
    scheme: str = "https"
    file_variable: str = ""
    file_name: str = ""
    mints: bool = False

    def is_for(self, scheme: str, host: str) -> bool:
        """Whether git may have it there."""
        return bool(self.host) and (scheme, host.lower()) == (self.scheme, self.host.lower())


def default_recipe(slug: str) -> str:
    """What a credential of that name most likely is."""
    return slug if slug in RECIPES else "generic"


def check(recipe: str, options: Mapping[str, str]) -> None:
    """Raises Malformed, which names the option and what it may be."""
    known = RECIPES.get(recipe)
    if known is None:
        raise Malformed(f"there is no recipe {recipe[:64]!r}: {', '.join(RECIPES)}")
    for name in options:
        if name not in known.takes:
            raise Malformed(f"recipe {recipe} takes no option {name[:64]!r}: {', '.join(known.takes)}")
    for name in known.required:
        if not options.get(name):
            raise Malformed(f"recipe {recipe} needs the option {name}: give --set {name}=…")
    variable = options.get("variable", "")
    if variable and (not variable.replace("_", "a").isalnum() or variable[0].isdigit() or is_denied(variable)):
        raise Malformed(f"variable {variable[:64]!r} is not a name that may be set")
    if options.get("scheme", "https") not in ("http", "https"):
        raise Malformed(f"scheme {options['scheme'][:20]!r} is neither https nor http")
    if not options.get("api", "https://").startswith(("https://", "http://")):
        raise Malformed(f"api {options['api'][:40]!r} is no address: give https://HOST/…")
    for name, value in options.items():
        if not value.isprintable():
            raise Malformed(f"{name} {value[:40]!r} holds characters that cannot be printed")


def use_of(recipe: str, options: Mapping[str, str], slug: str) -> Use:
    """What a sandbox is told. Raises Malformed for a recipe that this version does not know."""
    known = RECIPES.get(recipe)
    if known is None:
        raise Malformed(f"the credential is of the recipe {recipe[:64]!r}, which this version does not know")
    variable = options.get("variable", "")
    variables = tuple(name.replace("{SLUG}", slug.replace("-", "_").upper()) for name in known.variables)
    of_file = bool(known.file_variable or known.file_name)
    return Use(
        variables=() if of_file else (variable,) if variable else variables,
        host=options.get("host", known.host),
        username=options.get("username", known.username),
        scheme=options.get("scheme", known.scheme),
        file_variable=(variable or known.file_variable) if of_file else "",
        file_name=known.file_name,
        mints=known.mints,
    )
