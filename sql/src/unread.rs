//! What the parser reads and DataFusion 55.2 plans as if it were not there.
//!
//! `FROM t TABLESAMPLE BERNOULLI (10)` would answer all rows, `GROUP BY a WITH ROLLUP` no totals.
//! A clause without effect is a wrong answer, so each is refused with what to write instead. What
//! DataFusion refuses by showing its syntax tree, or without a hint, is refused here too. `FETCH
//! FIRST n ROWS ONLY`, the standard's words for LIMIT, becomes one, and RECURSIVE goes where
//! nothing recurs.

use std::ops::ControlFlow;

use sqlparser::ast::{
    Delete, Expr, Fetch, FromTable, GroupByExpr, LimitClause, Query, Select, Statement,
    TableFactor, Update, Value, Visit, VisitMut, Visitor, VisitorMut, With, visit_relations,
};

use crate::dialect::folded;
use crate::error::{Error, Result};
use crate::parse::name_parts;

/// Refuses a statement with a clause that would have no effect.
///
/// # Errors
/// When there is one.
pub(crate) fn check(tree: &impl Visit) -> Result<()> {
    match tree.visit(&mut Unread) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(error) => Err(*error),
    }
}

/// Says FETCH as LIMIT, and leaves out RECURSIVE, in a statement that was checked.
pub(crate) fn plain(tree: &mut Statement) {
    let _: ControlFlow<()> = VisitMut::visit(tree, &mut Plain);
}

struct Plain;

impl VisitorMut for Plain {
    type Break = ();

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        if let Some(with) = &mut query.with {
            with.recursive = false;
        }
        if let Some(Fetch { quantity, .. }) = query.fetch.take() {
            // FETCH FIRST ROW ONLY names no number.
            let one = || Expr::Value(Value::Number("1".into(), false).with_empty_span());
            let limit = Some(quantity.unwrap_or_else(one));
            let offset = match query.limit_clause.take() {
                Some(LimitClause::LimitOffset { offset, .. }) => offset,
                _ => None,
            };
            query.limit_clause = Some(LimitClause::LimitOffset { limit, offset, limit_by: vec![] });
        }
        ControlFlow::Continue(())
    }
}

struct Unread;

impl Visitor for Unread {
    // Boxed: the visitor keeps one of it at each depth of the tree.
    type Break = Box<Error>;

    fn pre_visit_statement(&mut self, statement: &Statement) -> ControlFlow<Box<Error>> {
        match statement {
            Statement::Delete(delete) => of_delete(delete),
            Statement::Update(update) => of_update(update),
            Statement::Merge(merge) => of_target(&merge.table),
            _ => ControlFlow::Continue(()),
        }
    }

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<Box<Error>> {
        of_query(query)
    }

    fn pre_visit_select(&mut self, select: &Select) -> ControlFlow<Box<Error>> {
        of_select(select)
    }

    fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<Box<Error>> {
        of_table(factor)
    }
}

fn refused(what: &str, hint: &str) -> ControlFlow<Box<Error>> {
    ControlFlow::Break(Box::new(Error::unsupported(format!("{what} is not supported"), hint)))
}

/// Refuses the first clause that is there.
fn none_of(clauses: &[(bool, &str, &str)]) -> ControlFlow<Box<Error>> {
    match clauses.iter().find(|(is_there, ..)| *is_there) {
        Some((_, what, hint)) => refused(what, hint),
        None => ControlFlow::Continue(()),
    }
}

const NO_ROWS_BACK: &str =
    "a change answers how many rows it changed; SELECT them with the same WHERE";

fn of_delete(delete: &Delete) -> ControlFlow<Box<Error>> {
    let (FromTable::WithFromKeyword(tables) | FromTable::WithoutKeyword(tables)) = &delete.from;
    none_of(&[
        (delete.returning.is_some(), "RETURNING", NO_ROWS_BACK),
        (delete.output.is_some(), "OUTPUT", NO_ROWS_BACK),
    ])?;
    tables.iter().try_for_each(|table| of_target(&table.relation))
}

