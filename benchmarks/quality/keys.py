"""Keys of every rule of secrets-core, made by chance, and the shapes of text that they stand in.

Keys are put together here, at run time, so that none stands in a file.
"""

import random

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
SHAPES = {
    "bare": "{}",
    "quoted": '"{}"',
    "JSON": '{{"api_key": "{}"}}',
    "YAML": "key: {}\nnext: 1",
    "env file": "export API_KEY={}\n",
    "header": "Authorization: Bearer {}\r\nHost: x",
    "URL": "https://h/p?k={}&x=1",
    "Markdown": "see `{}` there",
    "brackets": "({})",
    "at the end": "it is {}",
}
# fmt: on


def key_of(rule_id: str, r: random.Random) -> str:
    """A new key that the rule is for."""
    pieces = (p if isinstance(p, str) else "".join(r.choices(p[0], k=p[1])) for p in KEYS[rule_id])
    return "".join(pieces)
