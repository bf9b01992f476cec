//! EXPLAIN CHECK TABLE: how many files would be read, how many are known, and the queries. How a
//! check is computed that looks up what others may read is not shown. One that cannot be computed
//! is a row that says why, as in CHECK TABLE.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringArray};
use catalog::ObjectName;
use catalog::check_states::CheckStates;
use datafusion::datasource::{MemTable, provider_as_source};
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::{LogicalPlan, LogicalPlanBuilder};
use datafusion::physical_plan::displayable;

use super::keys::KEYS_MAX;
use super::owners::{OWNER_LEARNS, is_shown};
use super::query::Item;
use super::run::{CheckTable, Parts, is_of_all, whole};
use crate::error::{Error, Result};
use crate::session::bindings::Bindings;
use crate::session::{Action, StatementContext};

/// Plans EXPLAIN CHECK TABLE; nothing of the table is read.
pub(super) async fn plan(
    context: &Arc<StatementContext>,
    table: &ObjectName,
) -> Result<(SessionState, Action)> {
    let mut checks = CheckTable::plan(context, table).await?;
    if checks.is_empty() {
        return Err(Error::invalid_hint(
            format!("nothing is expected of {table}"),
            format!("CREATE EXPECTATION name ON {table} CHECK (…)"),
        ));
    }
    let state = context.state(&Bindings::default())?;
    let mut rows = Rows::default();
    if let Some(parts) = checks.parts()
        && let Err(error) = explain(context, table, &state, parts, &mut rows).await
    {
        let wrong = match is_of_all(&error) {
            true => BTreeMap::new(),
            false => wrong(context, table, &state, parts).await?,
        };
        if wrong.is_empty() {
            return Err(error);
        }
        checks = CheckTable::plan_but(context, table, wrong).await?;
        rows = Rows::default();
        if let Some(parts) = checks.parts() {
            explain(context, table, &state, parts, &mut rows).await?;
        }
    }
    if checks.parts().is_none() && checks.has_sound() {
        rows.add("files", "each check reads the table on its own".into());
    }
    for (name, message) in checks.broken() {
        rows.add("error", format!("{name}: {}", message.unwrap_or_default()));
    }
    let answer = rows.batch()?;
    let source = MemTable::try_new(answer.schema(), vec![vec![answer]])?;
    let source = provider_as_source(Arc::new(source));
    let plan = LogicalPlanBuilder::scan("plan", source, None)?.build()?;
    Ok((state, Action::Query(plan)))
}

async fn explain(
    context: &StatementContext,
    table: &ObjectName,
    state: &SessionState,
    parts: &Parts,
    rows: &mut Rows,
) -> Result<()> {
    let names =
        |items: &[Item]| items.iter().map(|item| item.name.as_str()).collect::<Vec<_>>().join(", ");
    let mut states = CheckStates::default();
    if let Some(partial) = &parts.partial {
        states = context.engine().catalog().check_states(table).await;
        let files = partial.to_read(&states);
        let known = files.total.saturating_sub(files.read);
        let names = names(&partial.items);
        let read = files.read;
        rows.add("files", format!("{read} to read, {known} known: {names}"));
        for (item, referenced) in partial.looking_up() {
            if is_shown(context, item) {
                let (read, name) = (referenced.to_read(&states), &item.name);
                let known = referenced.files().len().saturating_sub(read);
                let of = match referenced.files().is_empty() {
                    true => format!("its query is asked each time: {name}"),
                    false => {
                        format!("{read} to read, {known} known, of the table looked up: {name}")
                    }
                };
                rows.add("files", of);
            }
        }
    }
    if let Some((items, _)) = &parts.whole {
        let files = parts.files.map_or_else(|| "all".to_owned(), |total| format!("all {total}"));
        rows.add("files", format!("{files} to read: {}", names(items)));
    }
    for crowded in &parts.crowded {
        let name = &crowded.name;
        rows.add("files", format!("more than {KEYS_MAX} different values, none is kept: {name}"));
    }
    let whole = parts.whole.iter().flat_map(|(items, _)| items);
    let hidden: Vec<Item> = whole.filter(|item| !is_shown(context, item)).cloned().collect();
    if !hidden.is_empty() {
        rows.add("files", format!("its query is not yours to see: {}", names(&hidden)));
    }
    let queries = parts.queries(&states)?;
    for (number, query) in queries.plans.iter().enumerate() {
        // The last one is that of the whole table.
        let shown = hidden.is_empty() || number + 1 < queries.plans.len();
        let explained = rows.query(state, query, shown).await;
        explained.map_err(|error| if shown { error } else { unseen() })?;
    }
    if let Some(shared) = &queries.shared {
        rows.add("files", format!("read once for these {} queries", queries.plans.len()));
        rows.query(state, &shared.scan()?, true).await?;
    }
    Ok(())
}

/// Those of the checks that cannot be planned alone either, with what is said of each.
async fn wrong(
    context: &Arc<StatementContext>,
    table: &ObjectName,
    state: &SessionState,
    parts: &Parts,
) -> Result<BTreeMap<String, Error>> {
    let partial = parts.partial.iter().flat_map(|partial| &partial.items);
    let whole_items = parts.whole.iter().flat_map(|(items, _)| items);
    let items: Vec<&Item> = partial.chain(whole_items).collect();
    let mut wrong = BTreeMap::new();
    for item in items {
        let plan = whole(context, table, std::slice::from_ref(item)).await;
        let tried = match plan {
            Ok(plan) => state.create_physical_plan(&plan).await.map(|_| ()).map_err(Error::from),
            Err(error) => Err(error),
        };
        match tried {
            Ok(()) => {}
            Err(error) if is_of_all(&error) => return Err(error),
            Err(error) => {
                let error = if is_shown(context, item) { error } else { unseen() };
                wrong.insert(item.name.clone(), error);
            }
        }
    }
    Ok(wrong)
}

fn unseen() -> Error {
    Error::Execution {
        what: "a query that is not yours to see cannot be planned".into(),
        hint: Some(OWNER_LEARNS.into()),
    }
}

/// The answer as EXPLAIN gives it: what a row is about, and the row.
#[derive(Default)]
struct Rows(Vec<(&'static str, String)>);

impl Rows {
    fn add(&mut self, about: &'static str, text: String) {
        self.0.push((about, text));
    }

    /// Plans a query, by which the rows that queries share know what it reads.
    async fn query(
        &mut self,
        state: &SessionState,
        query: &LogicalPlan,
        shown: bool,
    ) -> Result<()> {
        let logical = state.optimize(query)?;
        let physical = state.create_physical_plan(query).await?;
        if shown {
            self.add("logical_plan", logical.display_indent().to_string());
            let physical = displayable(physical.as_ref()).indent(false).to_string();
            self.add("physical_plan", physical);
        }
        Ok(())
    }

    fn batch(&self) -> Result<RecordBatch> {
        let about: StringArray = self.0.iter().map(|(about, _)| Some(*about)).collect();
        let texts: StringArray = self.0.iter().map(|(_, text)| Some(text.as_str())).collect();
        Ok(RecordBatch::try_from_iter([
            ("plan_type", Arc::new(about) as ArrayRef),
            ("plan", Arc::new(texts) as ArrayRef),
        ])?)
    }
}