fn of_update(update: &Update) -> ControlFlow<Box<Error>> {
    none_of(&[
        (update.returning.is_some(), "RETURNING", NO_ROWS_BACK),
        (update.output.is_some(), "OUTPUT", NO_ROWS_BACK),
    ])?;
    of_target(&update.table.relation)
}

/// The table that is changed is the newest version of it.
fn of_target(table: &TableFactor) -> ControlFlow<Box<Error>> {
    match table {
        TableFactor::Table { version: Some(_), .. } => {
            refused("a change of an earlier version", "RESTORE TABLE … TO VERSION n comes first")
        }
        _ => ControlFlow::Continue(()),
    }
}

fn of_query(query: &Query) -> ControlFlow<Box<Error>> {
    if query.with.as_ref().is_some_and(|with| with.recursive && recurs(with)) {
        return ControlFlow::Break(Box::new(Error::unsupported(
            "Recursive CTEs are not enabled",
            "join the table with itself once for each level, and put the levels together with \
             UNION ALL; generate_series(1, n) counts",
        )));
    }
    none_of(&[
        (
            !query.locks.is_empty(),
            "FOR UPDATE or FOR SHARE",
            "leave it out: a statement reads one version of each table, and a change that meets \
             another one fails",
        ),
        (query.for_clause.is_some(), "FOR XML or FOR JSON", "SELECT the columns"),
        (
            query.fetch.as_ref().is_some_and(|fetch| fetch.with_ties),
            "FETCH … WITH TIES",
            "keep the rows where rank() OVER (ORDER BY …) <= n",
        ),
        (
            query.fetch.as_ref().is_some_and(|fetch| fetch.percent),
            "FETCH … PERCENT",
            "write LIMIT n",
        ),
        (query.fetch.is_some() && has_limit(query), "FETCH beside LIMIT", "leave one of them out"),
        (query.settings.is_some(), "SETTINGS", "write SET name = value before the statement"),
        (query.format_clause.is_some(), "FORMAT", "the client chooses how rows are shown"),
    ])
}

/// Whether a query of a WITH reads itself, or one behind it.
fn recurs(with: &With) -> bool {
    let names: Vec<String> = with.cte_tables.iter().map(|cte| folded(&cte.alias.name)).collect();
    let mut tables = with.cte_tables.iter().enumerate();
    tables.any(|(at, cte)| {
        let read = visit_relations(cte.query.as_ref(), |name| match name_parts(name).as_slice() {
            [name] if names.iter().skip(at).any(|later| later == name) => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        });
        read.is_break()
    })
}

fn has_limit(query: &Query) -> bool {
    match &query.limit_clause {
        Some(LimitClause::LimitOffset { limit, limit_by, .. }) => {
            limit.is_some() || !limit_by.is_empty()
        }
        Some(LimitClause::OffsetCommaLimit { .. }) => true,
        None => false,
    }
}

fn of_select(select: &Select) -> ControlFlow<Box<Error>> {
    let (GroupByExpr::All(modifiers) | GroupByExpr::Expressions(_, modifiers)) = &select.group_by;
    let to_where = "write the condition into WHERE";
    let to_order = "write ORDER BY";
    let plain = "leave it out";
    none_of(&[
        (select.top.is_some(), "TOP", "write LIMIT n"),
        (select.into.is_some(), "SELECT INTO", "write CREATE TABLE t AS SELECT …"),
        (select.prewhere.is_some(), "PREWHERE", to_where),
        (
            !select.connect_by.is_empty(),
            "START WITH or CONNECT BY",
            "join the table with itself once for each level",
        ),
        (
            !modifiers.is_empty(),
            "GROUP BY … WITH",
            "write GROUP BY ROLLUP (a, b), CUBE (a, b) or GROUPING SETS (…)",
        ),
        (!select.lateral_views.is_empty(), "LATERAL VIEW", "write unnest(column) in SELECT"),
        (!select.cluster_by.is_empty(), "CLUSTER BY", to_order),
        (!select.sort_by.is_empty(), "SORT BY", to_order),
        (select.select_modifiers.is_some(), "a modifier of SELECT", plain),
        (select.value_table_mode.is_some(), "SELECT AS", "name the columns"),
        (select.exclude.is_some(), "EXCLUDE behind columns", "write SELECT * EXCLUDE (a, b)"),
    ])
}

