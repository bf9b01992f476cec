//! How large a statement may be once it is read.
//!
//! Trees are walked by recursion, in the parser's own types and in plans, and the optimizer walks
//! them dozens of times. A chain of operators makes a tree as deep as it is long, and a few lines
//! of common table expressions or views that double each other make a plan of a billion nodes. Both
//! are refused before anybody walks them.

use std::ops::ControlFlow;

use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::logical_expr::LogicalPlan;
use sqlparser::ast::{ObjectName, Query, Visit, Visitor};
use sqlparser::keywords::Keyword;
use sqlparser::tokenizer::{Token, TokenWithSpan};

use crate::error::{Error, Result};
use crate::parse::name_parts;

/// Operators that may stand in one chain; a longer list of values belongs into IN (…).
const CHAIN_MAX: usize = 2_000;
/// Nodes of a plan, those of subqueries and views included.
const NODES_MAX: usize = 10_000;

/// Refuses a text whose operators make too deep a tree.
///
/// # Errors
/// When one chain of operators is too long.
pub(crate) fn check_tokens(tokens: &[TokenWithSpan]) -> Result<()> {
    // A level is a pair of parentheses; the parser bounds how many there may be.
    let mut outer: Vec<Level> = Vec::new();
    let mut level = Level::default();
    // Operators of this level and of those around it.
    let mut chain = 0;
    for token in tokens {
        match kind(&token.token) {
            Kind::Opens => outer.push(std::mem::take(&mut level)),
            Kind::Closes => {
                chain -= level.operators + level.combined;
                level = outer.pop().unwrap_or_default();
            }
            Kind::Separates => {
                chain -= level.operators;
                level.operators = 0;
            }
            Kind::Combines => {
                level.combined += 1;
                chain += 1;
            }
            Kind::Operator => {
                level.operators += 1;
                chain += 1;
            }
            Kind::Other => {}
        }
        if chain > CHAIN_MAX {
            return Err(Error::Exhausted {
                what: format!("the statement chains more than {CHAIN_MAX} operators"),
            });
        }
    }
    Ok(())
}

#[derive(Default)]
struct Level {
    /// Operators since the last comma or clause.
    operators: usize,
    /// UNION, EXCEPT and INTERSECT.
    combined: usize,
}

enum Kind {
    Opens,
    Closes,
    Separates,
    Combines,
    Operator,
    Other,
}

fn kind(token: &Token) -> Kind {
    match token {
        Token::LParen | Token::LBrace => Kind::Opens,
        Token::RParen | Token::RBrace => Kind::Closes,
        Token::Comma | Token::SemiColon => Kind::Separates,
        Token::Word(word) => match word.keyword {
            // These begin a tree of their own; none can stand inside an operator's chain.
            Keyword::SELECT | Keyword::WHERE | Keyword::HAVING | Keyword::VALUES => Kind::Separates,
            Keyword::UNION | Keyword::EXCEPT | Keyword::INTERSECT | Keyword::JOIN => Kind::Combines,
            Keyword::AND
            | Keyword::OR
            | Keyword::NOT
            | Keyword::IS
            | Keyword::IN
            | Keyword::LIKE
            | Keyword::ILIKE
            | Keyword::SIMILAR
            | Keyword::REGEXP
            | Keyword::RLIKE
            | Keyword::BETWEEN
            | Keyword::COLLATE
            | Keyword::AT
            | Keyword::DIV
            | Keyword::XOR
            | Keyword::OVERLAPS => Kind::Operator,
            _ => Kind::Other,
        },
        Token::EOF
        | Token::Number(..)
        | Token::Char(_)
        | Token::SingleQuotedString(_)
        | Token::DollarQuotedString(_)
        | Token::NationalStringLiteral(_)
        | Token::EscapedStringLiteral(_)
        | Token::UnicodeStringLiteral(_)
        | Token::HexStringLiteral(_)
        | Token::Whitespace(_)
        | Token::Period
        | Token::RBracket
        | Token::Placeholder(_) => Kind::Other,
        _ => Kind::Operator,
    }
}

/// Refuses a syntax tree whose common table expressions multiply each other: the planner walks
/// what a name stands for each time it is used.
///
/// # Errors
/// When the tree names too many relations, counted as often as they will be planned.
pub(crate) fn check_tree(tree: &impl Visit) -> Result<()> {
    let mut relations = Relations { scopes: vec![Scope::default()] };
    match tree.visit(&mut relations) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(()) => Err(too_large()),
    }
}

fn too_large() -> Error {
    Error::Exhausted { what: format!("the plan has more than {NODES_MAX} nodes") }
}

/// Counts the relations of each query, with what its common table expressions stand for.
struct Relations {
    scopes: Vec<Scope>,
}

/// A query that is being walked.
#[derive(Default)]
struct Scope {
    relations: usize,
    /// The common table expressions to come: where each stands in memory, and its name.
    coming: Vec<(*const Query, String)>,
    /// The weight of those that were walked.
    known: Vec<(String, usize)>,
}

