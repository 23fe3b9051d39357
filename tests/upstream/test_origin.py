"""Where endpoints are, and which forward proxy stands before them."""

import pytest

from proxy.upstream.origin import ForwardProxy, Origin, Proxies

# fmt: off
ORIGINS = [
    ("https://api.anthropic.com",           Origin("https", "api.anthropic.com", 443)),
    ("http://Host.Example:8000/v1",         Origin("http", "host.example", 8000)),
    ("https://api.openai.com./v1",          Origin("https", "api.openai.com", 443)),
    ("http://[::1]:8080/x",                 Origin("http", "::1", 8080)),
    ("https://münchen.example",             Origin("https", "xn--mnchen-3ya.example", 443)),
]
NO_ORIGINS = ["", "host", "ftp://host", "https://", "http://host:99999", "http://host:x", "http://[::1",
              "https://" + "ü" * 70 + ".example"]
ENTRIES = [
    # NO_PROXY              url                          direct
    ("",                    "https://api.example",       False),
    ("*",                   "https://api.example",       True),
    ("example",             "https://api.example",       True),
    (".example",            "https://api.example",       True),
    ("*.example",           "https://api.example",       True),
    ("api.example",         "https://api.example",       True),
    ("pi.example",          "https://api.example",       False),
    ("a, API.example ,b",   "https://api.example",       True),
    ("api.example:443",     "https://api.example",       True),
    ("api.example:8443",    "https://api.example",       False),
    ("10.0.0.0/8",          "https://10.1.2.3",          True),
    ("10.0.0.0/8",          "https://11.1.2.3",          False),
    ("10.1.2.3",            "https://10.1.2.3",          True),
    ("10.1.2.3:443",        "https://10.1.2.3",          True),
    ("fd00::/8",            "https://[fd12::1]",         True),
    ("[fd12::1]:443",       "https://[fd12::1]",         True),
    ("10.0.0.0/8",          "https://api.example",       False),
    ("",                    "https://127.0.0.1",         True),
    ("",                    "https://localhost:8000",    True),
    ("",                    "https://[::1]",             True),
]
PROXIES = [
    ("http://proxy:3128",              ForwardProxy("proxy", 3128)),
    ("proxy:3128",                     ForwardProxy("proxy", 3128)),
    ("http://proxy",                   ForwardProxy("proxy", 80)),
    ("http://me:p%40ss@proxy:1",       ForwardProxy("proxy", 1, "Basic bWU6cEBzcw==")),
    ("http://me@proxy:1",              ForwardProxy("proxy", 1, "Basic bWU6")),
]
# fmt: on


@pytest.mark.parametrize(("url", "origin"), ORIGINS)
def test_a_url_names_an_origin(url: str, origin: Origin) -> None:
    assert Origin.of(url) == origin


@pytest.mark.parametrize("url", NO_ORIGINS)
def test_or_it_does_not(url: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - its words are nobody's contract
        Origin.of(url)


def test_an_authority_is_for_the_wire() -> None:
    assert Origin.of("http://[::1]:8080").authority == "[::1]:8080"
    assert Origin.of("https://api.example").authority == "api.example:443"


@pytest.mark.parametrize(("no_proxy", "url", "direct"), ENTRIES)
def test_no_proxy(no_proxy: str, url: str, direct: bool) -> None:
    proxies = Proxies(https="http://proxy:3128", no_proxy=no_proxy)
    assert (proxies.before(Origin.of(url)) is None) == direct


@pytest.mark.parametrize(("url", "proxy"), PROXIES)
def test_a_forward_proxy_is_read(url: str, proxy: ForwardProxy) -> None:
    assert ForwardProxy.of(url) == proxy


@pytest.mark.parametrize(
    "url", ["https://proxy:3128", "socks5://proxy:1080", "http://", "http://x:y"]
)
def test_or_it_is_refused_when_it_is_named(url: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        Proxies(http=url)


def test_each_scheme_has_its_own() -> None:
    proxies = Proxies(http="http://plain:1")
    assert proxies.before(Origin.of("http://api.example")) == ForwardProxy("plain", 1)
    assert proxies.before(Origin.of("https://api.example")) is None
