"""What the Python clients' tests share: a connection and a check that prints its name."""

import pathlib
import sys

import adbc_driver_flightsql.dbapi as flightsql
import adbc_driver_manager

TYPES = (pathlib.Path(__file__).parent / "types.sql").read_text()


def connect(uri, user, password, **options):
    login = {
        adbc_driver_manager.DatabaseOptions.USERNAME.value: user,
        adbc_driver_manager.DatabaseOptions.PASSWORD.value: password,
    }
    return flightsql.connect(uri, db_kwargs=login | options, autocommit=True)


def sqlalchemy_url(scheme, query):
    """The address and login that the test gave, as SQLAlchemy writes them."""
    uri, user, password = sys.argv[1:4]
    return f"{scheme}://{user}:{password}@{uri.removeprefix('grpc://')}/?{query}"


def check(name, condition):
    assert condition, name
    print("ok", name, flush=True)


def equal(name, found, expected):
    assert found == expected, f"{name}: {found!r} is not {expected!r}"
    print("ok", name, flush=True)


def refused(name, error, action, *words):
    """Checks that the action fails with an error that has the words."""
    try:
        action()
    except error as failed:
        missing = [word for word in words if word not in str(failed)]
        assert not missing, f"{name}: {failed} lacks {missing}"
        print("ok", name, flush=True)
        return failed
    raise AssertionError(f"{name}: it worked")
