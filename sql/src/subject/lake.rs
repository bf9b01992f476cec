//! A forgotten person's rows in tables over files.
//!
//! By now the person is hidden from every read. In a lake that Attune may write
//! (`access = "rewrite"`) each file with such rows is written without them, or removed where it
//! holds nothing else; whatever is left is named for its owner. After the last file the table is
//! listed and searched once more, so that a file that somebody wrote meanwhile is found too. Delta
//! tables go another way ([`super::lake_delta`]).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{AsArray, BooleanBufferBuilder};
use arrow::buffer::BooleanBuffer;
use catalog::erasures::StepReport;
use catalog::lake_erasure::{LakeErasure, Untouched, path_without};
use catalog::{ObjectName, TableFiles};
use datafusion::execution::memory_pool::MemoryPool;
use futures::TryStreamExt;

use super::lake_delta;
use super::person::{Person, counted};
use super::remains::some_of;
use crate::dml::sent::name_rows;
use crate::error::{CatalogError, Error, Result};
use crate::parse::parse_query;
use crate::session::StatementContext;
use crate::session::run::Run;

/// How often a table is looked at while others write its files.
pub(super) const TRIES: usize = 8;

const HIDDEN: &str = "hidden from every read; its files are not Attune's to write";
const EMPTY: &str = "hidden from every read; it has no files";
const CLOSED: &str = ", and cannot be told apart";
const NAMED: &str = "its name names the person";
pub(super) const AGAIN: &str = "others write it again and again";

/// The files are rewritten where Attune may, and named otherwise.
pub(super) async fn erase(
    run: &Run,
    context: &Arc<StatementContext>,
    person: &Person,
    table: &ObjectName,
) -> Result<StepReport> {
    let engine = context.engine();
    let catalog = engine.catalog();
    let delta = catalog.begin_delta_erasure(table, engine.base()).await;
    match delta.map(|delta| delta.map(|delta| delta.map(drop))) {
        Ok(None) => {}
        Ok(Some(Ok(()))) => {
            return Box::pin(lake_delta::rewrite(run, context, person, table)).await;
        }
        Ok(Some(Err(reason))) => {
            return Box::pin(name(run, context, person, table, Some(&reason))).await;
        }
        Err(error) if is_closed(&error) => {
            return Box::pin(name(run, context, person, table, None)).await;
        }
        Err(error) => return Err(error.into()),
    }
    match catalog.rewrites_files_of(table, engine.base()).await? {
        true => Box::pin(rewrite(run, context, person, table)).await,
        false => Box::pin(name(run, context, person, table, None)).await,
    }
}

/// Whether a table is none any more, or shows nobody because another one keeps identifiers of its
/// files apart.
pub(super) fn is_closed(error: &CatalogError) -> bool {
    matches!(
        error,
        CatalogError::NotFound { .. } | CatalogError::Empty { .. } | CatalogError::Invalid { .. }
    )
}

fn hidden(table: &ObjectName) -> StepReport {
    StepReport { exact: false, ..StepReport::new(format!("table {table}"), HIDDEN) }
}

/// Names the files with rows of the person, and why they are not written, where there is more to
/// say than that they are somebody else's.
pub(super) async fn name(
    run: &Run,
    context: &Arc<StatementContext>,
    person: &Person,
    table: &ObjectName,
    reason: Option<&str>,
) -> Result<StepReport> {
    let engine = context.engine();
    let mut report = hidden(table);
    if let Some(reason) = reason {
        report.outcome = format!("{HIDDEN} ({reason})");
    }
    let files = match engine.catalog().table_files(table, None, engine.base()).await {
        Ok(files) => files,
        Err(error) if is_closed(&error) => None,
        Err(error) => return Err(error.into()),
    };
    let Some(files) = files else {
        if matches!(engine.catalog().has_no_files(table).await, Ok(true)) {
            // Where no file is left, nobody is.
            return Ok(StepReport::new(format!("table {table}"), EMPTY));
        }
        report.outcome.push_str(CLOSED);
        return Ok(report);
    };
    if let Some(held) = Held::of(run, context, person, table, &files).await? {
        report.rows = held.rows;
        let paths = held.numbers.iter().filter_map(|number| files.path(*number));
        let names = person.names();
        let shown = paths.map(|path| path_without(path, &names).0);
        let named = shown.map(|path| match reason {
            Some(reason) => format!("{path} ({reason})"),
            None => path,
        });
        report.files = named.collect();
    }
    // A table with versions may hold in an earlier one whom it does not hold now.
    report.exact = report.rows == 0 && reason.is_none();
    Ok(report)
}

