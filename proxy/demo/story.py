"""The story that the demo tells: its configuration, its scenes, and the page that a person reads.

A scene is one request with what must come of it.  The same scenes are printed as commands to paste
and played by the self-test, so what is printed is what was tested.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from proxy.demo.provider import MADE_UP_KEY, SLOW_S, Urls
from proxy.wire import jsonbody

FIRST_CONTENT_MS = 2500
RULE = "aws.access_key_id"

CONFIG = """\
# The demo's configuration.  Edit it while the demo runs: it is read again, all or nothing.
server:
  listen: {data}
  control_listen: {control}
  state_dir: {quoted_dir}
  public_url: http://{control}
  admin_key: null               # made on the first start: {state_dir}/admin.key
drain: {{lb_delay_seconds: 0, timeout_seconds: 5, stream_seconds: 5}}

workspaces:
  - id: default
    default_route: prod-chat

    endpoints:
      - id: anthropic-claude
        provider: anthropic
        base_url: {anthropic}
        api_key: made-up        # the demo's providers take anything
        models: {{claude: claude-3-opus-20240229}}
        allow_private: true     # base_url is a loopback address
      - id: bedrock-claude
        provider: bedrock
        region: us-east-1
        base_url: {bedrock}
        api_key: made-up
        models: {{claude: "anthropic.claude-3-opus-20240229-v1:0"}}
        allow_private: true

    routes:
      - id: prod-chat
        endpoint: anthropic-claude
        policy_packs: [secrets-core]
        timeouts: {{connect_ms: 1000, first_content_ms: {first_content_ms}}}

    failover_policies:
      - route_id: prod-chat
        primary_endpoint: anthropic-claude
        fallback_endpoints: [bedrock-claude]
        conditions: {{latency_threshold_ms: 2000, error_rate_threshold: 0.1}}
"""


@dataclass(frozen=True, slots=True)
class Place:
    """Where this demo runs.  `data` and `control` are `host:port`."""

    data: str
    control: str
    state_dir: Path
    urls: Urls

    @property
    def config_file(self) -> Path:
        return self.state_dir / "parapet.yaml"

    @property
    def key_file(self) -> Path:
        return self.state_dir / "admin.key"

    @property
    def log_file(self) -> Path:
        return self.state_dir / "parapet.log"

    def config(self) -> str:
        """The configuration file's text."""
        return CONFIG.format(
            data=self.data,
            control=self.control,
            state_dir=self.state_dir,
            quoted_dir=jsonbody.dumps(str(self.state_dir)).decode(),
            anthropic=self.urls.anthropic,
            bedrock=self.urls.bedrock,
            first_content_ms=FIRST_CONTENT_MS,
        )


@dataclass(frozen=True, slots=True)
class Expected:
    """What the answer must be, and what the events of the request must say."""

    endpoint: str
    says: str
    hides: str = "\0"
    event: tuple[str, str] | None = None  # a type, and a word in its payload
    longest_s: float = 2.0


@dataclass(frozen=True, slots=True)
class Scene:
    """One request to the data plane."""

    name: str
    title: str
    why: str
    prompt: str
    stream: bool
    expected: Expected

    @property
    def body(self) -> bytes:
        asked = [{"role": "user", "content": self.prompt}]
        more = {"stream": True} if self.stream else {}
        return jsonbody.dumps({"model": "claude", "max_tokens": 200, **more, "messages": asked})


