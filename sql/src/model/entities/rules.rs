//! Blocking rules as SQL: conditions on two records, of which every part that AND joins says what
//! both have in common.
//!
//! A part is an expression over the columns of the query, `substr(surname, 1, 4)`, or it writes the
//! two records out, `substr(l.surname, 1, 4) = substr(r.surname, 1, 4)`, as Splink does. A column
//! alone, or a part of one that [`Key`] knows, is meant as the column is compared. Every other
//! expression is computed with the query, of the values as it gives them: it is a column behind the
//! query's own, under a reserved name, that is neither compared nor shown. A record of which it is
//! NULL is in no block of the rule.
//!
//! The text is kept with the model's options and planned again by each training, as a part of the
//! query and so under the same rights. The learner knows what is computed by its text.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::Arc;

use datafusion::common::DFSchema;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::{Expr, LogicalPlan, Volatility};
use sqlparser::ast::{
    AccessExpr, BinaryOperator, Expr as SqlExpr, Function, FunctionArg, FunctionArgExpr,
    FunctionArguments, Ident, ObjectNamePart, Query, SelectItem, SetExpr, TableFactor, Value,
    ValueWithSpan, visit_expressions, visit_expressions_mut,
};
use sqlparser::tokenizer::{Token, Tokenizer};
use udfs::model::entity_resolution::blocking::{RULES_MAX, Rule, SLOTS_MAX};
use udfs::model::entity_resolution::key::{Expression, Key};
use udfs::model::entity_resolution::learn::NamedRule;

use crate::dialect::{AttuneDialect, folded};
use crate::effort;
use crate::error::{Error, Result};
use crate::model::entities::EntityColumns;
use crate::model::entities::columns::is_value;
use crate::model::items::not_by_row;
use crate::parse::parse_query;
use crate::session::StatementContext;
use crate::size;

/// How columns begin that the query computes for rules; no other column does.
pub const RESERVED: &str = "__blocking_key_";

/// Parts of a rule at most.
const PARTS_MAX: usize = 16;
/// What a rule has to look like.
const HINT: &str = "a rule is a SQL condition of what two records have in common, joined by AND: \
                    'last_name AND substr(first_name, 1, 2)', or with both written out, \
                    'l.last_name = r.last_name AND …'; instead of OR name two rules";

/// The rules of a model.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct BlockingRules {
    written: Vec<Written>,
    /// What the query computes for them, in the order of the columns behind its own.
    pub computed: Vec<Expression>,
}

/// A rule as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Written {
    text: String,
    keys: Vec<Key>,
    /// What is to be computed.
    terms: Vec<SqlExpr>,
}

impl BlockingRules {
    /// Reads rules about compared columns of these names.
    ///
    /// # Errors
    /// When a text is no rule.
    pub fn read(texts: &[String], names: &[&str]) -> Result<Self> {
        if texts.len() > RULES_MAX {
            let what =
                format!("blocking_rules has {} rules, the limit is {RULES_MAX}", texts.len());
            return Err(Error::invalid_hint(what, HINT));
        }
        let written = texts.iter().map(|text| Written::read(text, names)).collect::<Result<_>>()?;
        Ok(Self { written, computed: vec![] })
    }

    /// The rules as the learner takes them, once it is planned what they compute.
    ///
    /// # Errors
    /// When that was not planned.
    pub fn named(&self) -> Result<Vec<NamedRule>> {
        let expression = |term: &SqlExpr| {
            let text = term.to_string();
            let known = self.computed.iter().find(|known| known.text == text).cloned();
            known.ok_or_else(|| Error::Internal(format!("{text} was not planned")))
        };
        let named = |written: &Written| {
            let expressions = written.terms.iter().map(expression).collect::<Result<_>>()?;
            let rule = Rule { keys: written.keys.clone(), expressions };
            Ok::<_, Error>(NamedRule { rule, text: written.text.clone() })
        };
        self.written.iter().map(named).collect()
    }
}

impl Written {
    fn read(text: &str, names: &[&str]) -> Result<Self> {
        if let Some(rule) = Rule::parse(text, names) {
            few(text, rule.keys.len())?;
            let (shown, keys) = (rule.text(names), bounded(text, rule.keys)?);
            return Ok(Self { text: shown, keys, terms: vec![] });
        }
        let mut parts = Vec::new();
        split(parse(text)?, &mut parts);
        few(text, parts.len())?;
        let mut read = Self { text: text.trim().to_owned(), keys: vec![], terms: vec![] };
        for part in parts {
            let term = common(text, part)?;
            let key = key_text(&term);
            match key.as_deref().and_then(|key| Key::parse(key, names)) {
                Some(key) => read.keys.push(key),
                None => {
                    if let Some(why) = key.as_deref().and_then(|key| Key::unread(key, names)) {
                        return Err(wrong(text, &why));
                    }
                    read.terms.push(term);
                }
            }
        }
        read.keys = bounded(text, read.keys)?;
        Ok(read)
    }

