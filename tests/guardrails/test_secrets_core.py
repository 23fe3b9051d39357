"""The shipped pack: every rule finds generated keys in every surrounding, and leaves texts alone.

Keys are put together here, at run time, so that none stands in a file.
"""

from pathlib import Path

import pytest
import yaml

import proxy
from proxy.guardrails.checks.secrets import entropy, is_placeholder
from proxy.guardrails.compile import check_pack, compile_guard
from proxy.guardrails.samples import WARM
from proxy.model.exchange import Leaf
from proxy.model.policy import PolicyPack
from proxy.model.tenancy import GuardSettings
from tests.guardrails.texts import Maker

FILE = Path(proxy.__file__).parent / "packs" / "secrets-core.yaml"
PACK = PolicyPack.model_validate(yaml.safe_load(FILE.read_text()))
GUARD = compile_guard([PACK], GuardSettings())

UP, LOW, DIGITS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ", "abcdefghijklmnopqrstuvwxyz", "0123456789"
ALNUM, HEX, BASE32 = UP + LOW + DIGITS, DIGITS + "abcdef", "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
URLSAFE = ALNUM + "_-"
AGE = "QPZRY9X8GF2TVDW0S3JN54KHCE6MUA7L"

# Each key as pieces: a string as it is, or (alphabet, length).
Pieces = list[str | tuple[str, int]]
# fmt: off
KEYS: dict[str, Pieces] = {
    "aws.access_key_id": ["AK", "IA", (BASE32, 16)],
    "aws.secret_access_key": ["aws_secret_access_", "key = \"", (ALNUM + "/+", 40)],
    "aws.bedrock_key": ["AB", "SK", (ALNUM, 120)],
    "aws.bedrock_key_short": ["bedrock-api-", "key-", "YmVkcm9jay5hbWF6b25hd3MuY29t", (ALNUM, 90)],
    "anthropic.key": ["sk-", "ant-", "api03-", (URLSAFE, 93), "AA"],
    "openai.key": ["sk-", "proj-", (URLSAFE, 120)],
    "openai.key_legacy": ["sk", "-", (ALNUM, 20), "T3Blbk", "FJ", (ALNUM, 20)],
    "parapet.key": ["pp", "t_", (ALNUM, 12), "_", (URLSAFE, 32)],
    "github.token": ["gh", "p_", (ALNUM, 36)],
    "github.fine_grained": ["github_", "pat_", (ALNUM + "_", 82)],
    "gitlab.token": ["gl", "pat-", (ALNUM, 20)],
    "slack.token": ["xo", "xb-", (DIGITS, 12), "-", (ALNUM, 24)],
    "slack.app": ["xa", "pp-", "1-", (UP + DIGITS, 11), "-", (DIGITS, 13), "-", (LOW + DIGITS, 64)],
    "slack.webhook": ["hooks.", "slack.com/services/", (ALNUM, 44)],
    "stripe.key": ["sk", "_live_", (ALNUM, 24)],
    "stripe.webhook": ["wh", "sec_", (ALNUM, 32)],
    "google.api_key": ["AI", "za", (URLSAFE, 35)],
    "huggingface.token": ["h", "f_", (UP + LOW, 34)],
    "npm.token": ["np", "m_", (ALNUM, 36)],
    "pypi.token": ["pypi-", "AgEIcHlwaS5vcmc", (URLSAFE, 120)],
    "rubygems.key": ["ruby", "gems_", (HEX, 48)],
    "sendgrid.key": ["S", "G.", (URLSAFE, 22), ".", (URLSAFE, 43)],
    "databricks.token": ["da", "pi", (HEX, 32)],
    "digitalocean.token": ["do", "p_v1_", (HEX, 64)],
    "shopify.token": ["shp", "at_", (HEX, 32)],
    "vault.token": ["hv", "s.", (URLSAFE, 95)],
    "onepassword.service": ["op", "s_eyJ", (ALNUM, 260)],
    "onepassword.secret_key": ["A", "3-", (UP, 6), "-", (UP, 6), "-", (UP, 5), "-", (UP, 5), "-",
                               (UP, 5), "-", (UP, 5)],
    "age.key": ["AGE-SECRET-", "KEY-1", (AGE, 58)],
    "notion.token": ["nt", "n_", (DIGITS, 11), (ALNUM, 35)],
    "postman.key": ["PM", "AK-", (HEX, 24), "-", (HEX, 34)],
    "perplexity.key": ["pp", "lx-", (ALNUM, 48)],
    "linear.key": ["lin_", "api_", (ALNUM, 40)],
    "grafana.token": ["gl", "sa_", (ALNUM, 32), "_", (HEX, 8)],
    "heroku.key": ["HRKU", "-AA", (URLSAFE, 58)],
    "planetscale.token": ["pscale_", "tkn_", (ALNUM, 43)],
    "doppler.token": ["dp.", "pt.", (ALNUM, 43)],
    "pulumi.token": ["pu", "l-", (HEX, 40)],
    "terraform.token": [(ALNUM, 14), ".atlas", "v1.", (ALNUM, 67)],
    "atlassian.token": ["ATA", "TT3", (URLSAFE, 186)],
    "sentry.token": ["sntry", "u_", (HEX, 64)],
    "dynatrace.token": ["dt0", "c01.", (ALNUM, 24), ".", (ALNUM, 64)],
    "azure.client_secret": [(ALNUM, 3), "8", "Q~", (ALNUM, 34)],
    "alibaba.key": ["LT", "AI", (ALNUM, 20)],
    "telegram.bot": [(DIGITS, 9), ":A", "A", (URLSAFE, 33)],
    "jwt": ["ey", "J", (ALNUM, 33), ".ey", "J", (ALNUM, 60), ".", (URLSAFE, 43)],
    "private_key": ["-----BEGIN RSA PRIVATE ", "KEY-----\n", (ALNUM + "+/", 64), "\n",
                    (ALNUM + "+/", 64), "\n-----END RSA PRIVATE ", "KEY-----"],
    "url.credentials": ["postgres://", "app:", (ALNUM, 16), "@db.internal:5432"],
}
SHAPES = [
    "{}", "\"{}\"", '{{"api_key": "{}"}}', "key: {}\nnext: 1", "export API_KEY={}\n",
    "Authorization: Bearer {}\r\nHost: x", "https://h/p?k={}&x=1", "see `{}` there", "({})",
    "it is {}",
]
# fmt: on


