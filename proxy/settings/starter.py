"""`parapet init`: a commented configuration from the provider keys found in the environment.

It names variables, never their values.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

HEADER = """\
# Parapet's configuration.  `parapet check -c THIS_FILE` says what it does; every setting with its
# default stands in config/parapet.yaml of the source.

server:
  listen: 127.0.0.1:8080            # applications: http://127.0.0.1:8080/r/<route>/…
  control_listen: 127.0.0.1:8081    # control API, /metrics, /healthz
  state_dir: ./var
  data_auth: open                   # open: only on loopback | keys: see parapet keys create

workspaces:
  - id: default
"""


@dataclass(frozen=True, slots=True)
class Found:
    """A provider that the environment has a key for, as an endpoint and the models it serves."""

    id: str
    members: tuple[str, ...]
    globs: tuple[str, ...]
    note: str = ""


def find_providers(environ: Mapping[str, str]) -> list[Found]:
    """What can be set up from these variables."""
    there = {name for name, value in environ.items() if value}
    region = "AWS_REGION" if "AWS_REGION" in there else "AWS_DEFAULT_REGION"
    aws_region = environ.get(region) or "us-east-1"
    found: list[Found] = []
    members: tuple[str, ...]
    if "ANTHROPIC_API_KEY" in there:
        found.append(_plain("anthropic", "ANTHROPIC_API_KEY", ("claude*",)))
    if "OPENAI_API_KEY" in there:
        globs = ("gpt*", "o1*", "o3*", "o4*", "chatgpt*", "text-embedding*")
        found.append(_plain("openai", "OPENAI_API_KEY", globs))
    if "AWS_BEARER_TOKEN_BEDROCK" in there:
        members = (f"region: {aws_region}", "api_key: {$env: AWS_BEARER_TOKEN_BEDROCK}")
        found.append(Found("bedrock", ("provider: bedrock", *members), _BEDROCK))
    elif {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"} <= there:
        names = ["access_key_id", "secret_access_key"]
        names += ["session_token"] if "AWS_SESSION_TOKEN" in there else []
        keys = [f"{name}: {{$env: AWS_{name.upper()}}}" for name in names]
        members = (f"region: {aws_region}", *keys)
        found.append(Found("bedrock", ("provider: bedrock", *members), _BEDROCK))
    for variable in ("GEMINI_API_KEY", "GOOGLE_API_KEY"):
        if variable in there:
            found.append(_plain("gemini", variable, ("gemini*",)))
            break
    if {"AZURE_OPENAI_API_KEY", "AZURE_OPENAI_ENDPOINT"} <= there:
        base = environ["AZURE_OPENAI_ENDPOINT"].rstrip("/")
        members = (f"base_url: {base}", "api_key: {$env: AZURE_OPENAI_API_KEY}")
        found.append(Found("azure", ("provider: azure-openai", *members), ()))
    for name, variable, base in _COMPATIBLE:
        if variable in there:
            members = (f"base_url: {base}", f"profile: {name}", f"api_key: {{$env: {variable}}}")
            found.append(Found(name, ("provider: openai-compatible", *members), ()))
    return found


_BEDROCK = ("anthropic.*", "*.anthropic.*", "amazon.*", "*.amazon.*", "meta.*", "*.meta.*")
_COMPATIBLE = (
    ("groq", "GROQ_API_KEY", "https://api.groq.com/openai/v1"),
    ("mistral", "MISTRAL_API_KEY", "https://api.mistral.ai/v1"),
)
PASS_THROUGH = (
    Found("anthropic", ("provider: anthropic",), ("claude*",)),
    Found("openai", ("provider: openai",), ("gpt*", "o1*", "o3*", "o4*")),
)


def starter(environ: Mapping[str, str]) -> str:
    """The text of the file.  Without any key: the callers' own keys go through."""
    return HEADER + "".join(f"{line}\n" for line in _workspace(find_providers(environ)))


def _plain(provider: str, variable: str, globs: tuple[str, ...]) -> Found:
    members = (f"provider: {provider}", f"api_key: {{$env: {variable}}}")
    return Found(provider, members, globs)


def _workspace(found: list[Found]) -> Iterator[str]:
    providers = found or list(PASS_THROUGH)
    yield f"    default_route: {providers[0].id}"
    yield "    endpoints:"
    if not found:
        yield "      # No provider key was found in the environment, so no endpoint has one here:"
        yield "      # what the caller sends goes through to the provider."
    for each in providers:
        yield f"      - id: {each.id}"
        yield from (f"        {member}" for member in each.members)
        yield "        # models: {fast: name-at-the-provider}   # unlisted names go through"
    yield "    routes:"
    for each in providers:
        yield f"      - id: {each.id}"
        yield f"        endpoint: {each.id}"
        if each.globs:
            yield "        match: {models: [" + ", ".join(f'"{glob}"' for glob in each.globs) + "]}"
        yield "        policy_packs: [secrets-core]   # more: parapet check lists the shipped packs"
    yield from _failover([each.id for each in providers])
    yield "    keys: []                            # parapet keys create prints the line for here"


def _failover(ids: list[str]) -> Iterator[str]:
    yield "    # What to do when a provider is slow or broken.  Both endpoints name the model"
    yield "    # by one alias in their `models`."
    yield "    failover_policies: []"
    if len(ids) > 1:
        yield f"    # - route_id: {ids[0]}"
        yield f"    #   primary_endpoint: {ids[0]}"
        yield f"    #   fallback_endpoints: [{ids[1]}]"
        yield "    #   conditions: {latency_threshold_ms: 8000, error_rate_threshold: 0.1}"