impl Visitor for Relations {
    type Break = ();

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        let with = query.with.iter().flat_map(|with| &with.cte_tables);
        let coming = with.map(|cte| {
            (std::ptr::from_ref(cte.query.as_ref()), crate::dialect::folded(&cte.alias.name))
        });
        self.scopes.push(Scope { coming: coming.collect(), ..Scope::default() });
        ControlFlow::Continue(())
    }

    fn pre_visit_relation(&mut self, relation: &ObjectName) -> ControlFlow<()> {
        let parts = name_parts(relation);
        let weight = match parts.as_slice() {
            [name] => {
                let known = self.scopes.iter().rev().flat_map(|scope| scope.known.iter().rev());
                known.into_iter().find(|(cte, _)| cte == name).map_or(1, |(_, weight)| *weight)
            }
            _ => 1,
        };
        self.add(weight)
    }

    fn post_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        let Some(scope) = self.scopes.pop() else { return ControlFlow::Break(()) };
        let weight = scope.relations + 1;
        let Some(outer) = self.scopes.last_mut() else { return ControlFlow::Break(()) };
        let place = outer.coming.iter().position(|(cte, _)| std::ptr::eq(*cte, query));
        match place {
            Some(place) => {
                let (_, name) = outer.coming.swap_remove(place);
                outer.known.push((name, weight));
                ControlFlow::Continue(())
            }
            None => self.add(weight),
        }
    }
}

impl Relations {
    fn add(&mut self, weight: usize) -> ControlFlow<()> {
        let Some(scope) = self.scopes.last_mut() else { return ControlFlow::Break(()) };
        scope.relations = scope.relations.saturating_add(weight);
        match scope.relations > NODES_MAX {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    }
}

/// Refuses a plan that is too large to be optimized. Only as much of it is walked as is allowed.
///
/// # Errors
/// When it has too many nodes.
pub(crate) fn check(plan: &LogicalPlan) -> Result<()> {
    let mut nodes = 0;
    plan.apply_with_subqueries(|_| {
        nodes += 1;
        Ok(if nodes > NODES_MAX { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    })?;
    if nodes > NODES_MAX { Err(too_large()) } else { Ok(()) }
}

/// How much work a plan is to optimize: its nodes, and the columns of its result.
pub(crate) fn parts(plan: &LogicalPlan) -> usize {
    let mut parts = plan.schema().fields().len();
    // The closure does not fail, and neither does the walk.
    let _ = plan.apply_with_subqueries(|_| {
        parts += 1;
        Ok(TreeNodeRecursion::Continue)
    });
    parts
}

#[cfg(test)]
mod tests {
    use sqlparser::tokenizer::Tokenizer;

    use super::*;
    use crate::dialect::AttuneDialect;

    fn checked(text: &str) -> Result<()> {
        check_tokens(&Tokenizer::new(&AttuneDialect, text).tokenize_with_location().unwrap())
    }

    #[test]
    fn expressions_that_double_are_counted_before_they_are_planned() {
        let doubling = |levels: usize| {
            let step = |n| format!("c{} AS (SELECT a.x FROM c{n} AS a, c{n} AS b)", n + 1);
            let steps: Vec<String> = (0..levels).map(step).collect();
            format!("WITH c0 AS (SELECT 1 AS x), {} SELECT * FROM c{levels}", steps.join(", "))
        };
        let tree = |text: &str| {
            let sqlparser::ast::Statement::Query(query) =
                sqlparser::parser::Parser::parse_sql(&AttuneDialect, text).unwrap().remove(0)
            else {
                panic!("no query")
            };
            query
        };
        assert!(check_tree(&tree(&doubling(8))).is_ok());
        assert_eq!(check_tree(&tree(&doubling(40))).unwrap_err().code(), "ATT-3002");
        let apart = "WITH a AS (SELECT 1) SELECT * FROM (WITH a AS (SELECT * FROM t) \
                     SELECT * FROM a, a AS b), a, s.a";
        assert!(check_tree(&tree(apart)).is_ok());
    }

    #[test]
    fn a_long_chain_is_refused_and_a_long_list_is_not() {
        for text in [
            format!("SELECT 1{}", " + 1".repeat(3_000)),
            format!("SELECT a FROM t WHERE a = 0{}", " OR a = 1".repeat(3_000)),
            format!("SELECT 1{}", "::INT".repeat(3_000)),
            format!("SELECT 1{}", " UNION ALL SELECT 1".repeat(3_000)),
            format!("SELECT {}1", "CASE WHEN true THEN 1 END + ".repeat(3_000)),
            format!("SELECT 1{}", " + (1 + 1)".repeat(3_000)),
            format!("SELECT a{}", "[1]".repeat(3_000)),
        ] {
            assert_eq!(checked(&text).unwrap_err().code(), "ATT-3002", "{}", &text[..40]);
        }
        for text in [
            format!("SELECT 1{}", ", 1 + 1".repeat(10_000)),
            format!("SELECT a FROM t WHERE a IN (0{})", ", -1".repeat(10_000)),
            format!("INSERT INTO t VALUES (0){}", ", (1 - 1, 2)".repeat(10_000)),
            format!("SELECT 1{}", " OR a = 1".repeat(500)),
        ] {
            checked(&text).unwrap();
        }
    }
}
