//! INSERT with many rows of values, in one commit.
//!
//! `INSERT INTO t VALUES (?, ?)` with a thousand rows of values is not a thousand statements: the
//! rows become a table whose columns are `$1`, `$2`, …, and the statement `INSERT INTO t SELECT
//! "$1", "$2"` over it. That holds for one row of expressions without subqueries, which could see
//! the rows inserted before; any other statement runs once for each row of values.

use std::ops::ControlFlow;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::error::DataFusionError;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::sql::parser::Statement as DataFusionStatement;
use futures::StreamExt;
use sqlparser::ast::{
    Expr, GroupByExpr, Ident, Insert, Query, Select, SelectItem, SetExpr,
    Statement as SqlStatement, Value, ValueWithSpan, visit_expressions, visit_expressions_mut,
};

use crate::dml::sent::{self, quoted};
use crate::error::{Error, Result};
use crate::parse::{Statement, parse_query};
use crate::session::{Answer, Prepared, Session, StatementContext};

impl Prepared {
    /// Whether many rows of values can be inserted in one commit; otherwise the statement runs
    /// once for each.
    pub fn takes_many(&self) -> bool {
        !self.parameters().fields().is_empty() && inserted_row(self.statement()).is_some()
    }
}

impl Session {
    /// Runs an INSERT that [`Prepared::takes_many`] with all rows of values, in one commit;
    /// `query_id` is its id in the log. The columns of `values` are `$1`, `$2`, … in order.
    ///
    /// # Errors
    /// As [`Session::run`]; when a value does not convert to its placeholder's type. In each case
    /// no row is inserted.
    pub async fn run_many(
        &self,
        query_id: &str,
        prepared: &Prepared,
        values: SendableRecordBatchStream,
    ) -> Result<Answer> {
        let values = typed(values, prepared.parameters())?;
        let context = StatementContext::load(self).await?;
        let rows = sent::register(&context, values)?;
        let statement = over_rows(prepared.statement(), &rows)?;
        let prepared = Prepared::once(context, prepared.text(), statement).await?;
        self.run_as(query_id, &prepared, &[]).await
    }
}

/// The values in the types that the plan expects where it expects one, under the names `$1`, ….
fn typed(
    values: SendableRecordBatchStream,
    parameters: &Schema,
) -> Result<SendableRecordBatchStream> {
    let sent = values.schema();
    let (given, wanted) = (sent.fields().len(), parameters.fields().len());
    if given != wanted {
        return Err(Error::invalid_hint(
            format!("the statement has {wanted} parameters, {given} were given"),
            "bind one value for each ? or $n",
        ));
    }
    let fields = sent.fields().iter().zip(parameters.fields()).zip(1..);
    let fields = fields.map(|((sent, expected), number)| {
        let data_type = match expected.data_type() {
            DataType::Null => sent.data_type(),
            known => known,
        };
        Field::new(format!("${number}"), data_type.clone(), true)
    });
    let schema: SchemaRef = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
    let target = Arc::clone(&schema);
    let rows = values.map(move |batch| convert(&batch?, &target).map_err(DataFusionError::from));
    Ok(Box::pin(RecordBatchStreamAdapter::new(schema, rows)))
}

fn convert(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch> {
    let exact = CastOptions { safe: false, ..CastOptions::default() };
    let columns = batch.columns().iter().zip(schema.fields());
    let columns = columns.map(|(column, field)| {
        if column.data_type() == field.data_type() {
            return Ok(Arc::clone(column));
        }
        cast_with_options(column, field.data_type(), &exact).map_err(|error| {
            Error::invalid_hint(
                format!("value {} of the statement: {error}", &field.name()[1..]),
                format!("values that convert to {} are expected", field.data_type()),
            )
        })
    });
    let columns = columns.collect::<Result<Vec<ArrayRef>>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    Ok(RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)?)
}

/// The expressions of the one row that an INSERT inserts.
fn inserted_row(statement: &Statement) -> Option<Vec<Expr>> {
    let insert = insert_of(statement)?;
    let query = insert.source.as_ref()?;
    let plain = query.with.is_none()
        && query.order_by.is_none()
        && query.limit_clause.is_none()
        && query.fetch.is_none()
        && query.pipe_operators.is_empty();
    if !plain || insert.overwrite {
        return None;
    }
    let row = match query.body.as_ref() {
        SetExpr::Values(values) => match values.rows.as_slice() {
            [row] => row.content.clone(),
            _ => return None,
        },
        SetExpr::Select(select) => selected_row(select)?,
        _ => return None,
    };
    let alone = row.iter().all(|expr| {
        let found = visit_expressions(expr, |part| match part {
            Expr::Subquery(_) | Expr::InSubquery { .. } | Expr::Exists { .. } => {
                ControlFlow::Break(())
            }
            _ => ControlFlow::Continue(()),
        });
        found.is_continue()
    });
    (alone && !row.is_empty()).then_some(row)
}