    fn wrong(&self, why: &str) -> Error {
        wrong(&self.text, why)
    }

    /// Refuses what does not give one value for each record.
    fn check(&self, state: &SessionState) -> Result<()> {
        for term in &self.terms {
            if let Some(found) = not_by_row(term, state, false) {
                let why = format!("{term} has {found}, which is not computed row by row");
                return Err(self.wrong(&why));
            }
            let parameter = visit_expressions(term, |part| match part {
                SqlExpr::Value(ValueWithSpan { value: Value::Placeholder(name), .. }) => {
                    ControlFlow::Break(name.clone())
                }
                _ => ControlFlow::Continue(()),
            });
            if let ControlFlow::Break(name) = parameter {
                return Err(self.wrong(&format!("{name} is a parameter, which no option has")));
            }
        }
        Ok(())
    }

    /// What an expression makes keys of.
    fn expression(
        &self,
        term: &SqlExpr,
        planned: &Expr,
        own: &DFSchema,
        columns: &EntityColumns,
    ) -> Result<Expression> {
        if let Some(function) = changing(planned)? {
            let why = format!("{function} does not give the same for a record each time");
            return Err(self.wrong(&why));
        }
        let named = planned.column_refs().into_iter().map(|column| own.index_of_column(column));
        let named: BTreeSet<usize> = named.collect::<datafusion::error::Result<_>>()?;
        if named.is_empty() {
            return Err(self.wrong(&format!("{term} names no column of the query")));
        }
        if let Some((_, truth)) = columns.truth.as_ref().filter(|(at, _)| named.contains(at)) {
            let why = format!("{truth} is the cluster_col, of which nothing is learned");
            return Err(self.wrong(&why));
        }
        let compared = columns.compared.iter().zip(0..);
        let of = compared.filter(|(((at, _), _), _)| named.contains(at));
        let columns = of.fold(0, |columns, (_, position)| columns | 1 << position);
        Ok(Expression { text: term.to_string(), columns })
    }
}

/// Plans the query with what the rules compute behind its columns, where they compute something.
///
/// # Errors
/// When an expression cannot be planned as who asks, or makes no keys.
pub(crate) async fn plan(
    context: &Arc<StatementContext>,
    columns: &mut EntityColumns,
    query: &Query,
    planned: (SessionState, LogicalPlan),
) -> Result<(SessionState, LogicalPlan)> {
    let rules = &columns.rules.written;
    let terms = terms(rules);
    if terms.is_empty() {
        return Ok(planned);
    }
    for rule in rules {
        rule.check(&planned.0)?;
    }
    let found = match Box::pin(context.plan_query(keyed(query, &terms)?)).await {
        Ok(found) => found,
        Err(error) => return Err(blamed(context, rules, query, error).await),
    };
    let width = planned.1.schema().fields().len();
    columns.rules.computed = computed(&found.1, width, columns)?;
    Ok(found)
}

/// What rules compute, each once, with the first rule that does.
fn terms(rules: &[Written]) -> Vec<(&Written, &SqlExpr)> {
    let mut terms: Vec<(&Written, &SqlExpr)> = Vec::new();
    for rule in rules {
        for term in &rule.terms {
            if !terms.iter().any(|(_, known)| *known == term) {
                terms.push((rule, term));
            }
        }
    }
    terms
}

/// `SELECT *, term AS "__blocking_key_0", … FROM (query) AS records`.
fn keyed(query: &Query, terms: &[(&Written, &SqlExpr)]) -> Result<Box<Query>> {
    let mut keyed = parse_query("SELECT * FROM (SELECT 1) AS records")?;
    if let SetExpr::Select(select) = keyed.body.as_mut() {
        let items = terms.iter().enumerate().map(|(at, (_, term))| SelectItem::ExprWithAlias {
            expr: (*term).clone(),
            alias: Ident::with_quote('"', format!("{RESERVED}{at}")),
        });
        select.projection.extend(items);
        if let Some(from) = select.from.first_mut()
            && let TableFactor::Derived { subquery, .. } = &mut from.relation
        {
            **subquery = query.clone();
        }
    }
    Ok(keyed)
}