const SAMPLE: &str = "WHERE random() < 0.1 keeps about a tenth of the rows";
const ORDINALITY: &str = "row_number() OVER () numbers rows";

fn of_table(factor: &TableFactor) -> ControlFlow<Box<Error>> {
    let no_relation = |what: &str| refused(what, "docs/sql.md lists what stands in FROM");
    match factor {
        TableFactor::Table {
            args,
            with_hints,
            with_ordinality,
            partitions,
            json_path,
            sample,
            index_hints,
            ..
        } => {
            let settings = args.as_ref().is_some_and(|args| args.settings.is_some());
            none_of(&[
                (sample.is_some(), "TABLESAMPLE", SAMPLE),
                (!with_hints.is_empty(), "a hint beside a table", "leave out WITH (…)"),
                (!index_hints.is_empty(), "a hint beside a table", "leave it out"),
                (!partitions.is_empty(), "PARTITION beside a table", "write it into WHERE"),
                (json_path.is_some(), "a path into a table", "name the columns in SELECT"),
                (*with_ordinality, "WITH ORDINALITY", ORDINALITY),
                (settings, "SETTINGS", "leave it out"),
            ])
        }
        TableFactor::Derived { sample, .. } => {
            none_of(&[(sample.is_some(), "TABLESAMPLE", SAMPLE)])
        }
        TableFactor::Function { with_ordinality, .. } => {
            none_of(&[(*with_ordinality, "WITH ORDINALITY", ORDINALITY)])
        }
        TableFactor::UNNEST { with_offset, with_ordinality, .. } => none_of(&[
            (*with_ordinality, "WITH ORDINALITY", ORDINALITY),
            (*with_offset, "WITH OFFSET", ORDINALITY),
        ]),
        TableFactor::Pivot { .. } => refused(
            "PIVOT",
            "write a column for each value: sum(x) FILTER (WHERE month = 'JAN') AS jan, …",
        ),
        TableFactor::Unpivot { .. } => refused(
            "UNPIVOT",
            "write SELECT 'jan' AS month, jan AS x FROM t UNION ALL SELECT 'feb', feb FROM t …",
        ),
        TableFactor::MatchRecognize { .. } => {
            refused("MATCH_RECOGNIZE", "lag(x) OVER (…) and lead(x) OVER (…) see other rows")
        }
        TableFactor::JsonTable { .. } => no_relation("JSON_TABLE"),
        TableFactor::OpenJsonTable { .. } => no_relation("OPENJSON"),
        TableFactor::XmlTable { .. } => no_relation("XMLTABLE"),
        TableFactor::SemanticView { .. } => no_relation("SEMANTIC_VIEW"),
        _ => ControlFlow::Continue(()),
    }
}

#[cfg(test)]
mod tests {
    use sqlparser::dialect::GenericDialect;
    use sqlparser::parser::Parser;

    use super::*;
    use crate::dialect::AttuneDialect;

    fn checked(text: &str) -> Result<()> {
        check(&Parser::parse_sql(&AttuneDialect, text).unwrap())
    }

