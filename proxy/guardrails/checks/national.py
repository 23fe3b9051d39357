"""National numbers: people, taxpayers, patients, banks.

In charge of one pure function per number (guardrails.md §5.4): does this text, separators left out,
pass the checksum that its country prescribes?  A checksum that one number in ten passes is weak
evidence; rules ask for context words as well.
"""

import re
from collections.abc import Callable, Mapping
from typing import Final

from proxy.guardrails.checks.digits import (
    digits_of,
    is_date,
    is_short_date,
    luhn_sum,
    mod_11_10,
    number,
    verhoeff,
    weighted,
)

Test = Callable[[str], bool]

_NIF_LETTERS: Final = "TRWAGMYFPDXBNJZSQVHLCKE"
_HETU_SIGNS: Final = "0123456789ABCDEFHJKLMNPRSTUVWXY"
_HETU: Final = re.compile(r"(\d\d)(\d\d)(\d\d)([-+A-FU-Y])(\d{3})([0-9A-Y])", re.ASCII)
_HETU_CENTURY: Final = {"+": 1800} | dict.fromkeys("-YXWVU", 1900) | dict.fromkeys("ABCDEF", 2000)
_CODICE: Final = re.compile(
    r"[A-Z]{6}[\dLMNPQRSTUV]{2}[ABCDEHLMPRST][\dLMNPQRSTUV]{2}[A-Z][\dLMNPQRSTUV]{3}[A-Z]",
    re.ASCII,
)
_CODICE_ODD: Final = dict(
    zip(
        "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ",
        (
            1, 0, 5, 7, 9, 13, 15, 17, 19, 21,
            1, 0, 5, 7, 9, 13, 15, 17, 19, 21, 2, 4, 18, 20, 11, 3, 6, 8, 12, 14, 16, 10, 22, 25,
            24, 23,
        ),
        strict=True,
    )
)  # fmt: skip
_NIR: Final = re.compile(r"([12378]\d{4}(?:\d\d|2A|2B)\d{6})(\d\d)", re.ASCII)
_RIC: Final = re.compile(r"(\d{17})([\dX])", re.ASCII)
_RIC_WEIGHTS: Final = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
_CNPJ_WEIGHTS: Final = (6, 5, 4, 3, 2, 9, 8, 7, 6, 5, 4, 3, 2)


def _plain(text: str) -> str:
    return re.sub(r"[ ./-]", "", text).upper()


def us_aba(text: str) -> bool:
    """Routing number of a bank: weights 3 7 1."""
    digits = digits_of(text, 9)
    return digits is not None and any(digits) and weighted(digits, (3, 7, 1) * 3) % 10 == 0


def us_npi(text: str) -> bool:
    """National provider: Luhn behind 80840."""
    digits = digits_of(text, 10)
    return digits is not None and luhn_sum([8, 0, 8, 4, 0, *digits]) % 10 == 0


def gb_nhs(text: str) -> bool:
    digits = digits_of(text, 10)
    if digits is None or not any(digits):
        return False
    return 11 - weighted(digits[:9], range(10, 1, -1)) % 11 in (digits[9], 11 + digits[9])


def pl_pesel(text: str) -> bool:
    digits = digits_of(text, 11)
    if digits is None or weighted(digits, (1, 3, 7, 9, 1, 3, 7, 9, 1, 3, 1)) % 10:
        return False
    century, month = divmod(number(digits[2:4]), 20)  # 20 more for each century after 1900
    year = (1900, 2000, 2100, 2200, 1800)[century] + number(digits[:2])
    return is_date(year, month, number(digits[4:6]))


def es_nif(text: str) -> bool:
    plain = _plain(text)
    digits = digits_of(plain[:8], 8)
    return digits is not None and plain[8:] == _NIF_LETTERS[number(digits) % 23]


def es_nie(text: str) -> bool:
    plain = _plain(text)
    first = "XYZ".find(plain[:1])
    return len(plain) == 9 and first >= 0 and es_nif(f"{first}{plain[1:]}")


def in_aadhaar(text: str) -> bool:
    digits = digits_of(text, 12)
    if digits is None or digits[0] < 2 or digits == digits[::-1]:
        return False
    return verhoeff(digits)


def it_cf(text: str) -> bool:
    """Codice fiscale."""
    plain = _plain(text)
    if not _CODICE.fullmatch(plain):
        return False
    odd = sum(_CODICE_ODD[sign] for sign in plain[:15:2])
    even = sum(int(sign) if sign.isdigit() else ord(sign) - 65 for sign in plain[1:15:2])
    return chr(65 + (odd + even) % 26) == plain[15]


def fi_hetu(text: str) -> bool:
    found = _HETU.fullmatch(text.strip().upper())
    if found is None:
        return False
    day, month, year, sign, serial, check = found.groups()
    if not is_date(_HETU_CENTURY[sign] + int(year), int(month), int(day)):
        return False
    return _HETU_SIGNS[int(day + month + year + serial) % 31] == check


def de_idnr(text: str) -> bool:
    digits = digits_of(text, 11)
    if digits is None or not digits[0]:
        return False
    if not mod_11_10(digits):
        return False
    repeated = [n for n in map(digits[:10].count, set(digits[:10])) if n > 1]
    return len(repeated) == 1 and repeated[0] in (2, 3)


def hr_oib(text: str) -> bool:
    digits = digits_of(text, 11)
    return digits is not None and mod_11_10(digits)