/// An error of what rules compute, with the rule that it is of.
async fn blamed(
    context: &Arc<StatementContext>,
    rules: &[Written],
    query: &Query,
    error: Error,
) -> Error {
    for rule in rules.iter().filter(|rule| !rule.terms.is_empty()) {
        let alone = match keyed(query, &terms(std::slice::from_ref(rule))) {
            Ok(alone) => alone,
            Err(error) => return error,
        };
        match Box::pin(context.plan_query(alone)).await {
            Ok(_) => {}
            Err(Error::Invalid { what, hint }) => {
                let hint = hint.unwrap_or_else(|| HINT.to_owned());
                return Error::invalid_hint(told(&rule.text, &what), hint);
            }
            Err(other) => return other,
        }
    }
    error
}

/// What is planned behind the `width` columns of the query.
fn computed(plan: &LogicalPlan, width: usize, columns: &EntityColumns) -> Result<Vec<Expression>> {
    let terms = terms(&columns.rules.written);
    let LogicalPlan::Projection(projection) = plan else {
        return Err(Error::Internal("what rules compute was planned as something else".into()));
    };
    if projection.expr.len() != width + terms.len() {
        return Err(Error::Internal("what rules compute was planned beside it".into()));
    }
    let made = projection.expr.iter().zip(projection.schema.fields()).skip(width);
    let mut computed = Vec::new();
    for ((rule, term), (planned, field)) in terms.into_iter().zip(made) {
        if !is_value(field.data_type()) {
            let why = format!("{term} has type {}, which makes no key", field.data_type());
            return Err(rule.wrong(&why));
        }
        computed.push(rule.expression(term, planned, projection.input.schema(), columns)?);
    }
    Ok(computed)
}

/// The function that may give something else for the same record, if there is one.
fn changing(planned: &Expr) -> Result<Option<String>> {
    let mut found = None;
    planned.apply(|part| match part {
        Expr::ScalarFunction(call) if call.func.signature().volatility != Volatility::Immutable => {
            found = Some(call.func.name().to_owned());
            Ok(TreeNodeRecursion::Stop)
        }
        _ => Ok(TreeNodeRecursion::Continue),
    })?;
    Ok(found)
}

/// Refuses a rule of too many parts.
fn few(text: &str, parts: usize) -> Result<()> {
    match parts <= PARTS_MAX {
        true => Ok(()),
        false => Err(wrong(text, &format!("it has {parts} parts, the limit is {PARTS_MAX}"))),
    }
}

/// Refuses keys that make too many combinations of a record.
fn bounded(text: &str, keys: Vec<Key>) -> Result<Vec<Key>> {
    let rule = Rule { keys, expressions: vec![] };
    match rule.slots() <= SLOTS_MAX {
        true => Ok(rule.keys),
        false => Err(wrong(
            text,
            &format!(
                "its words(c) and bits(c, n) make {} combinations of a record, the limit is \
                 {SLOTS_MAX}",
                rule.slots()
            ),
        )),
    }
}

fn wrong(text: &str, why: &str) -> Error {
    Error::invalid_hint(told(text, why), HINT)
}

fn told(text: &str, why: &str) -> String {
    format!("blocking_rules = '{text}' is not valid: {why}")
}

/// A text that is one condition and nothing else.
fn parse(text: &str) -> Result<SqlExpr> {
    let tokens = Tokenizer::new(&AttuneDialect, text).tokenize_with_location();
    let tokens = tokens.map_err(|error| wrong(text, &error.to_string()))?;
    size::check_tokens(&tokens)?;
    let read = effort::read(AttuneDialect, text, |parser| {
        Ok((parser.parse_expr()?, parser.peek_token_ref().token.clone()))
    });
    let (condition, next) = read.map_err(|error| wrong(text, &error.to_string()))?;
    match next {
        Token::EOF => Ok(condition),
        other => Err(wrong(text, &format!("{other} comes after it"))),
    }
}

/// The parts that AND joins.
fn split(condition: SqlExpr, parts: &mut Vec<SqlExpr>) {
    match condition {
        SqlExpr::BinaryOp { left, op: BinaryOperator::And, right } => {
            split(*left, parts);
            split(*right, parts);
        }
        SqlExpr::Nested(inner) => split(*inner, parts),
        other => parts.push(other),
    }
}

/// Which of the two records, `l` and `r`, an expression names.
type Sides = [bool; 2];

const LEFT: Sides = [true, false];
const RIGHT: Sides = [false, true];
const NEITHER: Sides = [false, false];