/// The person's rows of a table over files.
pub(super) struct Held {
    /// What is true of them.
    pub(super) condition: String,
    /// The numbers of the files with some.
    pub(super) numbers: Vec<usize>,
    pub(super) rows: u64,
}

impl Held {
    /// `None` when the table can have none.
    pub(super) async fn of(
        run: &Run,
        context: &Arc<StatementContext>,
        person: &Person,
        table: &ObjectName,
        files: &TableFiles,
    ) -> Result<Option<Self>> {
        let all: Vec<usize> = (0..files.ids().len()).collect();
        let rows = files.rows(&all);
        let Some(condition) = person.rows_of(table, &rows.schema()) else { return Ok(None) };
        let relation = name_rows(context, rows);
        let text = format!(
            "SELECT {file}, count(*) AS n FROM {relation} WHERE {condition} GROUP BY {file}",
            file = catalog::FILE
        );
        let (numbers, rows) = counted(run, context, &text).await?;
        Ok(Some(Self { condition, numbers, rows }))
    }
}

/// Writes the files without the person's rows.
async fn rewrite(
    run: &Run,
    context: &Arc<StatementContext>,
    person: &Person,
    table: &ObjectName,
) -> Result<StepReport> {
    let engine = context.engine();
    let pool = Arc::clone(&run.writing_state()?.runtime_env().memory_pool);
    let mut work = Work { run, context, names: person.names(), pool, done: Done::default() };
    for round in 0..=TRIES {
        work.done.changed.clear();
        let mut erasure = match engine.catalog().begin_lake_erasure(table, engine.base()).await {
            Ok(Some(erasure)) => erasure,
            // Where no file is left, nobody is.
            Err(CatalogError::Empty { .. }) => break,
            // A table that a lake discovers goes with its last file.
            Ok(None) | Err(CatalogError::NotFound { .. }) if work.done.removed > 0 => break,
            Ok(None) | Err(CatalogError::NotFound { .. } | CatalogError::Invalid { .. }) => {
                let mut report = hidden(table);
                report.outcome.push_str(CLOSED);
                return Ok(report);
            }
            Err(error) => return Err(error.into()),
        };
        let held = Held::of(run, context, person, table, erasure.files()).await?;
        let Some(held) = held else { break };
        work.done.rows_left = held.rows;
        let is_left = |number: &usize| {
            let path = erasure.files().path(*number);
            path.is_none_or(|path| work.done.left.contains_key(path))
        };
        let todo: Vec<usize> = held.numbers.into_iter().filter(|at| !is_left(at)).collect();
        if todo.is_empty() {
            work.done.keeps_versions |= erasure.keeps_versions().await?;
            break;
        }
        if round == TRIES {
            // Others have added rows of the person each time: what came last is theirs to rewrite.
            let paths = todo.into_iter().filter_map(|number| erasure.files().path(number));
            work.done.changed.extend(paths.map(str::to_owned));
            break;
        }
        for number in todo {
            Box::pin(work.file(&mut erasure, number, &held.condition)).await?;
        }
        erasure.forget();
    }
    Ok(work.report(table))
}

/// The rewriting of one table's files.
struct Work<'a> {
    run: &'a Run,
    context: &'a Arc<StatementContext>,
    /// By what the person is known.
    names: BTreeSet<String>,
    pool: Arc<dyn MemoryPool>,
    done: Done,
}

