"""All pairs of two columns of texts with rapidfuzz, million pairs a CPU second on one thread.

    python benches/peers/pairs.py FOLDER

Beside `cargo bench --bench attune -- pairs FOLDER`; FOLDER holds what ../shared/peers/fuzzy/inputs.py writes.
`cdist` compares all pairs, `cpdist` the two columns element by element.
"""

import sys
import time

import pyarrow.parquet
from rapidfuzz import process
from rapidfuzz.distance import JaroWinkler, Levenshtein


def best(run, pairs):
    least = 9e9
    for _ in range(3):
        start = time.process_time()
        run()
        least = min(least, time.process_time() - start)
    return pairs / least / 1e6


for name in ("surname", "address_1", "fullline"):
    left, right = (
        [text or "" for text in pyarrow.parquet.read_table(f"{sys.argv[1]}/{name}_{side}.parquet")["s"].to_pylist()]
        for side in "ab"
    )
    for function, scorer in (("levenshtein", Levenshtein.distance), ("jaro_winkler", JaroWinkler.similarity)):
        every = best(lambda: process.cdist(left, right, scorer=scorer, workers=1), len(left) * len(right))
        each = best(lambda: process.cpdist(left * 100, right * 100, scorer=scorer, workers=1), 100 * len(left))
        print(f"{name:10s} {function:12s} cdist {every:7.1f}  cpdist {each:7.1f}", flush=True)
