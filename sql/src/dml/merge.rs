//! MERGE: a source's rows meet a table's, and each meeting changes, removes or adds a row.
//!
//! One full join, read once, says for every row what becomes of it. The target's rows are numbered,
//! so that a row that meets several source rows stays one row, and is an error when more than one
//! of them would change it: which change wins would be chance.
//!
//! Which values may come in is looked at for each clause by itself: rows that one adds are copies
//! as those of INSERT are, and what one writes into a row counts together with what that row has
//! by the same clause, not by another.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::{Fields, SchemaRef};
use catalog::policy::Privilege;
use datafusion::common::DFSchema;
use datafusion::execution::session_state::SessionState;
use sqlparser::ast::{
    Expr, Merge, MergeAction, MergeClause, MergeClauseKind, MergeInsertExpr, MergeInsertKind,
    TableFactor,
};

use crate::consent;
use crate::dml::rewrite::{Target, assigned, typed};
use crate::dml::sent::{free, quoted};
use crate::dml::{Change, MergePlan, copies_in};
use crate::error::{Error, Result};
use crate::expectation::load::Rows;
use crate::parse::{name_parts, parse_query};
use crate::policy::{RowCheck, have_an_age};
use crate::session::{Action, StatementContext};

/// What is computed of rows, by names that no column of the table or of the source has.
struct Names {
    /// The number of a target's row; NULL for a source row that meets none.
    row: String,
    /// Whether there is a source row.
    source: String,
    /// What becomes of a row: `n` written by clause n, `-n` removed by clause n, 0 kept, NULL
    /// nothing.
    action: String,
    /// Which of a row's meetings comes first.
    pick: String,
}

impl Names {
    fn beside(table: &SchemaRef, source: &DFSchema) -> Self {
        let name = |wanted: &str| {
            let has = |fields: &Fields, name: &str| fields.iter().any(|field| field.name() == name);
            free(wanted, |name| has(table.fields(), name) || has(source.fields(), name))
        };
        Self {
            row: name("__row"),
            source: name("__source"),
            action: name("__action"),
            pick: name("__pick"),
        }
    }
}

/// Plans a MERGE.
pub(crate) async fn merge(
    context: &Arc<StatementContext>,
    merge: &Merge,
) -> Result<(SessionState, Action)> {
    if merge.output.is_some() {
        return Err(Error::unsupported("OUTPUT is not supported", "SELECT the rows afterwards"));
    }
    if merge.clauses.is_empty() {
        return Err(Error::invalid_hint("MERGE does nothing", "add WHEN MATCHED THEN …"));
    }
    let privileges: Vec<Privilege> = merge.clauses.iter().map(privilege).collect();
    let target = Target::of_factor(context, &merge.table, &privileges).await?;
    let alias = source_alias(&merge.source)?;
    let seen = format!("SELECT * FROM {}", merge.source);
    let (_, seen) = context.plan_query(parse_query(&seen)?).await?;
    let names = Names::beside(target.schema(), seen.schema());
    let source =
        |mark: &str| format!("(SELECT *{mark} FROM {}) AS {}", merge.source, quoted(&alias));
    let mut branches = Vec::new();
    for (index, clause) in merge.clauses.iter().enumerate() {
        branches.push(Branch::of(clause, index + 1, &target)?);
    }
    // Single rows that are added are as old as those of the source.
    let are_aged = branches.iter().any(Branch::inserts) && have_an_age(context, &seen).await?;
    let writes_values = branches.iter().any(|branch| branch.values.is_some());
    for branch in &branches {
        let (values, met) = (branch.written(&target), branch.met(&source(""), &merge.on));
        let in_place = !(are_aged && branch.inserts());
        target.check(context, &values, &met, in_place, writes_values).await?;
    }
    // A mark tells that there is a row. What is checked does not have it, nor do errors tell of it.
    let marked = source(&format!(", true AS {}", names.source));
    let joined = joined(&target, &names, &marked, &merge.on, &branches);
    let columns = target.schema().fields().iter().map(|field| quoted(field.name()));
    let columns: Vec<String> = columns.collect();
    let Names { row, action, pick, .. } = &names;
    let keep = format!(
        "SELECT {}, {action} > 0 AS {} FROM (SELECT *, \
         row_number() OVER (PARTITION BY {row} ORDER BY abs({action}) DESC) AS {pick} FROM ({joined}) AS \"__all\" WHERE {action} IS NOT NULL) AS \"__kept\" \
         WHERE {action} >= 0 AND ({row} IS NULL OR {pick} = 1)",
        columns.join(", "),
        target.mark()
    );
    let counts = format!(
        "SELECT count(*) FILTER (WHERE {action} > 0 AND {row} IS NULL) AS i, \
         count(*) FILTER (WHERE {action} > 0 AND {row} IS NOT NULL) AS u, \
         count(*) FILTER (WHERE {action} < 0) AS d, \
         count(*) FILTER (WHERE {action} <> 0 AND {row} IS NOT NULL) - \
         count(DISTINCT {row}) FILTER (WHERE {action} <> 0) AS twice \
         FROM ({joined}) AS \"__all\""
    );
    let (_, counts) = context.plan_query(parse_query(&counts)?).await?;
    let keep = target.with_untouched(keep, Rows::Changed);
    let (state, keep) = context.plan_query(parse_query(&keep)?).await?;
    for branch in &branches {
        branch.check_persons(context, &target, &source(""), &merge.on).await?;
    }
    let check = RowCheck::of(context, &target.name, target.schema()).await?;
    let Target { name, version, .. } = target;
    let copies = copies_in(context, &keep, &name).await?;
    let plan = MergePlan { name, version, keep, check, counts, copies };
    Ok((state, Action::Rows(Change::Merge(Box::new(plan)))))
}

