"""Private statistics through SQL beside those of OpenDP: noise, thresholds, budgets.

Called with the address, a user and its password; the user may create tables and policies. OpenDP
says what the noise that was found costs, draws as much of its own, and the two are told apart by
a two-sample Kolmogorov-Smirnov test. A check fails by chance less than once in a million runs.
"""

import collections
import concurrent.futures
import math
import sys

import opendp.prelude as dp
import pyarrow
from common import check, connect, equal

dp.enable_features("contrib")

# Groups of a private answer, each with noise of its own; answers of one number; OpenDP's draws.
GROUPS = 100_000
ANSWERS = 1_000
DRAWS = 50_000
P_MIN = 1e-6
# How far the scale that is found may be from what was paid: of so many groups its deviation is
# .32 %, and that of the mean of all cells .1 %.
SCALE_WITHIN = 0.02
MEAN_SCALE_WITHIN = 0.01

COUNT = "COUNT(v.person, contribution_bounds_per_group => (0, 10))"
SUM = "SUM(v.cost, contribution_bounds_per_group => (0, 500))"
# What is asked, what it is without noise, by how much a person changes a group, in how many groups.
CELLS = [
    (COUNT, 1, 10, 1, 0.1, "laplace"),
    (COUNT, 1, 10, 1, 1, "laplace"),
    (SUM, 66, 500, 1, 0.1, "laplace"),
    (SUM, 66, 500, 1, 1, "laplace"),
    (COUNT, 1, 10, 4, 1, "laplace"),
    (COUNT, 1, 10, 1, 1, "gaussian"),
    (SUM, 66, 500, 1, 0.1, "gaussian"),
    (COUNT, 1, 10, 4, 1, "gaussian"),
]

WHOLE = dp.atom_domain(T=dp.i64)


def laplace(scale):
    return dp.m.make_laplace(dp.vector_domain(WHOLE), dp.l1_distance(T=dp.i64), scale)


def gaussian(scale):
    return dp.m.make_gaussian(dp.vector_domain(WHOLE), dp.l2_distance(T=float), scale)


def threshold(scale, least):
    """Counts of keys with noise, where they reach `least`."""
    counts = dp.map_domain(WHOLE, WHOLE)
    change = dp.l01inf_distance(dp.absolute_distance(T=dp.i64))
    return dp.m.make_laplace_threshold(counts, change, scale=scale, threshold=least)


def probability(left, right):
    """How likely two samples of one distribution are as far apart: Kolmogorov and Smirnov's.

    The series is that of continuous values; ties make it say more than it is.
    """
    counted = (collections.Counter(left), collections.Counter(right))
    shares, distance = [0.0, 0.0], 0.0
    for value in sorted(counted[0] | counted[1]):
        for side, values in enumerate((left, right)):
            shares[side] += counted[side][value] / len(values)
        distance = max(distance, abs(shares[0] - shares[1]))
    size = len(left) * len(right) / (len(left) + len(right))
    power = -2 * distance**2 * size
    # So close to 0 the series takes many terms, and it is 1 but for a part in 10^10.
    if power > -0.08:
        return 1.0
    terms = ((-1) ** (k - 1) * math.exp(power * k * k) for k in range(1, 101))
    return min(1.0, 2 * sum(terms))


def alike(name, left, right):
    p = probability(left, right)
    check(f"{name}: p = {p:.2g}", p > P_MIN)


def rows(cursor, text):
    cursor.execute(text)
    return cursor.fetchall()


def spent(cursor):
    account = "system.privacy_budget WHERE table_name = 'visits'"
    return rows(cursor, f"SELECT epsilon_spent, rho_spent FROM {account}")[0]


def tables(cursor):
    for text in [
        f"CREATE TABLE wards AS SELECT ward FROM generate_series(1, {GROUPS}) AS s (ward)",
        "CREATE TABLE visits AS SELECT ward AS person, ward, 66 AS cost FROM wards",
        "CREATE PRIVACY POLICY p ON visits (person) BUDGET (epsilon = 1000, delta = 1e-6) PER USER",
    ]:
        cursor.execute(text)


def noise(cursor, select, exact, change, groups, epsilon, mechanism):
    """The noise of one cell: what it costs, and how it is distributed. Gives its scale's excess."""
    delta = "delta = 1e-6, mechanism = 'gaussian', " if mechanism == "gaussian" else ""
    before = spent(cursor)
    cursor.execute(
        f"SELECT WITH DIFFERENTIAL_PRIVACY OPTIONS (epsilon = {epsilon}, {delta}"
        f"privacy_unit_column = v.person, max_groups_contributed = {groups}, "
        f"group_selection_strategy = PUBLIC_GROUPS) w.ward, {select} AS n "
        "FROM wards AS w LEFT JOIN visits AS v ON w.ward = v.ward GROUP BY w.ward"
    )
    answers = cursor.fetch_arrow_table().column("n").to_pylist()
    assert len(answers) == GROUPS, len(answers)
    paid_epsilon, paid_rho = (now - then for now, then in zip(spent(cursor), before))
    name = f"{select.split('(')[0]}, {mechanism} of epsilon {epsilon}, groups of a person {groups}"
    if mechanism == "laplace":
        # The most likely scale: a whole number's mean distance from 0 is 1/sinh(1/scale).
        mean = sum(abs(answer - exact) for answer in answers) / GROUPS
        scale = 1 / math.asinh(1 / mean)
        excess = paid_epsilon / laplace(scale).map(groups * change)
        # What the books say of the cost, to what an account can tell.
        claimed = laplace(groups * change / epsilon)
        near(f"{name}: epsilon paid", paid_epsilon, claimed.map(groups * change))
        rho = dp.c.make_pureDP_to_zCDP(claimed).map(groups * change)
        near(f"{name}: rho paid", paid_rho, rho)
    else:
        length = math.sqrt(groups) * change
        scale = math.sqrt(sum((answer - exact) ** 2 for answer in answers) / GROUPS)
        excess = math.sqrt(paid_rho / gaussian(scale).map(length))
        claimed = gaussian(length / math.sqrt(2 * paid_rho))
        # OpenDP tells the epsilon of a rho, which is a little more than that of the noise itself.
        told = dp.c.make_zCDP_to_approxDP(claimed).map(length).epsilon(1e-6)
        check(f"{name}: epsilon {told:.3f} of rho", epsilon <= told <= 1.12 * epsilon)
    check(f"{name}: the scale is {excess:.4f} of what is paid", abs(excess - 1) < SCALE_WITHIN)
    alike(f"{name}: noise", answers, claimed([exact] * DRAWS))
    return excess


