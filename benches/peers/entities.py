"""Entity resolution beside its peers: Attune, Splink and recordlinkage on the same records.

    python benches/peers/entities.py TARGET/release/attune [--data DIR] [--folder DIR]
        [--customers 1000000] [--only febrl3,dblp_acm,customers] [--peers [SETS]] [--limit 600]

`--data` holds `febrl3/` (records.parquet, links.csv) and `dblp_acm/` (a.parquet, b.parquet,
links.parquet); what is absent is left out, and the program says so. The customers are generated
from a seed: one fifth are duplicates of others with slips of the pen, swapped names, missing and
changed values; a tenth live in a household that shares surname, street and, some, the telephone
or the e-mail address. No option is set anywhere but what a user has to say: the id, and which table
a record is of. Printed of each: precision, recall and F1 over pairs of the entities at the default
threshold, CPU seconds, seconds and peak memory of the process, of a peer with starting and importing.
Of the customers also what it takes when a thousand records come later, half of them of persons who
are there: RETRAIN and the crosswalk in a process of its own beside the whole run before, and the
quality of the pairs that have one of the new records.

`--peers` runs the peers after Attune on the sets it names, febrl3 and dblp_acm if it names none, each
in a process of its own that is ended after `--limit` seconds: Splink 5 on all three sets, recordlinkage
on the two small ones (of a million records it holds every pair's comparisons in pandas). They are given
what a careful user of theirs would give: texts in lower case, digits of telephones, no placeholders,
blocking and comparisons chosen by hand for each set. On febrl3 those are of their own demonstrations;
on the others thresholds were tried on the truth (of customers, of 30,000) and the best was taken, which
favours them. Needs numpy and pyarrow; `--peers` also splink>=5, recordlinkage and pandas.
"""

import argparse
import collections
import functools
import multiprocessing
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


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("attune")
    parser.add_argument("--data", type=pathlib.Path, default=pathlib.Path("data"))
    parser.add_argument("--folder", type=pathlib.Path)
    parser.add_argument("--customers", type=int, default=1_000_000)
    parser.add_argument("--only", default="febrl3,dblp_acm,customers")
    parser.add_argument("--peers", nargs="?", const="febrl3,dblp_acm", default="", metavar="SETS")
    parser.add_argument("--limit", type=float, default=600, help="seconds after which a peer is ended")
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


def customers(count, seed=5):
    """Records in no order, with the person that each is of."""
    random = np.random.default_rng(seed)
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


NEW = 1_000


def arrivals(table, whose):
    """Records that come later: every second one of a person who is there, all others of new ones."""
    random = np.random.default_rng(7)
    count, names = table.num_rows, [name for name in table.column_names if name != "id"]
    known = []
    while len(known) < NEW // 2:
        at = int(random.integers(count))
        one, fresh = table.slice(at, 1).to_pylist()[0], table.slice(int(random.integers(count)), 1).to_pylist()[0]
        if all(one[name] and fresh[name] for name in names):
            known.append((duplicate(random, one, fresh), int(whose[at])))
    others, whose_others = customers(NEW - len(known), seed=6)
    strangers = zip(others.to_pylist(), (whose_others + int(whose.max()) + 1).tolist())
    rows = known + list(strangers)
    made = {"id": pa.array(range(count, count + len(rows)), pa.int64())}
    made.update({name: pa.array([row[name] for row, _ in rows], pa.string()) for name in names})
    return pa.table(made), np.array([person for _, person in rows])


# Quality.


def truth_of(name, data, folder, rows):
    """The table's folder in the lake and, of each record, its entity; or pairs of true matches."""
    lake = folder / "lake"
    if name == "febrl3":
        table = pq.read_table(data / "febrl3/records.parquet")
        write(lake / "febrl3", table)
        links = csv.read_csv(data / "febrl3/links.csv").to_pylist()
        return {tuple(sorted((link["rec_id_l"], link["rec_id_r"]))) for link in links}
    if name == "dblp_acm":
        for side in "ab":
            write(lake / f"dblp_{side}", pq.read_table(data / f"dblp_acm/{side}.parquet"))
        links = pq.read_table(data / "dblp_acm/links.parquet").to_pylist()
        return {(("a", link["D1"]), ("b", link["D2"])) for link in links}
    (lake / "customers" / LATER).unlink(missing_ok=True)
    table, whose = customers(rows)
    write(lake / "customers", table)
    return pairs_of(zip(range(rows), whose.tolist()))


LATER = "later.parquet"


def write(folder, table, file="part.parquet"):
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, folder / file)


