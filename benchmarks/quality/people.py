"""Sentences about people for every rule of pii-core, made by chance, and some that only look so.

A sentence is what somebody writes who tells the number by its usual name.  What only looks so has
the same shape and a checksum that fails, or is another number of everyday life.
"""

import random
from collections.abc import Callable
from datetime import date, timedelta

from proxy.guardrails.checks.validators import VALIDATORS

Make = Callable[[random.Random], str]
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
ENDS = [f"{n}" for n in range(10)]
SIGNS = "0123456789ABCDEFHJKLMNPRSTUVWXY"  # of a Finnish number's end
PAIRS = [f"{n:02}" for n in range(100)]


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


# fmt: off
# Bodies of national numbers, and the ends among which a right one is.
FORMS: dict[str, tuple[Make, list[str]]] = {
    "us_aba":      (digits(8, "0123"),                      ENDS),
    "us_npi":      (digits(9, "12"),                        ENDS),
    "gb_nhs":      (digits(9),                              ENDS),
    "pl_pesel":    (born("%y%m%d####"),                     ENDS),
    "es_nif":      (digits(8),                              list(LETTERS)),
    "es_nie":      (digits(8, "XYZ"),                       list(LETTERS)),
    "in_aadhaar":  (digits(11, "23456789"),                 ENDS),
    "it_cf":       (codice,                                 list(LETTERS)),
    "fi_hetu":     (born("%d%m%y-1##"),                     list(SIGNS)),
    "de_idnr":     (digits(10, "123456789"),                ENDS),
    "hr_oib":      (digits(10),                             ENDS),
    "au_tfn":      (digits(8),                              ENDS),
    "au_medicare": (digits(8, "23456"),                     PAIRS),
    "ca_sin":      (digits(8, "1234567"),                   ENDS),
    "kr_rrn":      (born("%y%m%d-10####"),                  ENDS),
    "fr_nir":      (born("1%y%m75######"),                  PAIRS),
    "br_cpf":      (digits(9),                              PAIRS),
    "br_cnpj":     (digits(12),                             PAIRS),
    "nl_bsn":      (digits(8),                              ENDS),
    "cn_ric":      (born("110101%Y%m%d###"),                [*ENDS, "X"]),
    "se_pnr":      (born("%y%m%d-###"),                     ENDS),
    "no_fnr":      (born("%d%m%y1##"),                      PAIRS),
    "be_nn":       (born("%y%m%d###", 2000, 2020),          PAIRS),
    "ch_ahv":      (lambda r: "756" + digits(9)(r),         ENDS),
    "tr_kimlik":   (digits(9, "123456789"),                 PAIRS),
    "za_id":       (born("%y%m%d####08"),                   ENDS),
    "il_id":       (digits(8),                              ENDS),
}
# What people call these numbers.
NAMES: dict[str, tuple[str, ...]] = {
    "us_aba":      ("routing number", "ABA"),
    "us_npi":      ("NPI", "provider number"),
    "gb_nhs":      ("NHS number", "NHS no."),
    "pl_pesel":    ("PESEL", "numer PESEL"),
    "es_nif":      ("NIF", "DNI"),
    "es_nie":      ("NIE", "número de extranjero"),
    "in_aadhaar":  ("Aadhaar", "Aadhaar number"),
    "it_cf":       ("codice fiscale", "C.F. (codice fiscale)"),
    "fi_hetu":     ("henkilötunnus", "HETU"),
    "de_idnr":     ("Steuer-ID", "Steueridentifikationsnummer", "IdNr"),
    "hr_oib":      ("OIB", "OIB broj"),
    "au_tfn":      ("TFN", "tax file number"),
    "au_medicare": ("Medicare number", "Medicare card"),
    "ca_sin":      ("SIN", "social insurance number"),
    "kr_rrn":      ("RRN", "resident registration number", "주민등록번호"),
    "fr_nir":      ("NIR", "numéro de sécurité sociale"),
    "br_cpf":      ("CPF", "CPF do cliente"),
    "br_cnpj":     ("CNPJ", "CNPJ da empresa"),
    "nl_bsn":      ("BSN", "burgerservicenummer"),
    "cn_ric":      ("resident identity card", "身份证"),
    "se_pnr":      ("personnummer", "Personnummer"),
    "no_fnr":      ("fødselsnummer", "fnr"),
    "be_nn":       ("rijksregisternummer", "numéro national"),
    "ch_ahv":      ("AHV-Nummer", "AVS", "Sozialversicherungsnummer"),
    "tr_kimlik":   ("TC kimlik no", "TCKN"),
    "za_id":       ("ID number", "South African identity number"),
    "il_id":       ("teudat zehut", "תעודת זהות"),
}
_NAMED = ("My {} is {}.", "{}: {}", "Please update the {} to {} today.",
          "the {} on file ({}) is wrong")
_PLAIN = ("You can use {} for that.", "It was {}, I think, and she agreed.", '{{"value": "{}"}}',
          "Send everything to {}\nand tell me when it is done.", "({})")
