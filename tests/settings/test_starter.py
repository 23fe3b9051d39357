"""`parapet init`: what it finds becomes a file that loads."""

from collections.abc import Callable

import pytest

from proxy.settings.load import Loaded
from proxy.settings.starter import find_providers, starter

Load = Callable[..., Loaded]

AZURE = {"AZURE_OPENAI_API_KEY": "k", "AZURE_OPENAI_ENDPOINT": "https://x.openai.azure.com/"}
AWS = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}
# fmt: off
FOUND: list[tuple[dict[str, str], list[str]]] = [
    ({},                                            []),
    ({"OPENAI_API_KEY": ""},                        []),
    ({"OPENAI_API_KEY": "k"},                       ["openai"]),
    ({"ANTHROPIC_API_KEY": "k", "OPENAI_API_KEY": "k"}, ["anthropic", "openai"]),
    ({"AWS_BEARER_TOKEN_BEDROCK": "k"} | AWS,       ["bedrock"]),
    (AWS | {"AWS_SESSION_TOKEN": "c"},              ["bedrock"]),
    ({"AWS_ACCESS_KEY_ID": "a"},                    []),
    ({"GOOGLE_API_KEY": "k", "GEMINI_API_KEY": "k"}, ["gemini"]),
    (AZURE,                                         ["azure"]),
    ({"AZURE_OPENAI_API_KEY": "k"},                 []),
    ({"GROQ_API_KEY": "k", "MISTRAL_API_KEY": "k"}, ["groq", "mistral"]),
]
# fmt: on


@pytest.mark.parametrize(("environ", "ids"), FOUND)
def test_what_is_found_becomes_a_file_that_loads(
    load: Load, environ: dict[str, str], ids: list[str]
) -> None:
    assert [each.id for each in find_providers(environ)] == ids
    workspace = load(starter(environ), environ).config.workspaces[0]
    routes = ids or ["anthropic", "openai"]
    assert [route.id for route in workspace.routes] == routes
    assert workspace.default_route == routes[0]
    assert all(route.policy_packs for route in workspace.routes)


def test_the_region_is_the_environments(load: Load) -> None:
    text = starter(AWS | {"AWS_DEFAULT_REGION": "eu-west-1"})
    assert load(text, AWS).config.workspaces[0].endpoints[0].region == "eu-west-1"


def test_the_values_stay_out_of_it() -> None:
    assert "sk-canary" not in starter({"OPENAI_API_KEY": "sk-canary"})


def test_the_commented_failover_policy_is_a_legal_one(load: Load) -> None:
    environ = {"ANTHROPIC_API_KEY": "k", "OPENAI_API_KEY": "k"}
    text = starter(environ).replace("failover_policies: []", "failover_policies:")
    assert load(
        text.replace("    # - route_id", "    - route_id").replace("    #   ", "      "), environ
    )