/// What two records have in common by a part of a rule.
fn common(text: &str, mut part: SqlExpr) -> Result<SqlExpr> {
    if let SqlExpr::BinaryOp { left, op: BinaryOperator::Eq, right } = &mut part {
        let sides = [plain(left), plain(right)];
        if sides == [LEFT, RIGHT] || sides == [RIGHT, LEFT] {
            return match left == right {
                true => Ok((**left).clone()),
                false => Err(wrong(
                    text,
                    &format!("{left} of one record is compared with {right} of the other"),
                )),
            };
        }
        if sides == [NEITHER, NEITHER] {
            return match left == right {
                true => Err(wrong(
                    text,
                    &format!(
                        "{left} = {right} holds of every record: l and r are the two records, as \
                         in l.email = r.email"
                    ),
                )),
                false => Ok(part),
            };
        }
    } else if plain(&mut part) == NEITHER {
        return Ok(part);
    }
    Err(wrong(text, "l and r, the two records, are not on the two sides of ="))
}

/// Spells names as the catalog does and takes `l.` and `r.` off; tells which of them there were.
fn plain(expr: &mut SqlExpr) -> Sides {
    let mut sides = NEITHER;
    let _: ControlFlow<()> = visit_expressions_mut(expr, |part| {
        let alone = match part {
            SqlExpr::Identifier(name) => {
                fold(name);
                None
            }
            SqlExpr::CompoundIdentifier(names) => {
                names.iter_mut().for_each(fold);
                match names.first().and_then(side) {
                    Some(at) => {
                        sides[at] = true;
                        names.remove(0);
                        (names.len() == 1).then(|| names.remove(0))
                    }
                    None => None,
                }
            }
            SqlExpr::CompoundFieldAccess { root, access_chain } => {
                if let (SqlExpr::Identifier(name), Some(AccessExpr::Dot(first))) =
                    (&**root, access_chain.first())
                    && let Some(at) = side(name)
                {
                    sides[at] = true;
                    let first = first.clone();
                    access_chain.remove(0);
                    **root = first;
                }
                None
            }
            SqlExpr::Function(Function { name, .. }) => {
                for piece in &mut name.0 {
                    if let ObjectNamePart::Identifier(name) = piece {
                        fold(name);
                    }
                }
                None
            }
            _ => None,
        };
        if let Some(name) = alone {
            *part = SqlExpr::Identifier(name);
        }
        ControlFlow::Continue(())
    });
    sides
}

fn fold(name: &mut Ident) {
    name.value = folded(name);
}

/// Which record a name stands for.
fn side(name: &Ident) -> Option<usize> {
    let name = folded(name);
    ["l", "r"].iter().position(|side| *side == name)
}