/// What a clause needs on the table.
fn privilege(clause: &MergeClause) -> Privilege {
    match clause.action {
        MergeAction::Insert(_) => Privilege::Insert,
        MergeAction::Update(_) => Privilege::Update,
        MergeAction::Delete { .. } => Privilege::Delete,
    }
}

/// The name of where the rows come from.
fn source_alias(factor: &TableFactor) -> Result<String> {
    match factor {
        TableFactor::Table { alias: Some(alias), .. }
        | TableFactor::Derived { alias: Some(alias), .. } => {
            Ok(crate::dialect::folded(&alias.name))
        }
        TableFactor::Table { name, .. } => Ok(name_parts(name).pop().unwrap_or_default()),
        _ => Err(Error::unsupported(
            "the source of MERGE is a table or a query with a name",
            "write USING t, or USING (SELECT …) AS s",
        )),
    }
}

/// The clauses for rows of the source that meet none.
const NEW: &[MergeClauseKind] = &[MergeClauseKind::NotMatched, MergeClauseKind::NotMatchedByTarget];

/// One WHEN clause: when it applies, and the row that it makes (none: it removes the row).
struct Branch {
    number: usize,
    kind: MergeClauseKind,
    condition: String,
    values: Option<Vec<Option<String>>>,
}

impl Branch {
    fn of(clause: &MergeClause, number: usize, target: &Target) -> Result<Self> {
        let inserts = NEW.contains(&clause.clause_kind);
        let values = match (&clause.action, inserts) {
            (MergeAction::Insert(insert), true) => Some(inserted(insert, target)?),
            (MergeAction::Update(update), false) => {
                if update.update_predicate.is_some() || update.delete_predicate.is_some() {
                    return Err(Error::unsupported(
                        "UPDATE … WHERE inside MERGE is not supported",
                        "write WHEN MATCHED AND condition THEN UPDATE SET …",
                    ));
                }
                let changed = assigned(target, &update.assignments)?;
                let value = |field: &Arc<arrow::datatypes::Field>| changed.get(field.name());
                Some(target.schema().fields().iter().map(|field| value(field).cloned()).collect())
            }
            (MergeAction::Delete { .. }, false) => None,
            (action, _) => {
                return Err(Error::invalid_hint(
                    format!("{} cannot {action}", clause.clause_kind),
                    "a row that matches is updated or deleted, one that does not is inserted",
                ));
            }
        };
        let condition = clause.predicate.as_ref().map_or("true".into(), |when| format!("({when})"));
        Ok(Self { number, kind: clause.clause_kind, condition, values })
    }

    /// What is written of the rows that meet, each value with its column.
    fn written(&self, target: &Target) -> Vec<(String, String)> {
        let columns = target.schema().fields().iter().zip(self.values.iter().flatten());
        let written = columns
            .filter_map(|(field, value)| value.clone().map(|value| (field.name().clone(), value)));
        written.collect()
    }

    /// Where the clause applies: the source beside the table, and the condition.
    fn met(&self, source: &str, on: &Expr) -> String {
        let meeting = match self.kind {
            MergeClauseKind::Matched => "INNER",
            MergeClauseKind::NotMatchedBySource => "LEFT",
            MergeClauseKind::NotMatched | MergeClauseKind::NotMatchedByTarget => "RIGHT",
        };
        format!("{meeting} JOIN {source} ON {on} WHERE {}", self.condition)
    }