def near(name, found, expected):
    check(f"{name}: {found:.9g}", abs(found / expected - 1) < 1e-6)


def answers_one_by_one(uri, user, password, epsilon, exact):
    """Answers of one number each, every one with a seed of its own."""
    with connect(uri, user, password) as connection, connection.cursor() as cursor:
        cursor.adbc_prepare(
            f"SELECT WITH DIFFERENTIAL_PRIVACY OPTIONS (epsilon = {epsilon}, "
            "privacy_unit_column = person) COUNT(*, contribution_bounds_per_group => (0, 10)) "
            "FROM generate_series(1, 1000) AS s (person) WHERE person <= ?"
        )
        answers = []
        for _ in range(ANSWERS):
            bound = pyarrow.record_batch([pyarrow.array([exact])], names=["1"])
            cursor.adbc_statement.bind(bound)
            stream, _ = cursor.adbc_statement.execute_query()
            table = pyarrow.RecordBatchReader.from_stream(stream).read_all()
            answers += table.column(0).to_pylist()
    return answers


def one_by_one(uri, user, password):
    epsilons = (0.1, 1)
    ask = lambda epsilon: answers_one_by_one(uri, user, password, epsilon, 11)
    with concurrent.futures.ThreadPoolExecutor() as pool:
        asked = list(pool.map(ask, epsilons))
    for epsilon, answers in zip(epsilons, asked):
        drawn = laplace(10 / epsilon)([11] * DRAWS)
        equal(f"answers of epsilon {epsilon}", len(answers), ANSWERS)
        alike(f"COUNT, laplace of epsilon {epsilon}: {ANSWERS} answers", answers, drawn)


def rare_groups(cursor, epsilon, groups, delta=0.2):
    """Each of the groups has one person: the threshold tells how many are shown."""
    scale = groups / epsilon
    change = (groups, groups, 1)
    # OpenDP's delta is of what lies above the number, and what reaches it is shown.
    above = next(n for n in range(2, 1000) if threshold(scale, n).map(change)[1] <= delta)
    cursor.execute(
        f"CREATE OR REPLACE TABLE alone AS SELECT (ward - 1) / {groups} AS person, ward FROM wards"
    )
    asked = (
        f"SELECT WITH DIFFERENTIAL_PRIVACY OPTIONS (epsilon = {epsilon}, delta = {delta}, "
        f"privacy_unit_column = person, max_groups_contributed = {groups}) ward "
        "FROM alone GROUP BY ward"
    )
    shown = len(rows(cursor, asked))
    drawn = len(threshold(scale, above + 1)({ward: 1 for ward in range(GROUPS)}))
    share = (shown + drawn) / (2 * GROUPS)
    deviations = abs(shown - drawn) / math.sqrt(2 * GROUPS * share * (1 - share))
    p = math.erfc(deviations / math.sqrt(2))
    name = f"rare groups at epsilon {epsilon}, groups of a person {groups}"
    check(f"{name}: {shown} and {drawn} are shown, p = {p:.2g}", p > P_MIN)


def budgets(cursor):
    """What a budget is worth in zCDP, half of its delta being for that."""
    for number, (epsilon, delta) in enumerate([(0.1, 1e-9), (1, 1e-6), (10, 1e-5)]):
        table = f"budget_{number}"
        cursor.execute(f"CREATE TABLE {table} AS SELECT 1 AS person")
        cursor.execute(
            f"CREATE PRIVACY POLICY p ON {table} (person) "
            f"BUDGET (epsilon = {epsilon}, delta = {delta}) PER USER"
        )
        left = f"SELECT rho_left FROM system.privacy_budget WHERE table_name = '{table}'"
        rho = rows(cursor, left)[0][0]
        whole = dp.c.make_zCDP_to_approxDP(gaussian(1 / math.sqrt(2 * rho)))
        told = whole.map(1.0).epsilon(delta / 2)
        near(f"rho {rho:.3g} of a budget is worth epsilon", told, epsilon)


def main():
    uri, user, password = sys.argv[1:4]
    print("opendp", dp.__version__)
    with connect(uri, user, password) as connection, connection.cursor() as cursor:
        tables(cursor)
        found = [noise(cursor, *cell) for cell in CELLS]
        mean = sum(found) / len(found)
        check(f"the scales are {mean:.4f} of what is paid", abs(mean - 1) < MEAN_SCALE_WITHIN)
        for epsilon, groups in [(1, 1), (0.1, 1), (1, 4)]:
            rare_groups(cursor, epsilon, groups)
        budgets(cursor)
    one_by_one(uri, user, password)
    print("ok all", flush=True)


if __name__ == "__main__":
    main()
