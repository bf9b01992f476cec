//! The one place where the record and its reports ask what governs a table.
//!
//! Policies, purposes and subjects belong to other parts of the engine; what they know of a table
//! comes through here, so that the record need not know them. Where none exists, nothing governs,
//! and the reports say so. What was applied to one statement is noted while it is planned, in
//! [`super::Used`].
//!
//! Nothing that governs is left out for want of being readable: a document that cannot be read is
//! listed as such.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use catalog::policy::TableRules;
use catalog::privacy_policies::PrivacyPolicy;
use catalog::subject_copies::CopiedKey;
use catalog::subjects::Subject;
use catalog::{Catalog, ConsentPolicy, Kind, ObjectName};

use super::beneath;
use crate::error::Result;
use crate::session::StatementContext;

/// What governs a table or view.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Governed {
    /// The purposes for which it may be read.
    pub(crate) purposes: Vec<String>,
    /// The policies on it, each with its kind.
    pub(crate) policies: Vec<String>,
    /// How long its rows are kept, in words; none where nothing limits it.
    pub(crate) retention: Option<String>,
    /// The columns that hold personal data, each with its tag.
    pub(crate) personal: Vec<String>,
}

/// What governs the tables of a warehouse.
#[derive(Debug)]
pub(crate) struct Governance {
    catalog: Arc<Catalog>,
    consents: BTreeMap<ObjectName, Vec<Arc<ConsentPolicy>>>,
    /// Why a document that may be a consent policy cannot be read.
    fault: Option<String>,
    subjects: Vec<Subject>,
}

impl Governance {
    /// What is known of all tables together.
    ///
    /// # Errors
    /// When the warehouse cannot be reached.
    pub(crate) async fn load(context: &StatementContext) -> Result<Self> {
        let catalog = Arc::clone(context.engine().catalog());
        let purposes = catalog.purposes().await?;
        Ok(Self {
            consents: purposes.by_table(),
            fault: purposes.fault().map(ToString::to_string),
            subjects: catalog.subjects().await?,
            catalog,
        })
    }

    /// What governs an object. A view is governed by what its tables are, and a model by what its
    /// training reads: neither has anything of its own. `with_columns` is for whom the tables'
    /// personal columns are told.
    pub(crate) async fn of(&self, name: &ObjectName, kind: Kind, with_columns: bool) -> Governed {
        match kind {
            Kind::Table => self.of_table(name).await,
            _ => self.inherited(name, with_columns).await,
        }
    }

    async fn inherited(&self, name: &ObjectName, with_columns: bool) -> Governed {
        let beneath = beneath::of(&self.catalog, name).await;
        let mut governed = Governed::default();
        let mut kept = Vec::new();
        let mut purposes: Option<BTreeSet<String>> = None;
        for table in &beneath.tables {
            let of = self.of_table(table).await;
            let policies = of.policies.into_iter().map(|policy| format!("{policy} of {table}"));
            governed.policies.extend(policies);
            if with_columns {
                let personal = of.personal.into_iter().map(|column| format!("{table}.{column}"));
                governed.personal.extend(personal);
            }
            kept.extend(of.retention.map(|length| format!("{length} of {table}")));
            let own: BTreeSet<String> = of.purposes.into_iter().collect();
            if !own.is_empty() {
                // All tables have to be read for the purpose.
                purposes = Some(match purposes {
                    Some(known) => known.intersection(&own).cloned().collect(),
                    None => own,
                });
            }
        }
        governed.retention = (!kept.is_empty()).then(|| kept.join(" and "));
        if purposes.as_ref().is_some_and(BTreeSet::is_empty) {
            governed.policies.push("no purpose for which all of its tables may be read".into());
        }
        governed.purposes.extend(purposes.into_iter().flatten());
        let unknown = beneath.unknown.into_iter();
        governed.policies.extend(unknown.map(|what| format!("not known: {what}")));
        governed
    }

    async fn of_table(&self, name: &ObjectName) -> Governed {
        let mut governed = Governed::default();
        match self.catalog.table_rules(name).await {
            Ok(rules) => governed.add_rules(&rules),
            Err(error) => governed.policies.push(format!("policies that cannot be read: {error}")),
        }
        governed.add_consents(self.consents.get(name).map_or(&[], Vec::as_slice));
        if let Some(fault) = &self.fault {
            governed.policies.push(format!("consent policies that cannot be read: {fault}"));
        }
        match self.catalog.privacy_policy(name).await {
            Ok(Some(policy)) => governed.add_privacy(&policy),
            Ok(None) => {}
            Err(error) => {
                governed.policies.push(format!("a privacy policy that cannot be read: {error}"));
            }
        }
        for subject in &self.subjects {
            governed.add_subject(subject, name);
        }
        match self.catalog.copies_in(name).await {
            Ok(copies) => governed.add_copies(&self.subjects, &copies),
            Err(error) => governed.personal.push(format!("copies that cannot be read: {error}")),
        }
        governed
    }
}

impl Governed {
    fn add_rules(&mut self, rules: &TableRules) {
        let mut kept = Vec::new();
        for (name, policy) in &rules.own.policies {
            self.policies.push(described(policy.rule.kind(), name, &policy.except));
            let words = policy.rule.kept().zip(policy.rule.columns().first().copied());
            kept.extend(words.map(|(length, column)| format!("{length} by {column}")));
        }
        self.retention = (!kept.is_empty()).then(|| kept.join(" and "));
        for (tag, policies) in &rules.by_tag {
            for (name, policy) in policies {
                let policy = described(policy.rule.kind(), name, &policy.except);
                self.policies.push(format!("{policy} on tag {tag}"));
            }
        }
        for (column, tags) in &rules.own.tags {
            self.personal.extend(tags.iter().map(|tag| format!("{column}: {tag}")));
        }
    }