    /// Checks that what the clause writes of rows that consents choose comes into rows of the same
    /// persons.
    async fn check_persons(
        &self,
        context: &Arc<StatementContext>,
        target: &Target,
        source: &str,
        on: &Expr,
    ) -> Result<()> {
        let written = self.written(target);
        if !self.inserts() {
            let values: BTreeMap<String, String> = written.into_iter().collect();
            return target.check_persons(context, &values, &self.met(source, on)).await;
        }
        if !consent::copies::are_chosen(context) {
            return Ok(());
        }
        let written =
            written.iter().map(|(column, value)| format!("({value}) AS {}", quoted(column)));
        let written: Vec<String> = written.collect();
        let added = format!("SELECT {} FROM {source} WHERE {}", written.join(", "), self.condition);
        let (_, added) = context.plan_query(parse_query(&added)?).await?;
        consent::copies::may_insert(context, &target.name, &added).await
    }

    fn meets(&self, wanted: &[MergeClauseKind]) -> bool {
        wanted.contains(&self.kind)
    }

    fn inserts(&self) -> bool {
        self.meets(NEW)
    }

    fn action(&self) -> String {
        let sign = if self.values.is_some() { "" } else { "-" };
        format!("WHEN {} THEN {sign}{}", self.condition, self.number)
    }
}

/// The values that INSERT gives to the table's columns; a column without one is NULL.
fn inserted(insert: &MergeInsertExpr, target: &Target) -> Result<Vec<Option<String>>> {
    if insert.insert_predicate.is_some() {
        return Err(Error::unsupported(
            "INSERT … WHERE inside MERGE is not supported",
            "write WHEN NOT MATCHED AND condition THEN INSERT …",
        ));
    }
    let table = target.schema();
    let columns: Vec<String> = match insert.columns.as_slice() {
        [] => table.fields().iter().map(|field| field.name().clone()).collect(),
        named => named.iter().filter_map(|name| name_parts(name).pop()).collect(),
    };
    let given: Vec<String> = match &insert.kind {
        MergeInsertKind::Row => {
            let hint = "write INSERT (column, …) VALUES (…)";
            return Err(Error::unsupported("INSERT ROW is not supported", hint));
        }
        MergeInsertKind::Values(values) => match values.rows.as_slice() {
            [row] => row.iter().map(Expr::to_string).collect(),
            _ => return Err(Error::invalid("INSERT inside MERGE takes one row of VALUES")),
        },
    };
    if given.len() != columns.len() {
        let (named, given) = (columns.len(), given.len());
        return Err(Error::invalid(format!(
            "INSERT names {named} columns and gives {given} values"
        )));
    }
    let mut values = vec![None; table.fields().len()];
    for (column, value) in columns.iter().zip(given) {
        let Ok(index) = table.index_of(column) else { return Err(target.unknown(column)) };
        if values[index].replace(value).is_some() {
            return Err(Error::invalid(format!("column {column} is given twice")));
        }
    }
    Ok(values)
}

/// Every meeting of rows with its action and the row that comes of it.
fn joined(target: &Target, names: &Names, source: &str, on: &Expr, branches: &[Branch]) -> String {
    use MergeClauseKind::{Matched, NotMatchedBySource};
    let case = |kinds: &[MergeClauseKind], otherwise: &str| {
        let met: Vec<String> =
            branches.iter().filter(|branch| branch.meets(kinds)).map(Branch::action).collect();
        match met.is_empty() {
            true => otherwise.to_owned(),
            false => format!("CASE {} ELSE {otherwise} END", met.join(" ")),
        }
    };
    let alias = quoted(&target.alias);
    let Names { row, source: is_met, action: named, .. } = names;
    let action = format!(
        "CASE WHEN {alias}.{row} IS NULL THEN {} WHEN {is_met} THEN {} ELSE {} END",
        case(NEW, "CAST(NULL AS BIGINT)"),
        case(&[Matched], "0"),
        case(&[NotMatchedBySource], "0"),
    );
    let columns = target.schema().fields().iter().enumerate().map(|(index, field)| {
        let (name, value) = (quoted(field.name()), target.value(field.name()));
        // A column without a value keeps the target's, which is NULL for a row that is new.
        let made = branches.iter().filter_map(|branch| {
            let value = branch.values.as_ref()?.get(index)?.as_ref()?;
            Some(format!("WHEN {} THEN {}", branch.number, typed(value, field.data_type())))
        });
        let made: Vec<String> = made.collect();
        match made.is_empty() {
            true => format!("{alias}.{value} AS {name}"),
            false => {
                format!("CASE {action} {} ELSE {alias}.{value} END AS {name}", made.join(" "))
            }
        }
    });
    let columns: Vec<String> = columns.collect();
    // Rows of the source that meet none are there where a clause adds them, and nowhere else.
    let meeting = if branches.iter().any(Branch::inserts) { "FULL" } else { "LEFT" };
    format!(
        "SELECT {alias}.{row} AS {row}, {action} AS {named}, {} \
         FROM (SELECT *, row_number() OVER () AS {row} {}) AS {alias} \
         {meeting} JOIN {source} ON {on}",
        columns.join(", "),
        target.from()
    )
}