def pairs_of(named, across=False):
    """Pairs of records of one entity, each in order."""
    groups = collections.defaultdict(list)
    for record, entity in named:
        groups[entity].append(record)
    pairs = set()
    for group in groups.values():
        group.sort()
        for at, left in enumerate(group):
            for right in group[at + 1 :]:
                if not across or left[0] != right[0]:
                    pairs.add((left, right))
    return pairs


def quality(found, truth):
    right = len(found & truth)
    precision, recall = right / max(len(found), 1), right / len(truth)
    return precision, recall, 2 * precision * recall / max(precision + recall, 1e-300)


def children_cpu():
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def peak(pid):
    """Peak memory of a running process, in MiB. What wait4 tells would count this process's memory
    too, which a child has until it executes its program."""
    for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) / 1024
    return 0.0


def told(tool, name, found, truth, cpu, wall, peak):
    precision, recall, f1 = quality(found, truth)
    print(
        f"{name:10} {tool:14} F1 {f1:.4f}  precision {precision:.4f}  recall {recall:.4f}  "
        f"CPU {cpu:6.2f} s  wall {wall:6.2f} s  peak {peak:6.0f} MiB",
        flush=True,
    )


# Attune.

MODELS = {
    "febrl3": ("id_col = 'rec_id'", "SELECT * FROM febrl3"),
    "dblp_acm": (
        "id_col = 'id', source_col = 'source', link_type = 'link'",
        "SELECT 'a' AS source, id, title, authors, venue, year FROM dblp_a "
        "UNION ALL SELECT 'b', id, title, authors, venue, year FROM dblp_b",
    ),
    "customers": ("id_col = 'id'", "SELECT * FROM customers"),
}


def attune(program, name, folder, statement=None):
    """Trains and resolves in one process; gives pairs, CPU seconds, seconds, peak memory in MiB."""
    options, query = MODELS[name]
    script = folder / f"{name}.sql"
    create = f"CREATE OR REPLACE MODEL ids OPTIONS (model_type = 'entity_resolution', {options}) AS {query}"
    script.write_text(f"{statement or create};\nSELECT * FROM resolve_entities('ids');\n")
    answer = folder / f"{name}.csv"
    warehouse = folder / f"warehouse_{name}"
    command = [program, "sql", "--lake", folder / "lake", "--warehouse", warehouse, "--format", "csv", "-f", script]
    before, began, most = children_cpu(), time.monotonic(), 0.0
    with answer.open("wb") as out:
        process = subprocess.Popen([str(part) for part in command], stdout=out)
        while process.poll() is None:
            most = max(most, peak(process.pid))
            time.sleep(0.005)
    if process.returncode:
        sys.exit(f"{name}: attune ended with {process.returncode}")
    cpu, wall = children_cpu() - before, time.monotonic() - began
    rows = csv.read_csv(answer).to_pylist()
    if name == "dblp_acm":
        found = pairs_of((((row["source"], str(row["record_id"])), row["entity_id"]) for row in rows), across=True)
    else:
        found = pairs_of((row["record_id"], row["entity_id"]) for row in rows)
    return found, cpu, wall, most


def incremental(program, folder, rows, whole):
    """What RETRAIN takes when records have come, beside the whole run, which took so many seconds."""
    table, whose = customers(rows)
    new, whose_new = arrivals(table, whose)
    write(folder / "lake" / "customers", new, LATER)
    try:
        found, cpu, wall, most = attune(program, "customers", folder, "RETRAIN MODEL ids")
    finally:
        (folder / "lake" / "customers" / LATER).unlink()
    whose = np.concatenate([whose, whose_new])
    truth = pairs_of(zip(range(len(whose)), whose.tolist()))

    def with_new(pairs):
        return {pair for pair in pairs if pair[1] >= rows}

    told("attune", f"+{new.num_rows}", with_new(found), with_new(truth), cpu, wall, most)
    print(f"{'':10} RETRAIN with {new.num_rows} new records {wall:.2f} s, {rows} records anew {whole:.2f} s", flush=True)


# Peers.


def child(work, limit):
    """Runs `work` in a process of its own, which is ended after `limit` seconds; gives its pairs and what it used."""
    spawn = multiprocessing.get_context("spawn")
    reader, writer = spawn.Pipe(False)
    process = spawn.Process(target=send, args=(work, writer))
    before, began = children_cpu(), time.monotonic()
    process.start()
    writer.close()
    try:
        if not reader.poll(limit):
            raise TimeoutError(f"not done after {limit:.0f} s")
        answer = reader.recv()
    except BaseException:
        process.kill()
        raise
    finally:
        process.join()
    if isinstance(answer, Exception):
        raise answer
    found, most = answer
    return found, children_cpu() - before, time.monotonic() - began, most


