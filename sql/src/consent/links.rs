//! Ids of one person: the crosswalks of the subjects whose keys a policy's persons are in.
//!
//! What is said under one id of a person counts under all of them: the latest word of the person,
//! by each channel, decides. An id that no crosswalk knows is a person of its own. An id that
//! several persons share has withdrawn once one of them has. Ids are compared by their text: `7` is
//! 7 and `007` is not.
//!
//! A crosswalk is read as it is, whoever owns the policy: what links ids shows nobody's rows, and
//! one that a policy or a grant hid a part of would let people through who have withdrawn.

use std::sync::Arc;

use arrow::datatypes::DataType;
use catalog::subjects::Crosswalk;
use catalog::{ConsentPolicy, TableState};
use datafusion::catalog::TableProvider;
use datafusion::common::{Column, JoinType};
use datafusion::datasource::provider_as_source;
use datafusion::error::DataFusionError;
use datafusion::functions_aggregate::expr_fn::max;
use datafusion::logical_expr::{
    Expr, LogicalPlan, LogicalPlanBuilder, Operator, binary_expr, cast, lit, try_cast, when,
};
use udfs::consent::SubjectKind;

use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::pii::{self, Reader, Shown};

/// The crosswalks of a policy, as they are read now.
#[derive(Debug, Default)]
pub(super) struct Links {
    crosswalks: Vec<Crosswalk>,
    /// Rows of `record` and `entity`, neither of them NULL; `None` where nothing links ids.
    plan: Option<LogicalPlan>,
}

impl Links {
    /// The links of a policy's persons, who are of this kind.
    ///
    /// # Errors
    /// When a crosswalk cannot be read, or is gone: then nobody knows whose ids are one person's.
    pub(super) async fn of(
        engine: &Engine,
        policy: &ConsentPolicy,
        kind: SubjectKind,
    ) -> Result<Self> {
        let crosswalks = engine.catalog().crosswalks_of(&policy.key()).await?;
        let mut all: Option<LogicalPlanBuilder> = None;
        for (at, via) in crosswalks.iter().enumerate() {
            let rows = rows(engine, via, at, kind).await?;
            all = Some(match all {
                None => rows,
                Some(all) => all.union(rows.build()?)?,
            });
        }
        let plan = match all {
            Some(all) => Some(all.build()?),
            None => None,
        };
        Ok(Self { crosswalks, plan })
    }

    /// What the crosswalks are known by now; `None` when only reading them tells.
    ///
    /// # Errors
    /// When a store cannot be reached.
    pub(super) async fn states(&self, engine: &Engine) -> Result<Option<Vec<TableState>>> {
        let mut states = Vec::new();
        for Crosswalk { table, record, entity } in &self.crosswalks {
            let Some(state) = engine.catalog().table_state(table, engine.base()).await? else {
                return Ok(None);
            };
            // Other columns of the same table link other ids.
            let id = format!("{} ({record}, {entity})", state.id);
            states.push(TableState { id, shown: state.shown });
        }
        Ok(Some(states))
    }

    /// Who has withdrawn: rows of `person` and `withdrawn`, 1 or 0, of rows of `person`, `said`
    /// and, where channels are told, `by`. The greatest `said` is the latest; a withdrawal is odd.
    pub(super) fn verdicts(
        &self,
        said: LogicalPlanBuilder,
        by_channel: bool,
    ) -> Result<LogicalPlanBuilder, DataFusionError> {
        let Some(links) = &self.plan else { return latest(said, "person", by_channel) };
        let known = (vec!["person"], vec!["record"]);
        let mut of_entity = vec![column("entity").alias("whose"), column("said")];
        of_entity.extend(by_channel.then(|| column("by")));
        let linked = said.clone().join(links.clone(), JoinType::Inner, known.clone(), None)?;
        let linked = latest(linked.project(of_entity)?, "whose", by_channel)?
            .join(links.clone(), JoinType::Inner, (vec!["whose"], vec!["entity"]), None)?
            .project(vec![column("record").alias("person"), column("withdrawn")])?;
        let alone = said.join(links.clone(), JoinType::LeftAnti, known, None)?;
        linked
            .union(latest(alone, "person", by_channel)?.build()?)?
            .aggregate(vec![column("person")], vec![max(column("withdrawn")).alias("any")])?
            .project(vec![column("person"), column("any").alias("withdrawn")])
    }
}

