//! Changes of policies and tags: by holders of `policy_admin` alone, each checked against the table
//! before it is kept.

use std::collections::BTreeSet;
use std::sync::Arc;

use catalog::policy::{Attached, Policy, Role, Rule, RuleSet, TableRules};
use catalog::{Kind, ObjectName};
use datafusion::catalog::TableProvider;
use sqlparser::ast::Expr as SqlExpr;

use super::bound::Bound;
use super::expression::{VALUE, check_constants, parsed, roles_of};
use super::retention;
use super::syntax::{Alteration, Body, CreatePolicy, PolicyKind, PolicyStatement, WrittenOn};
use crate::error::{CatalogError, Error, Result};
use crate::pii;
use crate::session::StatementContext;
use crate::session::run::{Done, Run};
use crate::table::aliases;

/// Characters of a policy's or tag's name.
const NAME_CHARS_MAX: usize = 255;
/// Policies that are on a table by one of its tags, and that are looked at before a tag is set.
const TAGS_MAX: usize = 20;

/// A change of policies or tags.
#[derive(Debug, Clone)]
pub(crate) enum Change {
    /// CREATE POLICY.
    Create { on: Attached, name: String, policy: Policy, replace: bool, if_not_exists: bool },
    /// ALTER POLICY; `before` is what was altered when this was planned.
    Alter { on: Attached, name: String, before: Policy, after: Policy },
    /// DROP POLICY.
    Drop { on: Attached, name: String, kind: Option<PolicyKind>, if_exists: bool },
    /// SET TAG, UNSET TAG.
    Tag { table: ObjectName, column: String, tag: String, set: bool },
}

impl Change {
    /// The table whose policies or tags are changed.
    pub(crate) fn table(&self) -> Option<&ObjectName> {
        match self {
            Self::Create { on, .. } | Self::Alter { on, .. } | Self::Drop { on, .. } => match on {
                Attached::Table(table) => Some(table),
                Attached::Tag(_) => None,
            },
            Self::Tag { table, .. } => Some(table),
        }
    }
}

/// Checks that the principal administers policies.
///
/// # Errors
/// When it does not.
pub(super) fn administers(context: &StatementContext, action: &str) -> Result<()> {
    if context.rights().has(Role::PolicyAdmin) {
        return Ok(());
    }
    Err(Error::Denied {
        principal: context.rights().name().to_owned(),
        action: action.into(),
        hint: Some("this needs the role policy_admin".into()),
    })
}

/// What a policy is written to be on, which the principal sees: an administrator of policies sees
/// every table's name, also one that is gone.
pub(super) async fn attached(context: &StatementContext, on: &WrittenOn) -> Result<Attached> {
    match on {
        WrittenOn::Tag(tag) => Ok(Attached::Tag(checked_name("tag", tag)?)),
        WrittenOn::Table(parts) => Ok(Attached::Table(table(context, parts).await?)),
    }
}

async fn table(context: &StatementContext, parts: &[String]) -> Result<ObjectName> {
    if !context.rights().has(Role::PolicyAdmin) {
        let sees = |rights: &crate::rights::Rights, name: &ObjectName, object: &catalog::Object| {
            rights.access(name, Some(object)).is_any()
        };
        return match context.find(parts, sees).await? {
            Some((name, _)) => Ok(name),
            None => Err(context.no_table(&parts.join(".")).await),
        };
    }
    let catalog = context.engine().catalog();
    let candidates: Vec<ObjectName> = match parts {
        [name] => {
            context.search_path().iter().map(|schema| ObjectName::new(schema, name)).collect()
        }
        [schema, name] => vec![ObjectName::new(schema, name)],
        [attune, schema, name] if attune == crate::engine::CATALOG => {
            vec![ObjectName::new(schema, name)]
        }
        _ => Vec::new(),
    };
    for name in &candidates {
        let known = catalog.object(name).await?.is_some();
        if known || !catalog.rules(&Attached::Table(name.clone())).await?.is_empty() {
            return Ok(name.clone());
        }
    }
    Err(context.no_table(&parts.join(".")).await)
}

/// Checks that a policy is there.
///
/// # Errors
/// When it is not.
pub(super) async fn known(context: &StatementContext, on: &Attached, name: &str) -> Result<Policy> {
    let mut rules = context.engine().catalog().rules(on).await?;
    match rules.policies.remove(name) {
        Some(policy) => Ok(policy),
        None => Err(missing(name, &rules)),
    }
}