def send(work, writer):
    try:
        answer = work(), peak("self")
    except Exception as error:
        answer = RuntimeError(repr(error))
    writer.send(answer)


def recordlinkage_febrl3(folder):
    """The toolkit's ECM over five keys."""
    import recordlinkage

    frame = pq.read_table(folder / "lake/febrl3/part.parquet").to_pandas().set_index("rec_id")
    index = recordlinkage.Index()
    for key in ("surname", "given_name", "date_of_birth", "soc_sec_id", "address_1"):
        index.block(key)
    pairs = index.index(frame)
    compare = recordlinkage.Compare()
    for column in ("given_name", "surname", "address_1", "suburb"):
        compare.string(column, column, method="jarowinkler", threshold=0.85, label=column)
    for column in ("date_of_birth", "soc_sec_id", "postcode", "state"):
        compare.exact(column, column, label=column)
    features = compare.compute(pairs, frame)
    matches = recordlinkage.ECMClassifier(binarize=0.5).fit_predict(features)
    return {tuple(sorted(pair)) for pair in matches.tolist()}


def recordlinkage_dblp_acm(folder):
    """The same between two tables; of eight blockings and thresholds tried on the truth the best."""
    import recordlinkage

    left, right = (cleaned(folder, f"dblp_{side}").set_index("id") for side in "ab")
    for frame in (left, right):
        frame["start"] = frame["title"].str[:12]
    index = recordlinkage.Index()
    for key in ("start", "authors"):
        index.block(key)
    compare = recordlinkage.Compare()
    for column, threshold in (("title", 0.9), ("authors", 0.7)):
        compare.string(column, column, method="jarowinkler", threshold=threshold, label=column)
    compare.exact("year", "year", label="year")
    features = compare.compute(index.index(left, right), left, right)
    matches = recordlinkage.ECMClassifier(binarize=0.5).fit_predict(features)
    return {(("a", left), ("b", right)) for left, right in matches.tolist()}


def cleaned(folder, table):
    """A table with its texts in lower case."""
    frame = pq.read_table(folder / "lake" / table / "part.parquet").to_pandas()
    for column in frame.columns:
        if frame[column].dtype.kind == "O" and column not in ("id", "rec_id"):
            frame[column] = frame[column].str.lower().str.strip()
    return frame


def splink(frames, settings, sure, training, recall):
    """Trains a Splink model without labels; gives it and pairs scored at .01 and more."""
    from splink import DuckDBAPI, Linker, SettingsCreator

    engine = DuckDBAPI()
    tables = [engine.register(frame, dataset_display_name=name) for name, frame in frames.items()]
    linker = Linker(tables if len(tables) > 1 else tables[0], SettingsCreator(**settings), log_level="ERROR")
    linker.training.estimate_probability_two_random_records_match(sure, recall=recall)
    linker.training.estimate_u_using_random_sampling(max_pairs=1e6, seed=1)
    for key in training:
        linker.training.estimate_parameters_using_expectation_maximisation(key)
    return linker, linker.inference.predict(threshold_match_probability=0.01)


def splink_febrl3(folder):
    """Splink's own demonstration for this set, at probability 0.95."""
    import splink.comparison_library as compared
    from splink import block_on

    frame = pq.read_table(folder / "lake/febrl3/part.parquet").to_pandas()
    keys = [
        block_on("soc_sec_id"),
        block_on("given_name", "surname"),
        block_on("date_of_birth"),
        block_on("surname", "postcode"),
        block_on("given_name", "postcode"),
        block_on("address_1"),
    ]
    settings = {
        "link_type": "dedupe_only",
        "unique_id_column_name": "rec_id",
        "blocking_rules_to_generate_predictions": keys,
        "comparisons": [
            compared.JaroWinklerAtThresholds("given_name", [0.9, 0.7]).configure(term_frequency_adjustments=True),
            compared.JaroWinklerAtThresholds("surname", [0.9, 0.7]).configure(term_frequency_adjustments=True),
            compared.LevenshteinAtThresholds("date_of_birth", [1, 2]),
            compared.LevenshteinAtThresholds("soc_sec_id", [1, 2]),
            compared.ExactMatch("street_number").configure(term_frequency_adjustments=True),
            compared.LevenshteinAtThresholds("postcode", [1, 2]),
        ],
    }
    linker, scored = splink({"febrl3": frame}, settings, keys[:3], [block_on("soc_sec_id"), block_on("date_of_birth")], 0.9)
    return clusters_of(linker, scored, 0.95, "rec_id")