SCENES: Sequence[Scene] = (
    Scene(
        name="plain",
        title="A plain answer",
        why="The primary, Anthropic, answers. Look at the x-parapet-… headers.",
        prompt="Say hello.",
        stream=False,
        expected=Expected("anthropic-claude", "answering from Anthropic."),
    ),
    Scene(
        name="secret",
        title="A secret, redacted inside a stream",
        why="The model streams an access key, five characters at a time. No piece of it gets out.",
        prompt="Tell me the secret.",
        stream=True,
        expected=Expected(
            "anthropic-claude",
            "and the region is us-east-1.",
            hides=MADE_UP_KEY,
            event=("runtime.policy.result", RULE),
        ),
    ),
    Scene(
        name="slow",
        title="A slow primary, answered by the fallback",
        why=f"Anthropic takes {SLOW_S:g} s. After {FIRST_CONTENT_MS / 1000:g} s without content "
        "Bedrock answers, in Anthropic's format.",
        prompt="Be slow.",
        stream=True,
        expected=Expected(
            "bedrock-claude",
            "answering from Bedrock.",
            event=("runtime.failover.decision", "bedrock-claude"),
            longest_s=FIRST_CONTENT_MS / 1000 + 2,
        ),
    ),
)
HEADERS = {"content-type": "application/json", "anthropic-version": "2023-06-01"}
Style = Literal["bold", "dim", "green", "red"]
_CODES: dict[Style, str] = {"bold": "1", "dim": "2", "green": "32", "red": "31"}


@dataclass(frozen=True, slots=True)
class Pen:
    """Writes in colour where there is a terminal."""

    colour: bool

    def __call__(self, text: str, style: Style) -> str:
        return f"\033[{_CODES[style]}m{text}\033[0m" if self.colour else text


def page(place: Place, pen: Pen) -> str:
    """What runs where, and what to try."""
    lines = ["", pen("Parapet demo", "bold"), "", *_what_runs(place, pen), ""]
    lines += [pen("Try it, in another terminal", "bold"), ""]
    for number, scene in enumerate(SCENES, 1):
        lines += [_headline(number, scene.title, pen), _dim(scene.why, pen)]
        lines += [*_indented(command(place, scene)), ""]
    number = len(SCENES) + 1
    lines += [_headline(number, "The events of all three", pen)]
    lines += [_dim("One per request, one per redaction, one per failover; never any text.", pen)]
    lines += [*_indented(events_command(place)), ""]
    lines += [_headline(number + 1, "The counters", pen)]
    lines += [*_indented(f"curl -s http://{place.control}/metrics | grep '^parapet_'"), ""]
    return "\n".join([*lines, _dim("Ctrl-C ends the demo and removes its files.", pen), ""])


def _what_runs(place: Place, pen: Pen) -> list[str]:
    rows = (
        ("data plane", f"http://{place.data}", "route prod-chat, for any Anthropic client"),
        ("control API", f"http://{place.control}", "events, status, metrics"),
        ("anthropic-claude", place.urls.anthropic, "primary: a made-up Claude, SSE"),
        ("bedrock-claude", place.urls.bedrock, "fallback: the same, AWS event stream"),
        ("policy pack", "secrets-core", "redacts keys in requests and answers"),
        ("failover policy", "latency > 2000 ms", "or error rate > 0.1"),
        ("configuration", str(place.config_file), ""),
        ("admin key", str(place.key_file), ""),
        ("log", str(place.log_file), ""),
    )
    return [f"  {name:<18}{pen(f'{where:<25}', 'bold')} {pen(what, 'dim')}".rstrip()
            for name, where, what in rows]  # fmt: skip


def command(place: Place, scene: Scene) -> str:
    """The scene as one curl command."""
    headers = "".join(f"  -H '{name}: {value}' \\\n" for name, value in HEADERS.items())
    return f"curl -sNi http://{place.data}/v1/messages \\\n{headers}  -d '{scene.body.decode()}'"


def events_command(place: Place) -> str:
    bearer = f"Authorization: Bearer $(cat {place.key_file})"
    return (
        f'curl -s -H "{bearer}" \\\n'
        f"  http://{place.control}/v1/workspaces/default/events | python3 -m json.tool"
    )


def _headline(number: int, title: str, pen: Pen) -> str:
    return f"  {pen(str(number), 'dim')}  {pen(title, 'bold')}"


def _dim(text: str, pen: Pen) -> str:
    return "     " + pen(text, "dim")


def _indented(text: str) -> list[str]:
    return ["     " + line for line in text.split("\n")]