fn missing(name: &str, rules: &RuleSet) -> Error {
    CatalogError::not_found("policy", name, rules.policies.keys().map(String::as_str)).into()
}

fn checked_name(what: &str, name: &str) -> Result<String> {
    match name.is_empty() || name.chars().count() > NAME_CHARS_MAX || name.contains('\0') {
        true => Err(Error::invalid(format!(
            "the name of a {what} has 1 to {NAME_CHARS_MAX} characters and no NUL"
        ))),
        false => Ok(name.to_owned()),
    }
}

impl Change {
    /// Plans a change.
    ///
    /// # Errors
    /// When the principal administers no policies, or the policy does not fit its table.
    pub(super) async fn plan(
        context: &Arc<StatementContext>,
        statement: &PolicyStatement,
    ) -> Result<Self> {
        administers(context, "change policies and tags")?;
        match statement {
            PolicyStatement::Create(create) => plan_create(context, create).await,
            PolicyStatement::Alter { kind, name, on, change } => {
                let on = attached(context, on).await?;
                let before = known(context, &on, name).await?;
                check_kind(name, &before, *kind)?;
                let mut after = before.clone();
                alter(context, name, &mut after, change).await?;
                check_fits(context, &on, name, &after).await?;
                Ok(Self::Alter { on, name: name.clone(), before, after })
            }
            PolicyStatement::Drop { kind, name, on, if_exists } => {
                let on = match attached(context, on).await {
                    Err(_) if *if_exists => match on {
                        WrittenOn::Table(parts) => Attached::Table(context.target(parts)?),
                        WrittenOn::Tag(tag) => Attached::Tag(tag.clone()),
                    },
                    other => other?,
                };
                let (name, kind, if_exists) = (name.clone(), *kind, *if_exists);
                Ok(Self::Drop { on, name, kind, if_exists })
            }
            PolicyStatement::Tag { table: parts, column, tag, set } => {
                let table = table(context, parts).await?;
                let (column, tag) = (column.clone(), checked_name("tag", tag)?);
                if *set {
                    check_tag(context, &table, &column, &tag).await?;
                }
                Ok(Self::Tag { table, column, tag, set: *set })
            }
            PolicyStatement::Show(_)
            | PolicyStatement::ShowRetention(_)
            | PolicyStatement::Apply { .. }
            | PolicyStatement::Describe { .. }
            | PolicyStatement::Declassify(_) => {
                Err(Error::Internal("this statement changes no policy".into()))
            }
        }
    }

    pub(crate) async fn run(&self, run: &Run) -> Result<Done> {
        let catalog = run.session.engine().catalog();
        // The rights of this moment: a prepared statement may be older.
        administers(StatementContext::load(&run.session).await?.as_ref(), "change policies")?;
        match self {
            Self::Create { on, name, policy, replace, if_not_exists } => {
                let create = |rules: &mut RuleSet| {
                    if *if_not_exists && rules.policies.contains_key(name) {
                        return Ok(false);
                    }
                    one_mask(rules, name, policy)?;
                    rules.add(name, policy.clone(), *replace)?;
                    Ok::<_, Error>(true)
                };
                let message = match catalog.change_rules(on, create).await? {
                    true => {
                        let more = match on {
                            Attached::Table(table) => aliases::told(catalog, table).await,
                            Attached::Tag(_) => String::new(),
                        };
                        format!("CREATE POLICY {name} ON {on}{more}")
                    }
                    false => format!("{name} exists already, nothing was changed"),
                };
                Ok(Done::new(0, message))
            }
            Self::Alter { on, name, before, after } => {
                let alter = |rules: &mut RuleSet| match rules.policies.get_mut(name) {
                    Some(policy) if *policy == *before => {
                        *policy = after.clone();
                        Ok::<_, Error>(())
                    }
                    Some(_) => Err(Error::invalid_hint(
                        format!("policy {name} was changed by somebody else"),
                        "send the statement again",
                    )),
                    None => Err(missing(name, rules)),
                };
                catalog.change_rules(on, alter).await?;
                Ok(Done::new(0, format!("ALTER POLICY {name} ON {on}")))
            }
            Self::Drop { on, name, kind, if_exists } => {
                let drop = |rules: &mut RuleSet| {
                    let Some(policy) = rules.policies.get(name) else {
                        return if *if_exists { Ok(false) } else { Err(missing(name, rules)) };
                    };
                    check_kind(name, policy, *kind)?;
                    rules.policies.remove(name);
                    Ok::<_, Error>(true)
                };
                let message = match catalog.change_rules(on, drop).await? {
                    true => format!("DROP POLICY {name} ON {on}"),
                    false => format!("there is no policy {name} on {on}, nothing was changed"),
                };
                Ok(Done::new(0, message))
            }
            Self::Tag { table, column, tag, set } => {
                let change = |rules: &mut RuleSet| {
                    tagged(rules, column, tag, *set);
                    Ok::<_, Error>(())
                };
                catalog.change_rules(&Attached::Table(table.clone()), change).await?;
                let verb = if *set { "SET" } else { "UNSET" };
                Ok(Done::new(0, format!("{verb} TAG {tag} of {table}.{column}")))
            }
        }
    }
}

