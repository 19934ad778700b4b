"""Installation tokens of a GitHub App, against a double of the documented API on loopback."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from sandreel_bridge.broker.github_app import GitHubApp, app_jwt
from sandreel_core.clock import now
from sandreel_core.errors import Malformed, Refused, Unavailable
from tests.support.github_api import Api, github_api, pem_of

PEM = pem_of(rsa.generate_private_key(65537, 2048))


@pytest.fixture
def api() -> Iterator[Api]:
    with github_api() as api:
        yield api


def options(api: Api, **more: str) -> dict[str, str]:
    return {"app_id": "7", "installation_id": "42", "api": api.url} | more


async def test_a_token_is_minted_for_one_repository_and_ended(api: Api) -> None:
    app = GitHubApp()
    made = await app.mint(api.pem, options(api, permissions="contents:write,metadata"), "acme/tool")
    assert (made.token, made.resource) == (api.made[0], "acme/tool")
    assert made.expires_at == api.expires_at
    assert made.token not in repr(made)
    (asked,) = api.asked
    assert asked["repositories"] == ["tool"]
    assert asked["permissions"] == {"contents": "write", "metadata": "read"}
    claims, at = asked["claims"], now().timestamp()
    assert claims["iss"] == "7"
    assert claims["iat"] < at < claims["exp"] <= at + 600
    await app.end(made.token, options(api))
    assert api.alive == set()
    # Whoever comes after one that was killed when it had ended it: the API answers 401.
    await app.end(made.token, options(api))
    api.status = 503
    with pytest.raises(Unavailable, match="503"):
        await app.end(made.token, options(api))


async def test_only_repositories_that_the_credential_is_for_are_asked_for(api: Api) -> None:
    app, allowed = GitHubApp(), "acme/tool, docs"
    assert (await app.mint(api.pem, options(api, repositories=allowed), "acme/Tool")).resource == "acme/Tool"
    assert (await app.mint(api.pem, options(api, repositories=allowed), "acme/docs")).resource == "acme/docs"
    assert (await app.mint(api.pem, options(api, repositories=allowed), None)).resource == "acme/tool,docs"
    assert api.asked[-1]["repositories"] == ["tool", "docs"]
    for resource in ("acme/other", "docs/other"):
        with pytest.raises(Refused, match="RESOURCE_NOT_ALLOWED"):
            await app.mint(api.pem, options(api, repositories=allowed), resource)
    assert len(api.asked) == 3


@pytest.mark.parametrize(("status", "kind"), [(401, Refused), (404, Refused), (429, Unavailable), (503, Unavailable)])
async def test_what_the_api_refuses_is_said_without_what_it_says(api: Api, status: int, kind: type[Exception]) -> None:
    api.status = status
    with pytest.raises(kind, match=f"the API answers {status}") as error:
        await GitHubApp().mint(api.pem, options(api), None)
    assert "ghs_" not in str(error.value)


async def test_an_api_that_sends_us_elsewhere_is_not_followed(api: Api) -> None:
    api.status = 302
    with pytest.raises(Refused, match="the API answers 302"):
        await GitHubApp().mint(api.pem, options(api), None)
    assert len(api.asked) == 1


async def test_an_api_that_is_away_is_unavailable() -> None:
    with pytest.raises(Unavailable, match="cannot be reached"):
        await GitHubApp().mint(PEM, {"app_id": "7", "installation_id": "42", "api": "http://127.0.0.1:1"}, None)


@pytest.mark.parametrize(
    "value",
    [
        b"no key",
        PEM[:200],
        pem_of(ec.generate_private_key(ec.SECP256R1())),
        pem_of(rsa.generate_private_key(65537, 1024)),
    ],
    ids=["no key", "a part of one", "of another kind", "too short"],  # of values that are new each time
)
def test_a_value_that_is_no_key_is_said_and_not_repeated(value: bytes) -> None:
    with pytest.raises(Malformed, match="private key") as error:
        app_jwt(value, "7", now())
    assert value[:20].decode() not in str(error.value)