/// What became of the files, by their paths.
#[derive(Default)]
struct Done {
    rewritten: Vec<String>,
    left: BTreeMap<String, &'static str>,
    /// Those that somebody else has written since they were listed.
    changed: BTreeSet<String>,
    rows: u64,
    rows_left: u64,
    removed: u64,
    keeps_versions: bool,
}

impl Work<'_> {
    /// One file without the person's rows.
    async fn file(
        &mut self,
        erasure: &mut LakeErasure<'_>,
        number: usize,
        condition: &str,
    ) -> Result<()> {
        let Some(path) = erasure.files().path(number).map(str::to_owned) else { return Ok(()) };
        let file = match erasure.begin(number).await? {
            Ok(file) => file,
            Err(untouched) => {
                self.leave(path, untouched);
                return Ok(());
            }
        };
        let gone = match gone(self.run, self.context, erasure.files(), number, condition).await {
            Err(Error::Catalog(error)) if error.is_lost_race() => {
                self.leave(path, Untouched::Changed);
                return Ok(());
            }
            gone => gone?,
        };
        let rows = gone.count_set_bits() as u64;
        match erasure.end(&file, gone, &self.pool).await? {
            Ok(erased) => {
                let (shown, tells) = path_without(&path, &self.names);
                let done = &mut self.done;
                done.rows += rows;
                done.rows_left = done.rows_left.saturating_sub(rows);
                done.removed += u64::from(erased.is_removed);
                done.keeps_versions |= erased.keeps_versions;
                if tells && !erased.is_removed {
                    done.left.insert(path, NAMED);
                }
                done.rewritten.push(shown);
            }
            Err(untouched) => self.leave(path, untouched),
        }
        Ok(())
    }

    fn leave(&mut self, path: String, untouched: Untouched) {
        match untouched {
            Untouched::Changed => {
                self.done.changed.insert(path);
            }
            Untouched::Left(reason) => {
                self.done.left.insert(path, reason);
            }
        }
    }

    fn report(self, table: &ObjectName) -> StepReport {
        let Self { names, done, .. } = self;
        let mut left = done.left;
        left.extend(done.changed.into_iter().map(|path| (path, AGAIN)));
        let mut outcome = match done.rewritten.as_slice() {
            [] => "hidden from every read".to_owned(),
            files => format!("hidden from every read, and taken out of {}", some_of(files)),
        };
        match (left.len(), done.rewritten.len()) {
            (0, 0) => outcome.push_str("; no file holds the person"),
            (0, _) => {}
            (files, _) => outcome.push_str(&format!("; left to their owner: {files} of the files")),
        }
        let shown = |(path, reason): (&String, &&str)| {
            format!("{} ({reason})", path_without(path, &names).0)
        };
        StepReport {
            rows: done.rows + done.rows_left,
            objects: done.removed,
            exact: left.is_empty(),
            files: left.iter().map(shown).collect(),
            rewritten: done.rewritten,
            keeps_versions: done.keeps_versions,
            ..StepReport::new(format!("table {table}"), outcome)
        }
    }
}

/// Which rows of a file are the person's: a bit each, in the order of the file.
pub(super) async fn gone(
    run: &Run,
    context: &Arc<StatementContext>,
    files: &TableFiles,
    number: usize,
    condition: &str,
) -> Result<BooleanBuffer> {
    let relation = name_rows(context, files.rows(&[number]));
    let text = format!("SELECT {condition} IS TRUE AS gone FROM {relation}");
    let (_, plan) = Box::pin(context.plan_query(parse_query(&text)?)).await?;
    let mut rows = run.start_in_order(&plan).await?;
    let mut gone = BooleanBufferBuilder::new(0);
    while let Some(batch) = rows.try_next().await? {
        let column = batch.columns().first().and_then(|column| column.as_boolean_opt());
        let Some(column) = column else {
            return Err(Error::Internal("whether a row goes is true or false".into()));
        };
        gone.append_buffer(column.values());
    }
    Ok(gone.finish())
}
