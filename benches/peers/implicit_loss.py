"""The loss after N iterations: implicit's conjugate gradients beside Attune's, one objective.

    python benches/peers/implicit_loss.py TARGET/release/attune ../shared/data/gowalla [N]

implicit weighs a stored cell 40 and every other 1; Attune's confidence is 1 + 39 there. Both use a
constant λ of 40 and 64 factors. Needs implicit, numpy, scipy and pyarrow.
"""

import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

os.environ["OPENBLAS_NUM_THREADS"] = "1"
import implicit  # noqa: E402
import numpy as np  # noqa: E402
import pyarrow.parquet as pq  # noqa: E402
import scipy.sparse as sparse  # noqa: E402

WEIGHT, REG = 40.0, 40.0


def theirs(file, iterations):
    table = pq.read_table(file)
    users, items = (table[name].to_numpy() for name in ("user_id", "item_id"))
    cells = sparse.csr_matrix((np.ones(len(users), np.float32), (users, items)))
    model = implicit.als.AlternatingLeastSquares(
        factors=64, regularization=REG, alpha=WEIGHT, iterations=iterations, num_threads=2, random_state=42
    )
    model.fit(cells, show_progress=False)
    x, y = model.user_factors.astype(np.float64), model.item_factors.astype(np.float64)
    stored = cells.tocoo()
    score = np.einsum("ij,ij->i", x[stored.row], y[stored.col])
    loss = (WEIGHT * (1 - score) ** 2 - score**2).sum() + ((x.T @ x) * (y.T @ y)).sum()
    return loss + REG * ((x**2).sum() + (y**2).sum())


def ours(program, file, iterations):
    with tempfile.TemporaryDirectory() as folder:
        lake = pathlib.Path(folder) / "lake" / "train"
        lake.mkdir(parents=True)
        shutil.copy(file, lake)
        script = f"""
        CREATE MODEL m OPTIONS (model_type = 'matrix_factorization', feedback_type = 'implicit',
            num_factors = 64, max_iterations = {iterations}, wals_alpha = {WEIGHT - 1}, l2_reg = {REG},
            regularization_scaling = 'constant', data_split_method = 'no_split', seed = 42)
        AS SELECT user_id, item_id, weight FROM train;
        SELECT loss FROM ML.TRAINING_INFO(MODEL m) ORDER BY iteration DESC LIMIT 1;
        """
        command = [program, "sql", "--lake", lake.parent, "--warehouse", f"{folder}/w", "--format", "csv", "-"]
        output = subprocess.run(command, input=script, capture_output=True, text=True, check=True).stdout
        return float(output.split()[-1])


def main():
    program, file = sys.argv[1], pathlib.Path(sys.argv[2]) / "train.parquet"
    iterations = int(sys.argv[3]) if len(sys.argv) > 3 else 6
    a, b = theirs(file, iterations), ours(program, file, iterations)
    print(f"after {iterations} iterations: implicit {a:.0f}, Attune {b:.0f}, ratio {b / a:.4f}")


main()
