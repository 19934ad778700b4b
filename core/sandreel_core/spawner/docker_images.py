"""Which of some images a session is made of: the first that the engine has."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import NamedTuple

from sandreel_core.errors import NotFound, Refused
from sandreel_core.spawner.docker import Engine


class Image(NamedTuple):
    """`id` is of what the name means now."""

    name: str
    id: str


async def chosen(engine: Engine, images: Sequence[str]) -> Image:
    """Raises Refused (NO_IMAGE, BAD_IMAGE), of the last one, when it has none of them."""
    *others, last = images
    for image in others:
        with suppress(NotFound):
            return Image(image, str((await engine.image(image))["Id"]))
    try:
        return Image(last, str((await engine.image(last))["Id"]))
    except Refused as error:
        raise Refused("BAD_IMAGE", f"{last} is no name of an image: {error.message}") from error
    except NotFound as error:
        raise Refused("NO_IMAGE", f"image {last} is not on this machine: `docker pull` it, or `make image`") from error