/// Gives a column a tag, or takes it.
fn tagged(rules: &mut RuleSet, column: &str, tag: &str, set: bool) {
    let tags = rules.tags.entry(column.to_owned()).or_default();
    match set {
        true => tags.insert(tag.to_owned()),
        false => tags.remove(tag),
    };
    rules.tags.retain(|_, tags| !tags.is_empty());
}

/// Checks that no other policy masks the same column.
fn one_mask(rules: &RuleSet, name: &str, policy: &Policy) -> Result<()> {
    let Rule::Masking { column, .. } = &policy.rule else { return Ok(()) };
    let other = rules.policies.iter().find(|(other, held)| {
        let same = matches!(&held.rule, Rule::Masking { column: of, .. } if of == column);
        same && other.as_str() != name
    });
    match other {
        None => Ok(()),
        Some((other, _)) => Err(Error::invalid_hint(
            format!("{other} is a masking policy of the same column, and a column has one"),
            format!("alter or drop {other} first"),
        )),
    }
}

/// Checks that a policy is of a kind that was written.
///
/// # Errors
/// When it is of another.
pub(super) fn check_kind(name: &str, policy: &Policy, wanted: Option<PolicyKind>) -> Result<()> {
    match wanted {
        Some(wanted) if wanted.name() != policy.rule.kind() => Err(Error::invalid_hint(
            format!("{name} is a {} policy, not a {} policy", policy.rule.kind(), wanted.name()),
            "leave the kind out, or name another policy",
        )),
        _ => Ok(()),
    }
}

async fn check_roles(context: &StatementContext, roles: &[String]) -> Result<BTreeSet<String>> {
    let accounts = context.engine().catalog().accounts().await?;
    match roles.iter().find(|role| !accounts.has_role(role)) {
        None => Ok(roles.iter().cloned().collect()),
        Some(gone) => {
            let known: Vec<&str> = accounts.roles().map(|role| role.name.as_str()).collect();
            let built_in = Role::ALL.map(Role::name);
            Err(CatalogError::not_found("role", gone, known.into_iter().chain(built_in)).into())
        }
    }
}

async fn plan_create(context: &Arc<StatementContext>, create: &CreatePolicy) -> Result<Change> {
    let on = attached(context, &create.on).await?;
    let name = checked_name("policy", &create.name)?;
    let rule = rule(create, &on)?;
    let policy = Policy {
        rule,
        except: check_roles(context, &create.except).await?,
        owner: context.rights().name().to_owned(),
        created_ms: context.engine().catalog().now_ms(),
    };
    check_fits(context, &on, &name, &policy).await?;
    let (replace, if_not_exists) = (create.replace, create.if_not_exists);
    Ok(Change::Create { on, name, policy, replace, if_not_exists })
}

