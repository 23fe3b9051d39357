"""T-GR-27: every validator says what python-stdnum says, of 10,000 random numbers each.

A number is a random body in the right form with each possible end, so that valid ones are among
them.  Where the other judges more than the page does (places of birth, ranges of serials), bodies
are made that it has nothing against.
"""

import random
from collections.abc import Callable, Iterator
from datetime import date, timedelta
from types import ModuleType

import pytest
from stdnum import iban, luhn
from stdnum.au import tfn
from stdnum.be import nn
from stdnum.br import cnpj, cpf
from stdnum.ca import sin
from stdnum.ch import ssn as ahv
from stdnum.cn import ric
from stdnum.de import idnr
from stdnum.es import dni, nie
from stdnum.fi import hetu
from stdnum.fr import nir
from stdnum.gb import nhs
from stdnum.hr import oib
from stdnum.il import idnr as il_idnr
from stdnum.in_ import aadhaar
from stdnum.it import codicefiscale
from stdnum.kr import rrn
from stdnum.nl import bsn
from stdnum.no import fodselsnummer
from stdnum.pl import pesel
from stdnum.se import personnummer
from stdnum.tr import tckimlik
from stdnum.us import rtn, ssn
from stdnum.za import idnr as za_idnr

from proxy.guardrails.checks.validators import VALIDATORS

pytestmark = pytest.mark.thorough
NUMBERS = 10_000
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
Make = Callable[[random.Random], str]
Judge = Callable[[str], bool]


def digits(count: int, first: str = "0123456789") -> Make:
    return lambda r: r.choice(first) + "".join(r.choices("0123456789", k=count - 1))


def born(form: str, start: int = 1930, end: int = 1999) -> Make:
    """A day of birth in `form` of strftime; `#` stands for a random digit."""

    def make(r: random.Random) -> str:
        span = (date(end, 12, 31) - date(start, 1, 1)).days
        day = date(start, 1, 1) + timedelta(days=r.randint(0, span))
        return "".join(r.choice("0123456789") if c == "#" else c for c in day.strftime(form))

    return make


def codice(r: random.Random) -> str:
    name = "".join(r.choices(LETTERS, k=6))
    day = f"{r.randint(1, 28) + r.choice((0, 40)):02}"
    return name + f"{r.randint(0, 99):02}" + r.choice("ABCDEHLMPRST") + day + "H501"


def account(r: random.Random) -> str:
    country, size = r.choice([("DE", 22), ("NL", 18), ("GB", 22), ("NO", 15), ("FR", 27)])
    body = "".join(r.choices("0123456789", k=size - 4))
    if country in ("GB", "NL"):
        body = "".join(r.choices(LETTERS, k=4)) + body[4:]
    return country + body


ENDS = [f"{n}" for n in range(10)]
PAIRS = [f"{n:02}" for n in range(100)]
SIGNS = list("0123456789ABCDEFHJKLMNPRSTUVWXY")

# what the validator is called, the other judge, bodies, and the ends that are tried
# fmt: off
CASES: list[tuple[str, ModuleType | Judge, Make, list[str]]] = [
    ("luhn",       luhn,          digits(15),                              ENDS),
    ("us_ssn",     ssn,           digits(8),                               ENDS),
    ("us_aba",     rtn,           digits(8, "0123"),                       ENDS),
    ("us_npi",     lambda text: luhn.is_valid("80840" + text), digits(9),  ENDS),
    ("gb_nhs",     nhs,           digits(9),                               ENDS),
    ("pl_pesel",   pesel,         born("%y%m%d####"),                      ENDS),
    ("es_nif",     dni,           digits(8),                               list(LETTERS)),
    ("es_nie",     nie,           digits(8, "XYZ"),                        list(LETTERS)),
    ("in_aadhaar", aadhaar,       digits(11),                              ENDS),
    ("it_cf",      codicefiscale, codice,                                  list(LETTERS)),
    ("fi_hetu",    hetu,          born("%d%m%y-1##"),                      SIGNS),
    ("de_idnr",    idnr,          digits(10),                              ENDS),
    ("hr_oib",     oib,           digits(10),                              ENDS),
    ("au_tfn",     tfn,           digits(8),                               ENDS),
    ("ca_sin",     sin,           digits(8),                               ENDS),
    ("kr_rrn",     rrn,           born("%y%m%d-10####"),                   ENDS),
    ("fr_nir",     nir,           born("1%y%m75######"),                   PAIRS),
    ("br_cpf",     cpf,           digits(9),                               PAIRS),
    ("br_cnpj",    cnpj,          digits(12),                              PAIRS),
    ("nl_bsn",     bsn,           digits(8),                               ENDS),
    ("cn_ric",     ric,           born("110101%Y%m%d###"),                 [*ENDS, "X"]),
    ("se_pnr",     personnummer,  born("%y%m%d-###"),                      ENDS),
    ("no_fnr",     fodselsnummer, born("%d%m%y1##"),                       PAIRS),
    ("be_nn",      nn,            born("%y%m%d###", 2000, 2020),         PAIRS),
    ("ch_ahv",     ahv,           lambda r: "756" + digits(9)(r),          ENDS),
    ("tr_kimlik",  tckimlik,      digits(9),                               PAIRS),
    ("za_id",      za_idnr,       born("%y%m%d####08"),                    ENDS),
    ("il_id",      il_idnr,       digits(8),                               ENDS),
]
# fmt: on
ALONE = {"card", "ip", "phone", "au_medicare"}  # not there: an issuer's prefix, addresses, one card


def numbers(make: Make, ends: list[str], r: random.Random) -> Iterator[str]:
    for _ in range(NUMBERS // len(ends) + 1):
        body = make(r)
        yield from (body + end for end in ends)


def agrees(name: str, judge: ModuleType | Judge, made: Iterator[str]) -> None:
    valid = 0
    says = judge.is_valid if isinstance(judge, ModuleType) else judge
    for text in made:
        ours = VALIDATORS[name](text) is not None
        assert ours == says(text), text
        valid += ours
    assert valid > NUMBERS // 500, "hardly a valid one among them"


@pytest.mark.parametrize(("name", "judge", "make", "ends"), CASES, ids=[case[0] for case in CASES])
def test_numbers(name: str, judge: ModuleType | Judge, make: Make, ends: list[str]) -> None:
    agrees(name, judge, numbers(make, ends, random.Random(27)))


def test_accounts() -> None:
    r = random.Random(27)
    made = (body[:2] + end + body[2:] for body in map(account, [r] * 102) for end in PAIRS[:98])
    agrees("iban", lambda text: iban.is_valid(text, check_country=False), made)


def test_all_are_compared() -> None:
    assert {case[0] for case in CASES} | {"iban"} == set(VALIDATORS) - ALONE