/// The latest word of each `whose`, over all channels: rows of it and `withdrawn`.
fn latest(
    said: LogicalPlanBuilder,
    whose: &str,
    by_channel: bool,
) -> Result<LogicalPlanBuilder, DataFusionError> {
    let mut of = vec![column(whose)];
    of.extend(by_channel.then(|| column("by")));
    let is_withdrawal = (column("latest") % lit(2_i64)).not_eq(lit(0_i64));
    let withdrawn = when(is_withdrawal, lit(1_i64)).otherwise(lit(0_i64))?;
    said.aggregate(of, vec![max(column("said")).alias("latest")])?
        .project(vec![column(whose), withdrawn.alias("by_one")])?
        .aggregate(vec![column(whose)], vec![max(column("by_one")).alias("withdrawn")])
}

/// The newest version of a crosswalk, for whoever has to know which ids are one person's.
///
/// # Errors
/// When it cannot be read, or is gone.
pub(crate) async fn crosswalk_table(
    engine: &Engine,
    via: &Crosswalk,
) -> Result<Arc<dyn TableProvider>> {
    match pii::open_now(engine, &via.table, None, Reader::Engine).await? {
        Some(Shown::Table(table)) => Ok(table),
        _ => Err(Error::invalid_hint(
            format!(
                "the crosswalk {} is gone, so nobody knows which ids are one person's",
                via.table
            ),
            "make it again, or CREATE OR REPLACE SUBJECT over another one",
        )),
    }
}

/// The rows of the crosswalk of this number, with ids of a kind.
async fn rows(
    engine: &Engine,
    via: &Crosswalk,
    at: usize,
    kind: SubjectKind,
) -> Result<LogicalPlanBuilder> {
    let table = crosswalk_table(engine, via).await?;
    let (record, entity) = (column(&via.record), column(&via.entity));
    let text = |id: &Expr| cast(id.clone(), DataType::Utf8);
    let (id, is_id) = match kind {
        SubjectKind::Integer => {
            let number = try_cast(record.clone(), DataType::Int64);
            // What is no number, or not written as one, is nobody here.
            let is_same = text(&number).eq(text(&record));
            (number, is_same)
        }
        SubjectKind::Text => (cast(text(&record), DataType::Utf8View), record.is_not_null()),
    };
    // Persons of two crosswalks are two persons, whatever they are called.
    let of_this = binary_expr(lit(format!("{at} ")), Operator::StringConcat, text(&entity));
    let scan = LogicalPlanBuilder::scan(format!("links{at}"), provider_as_source(table), None)?;
    let rows = scan
        .filter(is_id.and(entity.is_not_null()))?
        .project(vec![id.alias("record"), of_this.alias("entity")])?;
    Ok(rows)
}

