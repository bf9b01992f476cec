"""Texts to compare, of the records of febrl3: surnames, address lines, whole name-and-address lines.

The order of each side is that of ../shared/peers/fuzzy/inputs.py, so that figures of both compare.
"""

import pathlib

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

CHECKOUT = pathlib.Path(__file__).resolve().parents[2]
DATA = CHECKOUT.parent / "shared" / "data"
LINE = ["given_name", "surname", "street_number", "address_1", "suburb", "postcode", "state"]


def columns(data=DATA):
    """The sides a and b of each column: the same texts, each in an order of its own."""
    table = pq.read_table(data / "febrl3" / "records.parquet")
    parts = {name: ["" if text is None else str(text).strip() for text in table[name].to_pylist()] for name in LINE}
    made = {name: parts[name] for name in ("surname", "address_1")}
    made["fullline"] = [" ".join(line).strip() for line in zip(*(parts[name] for name in LINE))]
    orders = [np.random.RandomState(seed).permutation(table.num_rows) for seed in (1, 2)]
    return {name: [[texts[at] for at in order.tolist()] for order in orders] for name, texts in made.items()}


def write(folder, data=DATA):
    """NAME_a.parquet and NAME_b.parquet (columns id, s) of each column, unless they are there."""
    if (folder / "fullline_b.parquet").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    for name, sides in columns(data).items():
        for side, texts in zip("ab", sides):
            pq.write_table(pa.table({"id": range(len(texts)), "s": texts}), folder / f"{name}_{side}.parquet")