_CARDS = ("My card is {}.", "Charge {} please, expiry 12/27.", "visa {} cvv 123", *_PLAIN)
# Numbers and words of everyday life in the shape of data about people.
LOOKALIKES = (
    "Order {n10} shipped on 2024-03-15 at 11:34:35, tracking 1Z{n10}.",
    "Invoice no. {n16} is due, the total is {n5}.99 EUR.",
    "Version 1.2.3 of build {n9} fixed ticket #{n5}, see rfc {n4}.",
    "std::vector<int> and ns::inner::name at 12:30:45.",
    "Room {n3}-{n2}, floor {n2}, extension {n4}; call 555-{n3}.",
    "ISBN 978{n10}, pages {n3}-{n3}, chapter {n2}.",
    "commit 3f2a{n10} touched {n3} files; @channel please look.",
    "The temperature was +{n2} degrees and the score {n2}-{n2}.",
    "timestamp {n13} epoch, id {n12}, hash {n11}",
    "latitude 48.{n5}, longitude 11.{n5}, altitude {n3}",
)
# fmt: on


def valid(name: str, r: random.Random) -> str:
    """A national number that its validator accepts."""
    make, ends = FORMS[name]
    while True:
        body = make(r)
        good = [body + end for end in ends if VALIDATORS[name](body + end)]
        if good:
            return r.choice(good)


def _word(r: random.Random, low: int, high: int) -> str:
    return "".join(r.choices(LETTERS.lower(), k=r.randint(low, high)))


def email(r: random.Random) -> str:
    local = r.choice(("{a}.{b}", "{a}", "{a}_{b}", "{a}+{b}", "{a}{n}"))
    local = local.format(a=_word(r, 2, 9), b=_word(r, 2, 9), n=r.randint(1, 99))
    return f"{local}@{_word(r, 2, 12)}.{r.choice(('com', 'org', 'co.uk', 'io', 'museum'))}"


def card(r: random.Random) -> str:
    head, size = r.choice([("4", 16), ("51", 16), ("55", 16), ("34", 15), ("6011", 16), ("36", 14)])
    body = head + "".join(r.choices("0123456789", k=size - len(head) - 1))
    plain = next(body + end for end in ENDS if VALIDATORS["luhn"](body + end))
    mark = r.choice(("", "", " ", "-"))
    return mark.join(plain[at : at + 4] for at in range(0, size, 4)) if size == 16 else plain


def iban(r: random.Random) -> str:
    country, size = r.choice(
        [("DE", 22), ("NL", 18), ("GB", 22), ("NO", 15), ("FR", 27), ("ES", 24)]
    )
    body = "".join(r.choices("0123456789", k=size - 4))
    if country in ("GB", "NL"):
        body = "".join(r.choices(LETTERS, k=4)) + body[4:]
    moved = "".join(str(int(sign, 36)) for sign in body + country + "00")
    plain = f"{country}{98 - int(moved) % 97:02}{body}"
    if r.random() < 0.4:
        return " ".join(plain[at : at + 4] for at in range(0, size, 4))
    return plain if r.random() < 0.8 else plain.lower()


def us_ssn(r: random.Random) -> str:
    area = r.choice([n for n in range(1, 900) if n != 666])
    return f"{area:03}-{r.randint(1, 99):02}-{r.randint(1, 9999):04}"


def ip_v4(r: random.Random) -> str:
    return ".".join(str(r.randint(1, 254)) for _ in range(4))


def ip_v6(r: random.Random) -> str:
    groups = [f"{r.randint(1, 65535):x}" for _ in range(8)]
    return ":".join(groups) if r.random() < 0.5 else f"2001:db8:{':'.join(groups[:3])}::{groups[3]}"


def phone(r: random.Random) -> str:
    country = r.choice(("1", "44", "49", "33", "351", "91"))
    number = digits(r.randint(8, 10), "123456789")(r)
    mark = r.choice(("", " ", "-", "."))
    return f"+{country}{mark}{number[:3]}{mark}{number[3:6]}{mark}{number[6:]}"


COMMON: dict[str, tuple[Make, tuple[str, ...]]] = {
    "email": (email, _PLAIN),
    "card": (card, _CARDS),
    "iban": (iban, _PLAIN),
    "us_ssn": (us_ssn, _PLAIN),
    "ip_v4": (ip_v4, _PLAIN),
    "ip_v6": (ip_v6, _PLAIN),
    "phone_e164": (phone, _PLAIN),
}
ENTITIES = (*COMMON, *FORMS)


def sentence(entity: str, r: random.Random) -> tuple[str, int, int]:
    """A sentence that tells the number, and where it stands."""
    if entity in COMMON:
        make, forms = COMMON[entity]
        number, form = make(r), r.choice(forms)
        text = form.format(number)
    else:
        number, form = valid(entity, r), r.choice(_NAMED)
        text = form.format(r.choice(NAMES[entity]), number)
    start = text.rindex(number)
    return text, start, start + len(number)


def lookalike(r: random.Random) -> str:
    """A sentence with nothing about a person."""
    form = r.choice(LOOKALIKES)
    for count in (16, 13, 12, 11, 10, 9, 5, 4, 3, 2):
        while f"{{n{count}}}" in form:
            form = form.replace(f"{{n{count}}}", digits(count, "123456789")(r), 1)
    return form
