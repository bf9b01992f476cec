//! Ids of one person: the crosswalks of the subjects whose keys a policy's persons are in.
//!
//! What is said under one id of a person counts under all of them: the latest word of the person,
//! by each channel, decides. An id that no crosswalk knows is a person of its own. An id that
//! several persons share has withdrawn once one of them has. Ids are compared by their text: `7` is
//! 7 and `007` is not.
//!
//! Where a policy lists channels, a word of no channel is one of each of them, and the latest of a
//! channel's words decides for it. A person consents who consents for each channel that is asked
//! for: the session's, or all of the list where it states none. Words of other channels, such as a
//! browser's signal, grant nothing there; each such channel whose latest word is a withdrawal
//! withdraws for all of the list.
//!
//! A crosswalk is read as it is, whoever owns the policy: what links ids shows nobody's rows, and
//! one that a policy or a grant hid a part of would let people through who have withdrawn.

use std::collections::BTreeSet;
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

/// How words of several channels go together.
#[derive(Debug, Clone, Copy)]
pub(super) enum ByChannel<'a> {
    /// No channels are told.
    Untold,
    /// Each channel has a latest word, and all of them must consent.
    Each,
    /// Consent is asked for one channel of the policy's list, or for all of the list.
    Listed { all: &'a BTreeSet<String>, asked: Option<&'a str> },
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
    /// `withdrawn` is NULL where nothing is told for a channel that is asked for.
    pub(super) fn verdicts(
        &self,
        said: LogicalPlanBuilder,
        by: ByChannel<'_>,
    ) -> Result<LogicalPlanBuilder, DataFusionError> {
        let Some(links) = &self.plan else { return latest(said, "person", by) };
        let known = (vec!["person"], vec!["record"]);
        let mut of_entity = vec![column("entity").alias("whose"), column("said")];
        of_entity.extend(by.column());
        let linked = said.clone().join(links.clone(), JoinType::Inner, known.clone(), None)?;
        let linked = latest(linked.project(of_entity)?, "whose", by)?
            .join(links.clone(), JoinType::Inner, (vec!["whose"], vec!["entity"]), None)?
            .project(vec![column("record").alias("person"), column("withdrawn")])?;
        let alone = said.join(links.clone(), JoinType::LeftAnti, known, None)?;
        linked
            .union(latest(alone, "person", by)?.build()?)?
            .aggregate(vec![column("person")], vec![max(column("withdrawn")).alias("any")])?
            .project(vec![column("person"), column("any").alias("withdrawn")])
    }
}

impl ByChannel<'_> {
    /// The column with the channel, where there is one.
    fn column(self) -> Option<Expr> {
        match self {
            Self::Untold => None,
            Self::Each | Self::Listed { .. } => Some(column("by")),
        }
    }
}

/// The latest word of each `whose`, over the channels: rows of it and `withdrawn`.
fn latest(
    said: LogicalPlanBuilder,
    whose: &str,
    by: ByChannel<'_>,
) -> Result<LogicalPlanBuilder, DataFusionError> {
    let mut of = vec![column(whose)];
    of.extend(by.column());
    let words = said.aggregate(of, vec![max(column("said")).alias("latest")])?;
    if let ByChannel::Listed { all, asked } = by {
        return of_listed(words, whose, all, asked);
    }
    let withdrawn = when(is_withdrawal("latest"), lit(1_i64)).otherwise(lit(0_i64))?;
    words
        .project(vec![column(whose), withdrawn.alias("by_one")])?
        .aggregate(vec![column(whose)], vec![max(column("by_one")).alias("withdrawn")])
}

/// Whether a word is a withdrawal.
fn is_withdrawal(word: &str) -> Expr {
    (column(word) % lit(2_i64)).not_eq(lit(0_i64))
}