/// What a written policy does.
fn rule(create: &CreatePolicy, on: &Attached) -> Result<Rule> {
    let columns = create.columns.as_slice();
    let by_tag = matches!(on, Attached::Tag(_));
    let wrong = |what: &str, hint: &str| Err(Error::invalid_hint(what.to_owned(), hint.to_owned()));
    if by_tag && !columns.is_empty() {
        return wrong("a policy on a tag names no columns", "its columns are those with the tag");
    }
    match (&create.body, columns) {
        (Body::Masking(_), [] | [_]) if by_tag != columns.is_empty() => {
            wrong("a masking policy is on one column", "write ON t (column) USING expression")
        }
        (Body::Masking(expr), [column]) => {
            Ok(Rule::Masking { column: column.clone(), expression: text(expr)? })
        }
        (Body::Masking(expr), []) => {
            Ok(Rule::Masking { column: String::new(), expression: text(expr)? })
        }
        (Body::Masking(_), _) => {
            wrong("a masking policy is on one column", "create one for each column, or use a tag")
        }
        (Body::RowAccess(_) | Body::Aggregation(_) | Body::Retention(_), _) if by_tag => wrong(
            "a policy on a tag is about columns: masking or projection",
            "create it ON the table",
        ),
        (Body::RowAccess(expr), []) => Ok(Rule::RowAccess { predicate: text(expr)? }),
        (Body::RowAccess(_), _) => {
            wrong("a row access policy is on the whole table", "write ON t USING (condition)")
        }
        (Body::Projection, []) if !by_tag => {
            wrong("a projection policy is on columns", "write ON t (column, …)")
        }
        (Body::Projection, columns) => Ok(Rule::Projection { columns: columns.to_vec() }),
        (Body::Aggregation(0 | 1), _) => {
            wrong("a group of one is a row", "write MIN_GROUP_SIZE 2 or more")
        }
        (Body::Aggregation(size), [] | [_]) => {
            Ok(Rule::Aggregation { unit: columns.first().cloned(), min_group_size: *size })
        }
        (Body::Aggregation(_), _) => {
            wrong("groups are counted by one column", "write ON t (column) MIN_GROUP_SIZE n")
        }
        (Body::Retention(_), _) if !create.except.is_empty() => wrong(
            "a retention policy holds for everybody",
            "leave EXCEPT ROLE out: rows whose time is over are removed",
        ),
        (Body::Retention(length), [column]) => Ok(Rule::Retention {
            column: column.clone(),
            keep: length.words.clone(),
            keep_ms: length.ms,
            keeps_null: length.or_null,
        }),
        (Body::Retention(_), _) => wrong(
            "the age of rows is told by one column",
            "write ON t (time_column) KEEP '400 days'",
        ),
    }
}

/// An expression's text, which reads as the same expression.
fn text(expr: &SqlExpr) -> Result<String> {
    let text = expr.to_string();
    parsed(&text)?;
    Ok(text)
}

async fn alter(
    context: &StatementContext,
    name: &str,
    policy: &mut Policy,
    change: &Alteration,
) -> Result<()> {
    let kind = policy.rule.kind();
    match (change, &mut policy.rule) {
        (Alteration::Except(roles), Rule::Retention { .. }) if !roles.is_empty() => {
            return Err(Error::invalid_hint(
                "a retention policy holds for everybody",
                "SET KEEP changes for how long",
            ));
        }
        (Alteration::Except(roles), _) => policy.except = check_roles(context, roles).await?,
        (Alteration::Using(expr), Rule::Masking { expression: held, .. })
        | (Alteration::Using(expr), Rule::RowAccess { predicate: held }) => *held = text(expr)?,
        (Alteration::MinGroupSize(0 | 1), Rule::Aggregation { .. }) => {
            let hint = "write MIN_GROUP_SIZE 2 or more";
            return Err(Error::invalid_hint("a group of one is a row", hint));
        }
        (Alteration::MinGroupSize(size), Rule::Aggregation { min_group_size, .. }) => {
            *min_group_size = *size;
        }
        (Alteration::Keep(length), Rule::Retention { keep, keep_ms, keeps_null, .. }) => {
            (*keep, *keep_ms, *keeps_null) = (length.words.clone(), length.ms, length.or_null);
        }
        _ => {
            return Err(Error::invalid_hint(
                format!("{name} is a {kind} policy, which has nothing of that kind"),
                "SET USING is for masking and row access, SET MIN_GROUP_SIZE for aggregation, SET \
                 KEEP for retention",
            ));
        }
    }
    Ok(())
}

/// Tries a policy on its table, or on a column of text where it is on a tag.
async fn check_fits(
    context: &Arc<StatementContext>,
    on: &Attached,
    name: &str,
    policy: &Policy,
) -> Result<()> {
    if let Some(text) = policy.rule.text() {
        check_roles(context, &roles_of(&parsed(text)?)?).await?;
    }
    match on {
        Attached::Table(table) => {
            let own = RuleSet {
                policies: [(name.to_owned(), policy.clone())].into(),
                ..Default::default()
            };
            let rules = TableRules { own, ..TableRules::default() };
            let opened = try_on(context, table, &rules).await?;
            match &policy.rule {
                Rule::Retention { column, .. } => {
                    retention::check(table, &opened.schema(), column)?;
                    forgets_no_withdrawal(context, table).await
                }
                _ => Ok(()),
            }
        }
        // Which types the columns have is known where the tag is.
        Attached::Tag(_) => match policy.rule.text().map(parsed).transpose()? {
            Some(expr) => only_value(&expr),
            None => Ok(()),
        },
    }
}