def key_of(rule_id: str, make: Maker) -> str:
    pieces = (p if isinstance(p, str) else make.run(p[0], p[1], p[1]) for p in KEYS[rule_id])
    return "".join(pieces)


def test_the_pack_is_sound() -> None:
    faults, warnings = check_pack(PACK)
    assert (faults, warnings) == ([], [])
    assert GUARD.profile == "secrets-core@1.0.0"
    assert {rule.rule_id for rule in PACK.rules} == {*KEYS, "generic.assignment"}
    assert all(rule.severity == "critical" and rule.tests.no_match for rule in PACK.rules)


@pytest.mark.parametrize("rule_id", KEYS)
def test_a_key_is_found_in_every_surrounding_whole_and_streamed(rule_id: str) -> None:
    make = Maker(sum(map(ord, rule_id)))
    for shape in SHAPES:
        key = key_of(rule_id, make)
        text = shape.format(key)
        judged = GUARD.judge([Leaf(text, "text", "user", ())], "request")
        assert rule_id in {r.rule_matched for r in judged.results if r.enforced}, shape
        (_, rewritten), *_ = judged.rewrites
        assert key not in rewritten
        assert key[-12:] not in rewritten or rule_id == "url.credentials"
        lane = GUARD.lane("text")
        assert lane is not None
        emitted = "".join(map(lane.feed, make.cuts(text))) + lane.finish()
        assert emitted == rewritten or lane.overflows
        assert key[-12:] not in emitted or rule_id == "url.credentials"


def test_ordinary_texts_are_left_alone() -> None:
    for text in WARM:
        judged = GUARD.judge([Leaf(text, "text", "user", ())], "request")
        assert [r for r in judged.results if r.enforced] == []


def test_placeholders_are_no_secrets() -> None:
    for text in ("AKIAIOSFODNN7EXAMPLE", "gh" + "p_" + "x" * 36, "sk-ant-api03-" + "your_" * 20):
        assert GUARD.judge([Leaf(text, "text", "user", ())], "request").rewrites == []


# fmt: off
ENTROPIES = [
    ("aaaa", 0), ("abcd", 2), ("0123456789abcdef", 4), ("AKIAIOSFODNN7EXAMPLE", 3.684),
    ("AKIA" + "A" * 16, 0.569),
]
# fmt: on


@pytest.mark.parametrize(("text", "bits"), ENTROPIES)
def test_entropy(text: str, bits: float) -> None:
    assert entropy(text) == pytest.approx(bits, abs=0.001)


def test_a_giveaway_deep_inside_a_long_key_does_not_save_it() -> None:
    assert is_placeholder("key-xxxx", ())
    assert not is_placeholder("key-" + "a1B2" * 20 + "xxxx", ())
    assert is_placeholder("key-aaaaabbbb", ("key-",))
    assert not is_placeholder("key-aaaaabbbc", ("key-",))