/// What the channels of a list say together, of rows of `whose`, `by` and `latest`.
fn of_listed(
    words: LogicalPlanBuilder,
    whose: &str,
    all: &BTreeSet<String>,
    asked: Option<&str>,
) -> Result<LogicalPlanBuilder, DataFusionError> {
    let listed: Vec<Expr> = all.iter().map(|channel| lit(channel.as_str())).collect();
    let others = column("by").in_list(listed, true).and(is_withdrawal("latest"));
    let others = when(others, lit(1_i64)).end()?;
    let mut found = vec![max(others).alias("others")];
    let (mut withdrawn, mut told) = (column("others").eq(lit(1_i64)), lit(true));
    let asked =
        all.iter().map(String::as_str).filter(|one| asked.is_none_or(|asked| asked == *one));
    for (at, channel) in asked.enumerate() {
        let own = column("by").is_null().or(column("by").eq(lit(channel)));
        let name = format!("own{at}");
        found.push(max(when(own, column("latest")).end()?).alias(&name));
        withdrawn = withdrawn.or(is_withdrawal(&name));
        told = told.and(column(&name).is_not_null());
    }
    let verdict = when(withdrawn, lit(1_i64)).when(told, lit(0_i64)).end()?;
    words
        .aggregate(vec![column(whose)], found)?
        .project(vec![column(whose), verdict.alias("withdrawn")])
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
        let words: Vec<Word> = words.iter().map(|(person, said)| (*person, *said, None)).collect();
        withdrawn_by(&words, links, ByChannel::Untold).await
    }

    /// A person, what was said, and by which channel.
    type Word = (i64, i64, Option<&'static str>);

    /// The same of words by channel; people whose verdict is not known are left out.
    async fn withdrawn_by(
        words: &[Word],
        links: Option<&[(i64, &str)]>,
        by: ByChannel<'_>,
    ) -> Vec<(i64, i64)> {
        let number = |name: &str| Field::new(name, DataType::Int64, true);
        let channels: StringArray = words.iter().map(|(_, _, channel)| *channel).collect();
        let said = table(
            "words",
            vec![number("person"), number("said"), Field::new("by", DataType::Utf8, true)],
            vec![
                numbers(words.iter().map(|(person, ..)| *person)),
                numbers(words.iter().map(|(_, said, _)| *said)),
                Arc::new(channels),
            ],
        );
        let named = |name: &str| column(name).alias(name);
        let mut columns = vec![named("person"), named("said")];
        columns.extend(by.column().map(|_| named("by")));
        let said = said.project(columns).unwrap();
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
        let plan = links.verdicts(said, by).unwrap().build().unwrap();
        let frame = SessionContext::new().execute_logical_plan(plan).await.unwrap();
        let mut found = Vec::new();
        for batch in frame.collect().await.unwrap() {
            let column = |at: usize| batch.column(at).as_primitive::<Int64Type>().iter();
            let rows = column(0).zip(column(1));
            found.extend(rows.filter_map(|(person, withdrawn)| Some((person?, withdrawn?))));
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

    const LIST: [&str; 3] = ["email", "push", "sms"];

    #[tokio::test]
    async fn each_channel_of_a_list_has_words_of_its_own_and_those_of_no_channel() {
        let all: BTreeSet<String> = LIST.map(str::to_owned).into();
        let words: [Word; 7] = [
            // Withdraws sms alone.
            (1, 10, None),
            (1, 21, Some("sms")),
            // Consents to e-mail alone.
            (2, 20, Some("email")),
            // What is said of no channel later is said of each.
            (3, 21, Some("email")),
            (3, 30, None),
            // A browser's signal counts for each, and a consent by another channel for none.
            (4, 41, Some("gpc")),
            (5, 50, Some("web")),
        ];
        let ask = async |asked: Option<&str>| {
            withdrawn_by(&words, None, ByChannel::Listed { all: &all, asked }).await
        };
        assert_eq!(ask(Some("email")).await, [(1, 0), (2, 0), (3, 0), (4, 1)]);
        assert_eq!(ask(Some("sms")).await, [(1, 1), (3, 0), (4, 1)]);
        assert_eq!(ask(None).await, [(1, 1), (3, 0), (4, 1)]);
        // Without a list, each channel that is told of must consent, and is enough.
        let each = withdrawn_by(&words, None, ByChannel::Each).await;
        assert_eq!(each, [(1, 1), (2, 0), (3, 1), (4, 1), (5, 0)]);
    }

    /// What words of one person come to, told from the rules: for each channel that is asked for
    /// the latest of its own words and of those of no channel, beside the latest of each other
    /// channel, which can only withdraw. `None`: nothing is told.
    fn verdict(words: &[&Word], asked: &[&str]) -> Option<i64> {
        let latest = |of: &dyn Fn(Option<&str>) -> bool| {
            let said = words.iter().filter(|(_, _, by)| of(*by)).map(|(_, said, _)| *said);
            said.max().map(|said| said % 2)
        };
        let own = asked.iter().map(|one| latest(&|by| by.is_none_or(|by| by == *one)));
        let own: Vec<Option<i64>> = own.collect();
        let others = ["gpc", "web"].map(|one| latest(&|by| by == Some(one)));
        if own.contains(&Some(1)) || others.contains(&Some(1)) {
            return Some(1);
        }
        (!own.contains(&None)).then_some(0)
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

        #[test]
        fn channels_say_what_their_words_say(
            words in prop::collection::vec((0_i64..6, 0_i64..60, 0_usize..6), 0..24),
            entities in prop::collection::vec(0_usize..3, 6),
            asked in 0_usize..4,
            is_linked in any::<bool>(),
        ) {
            const CHANNELS: [Option<&str>; 6] =
                [None, Some("email"), Some("push"), Some("sms"), Some("gpc"), Some("web")];
            let words: Vec<Word> =
                words.into_iter().map(|(person, said, by)| (person, said, CHANNELS[by])).collect();
            let all: BTreeSet<String> = LIST.map(str::to_owned).into();
            let asked = LIST.get(asked).copied();
            let links: Vec<(i64, &str)> = (0_i64..)
                .zip(&entities)
                .filter_map(|(record, entity)| Some((record, *["a", "b"].get(*entity)?)))
                .collect();
            let links = is_linked.then_some(links.as_slice());
            let whose = |person: i64| {
                let link = links.and_then(|links| links.iter().find(|link| link.0 == person));
                link.map_or(format!("{person}"), |link| link.1.to_owned())
            };
            let asked_for = asked.map_or(LIST.to_vec(), |one| vec![one]);
            let mut expected = Vec::new();
            for person in 0..6 {
                let theirs = words.iter().filter(|word| whose(word.0) == whose(person));
                let theirs: Vec<&Word> = theirs.collect();
                expected.extend(verdict(&theirs, &asked_for).map(|told| (person, told)));
            }
            let mut runtime = tokio::runtime::Builder::new_current_thread();
            let runtime = runtime.enable_all().build().unwrap();
            let by = ByChannel::Listed { all: &all, asked };
            let found = runtime.block_on(withdrawn_by(&words, links, by));
            prop_assert_eq!(found, expected);
        }
    }
}