fn column(name: &str) -> Expr {
    Expr::Column(Column::from_name(name))
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, AsArray, Int64Array, StringArray};
    use arrow::datatypes::{Field, Int64Type, Schema};
    use arrow::record_batch::RecordBatch;
    use datafusion::datasource::MemTable;
    use datafusion::prelude::SessionContext;
    use proptest::prelude::*;

    use super::*;

    fn table(name: &str, fields: Vec<Field>, columns: Vec<ArrayRef>) -> LogicalPlanBuilder {
        let schema = Arc::new(Schema::new(fields));
        let batch = RecordBatch::try_new(Arc::clone(&schema), columns).unwrap();
        let table = MemTable::try_new(schema, vec![vec![batch]]).unwrap();
        LogicalPlanBuilder::scan(name, provider_as_source(Arc::new(table)), None).unwrap()
    }

    fn numbers(values: impl IntoIterator<Item = i64>) -> ArrayRef {
        Arc::new(Int64Array::from_iter_values(values))
    }

    /// Who has withdrawn, by `verdicts`, of words `(person, said)` and links `(record, entity)`.
    async fn withdrawn(words: &[(i64, i64)], links: Option<&[(i64, &str)]>) -> Vec<(i64, i64)> {
        let number = |name: &str| Field::new(name, DataType::Int64, true);
        let said = table(
            "words",
            vec![number("person"), number("said")],
            vec![
                numbers(words.iter().map(|(person, _)| *person)),
                numbers(words.iter().map(|(_, said)| *said)),
            ],
        );
        let named = |name: &str| column(name).alias(name);
        let said = said.project(vec![named("person"), named("said")]).unwrap();
        let plan = links.map(|links| {
            let entities: StringArray = links.iter().map(|(_, entity)| Some(*entity)).collect();
            let rows = table(
                "links",
                vec![number("record"), Field::new("entity", DataType::Utf8, true)],
                vec![numbers(links.iter().map(|(record, _)| *record)), Arc::new(entities)],
            );
            let rows = rows.project(vec![named("record"), named("entity")]).unwrap();
            rows.build().unwrap()
        });
        let links = Links { crosswalks: vec![], plan };
        let plan = links.verdicts(said, false).unwrap().build().unwrap();
        let frame = SessionContext::new().execute_logical_plan(plan).await.unwrap();
        let mut found = Vec::new();
        for batch in frame.collect().await.unwrap() {
            let column = |at: usize| batch.column(at).as_primitive::<Int64Type>().values().to_vec();
            found.extend(column(0).into_iter().zip(column(1)));
        }
        found.sort_unstable();
        found
    }

    #[tokio::test]
    async fn the_latest_word_of_a_person_counts_under_all_ids() {
        // Even words consent, odd ones withdraw.
        let words = [(1, 20), (2, 31), (3, 10), (9, 11)];
        let alone = vec![(1, 0), (2, 1), (3, 0), (9, 1)];
        assert_eq!(withdrawn(&words, None).await, alone);
        let links = [(1, "e"), (2, "e"), (4, "e"), (3, "f"), (5, "f")];
        let expected = vec![(1, 1), (2, 1), (3, 0), (4, 1), (5, 0), (9, 1)];
        assert_eq!(withdrawn(&words, Some(&links)).await, expected);
        // A word that came later under another id is the person's.
        let words = [(1, 40), (2, 31)];
        assert_eq!(withdrawn(&words, Some(&links)).await, [(1, 0), (2, 0), (4, 0)]);
        // An id of two persons is there while none of them has withdrawn.
        let words = [(1, 40), (3, 11)];
        let shared = [(1, "e"), (7, "e"), (7, "f"), (3, "f")];
        assert_eq!(withdrawn(&words, Some(&shared)).await, [(1, 0), (3, 1), (7, 1)]);
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            failure_persistence: None,
            cases: 24,
            ..ProptestConfig::default()
        })]

        #[test]
        fn whoever_is_linked_to_a_withdrawal_has_withdrawn(
            words in prop::collection::vec((0_i64..8, 0_i64..50), 0..12),
            entities in prop::collection::vec(0_usize..4, 8),
        ) {
            const NAMES: [&str; 3] = ["a", "b", "c"];
            // The fourth entity is none.
            let links: Vec<(i64, &str)> = (0_i64..)
                .zip(&entities)
                .filter_map(|(record, entity)| Some((record, *NAMES.get(*entity)?)))
                .collect();
            let of = |person: i64| links.iter().find(|(record, _)| *record == person);
            let whose = |person: i64| of(person).map_or(format!("{person}"), |l| l.1.to_owned());
            let mut expected = Vec::new();
            for person in 0..8 {
                let theirs = words.iter().filter(|(other, _)| whose(*other) == whose(person));
                let latest = theirs.map(|(_, said)| *said).max();
                expected.extend(latest.map(|said| (person, said % 2)));
            }
            let mut runtime = tokio::runtime::Builder::new_current_thread();
            let runtime = runtime.enable_all().build().unwrap();
            let found = runtime.block_on(withdrawn(&words, Some(&links)));
            prop_assert_eq!(found, expected);
        }
    }
}