/// An expression as [`Key`] writes it, if it is of that form.
fn key_text(term: &SqlExpr) -> Option<String> {
    match term {
        SqlExpr::Identifier(name) => Some(name.value.clone()),
        SqlExpr::Function(Function {
            name,
            args: FunctionArguments::List(list),
            over: None,
            filter: None,
            within_group,
            ..
        }) if within_group.is_empty() && list.duplicate_treatment.is_none() => {
            let argument = |argument: &FunctionArg| match argument {
                FunctionArg::Unnamed(FunctionArgExpr::Expr(SqlExpr::Identifier(name))) => {
                    Some(name.value.clone())
                }
                FunctionArg::Unnamed(FunctionArgExpr::Expr(SqlExpr::Value(value))) => {
                    Some(value.to_string())
                }
                _ => None,
            };
            let arguments: Option<Vec<String>> = list.args.iter().map(argument).collect();
            Some(format!("{name}({})", arguments?.join(", ")))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use udfs::model::entity_resolution::key::Part;

    use super::*;

    const NAMES: [&str; 3] = ["surname", "born", "Home Town"];

    fn read(text: &str) -> (Vec<Key>, Vec<String>) {
        let Written { keys, terms, .. } = Written::read(text, &NAMES).unwrap();
        (keys, terms.iter().map(ToString::to_string).collect())
    }

    fn keys(parts: &[(usize, Part)]) -> Vec<Key> {
        parts.iter().map(|&(column, part)| Key { column, part }).collect()
    }

    #[test]
    fn columns_and_their_parts_are_as_they_are_compared() {
        let none: Vec<String> = vec![];
        for text in ["surname", "SURNAME", "(surname)", "l.surname = r.surname"] {
            assert_eq!(read(text), (keys(&[(0, Part::Whole)]), none.clone()), "{text}");
        }
        let both = keys(&[(0, Part::Soundex), (1, Part::Year)]);
        for text in [
            "soundex(surname) AND year(born)",
            "Soundex(l.surname) = soundex(r.Surname) and year(r.born) = year(l.born)",
            "(soundex(surname) AND (year(born)))",
        ] {
            assert_eq!(read(text), (both.clone(), none.clone()), "{text}");
        }
        let town = keys(&[(2, Part::Prefix(3))]);
        for text in
            ["prefix(home town, 3)", "prefix(\"Home Town\", 3) AND (prefix(\"Home Town\", 3))"]
        {
            assert_eq!(read(text).0[..1], town[..], "{text}");
        }
    }

    #[test]
    fn all_else_is_computed() {
        let of = |text: &str| read(text).1;
        assert_eq!(of("left(surname, 3) || born"), ["left(surname, 3) || born"]);
        assert_eq!(of("Lower(l.Surname) = lower(r.surname)"), ["lower(surname)"]);
        assert_eq!(of("lower(\"Home Town\")"), ["lower(\"Home Town\")"]);
        let (found, computed) = read("born AND substr(l.surname, 1, 4) = substr(r.surname, 1, 4)");
        assert_eq!(found, keys(&[(1, Part::Whole)]));
        assert_eq!(computed, ["SUBSTR(surname, 1, 4)"]);
        // Names of the two records are also those of fields.
        assert_eq!(of("l.address.city = r.address.city"), ["address.city"]);
        assert_eq!(of("l.Mails[1] = r.mails[1]"), ["mails[1]"]);
        assert_eq!(of("surname = 'a' OR born IS NULL"), ["surname = 'a' OR born IS NULL"]);
        // A part that does not have a column of its own is computed too.
        assert_eq!(of("soundex(id)"), ["soundex(id)"]);
    }

    #[test]
    fn a_rule_is_shown_as_it_was_written() {
        let text = |text: &str| Written::read(text, &NAMES).unwrap().text;
        assert_eq!(text("Prefix(SURNAME,4) and born"), "prefix(surname, 4) AND born");
        let written = "substr(surname, 1,4)  AND born";
        assert_eq!(text(written), written);
    }

    #[test]
    fn the_two_records_stand_on_the_two_sides() {
        for (text, part) in [
            ("l.surname = r.born", "surname of one record is compared with born of the other"),
            ("l.surname = surname", "two sides of ="),
            ("lower(l.surname)", "two sides of ="),
            ("l.surname || r.surname = r.born", "two sides of ="),
            ("l.surname <> r.surname", "two sides of ="),
            ("l.surname = r.surname OR l.born = r.born", "two sides of ="),
            ("lower(surname", "Expected"),
            ("lower(surname) born", "comes after it"),
            ("lower(surname); DROP TABLE t", "comes after it"),
            ("lower('surname)", "Unterminated"),
            ("", "is not valid"),
        ] {
            let error = Written::read(text, &NAMES).unwrap_err();
            assert!(error.to_string().contains(part), "{text}: {error}");
            assert_eq!(error.code(), "ATT-2001");
        }
        let chain = format!("lower(surname){}", " || surname".repeat(3_000));
        assert_eq!(Written::read(&chain, &NAMES).unwrap_err().code(), "ATT-3002");
    }

    #[test]
    fn keys_of_too_many_combinations_are_refused() {
        for text in [
            "bits(surname, 6) AND bits(born, 6)",
            "lower(born) AND bits(surname, 6) AND bits(born, 6)",
        ] {
            let error = Written::read(text, &NAMES).unwrap_err();
            assert!(error.to_string().contains("make 576 combinations"), "{text}: {error}");
        }
        assert!(Written::read("words(surname) AND bits(born, 6)", &NAMES).is_ok());
    }

    #[test]
    fn a_query_gets_a_column_for_each_expression() {
        let rules = ["lower(surname)", "upper(born) AND lower(surname)"].map(String::from);
        let rules = BlockingRules::read(&rules, &NAMES).unwrap();
        let terms = terms(&rules.written);
        let query = parse_query("WITH t AS (SELECT 1) SELECT * FROM t LIMIT 3").unwrap();
        let text = keyed(&query, &terms).unwrap().to_string();
        assert_eq!(
            text,
            "SELECT *, lower(surname) AS \"__blocking_key_0\", upper(born) AS \
             \"__blocking_key_1\" FROM (WITH t AS (SELECT 1) SELECT * FROM t LIMIT 3) AS records"
        );
        assert!(rules.named().is_err());
    }
}