def splink_dblp_acm(folder):
    """Two tables without duplicates of their own: each record's best link, at probability 0.5."""
    import splink.comparison_library as compared
    from splink import block_on

    frames = {side: cleaned(folder, f"dblp_{side}") for side in "ab"}
    keys = [block_on("title"), block_on("authors"), block_on("substr(title, 1, 12)"), block_on("year", "substr(authors, 1, 8)")]
    settings = {
        "link_type": "link_only",
        "unique_id_column_name": "id",
        "blocking_rules_to_generate_predictions": keys,
        "comparisons": [
            compared.JaroWinklerAtThresholds("title", [0.95, 0.85]),
            compared.JaroWinklerAtThresholds("authors", [0.95, 0.85]),
            compared.ExactMatch("year"),
        ],
    }
    linker, scored = splink(frames, settings, [block_on("title", "year")], keys[:2], 0.8)
    links = linker.clustering.cluster_using_single_best_links(scored, ["a", "b"], threshold_match_probability=0.5)
    rows = links.as_pandas_dataframe()
    return pairs_of(zip(zip(rows["source_dataset"], rows["id"]), rows["cluster_id"]), across=True)


def splink_customers(folder):
    """At probability 0.99999. No comparison of the postcode: it goes with the street, and of members of a household
    Splink, which counts columns as independent, would be surer still."""
    import splink.comparison_library as compared
    from splink import block_on

    frame = cleaned(folder, "customers")
    frame["phone"] = frame["phone"].str.replace(r"\D", "", regex=True).str[-9:]
    frame.loc[frame["email"].isin(["n/a", "test@test.com", "noreply@shop.example"]), "email"] = None
    keys = [
        block_on("email"),
        block_on("phone"),
        block_on("first_name", "last_name"),
        block_on("last_name", "postcode"),
        block_on("first_name", "birth_date"),
        block_on("last_name", "birth_date"),
        block_on("street", "postcode"),
    ]
    frequencies = {"term_frequency_adjustments": True}
    settings = {
        "link_type": "dedupe_only",
        "unique_id_column_name": "id",
        "blocking_rules_to_generate_predictions": keys,
        "comparisons": [
            compared.JaroWinklerAtThresholds("first_name", [0.92, 0.8]).configure(**frequencies),
            compared.JaroWinklerAtThresholds("last_name", [0.92, 0.8]).configure(**frequencies),
            compared.LevenshteinAtThresholds("birth_date", [1, 2]),
            compared.JaroWinklerAtThresholds("email", [0.95, 0.88]),
            compared.LevenshteinAtThresholds("phone", [1, 2]),
            compared.JaroWinklerAtThresholds("street", [0.92, 0.8]),
        ],
    }
    sure = [block_on("email", "last_name"), block_on("phone", "last_name"), block_on("first_name", "last_name", "birth_date")]
    # Not by telephone or street alone: those pairs are households, and would teach that names may differ.
    training = [block_on("first_name", "last_name"), block_on("last_name", "birth_date"), block_on("first_name", "birth_date")]
    linker, scored = splink({"customers": frame}, settings, sure, training, 0.8)
    return clusters_of(linker, scored, 0.99999, "id")


def clusters_of(linker, scored, probability, identifier):
    clusters = linker.clustering.cluster_pairwise_predictions_at_threshold(scored, probability)
    rows = clusters.as_pandas_dataframe()
    return pairs_of(zip(rows[identifier].tolist(), rows["cluster_id"].tolist()))


PEERS = {
    "febrl3": {"recordlinkage": recordlinkage_febrl3, "splink": splink_febrl3},
    "dblp_acm": {"recordlinkage": recordlinkage_dblp_acm, "splink": splink_dblp_acm},
    "customers": {"splink": splink_customers},
}


def main():
    asked = arguments()
    folder = asked.folder or pathlib.Path(tempfile.mkdtemp(prefix="entities-"))
    folder.mkdir(parents=True, exist_ok=True)
    for name in asked.only.split(","):
        source = asked.data / name
        if name != "customers" and not source.is_dir():
            print(f"{name:10} left out: {source} is not there")
            continue
        truth = truth_of(name, asked.data, folder, asked.customers)
        answer = attune(asked.attune, name, folder)
        told("attune", name, *reorder(answer, truth))
        if name == "customers":
            incremental(asked.attune, folder, asked.customers, answer[2])
        for tool, work in PEERS[name].items() if name in asked.peers.split(",") else ():
            try:
                told(tool, name, *reorder(child(functools.partial(work, folder), asked.limit), truth))
            except (RuntimeError, TimeoutError, EOFError) as error:
                print(f"{name:10} {tool:14} left out: {error!r}", flush=True)


def reorder(answer, truth):
    found, cpu, wall, peak = answer
    return found, truth, cpu, wall, peak


if __name__ == "__main__":
    main()
