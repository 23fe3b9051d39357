"""T-GR-27: every validator, by the vectors of its page and by what its checksum promises."""

import pytest

from proxy.guardrails.checks.national import NATIONAL
from proxy.guardrails.checks.validators import VALIDATORS

VALID = {
    "us_aba": "021000021",
    "us_npi": "1234567893",
    "gb_nhs": "9434765919",
    "pl_pesel": "44051401359",
    "es_nif": "12345678Z",
    "es_nie": "X1234567L",
    "in_aadhaar": "999999990019",
    "it_cf": "RSSMRA85T10A562S",
    "fi_hetu": "131052-308T",
    "de_idnr": "86095742719",
    "hr_oib": "33392005961",
    "au_tfn": "123456782",
    "au_medicare": "2123456701",
    "ca_sin": "130692544",
    "kr_rrn": "9710139019902",
    "fr_nir": "255081416802538",
    "br_cpf": "11144477735",
    "br_cnpj": "11222333000181",
    "nl_bsn": "111222333",
    "cn_ric": "11010519491231002X",
    "se_pnr": "8112289874",
    "no_fnr": "15108695088",
    "be_nn": "85073003328",
    "ch_ahv": "7569217076985",
    "tr_kimlik": "10000000146",
    "za_id": "8001015009087",
    "il_id": "123456782",
}
SINGLE = {  # one wrong digit is always found
    "us_npi", "gb_nhs", "in_aadhaar", "de_idnr", "hr_oib", "ca_sin", "nl_bsn", "se_pnr", "no_fnr",
    "ch_ahv", "za_id", "il_id", "es_nif", "es_nie", "fi_hetu", "fr_nir", "us_aba",
    "cn_ric", "pl_pesel", "au_tfn",
}  # fmt: skip


def found(validator: str, text: str) -> str | None:
    """The part of the text that counts."""
    part = VALIDATORS[validator](text)
    return None if part is None else text[slice(*part)]


def test_each_national_number_has_a_vector() -> None:
    assert VALID.keys() == NATIONAL.keys()
    assert set(VALIDATORS) - set(NATIONAL) == {"luhn", "card", "iban", "us_ssn", "ip", "phone"}


@pytest.mark.parametrize("name", VALID)
def test_a_valid_number_is_found_whole(name: str) -> None:
    assert found(name, VALID[name]) == VALID[name]
    assert found(name, VALID[name][:-1]) is None
    assert found(name, VALID[name] + "0") is None
    assert found(name, "") is None


@pytest.mark.parametrize("name", sorted(SINGLE))
def test_one_wrong_digit_is_found(name: str) -> None:
    number = VALID[name]
    for at, digit in enumerate(number):
        if digit.isdigit():
            for other in "0123456789":
                if other != digit:
                    assert found(name, number[:at] + other + number[at + 1 :]) is None, (at, other)


@pytest.mark.parametrize(
    ("validator", "text", "part"),
    [
        ("card", "4111111111111111", "4111111111111111"),
        ("card", "4111 1111 1111 1111", "4111 1111 1111 1111"),
        ("card", "5555-5555-5555-4444", "5555-5555-5555-4444"),
        ("card", "378282246310005", "378282246310005"),
        ("card", "6011111111111117", "6011111111111117"),
        ("card", "30569309025904", "30569309025904"),
        ("card", "3530111333300000", "3530111333300000"),
        ("card", "2223000048400011", "2223000048400011"),
        ("card", "4111 1111 1111 1111 12", "4111 1111 1111 1111"),  # a part before a separator
        ("card", "4111111111111112", None),
        ("card", "41111111111111111111", None),
        ("card", "1 4111 1111 1111 1111", None),  # the search goes on one character further
        ("card", "378282246310005 0", "378282246310005"),
        ("iban", "GB82WEST12345698765432", "GB82WEST12345698765432"),
        ("iban", "gb82west12345698765432", "gb82west12345698765432"),
        ("iban", "GB82 WEST 1234 5698 7654 32", "GB82 WEST 1234 5698 7654 32"),
        ("iban", "GB82 WEST 1234 5698 7654 32 and", "GB82 WEST 1234 5698 7654 32"),
        ("iban", "NO9386011117947", "NO9386011117947"),
        ("iban", "DE89370400440532013000", "DE89370400440532013000"),
        ("iban", "DE89370400440532013001", None),
        ("iban", "ZZ89370400440532013000", None),
        ("iban", "GB82WEST1234569876543", None),
        ("us_ssn", "123-45-6789", "123-45-6789"),
        ("us_ssn", "123 45 6789", "123 45 6789"),
        ("us_ssn", "000-45-6789", None),
        ("us_ssn", "666-45-6789", None),
        ("us_ssn", "900-45-6789", None),
        ("us_ssn", "123-00-6789", None),
        ("us_ssn", "123-45-0000", None),
        ("us_ssn", "078-05-1120", None),
        ("us_ssn", "219-09-9999", None),
        ("ip", "192.168.0.7", "192.168.0.7"),
        ("ip", "0.0.0.0", None),
        ("ip", "127.0.0.1", None),
        ("ip", "300.1.1.1", None),
        ("ip", "2001:db8::8a2e:370:7334", "2001:db8::8a2e:370:7334"),
        ("ip", "fe80::1", None),  # two groups: it may be source code
        ("ip", "::1", None),
        ("ip", "11:34:35", None),
        ("phone", "+14155552671", "+14155552671"),
        ("phone", "+44 20 7946 0958", "+44 20 7946 0958"),
        ("phone", "+1234567", None),
        ("phone", "+1234567890123456", None),
        ("luhn", "79927398713", "79927398713"),
        ("luhn", "79927398710", None),
        ("luhn", "0", None),
    ],
)
def test_vectors(validator: str, text: str, part: str | None) -> None:
    assert found(validator, text) == part


@pytest.mark.parametrize(
    ("validator", "text"),
    [
        ("us_aba", "000000000"),
        ("ca_sin", "046454286"),  # starts with 0
        ("in_aadhaar", "199999990019"),
        ("in_aadhaar", "222222222222"),  # a palindrome
        ("br_cpf", "11111111111"),
        ("tr_kimlik", "00000000146"),
        ("au_medicare", "7123456701"),
        ("nl_bsn", "000000000"),
        ("il_id", "000000000"),
        ("gb_nhs", "0000000000"),
        ("za_id", "8001015009187"),
        ("pl_pesel", "44053301355"),  # the 33rd of May
        ("cn_ric", "110105194913310021"),
        ("it_cf", "RSSMRA85Z10A562S"),  # no month has the letter Z
        ("fi_hetu", "310252-308T"),
    ],
)
def test_what_no_country_gives_out(validator: str, text: str) -> None:
    assert found(validator, text) is None


@pytest.mark.parametrize(
    ("validator", "text"),
    [
        ("gb_nhs", "943 476 5919"),
        ("br_cpf", "111.444.777-35"),
        ("br_cnpj", "11.222.333/0001-81"),
        ("ch_ahv", "756.9217.0769.85"),
        ("be_nn", "85.07.30-033.28"),
        ("be_nn", "17073003384"),  # born since 2000
        ("fr_nir", "2 55 08 14 168 025 38"),
        ("fr_nir", "295109912611193"),
        ("se_pnr", "811228-9874"),
        ("fi_hetu", "131052A308T"),
        ("it_cf", "rssmra85t10a562s"),
    ],
)
def test_as_people_write_them(validator: str, text: str) -> None:
    assert found(validator, text) == text
