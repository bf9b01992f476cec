//! The words that the shell completes and colours: keywords, functions, and what the catalog holds
//! for this user. It is read in the background, so that the prompt never waits for a store.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arrow::array::AsArray;
use futures::TryStreamExt;
use parking_lot::RwLock;
use sql::FunctionDoc;

use crate::cli::target::{Relation, Target};
use crate::error::Result;

/// The words, shared by completion, colours and dot commands.
#[derive(Clone, Default)]
pub(super) struct Vocabulary {
    words: Arc<RwLock<Words>>,
    reading: Arc<AtomicBool>,
}

/// The words of one moment.
#[derive(Debug, Clone)]
pub(super) struct Words {
    /// SQL keywords, in capitals.
    pub(super) keywords: BTreeSet<&'static str>,
    /// The SQL functions.
    pub(super) functions: BTreeMap<String, FunctionDoc>,
    /// Tables and views with their columns.
    pub(super) relations: Vec<Relation>,
    /// Models, as `schema.name`.
    pub(super) models: Vec<String>,
}

impl Default for Words {
    fn default() -> Self {
        Self {
            keywords: KEYWORDS.split_whitespace().collect(),
            functions: BTreeMap::new(),
            relations: Vec::new(),
            models: Vec::new(),
        }
    }
}

impl Vocabulary {
    /// The words now.
    pub(super) fn words(&self) -> parking_lot::RwLockReadGuard<'_, Words> {
        self.words.read()
    }

    /// Reads the catalog again in the background, unless that is going on already.
    pub(super) fn refresh(&self, target: &Arc<dyn Target>) {
        if self.reading.swap(true, Ordering::AcqRel) {
            return;
        }
        let vocabulary = self.clone();
        let target = Arc::clone(target);
        tokio::spawn(async move {
            // Completion is a convenience: what cannot be listed is not offered.
            if vocabulary.words().functions.is_empty()
                && let Ok(functions) = target.functions().await
            {
                vocabulary.words.write().functions = by_name(functions);
            }
            if let Ok(relations) = target.relations(true).await {
                vocabulary.words.write().relations = relations;
            }
            if let Ok(models) = models(target.as_ref()).await {
                vocabulary.words.write().models = models;
            }
            vocabulary.reading.store(false, Ordering::Release);
        });
    }

    /// A vocabulary with these relations, models and functions, for tests.
    #[cfg(test)]
    pub(super) fn of(relations: Vec<Relation>, models: &[&str], functions: &[&str]) -> Self {
        let vocabulary = Self::default();
        let function = |name: &&str| FunctionDoc {
            name: (*name).to_owned(),
            aliases: Vec::new(),
            kind: "scalar",
            section: String::new(),
            description: String::new(),
            syntax: String::new(),
            example: String::new(),
            arguments: Vec::new(),
            own: true,
        };
        let mut words = vocabulary.words.write();
        words.functions = by_name(functions.iter().map(function).collect());
        words.relations = relations;
        words.models = models.iter().map(|&name| name.to_owned()).collect();
        drop(words);
        vocabulary
    }
}

fn by_name(functions: Vec<FunctionDoc>) -> BTreeMap<String, FunctionDoc> {
    functions.into_iter().map(|function| (function.name.clone(), function)).collect()
}

async fn models(target: &dyn Target) -> Result<Vec<String>> {
    let reply = target.run("SELECT \"schema\" || '.' || name FROM system.models").await?;
    let batches: Vec<_> = reply.rows.try_collect().await?;
    let mut names = Vec::new();
    for batch in batches {
        let column = arrow::compute::cast(batch.column(0), &arrow::datatypes::DataType::Utf8);
        let Ok(column) = column else { continue };
        names.extend(column.as_string::<i32>().iter().flatten().map(str::to_owned));
    }
    names.sort();
    names.dedup();
    Ok(names)
}

/// The words that are completed and coloured as keywords.
const KEYWORDS: &str = "\
    ALL ALTER ANALYZE AND ANTI ANY ARRAY AS ASC ASOF BETWEEN BIGINT BOOLEAN BY CASCADE CASE CAST \
    CONSENT CREATE CROSS CSV CUBE CURRENT DATE DECIMAL DEFAULT DELETE DENY ALLOW DESC DESCRIBE \
    DISTINCT DOUBLE DROP ELSE END ESCAPE EXCEPT EXCLUDE EXISTS EXPLAIN EXTERNAL EXTRACT FALSE \
    FILTER FIRST FLOAT FOLLOWING FOR FORGET FROM FULL FUNCTIONS GRANT GROUP GROUPING HAVING IF \
    ILIKE IN INNER INSERT INT INTEGER INTERSECT INTERVAL INTO IS JOIN KEY LAST LATERAL LEFT LIKE \
    LIMIT LOCATION MASKING MERGE ML MODEL MODELS NATURAL NOT NULL NULLS OFFSET ON OPTIONS OR ORDER \
    OUTER OVER PARQUET PARTITION PARTITIONED POLICY PRECEDING PURPOSE QUALIFY RANGE REPLACE RESET \
    RETRAIN REVOKE RIGHT ROLE ROLLUP ROW ROWS SCHEMA SCHEMAS SELECT SEMI SET SETS SHOW SIMILAR \
    SMALLINT SOME STORED STRUCT SUBJECT TABLE TABLES THEN TIMESTAMP TINYINT TO TRUE UNBOUNDED \
    UNION UNIQUE UNKNOWN UNNEST UPDATE USER USING VALUES VARCHAR VIEW WHEN WHERE WINDOW WITH \
    WITHIN CHECK EXPECTATION EXPECTATIONS SEVERITY TOLERANCE EXECUTE GRANTS PASSWORD PRIVILEGES \
    PUBLIC ROLES USAGE USERS GENERATION KEYS RETIRE ROTATE CERTIFICATES ERASURE EXPORT \
     HOLD RECTIFY RELEASE RESTRICT RESTRICTION RESUME SUBJECTS VIA APPLY KEEP POLICIES RETENTION \
     CHANNEL RECORD REWRAP SELLS SHARES FORCE";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keywords_are_capitals() {
        let words = Words::default();
        assert!(words.keywords.len() > 100);
        assert!(words.keywords.iter().all(|word| word.chars().all(|c| c.is_ascii_uppercase())));
    }
}