    fn add_consents(&mut self, policies: &[Arc<ConsentPolicy>]) {
        // Of several policies all that name a purpose must agree, so each of their purposes is one
        // for which the table may be read.
        let purposes = policies.iter().flat_map(|policy| policy.purposes.iter());
        let purposes: BTreeSet<&String> = purposes.collect();
        self.purposes.extend(purposes.into_iter().cloned());
        for policy in policies {
            let consent = if policy.default_allow { "opt-out" } else { "opt-in" };
            self.policies.push(format!(
                "consent policy {} ({consent} by {})",
                policy.name, policy.consents.table
            ));
            self.personal.push(format!("{}: consent policy {}", policy.subject, policy.name));
        }
    }

    fn add_privacy(&mut self, policy: &PrivacyPolicy) {
        self.policies.push(format!(
            "privacy policy {} (epsilon {} and delta {} per {})",
            policy.name,
            policy.budget_epsilon,
            policy.budget_delta,
            policy.per.name().to_lowercase()
        ));
        self.personal.push(format!("{}: privacy policy {}", policy.key_column(), policy.name));
    }

    fn add_subject(&mut self, subject: &Subject, name: &ObjectName) {
        let mut columns: BTreeSet<&str> = subject.columns_of(name).collect();
        if let Some(via) = subject.via.as_ref().filter(|via| via.table == *name) {
            columns.extend([via.record.as_str(), via.entity.as_str()]);
        }
        let of = |column: &str| format!("{column}: subject {}", subject.name);
        self.personal.extend(columns.into_iter().map(of));
    }

    fn add_copies(&mut self, subjects: &[Subject], copies: &BTreeSet<CopiedKey>) {
        let of = |copy: &CopiedKey| {
            let column = copy.column.as_deref().unwrap_or("rows");
            format!("{column}: subject {}, copied from {}", copy.subject, copy.from)
        };
        let counts = |copy: &&CopiedKey| subjects.iter().any(|subject| subject.counts(copy));
        self.personal.extend(copies.iter().filter(counts).map(of));
    }
}

/// A policy in words: `masking policy mail except auditor`.
fn described(kind: &str, name: &str, except: &BTreeSet<String>) -> String {
    let roles: Vec<&str> = except.iter().map(String::as_str).collect();
    match roles.is_empty() {
        true => format!("{kind} policy {name}"),
        false => format!("{kind} policy {name} except {}", roles.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use catalog::policy::{Policy, Rule, RuleSet};
    use catalog::subjects::{Crosswalk, SubjectKey};

    use super::*;

    fn policy(rule: Rule, except: &[&str]) -> Policy {
        let except = except.iter().map(|role| (*role).to_owned()).collect();
        Policy { rule, except, owner: "dpo".into(), created_ms: 0 }
    }

    #[test]
    fn policies_are_told_with_their_kind_and_whom_they_except() {
        let north = policy(Rule::RowAccess { predicate: "n = 1".into() }, &["auditor", "boss"]);
        let mask = Rule::Masking { column: String::new(), expression: "'*'".into() };
        let keep = Rule::Retention {
            column: "at".into(),
            keep: "400 days".into(),
            keep_ms: 1,
            keeps_null: true,
        };
        let tags = BTreeMap::from([("mail".to_owned(), BTreeSet::from(["pii.email".to_owned()]))]);
        let by_tag = BTreeMap::from([("stars".to_owned(), policy(mask, &[]))]);
        let own = [("north".to_owned(), north), ("old".to_owned(), policy(keep, &[]))];
        let rules = TableRules {
            own: RuleSet { policies: own.into(), tags, ..RuleSet::default() },
            by_tag: [("pii.email".to_owned(), by_tag)].into(),
        };
        let mut governed = Governed::default();
        governed.add_rules(&rules);
        assert_eq!(
            governed.policies,
            [
                "row access policy north except auditor, boss",
                "retention policy old",
                "masking policy stars on tag pii.email"
            ]
        );
        assert_eq!(governed.personal, ["mail: pii.email"]);
        assert_eq!(governed.retention.as_deref(), Some("400 days or NULL by at"));
    }

    #[test]
    fn keys_of_subjects_and_the_columns_of_their_crosswalk_are_personal() {
        let name = |table: &str| ObjectName::new("main", table);
        let key = SubjectKey { table: name("crm"), column: "id".into() };
        let (record, entity) = ("record_id".to_owned(), "entity_id".to_owned());
        let subject = Subject {
            name: "person".into(),
            keys: vec![key],
            via: Some(Crosswalk { table: name("ids"), record, entity }),
            owner: "dpo".into(),
            created_ms: 0,
        };
        let personal = |table: &str| {
            let mut governed = Governed::default();
            governed.add_subject(&subject, &name(table));
            governed.personal
        };
        assert_eq!(personal("crm"), ["id: subject person"]);
        assert_eq!(personal("ids"), ["entity_id: subject person", "record_id: subject person"]);
        assert!(personal("other").is_empty());
    }
}