/// The expressions of `SELECT e, …` without FROM or anything else.
fn selected_row(select: &Select) -> Option<Vec<Expr>> {
    let ungrouped = matches!(&select.group_by,
        GroupByExpr::Expressions(keys, modifiers) if keys.is_empty() && modifiers.is_empty());
    let plain = ungrouped
        && select.distinct.is_none()
        && select.top.is_none()
        && select.from.is_empty()
        && select.lateral_views.is_empty()
        && select.selection.is_none()
        && select.having.is_none()
        && select.qualify.is_none();
    if !plain {
        return None;
    }
    let scalar = |expr: &Expr| {
        // count(*) of one row is 1, and of many it is not one for each.
        let calls = visit_expressions(expr, |part| match part {
            Expr::Function(_) => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        });
        calls.is_continue()
    };
    let exprs = select.projection.iter().map(|item| match item {
        SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } => {
            scalar(expr).then(|| expr.clone())
        }
        _ => None,
    });
    exprs.collect()
}

fn insert_of(statement: &Statement) -> Option<&Insert> {
    let Statement::DataFusion(statement) = statement else { return None };
    let DataFusionStatement::Statement(tree) = statement.as_ref() else { return None };
    match tree.as_ref() {
        SqlStatement::Insert(insert) => Some(insert),
        _ => None,
    }
}

/// The INSERT with the table `rows` in place of its one row.
fn over_rows(statement: &Statement, rows: &str) -> Result<Statement> {
    let (Some(insert), Some(row)) = (insert_of(statement), inserted_row(statement)) else {
        return Err(Error::Internal("this statement does not insert one row".into()));
    };
    let items: Vec<String> = row
        .into_iter()
        .zip(1..)
        .map(|(mut expr, number)| {
            let _: ControlFlow<()> = visit_expressions_mut(&mut expr, |part| {
                if let Expr::Value(ValueWithSpan { value: Value::Placeholder(name), .. }) = part {
                    *part = Expr::Identifier(Ident::with_quote('"', name.clone()));
                }
                ControlFlow::Continue(())
            });
            format!("{expr} AS {}", quoted(&format!("value {number}")))
        })
        .collect();
    let source: Box<Query> =
        parse_query(&format!("SELECT {} FROM {}", items.join(", "), quoted(rows)))?;
    let insert = Insert { source: Some(source), ..insert.clone() };
    let tree = Box::new(SqlStatement::Insert(insert));
    Ok(Statement::DataFusion(Box::new(DataFusionStatement::Statement(tree))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse::parse;

    #[test]
    fn one_row_of_expressions_takes_many_rows_of_values() {
        for (text, expected) in [
            ("INSERT INTO t VALUES (?, ?)", true),
            ("INSERT INTO t (a, b) VALUES (?, upper(?))", true),
            ("INSERT INTO t SELECT CAST(? AS BIGINT) AS n", true),
            ("INSERT INTO t VALUES (?), (?)", false),
            ("INSERT INTO t VALUES ((SELECT max(n) FROM t) + ?)", false),
            ("INSERT INTO t SELECT n + ? FROM t", false),
            ("INSERT INTO t SELECT ? WHERE ? > 1", false),
            ("INSERT INTO t SELECT count(?)", false),
            ("INSERT OVERWRITE t VALUES (?)", false),
            ("DELETE FROM t WHERE n = ?", false),
            ("SELECT ?", false),
        ] {
            let Ok(statement) = parse(text, usize::MAX) else { continue };
            assert_eq!(inserted_row(&statement).is_some(), expected, "{text}");
        }
    }

    #[test]
    fn placeholders_become_columns() {
        let statement = parse("INSERT INTO t VALUES (?, 'x', ? + 1)", usize::MAX).unwrap();
        let Statement::DataFusion(over) = over_rows(&statement, "rows 1").unwrap() else {
            panic!("another statement");
        };
        let text = over.to_string();
        assert!(text.contains("SELECT \"$1\" AS \"value 1\", 'x' AS \"value 2\""), "{text}");
        assert!(text.contains("\"$2\" + 1 AS \"value 3\" FROM \"rows 1\""), "{text}");
    }
}