    #[test]
    fn a_clause_without_effect_is_refused_wherever_it_stands() {
        for text in [
            "SELECT * FROM t TABLESAMPLE BERNOULLI (10)",
            "SELECT * FROM a JOIN t TABLESAMPLE SYSTEM (10) ON true",
            "SELECT 1 WHERE 1 IN (SELECT x FROM t TABLESAMPLE BERNOULLI (10))",
            "WITH c AS (SELECT * FROM t TABLESAMPLE BERNOULLI (10)) SELECT * FROM c",
            "SELECT * FROM (SELECT 1) AS s TABLESAMPLE BERNOULLI (10)",
            "INSERT INTO u SELECT * FROM t TABLESAMPLE BERNOULLI (10)",
            "DELETE FROM t TABLESAMPLE BERNOULLI (10)",
            "DELETE FROM t VERSION AS OF 1",
            "DELETE FROM t RETURNING *",
            "UPDATE t SET x = 1 RETURNING x",
            "SELECT * FROM t FOR UPDATE",
            "SELECT * FROM t WITH (NOLOCK)",
            "SELECT x FROM t GROUP BY x WITH ROLLUP",
            "SELECT x FROM t CONNECT BY x = y",
            "SELECT x INTO u FROM t",
            "SELECT * FROM f(1) WITH ORDINALITY",
        ] {
            assert_eq!(checked(text).unwrap_err().code(), "ATT-2002", "{text}");
        }
        checked("SELECT x, count(*) FROM t AS u GROUP BY ROLLUP (x) LIMIT 3").unwrap();
        checked("SELECT * FROM t VERSION AS OF 1").unwrap();
    }

    #[test]
    fn recursive_is_left_out_where_nothing_recurs() {
        for (text, recurs) in [
            ("WITH RECURSIVE a AS (SELECT 1 AS n), b AS (SELECT n FROM a) SELECT * FROM b", false),
            ("WITH RECURSIVE a AS (SELECT n FROM x.a) SELECT * FROM a", false),
            ("WITH RECURSIVE a AS (SELECT 1 UNION ALL SELECT n FROM A) SELECT * FROM a", true),
            ("WITH RECURSIVE a AS (SELECT n FROM b), b AS (SELECT 1 AS n) SELECT * FROM a", true),
            ("WITH RECURSIVE a AS (SELECT (SELECT n FROM a) AS n) SELECT * FROM a", true),
        ] {
            let mut tree = Parser::parse_sql(&AttuneDialect, text).unwrap().remove(0);
            assert_eq!(check(&tree).is_err(), recurs, "{text}");
            if !recurs {
                plain(&mut tree);
                assert_eq!(tree.to_string(), text.replace("RECURSIVE ", ""));
            }
        }
    }

    #[test]
    fn fetch_is_a_limit() {
        let said = |text: &str| {
            let mut tree = Parser::parse_sql(&AttuneDialect, text).unwrap().remove(0);
            check(&tree).unwrap();
            plain(&mut tree);
            tree.to_string()
        };
        let text = "SELECT x FROM t ORDER BY x OFFSET 2 ROWS FETCH NEXT 3 ROWS ONLY";
        assert_eq!(said(text), "SELECT x FROM t ORDER BY x LIMIT 3 OFFSET 2 ROWS");
        let text = "SELECT * FROM (SELECT x FROM t FETCH FIRST ROW ONLY) AS s";
        assert_eq!(said(text), "SELECT * FROM (SELECT x FROM t LIMIT 1) AS s");
        for text in [
            "SELECT x FROM t ORDER BY x FETCH FIRST 3 ROWS WITH TIES",
            "SELECT x FROM t FETCH FIRST 10 PERCENT ROWS ONLY",
            "SELECT x FROM t LIMIT 2 FETCH FIRST 3 ROWS ONLY",
        ] {
            assert_eq!(checked(text).unwrap_err().code(), "ATT-2002", "{text}");
        }
    }

    #[test]
    fn what_only_other_dialects_read_is_known_too() {
        for text in
            ["SELECT * FROM t PREWHERE x = 1", "SELECT * FROM t PIVOT (sum(x) FOR m IN ('a', 'b'))"]
        {
            let tree = Parser::parse_sql(&GenericDialect {}, text).unwrap();
            assert_eq!(check(&tree).unwrap_err().code(), "ATT-2002", "{text}");
        }
    }
}
