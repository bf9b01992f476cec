# attune_sqlalchemy.py
from sqlalchemy.dialects import registry
from sqlalchemy_adbc.flightsql import ADBCFlightSQLDialect


class AttuneDialect(ADBCFlightSQLDialect):
    name = "attune"
    supports_statement_cache = True

    def build_connect_args(self, url):
        plain = url._replace(username=None, password=None)
        arguments, options = super().build_connect_args(plain)
        if url.username:
            login = {"username": url.username, "password": url.password or ""}
            options.setdefault("db_kwargs", {}).update(login)
        return arguments, options

    def _get_default_schema_name(self, connection):
        return self._adbc_connection(connection).adbc_current_db_schema

    def _names(self, connection, schema, kind):
        schema = schema or self._get_default_schema_name(connection)
        found = self._tree(connection, schema=schema, depth="tables")
        schemas = [schema for catalog in found for schema in catalog["catalog_db_schemas"] or []]
        tables = [table for schema in schemas for table in schema["db_schema_tables"] or []]
        return [table["table_name"] for table in tables if table["table_type"] == kind]

    def get_table_names(self, connection, schema=None, **_):
        return self._names(connection, schema, "TABLE")

    def get_view_names(self, connection, schema=None, **_):
        return self._names(connection, schema, "VIEW")


registry.register("attune", __name__, "AttuneDialect")