def au_tfn(text: str) -> bool:
    digits = digits_of(text, 9)
    return digits is not None and weighted(digits, (1, 4, 3, 7, 5, 8, 6, 9, 10)) % 11 == 0


def au_medicare(text: str) -> bool:
    digits = digits_of(text, 10)
    if digits is None or not 2 <= digits[0] <= 6:
        return False
    return weighted(digits, (1, 3, 7, 9, 1, 3, 7, 9)) % 10 == digits[8]


def ca_sin(text: str) -> bool:
    digits = digits_of(text, 9)
    return digits is not None and digits[0] not in (0, 8) and luhn_sum(digits) % 10 == 0


def kr_rrn(text: str) -> bool:
    digits = digits_of(text, 13)
    if digits is None:
        return False
    if (11 - weighted(digits, (2, 3, 4, 5, 6, 7, 8, 9, 2, 3, 4, 5)) % 11) % 10 != digits[12]:
        return False
    century = (1800, 1900, 1900, 2000, 2000, 1900, 1900, 2000, 2000, 1800)[digits[6]]
    return is_date(century + number(digits[:2]), number(digits[2:4]), number(digits[4:6]))


def fr_nir(text: str) -> bool:
    found = _NIR.fullmatch(_plain(text))
    if found is None:
        return False
    body = found[1].replace("2A", "19").replace("2B", "18")
    return 97 - int(body) % 97 == int(found[2])


def br_cpf(text: str) -> bool:
    digits = digits_of(text, 11)
    if digits is None or len(set(digits)) == 1:
        return False
    first = weighted(digits[:9], range(10, 1, -1)) * 10 % 11 % 10
    second = weighted(digits[:10], range(11, 1, -1)) * 10 % 11 % 10
    return digits[9:] == [first, second]


def br_cnpj(text: str) -> bool:
    digits = digits_of(text, 14)
    if digits is None or not any(digits):
        return False
    first = weighted(digits[:12], _CNPJ_WEIGHTS[1:]) % 11
    second = weighted(digits[:13], _CNPJ_WEIGHTS) % 11
    return digits[12:] == [0 if rest < 2 else 11 - rest for rest in (first, second)]


def nl_bsn(text: str) -> bool:
    digits = digits_of(text, 9)
    return digits is not None and any(digits) and (
        weighted(digits, (9, 8, 7, 6, 5, 4, 3, 2, -1)) % 11 == 0
    )  # fmt: skip


def cn_ric(text: str) -> bool:
    found = _RIC.fullmatch(_plain(text))
    if found is None:
        return False
    body = found[1]
    if not is_date(int(body[6:10]), int(body[10:12]), int(body[12:14])):
        return False
    return "10X98765432"[weighted(list(map(int, body)), _RIC_WEIGHTS) % 11] == found[2]


def se_pnr(text: str) -> bool:
    digits = digits_of(text.replace("+", "-"), 10)
    if digits is None or luhn_sum(digits) % 10:
        return False
    return is_short_date(number(digits[:2]), number(digits[2:4]), number(digits[4:6]))


def no_fnr(text: str) -> bool:
    digits = digits_of(text, 11)
    if digits is None:
        return False
    if weighted(digits[:10], (3, 7, 6, 1, 8, 9, 4, 5, 2, 1)) % 11:
        return False
    if weighted(digits, (5, 4, 3, 2, 7, 6, 5, 4, 3, 2, 1)) % 11:
        return False
    return is_short_date(number(digits[4:6]), number(digits[2:4]), number(digits[:2]))


def be_nn(text: str) -> bool:
    digits = digits_of(text, 11)
    if digits is None:
        return False
    body, check = number(digits[:9]), number(digits[9:])
    return check in (97 - body % 97, 97 - (2_000_000_000 + body) % 97)  # the 2: born since 2000


def ch_ahv(text: str) -> bool:
    digits = digits_of(text, 13)
    return (
        digits is not None
        and digits[:3] == [7, 5, 6]
        and weighted(digits, (1, 3) * 6 + (1,)) % 10 == 0
    )


def tr_kimlik(text: str) -> bool:
    digits = digits_of(text, 11)
    if digits is None or not digits[0]:
        return False
    tenth = (7 * sum(digits[:9:2]) - sum(digits[1:8:2])) % 10
    return digits[9] == tenth and digits[10] == sum(digits[:10]) % 10


def za_id(text: str) -> bool:
    digits = digits_of(text, 13)
    if digits is None or digits[10] > 1 or luhn_sum(digits) % 10:
        return False
    return is_short_date(number(digits[:2]), number(digits[2:4]), number(digits[4:6]))


def il_id(text: str) -> bool:
    digits = digits_of(text, 9)
    return digits is not None and any(digits) and luhn_sum(digits) % 10 == 0


NATIONAL: Final[Mapping[str, Test]] = {
    test.__name__: test
    for test in (
        us_aba, us_npi, gb_nhs, pl_pesel, es_nif, es_nie, in_aadhaar, it_cf, fi_hetu, de_idnr,
        hr_oib, au_tfn, au_medicare, ca_sin, kr_rrn, fr_nir, br_cpf, br_cnpj, nl_bsn, cn_ric,
        se_pnr, no_fnr, be_nn, ch_ahv, tr_kimlik, za_id, il_id,
    )
}  # fmt: skip
