"""T-SSRF-05, T-TRAP-41: the table of addresses."""

import pytest

from proxy.runtime.addresses import judge, literal, may_connect

# fmt: off
JUDGED = [
    ("1.1.1.1",                  "public"),
    ("104.18.6.192",             "public"),
    ("172.15.255.255",           "public"),
    ("172.32.0.0",               "public"),
    ("100.63.255.255",           "public"),
    ("100.128.0.0",              "public"),
    ("223.255.255.255",          "public"),
    ("2606:4700::6812:6c0",      "public"),
    ("2001:4860:4860::8888",     "public"),   # not Teredo
    ("::ffff:1.1.1.1",           "public"),   # mapped
    ("64:ff9b::101:101",         "public"),   # NAT64 to 1.1.1.1

    ("0.0.0.0",                  "private"),
    ("10.0.0.1",                 "private"),
    ("100.64.0.1",               "private"),
    ("127.0.0.1",                "private"),
    ("127.255.255.254",          "private"),
    ("169.254.1.1",              "private"),
    ("172.16.0.1",               "private"),
    ("172.31.255.255",           "private"),
    ("192.0.0.1",                "private"),
    ("192.88.99.1",              "private"),
    ("192.168.1.1",              "private"),
    ("198.18.0.1",               "private"),
    ("224.0.0.1",                "private"),
    ("255.255.255.255",          "private"),
    ("::",                       "private"),
    ("::1",                      "private"),
    ("::127.0.0.1",              "private"),  # compatible
    ("::1.1.1.1",                "private"),
    ("::ffff:10.0.0.1",          "private"),
    ("64:ff9b::7f00:1",          "private"),  # NAT64 to 127.0.0.1
    ("64:ff9b:1::1.1.1.1",       "private"),
    ("2001::1",                  "private"),  # Teredo
    ("2002:101:101::1",          "private"),  # 6to4
    ("5f00::1",                  "private"),
    ("fc00::1",                  "private"),
    ("fd12:3456::1",             "private"),
    ("fe80::1",                  "private"),
    ("fe80::1%eth0",             "private"),
    ("fec0::1",                  "private"),
    ("ff02::1",                  "private"),
    ("nonsense",                 "private"),

    ("169.254.169.254",          "metadata"),
    ("169.254.170.2",            "metadata"),
    ("100.100.100.200",          "metadata"),
    ("168.63.129.16",            "metadata"),
    ("192.0.0.192",              "metadata"),
    ("fd00:ec2::254",            "metadata"),
    ("fd20:ce::254",             "metadata"),
    ("fe80::a9fe:a9fe%eth0",     "metadata"),
    ("::ffff:169.254.169.254",   "metadata"),
    ("::a9fe:a9fe",              "metadata"),
    ("64:ff9b::a9fe:a9fe",       "metadata"),
    ("64:ff9b:1::a9fe:a9fe",     "metadata"),
    ("2002:a9fe:a9fe::1",        "metadata"),
    ("2001:0:1::5601:5601",      "metadata"),  # Teredo carries it inverted
    ("::ffff:168.63.129.16",     "metadata"),
]
LITERALS = [
    ("127.0.0.1",                "127.0.0.1"),
    ("127.1",                    "127.0.0.1"),
    ("2130706433",               "127.0.0.1"),
    ("127.0.0.1.",               "127.0.0.1"),
    ("0x7f000001",               "127.0.0.1"),
    ("017700000001",             "127.0.0.1"),
    ("0xa9.254.169.254",         "169.254.169.254"),
    ("::1",                      "::1"),
    ("fd00:ec2:0::254",          "fd00:ec2::254"),
    ("api.anthropic.com",        None),
    ("1password.com",            None),
    ("localhost",                None),
    ("beef",                     None),
]
# fmt: on


@pytest.mark.parametrize(("address", "sort"), JUDGED)
def test_t_trap_41_every_form_is_judged(address: str, sort: str) -> None:
    assert judge(address) == sort
    assert may_connect(address, allow_private=False) == (sort == "public")
    assert may_connect(address, allow_private=True) == (sort != "metadata")


@pytest.mark.parametrize(("host", "address"), LITERALS)
def test_an_address_is_known_in_all_its_spellings(host: str, address: str | None) -> None:
    assert literal(host) == address
