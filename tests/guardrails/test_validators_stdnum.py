"""T-GR-27: every validator says what python-stdnum says, of 10,000 random numbers each.

A number is a random body in the right form with each possible end, so that valid ones are among
them.  Where the other judges more than the page does (places of birth, ranges of serials), bodies
are made that it has nothing against.
"""

import random
from collections.abc import Callable, Iterator
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

from benchmarks.quality.people import ENDS, FORMS, LETTERS, PAIRS, Make, digits
from proxy.guardrails.checks.validators import VALIDATORS

pytestmark = pytest.mark.thorough
NUMBERS = 10_000
Judge = Callable[[str], bool]
# what the validator is called, and the other judge
JUDGES: dict[str, ModuleType | Judge] = {
    "us_aba": rtn,
    "us_npi": lambda text: luhn.is_valid("80840" + text),
    "gb_nhs": nhs,
    "pl_pesel": pesel,
    "es_nif": dni,
    "es_nie": nie,
    "in_aadhaar": aadhaar,
    "it_cf": codicefiscale,
    "fi_hetu": hetu,
    "de_idnr": idnr,
    "hr_oib": oib,
    "au_tfn": tfn,
    "ca_sin": sin,
    "kr_rrn": rrn,
    "fr_nir": nir,
    "br_cpf": cpf,
    "br_cnpj": cnpj,
    "nl_bsn": bsn,
    "cn_ric": ric,
    "se_pnr": personnummer,
    "no_fnr": fodselsnummer,
    "be_nn": nn,
    "ch_ahv": ahv,
    "tr_kimlik": tckimlik,
    "za_id": za_idnr,
    "il_id": il_idnr,
}
CASES: list[tuple[str, ModuleType | Judge, Make, list[str]]] = [
    *((name, judge, *FORMS[name]) for name, judge in JUDGES.items()),
    ("luhn", luhn, digits(15), ENDS),
    ("us_ssn", ssn, digits(8), ENDS),
]
ALONE = {"card", "ip", "phone", "au_medicare"}  # not there: an issuer's prefix, addresses, one card


def account(r: random.Random) -> str:
    country, size = r.choice([("DE", 22), ("NL", 18), ("GB", 22), ("NO", 15), ("FR", 27)])
    body = "".join(r.choices("0123456789", k=size - 4))
    if country in ("GB", "NL"):
        body = "".join(r.choices(LETTERS, k=4)) + body[4:]
    return country + body


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
