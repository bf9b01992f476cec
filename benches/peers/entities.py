"""Entity resolution beside its peers: Attune, Splink and recordlinkage on the same records.

    python benches/peers/entities.py TARGET/release/attune [--data DIR] [--folder DIR]
        [--customers 1000000] [--only febrl3,dblp_acm,customers] [--peers]

`--data` holds `febrl3/` (records.parquet, links.csv) and `dblp_acm/` (a.parquet, b.parquet,
links.parquet); what is absent is left out, and the program says so. The customers are generated
from a seed: one fifth are duplicates of others with slips of the pen, swapped names, missing and
changed values; a tenth live in a household that shares surname, street and, some, the telephone
or the e-mail address. No option is set anywhere but what a user has to say: the id, and which table
a record is of. Printed of each: precision, recall and F1 over pairs of the entities at the default
threshold, CPU seconds, seconds and peak memory of the process. Needs numpy and pyarrow; `--peers`
also splink and recordlinkage (pandas).
"""

import argparse
import collections
import pathlib
import resource
import subprocess
import sys
import tempfile
import time

import numpy as np
import pyarrow as pa
import pyarrow.csv as csv
import pyarrow.parquet as pq

TYPES = {"febrl3": "dedupe", "dblp_acm": "link", "customers": "dedupe"}


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("attune")
    parser.add_argument("--data", type=pathlib.Path, default=pathlib.Path("data"))
    parser.add_argument("--folder", type=pathlib.Path)
    parser.add_argument("--customers", type=int, default=1_000_000)
    parser.add_argument("--only", default="febrl3,dblp_acm,customers")
    parser.add_argument("--peers", action="store_true")
    return parser.parse_args()


# Generated customers.

ONSETS = ["b", "br", "c", "ch", "d", "f", "g", "gr", "h", "j", "k", "l", "m", "n", "p", "r", "s", "st", "t", "v", "w"]
VOWELS = ["a", "e", "i", "o", "u", "ai", "ea", "oo", "ie"]
CODAS = ["", "n", "r", "l", "s", "m", "ck", "nd", "rt", "ll", "tt", "x"]
LETTERS = "abcdefghijklmnopqrstuvwxyz"
STREETS = ["street", "road", "avenue", "lane", "close", "drive", "way", "place"]
DOMAINS = ["gmail.com", "yahoo.com", "hotmail.com", "outlook.com", "web.de", "icloud.com", "mail.org", "example.net"]


def words(random, count, syllables):
    """Distinct words that sound like names."""
    made = {}
    while len(made) < count:
        parts = [
            ONSETS[random.integers(len(ONSETS))] + VOWELS[random.integers(len(VOWELS))] + CODAS[random.integers(len(CODAS))]
            for _ in range(random.integers(1, syllables + 1))
        ]
        word = "".join(parts)
        if len(word) > 3:
            made[word] = None
    return list(made)


def frequent(random, count, size):
    """Positions with the frequencies of names: few are very common."""
    weights = 1.0 / np.arange(3, size + 3) ** 0.8
    return random.choice(size, count, p=weights / weights.sum())


def slip(random, text):
    """One slip of the pen: a letter more, less, another, or two swapped."""
    if len(text) < 2:
        return text
    at = int(random.integers(len(text) - 1))
    letters = "0123456789" if text[at].isdigit() else LETTERS
    letter = letters[random.integers(len(letters))]
    return [
        text[:at] + letter + text[at:],
        text[:at] + text[at + 1 :],
        text[:at] + letter + text[at + 1 :],
        text[:at] + text[at + 1] + text[at] + text[at + 2 :],
    ][random.integers(4)]


def person(random, vocabulary, draws, at):
    first, last, street, city = (vocabulary[name][draws[name][at]] for name in ("first", "last", "street", "city"))
    day = np.datetime64("1935-01-01") + int(random.integers(365 * 70))
    return {
        "first_name": first,
        "last_name": last,
        "email": f"{first}.{last}{random.integers(1, 10_000)}@{DOMAINS[random.integers(len(DOMAINS))]}",
        "phone": f"0{random.integers(100, 999)} {random.integers(1_000_000, 9_999_999)}",
        "street": f"{random.integers(1, 200)} {street} {STREETS[random.integers(len(STREETS))]}",
        "city": city,
        "postcode": f"{10_000 + 8 * int(draws['city'][at]) + int(random.integers(8))}",
        "birth_date": str(day),
    }


def relative(random, one, first):
    """Another person of the same household."""
    other = dict(one, first_name=first, birth_date=str(np.datetime64("1935-01-01") + int(random.integers(365 * 70))))
    if random.random() > 0.2:
        other["email"] = f"{first}.{one['last_name']}{random.integers(1, 10_000)}@{DOMAINS[random.integers(len(DOMAINS))]}"
    if random.random() > 0.4:
        other["phone"] = f"0{random.integers(100, 999)} {random.integers(1_000_000, 9_999_999)}"
    return other


def duplicate(random, one, fresh):
    """The same person entered again."""
    other = dict(one)
    for name in ("first_name", "last_name", "email", "street", "city", "postcode", "birth_date", "phone"):
        if random.random() < 0.15:
            other[name] = slip(random, other[name])
    if random.random() < 0.25:
        other["email"] = fresh["email"]
    if random.random() < 0.15:
        other["phone"] = fresh["phone"]
    if random.random() < 0.12:
        other.update({name: fresh[name] for name in ("street", "city", "postcode")})
    if random.random() < 0.03:
        other["first_name"], other["last_name"] = other["last_name"], other["first_name"]
    if random.random() < 0.3:
        other["phone"] = "+49 " + other["phone"][1:].replace(" ", "-")
    if random.random() < 0.3:
        other["last_name"] = other["last_name"].upper()
    return other


def customers(count):
    """Records in no order, with the person that each is of."""
    random = np.random.default_rng(5)
    vocabulary = {
        "first": words(random, 2_000, 2),
        "last": words(random, 20_000, 3),
        "street": words(random, 10_000, 3),
        "city": words(random, 3_000, 3),
    }
    originals = count - count // 5
    draws = {name: frequent(random, count, len(made)) for name, made in vocabulary.items()}
    people = []
    for at in range(originals):
        if at and random.random() < 0.1:
            people.append(relative(random, people[-1], vocabulary["first"][draws["first"][at]]))
        else:
            people.append(person(random, vocabulary, draws, at))
    whose = list(range(originals))
    records = [dict(one) for one in people]
    for at in range(originals, count):
        one = int(random.integers(originals))
        whose.append(one)
        records.append(duplicate(random, people[one], person(random, vocabulary, draws, at)))
    missing = {"email": 0.12, "phone": 0.15, "street": 0.05, "city": 0.02, "postcode": 0.05, "birth_date": 0.1}
    for name, share in missing.items():
        for at in np.flatnonzero(random.random(count) < share).tolist():
            records[at][name] = None
    for at in np.flatnonzero(random.random(count) < 0.01).tolist():
        records[at]["email"] = ["N/A", "test@test.com", "noreply@shop.example"][at % 3]
    order = random.permutation(count)
    table = {"id": pa.array(np.arange(count))}
    for name in records[0]:
        table[name] = pa.array([records[at][name] for at in order.tolist()])
    return pa.table(table), np.array(whose)[order]