/// Checks that a table holds no consents of a policy to which silence is a consent: a withdrawal
/// that is removed would be one.
async fn forgets_no_withdrawal(context: &StatementContext, table: &ObjectName) -> Result<()> {
    let purposes = context.engine().catalog().purposes().await?;
    let mut policies = purposes.policies();
    match policies.find(|policy| policy.default_allow && policy.consents.table == *table) {
        None => Ok(()),
        Some(policy) => Err(Error::invalid_hint(
            format!(
                "{table} holds the consents of policy {}, to which a withdrawal that is removed \
                 would be a consent",
                policy.name
            ),
            format!("ALTER CONSENT POLICY {} SET DEFAULT DENY, or keep the rows", policy.name),
        )),
    }
}

/// Checks that an expression for the columns of a tag names `value` alone.
fn only_value(expr: &SqlExpr) -> Result<()> {
    use std::ops::ControlFlow;
    let found = sqlparser::ast::visit_expressions(expr, |part| match part {
        SqlExpr::Identifier(name) if crate::dialect::folded(name) != VALUE => {
            ControlFlow::Break(name.to_string())
        }
        SqlExpr::CompoundIdentifier(_) => ControlFlow::Break(part.to_string()),
        _ => ControlFlow::Continue(()),
    });
    match found {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(name) => Err(Error::invalid_hint(
            format!("a policy on a tag knows no column {name}"),
            format!("the column that has the tag is called {VALUE}: USING mask_email({VALUE})"),
        )),
    }
}

/// Applies rules to a table as if they bound the principal; gives the table as it is.
async fn try_on(
    context: &Arc<StatementContext>,
    table: &ObjectName,
    rules: &TableRules,
) -> Result<Arc<dyn TableProvider>> {
    let bound = Bound::of(rules, &BTreeSet::new())?;
    let catalog = context.engine().catalog();
    match catalog.object(table).await?.map(|object| object.kind) {
        Some(Kind::Table) => {}
        Some(kind) => {
            return Err(Error::unsupported(
                format!("{table} is a {kind}, and policies are of tables"),
                "create it on the tables that it reads: a view runs as who asks",
            ));
        }
        None => return Err(context.no_table(&table.to_string()).await),
    }
    match pii::open(context.engine(), table, None, pii::Reader::Engine).await? {
        Some(pii::Shown::Table(opened)) => {
            let barrier = bound.barrier(context, table, Arc::clone(&opened)).await?;
            check_constants(context.engine().base(), barrier.plan())?;
            Ok(opened)
        }
        _ => Err(context.no_table(&table.to_string()).await),
    }
}

/// Checks that a column can have a tag: that it is there, and that the tag's policies fit it.
async fn check_tag(
    context: &Arc<StatementContext>,
    table: &ObjectName,
    column: &str,
    tag: &str,
) -> Result<()> {
    let catalog = context.engine().catalog();
    let mut rules = catalog.table_rules(table).await?;
    let tags = rules.own.tags.entry(column.to_owned()).or_default();
    tags.insert(tag.to_owned());
    if tags.len() > TAGS_MAX {
        return Err(Error::invalid_hint(
            format!("a column has at most {TAGS_MAX} tags"),
            "unset those that are not used",
        ));
    }
    let of_tag = catalog.rules(&Attached::Tag(tag.to_owned())).await?;
    rules.by_tag.insert(tag.to_owned(), of_tag.policies);
    // That the column is there is checked as for a column that a policy keeps.
    let here = Policy {
        rule: Rule::Projection { columns: vec![column.to_owned()] },
        except: BTreeSet::new(),
        owner: String::new(),
        created_ms: 0,
    };
    rules.own.policies.insert(format!("tag {tag}"), here);
    match try_on(context, table, &rules).await {
        Ok(_) => Ok(()),
        Err(Error::Invalid { what, hint }) => {
            Err(Error::Invalid { what: format!("{table} cannot have tag {tag}: {what}"), hint })
        }
        Err(other) => Err(other),
    }
}
