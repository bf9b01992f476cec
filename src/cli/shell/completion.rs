//! Completion: after `FROM` and its like tables, after `table.` its columns, in text the models
//! (as in `ml_recommend('`), else columns of the tables named in the statement, functions and
//! keywords.

use reedline::{Completer, CompletionResult, Span, Suggestion};

use super::commands::COMMANDS;
use super::vocabulary::{Vocabulary, Words};
use crate::cli::lexer::{self, Kind, Token};
use crate::cli::target::Relation;

/// More suggestions than this help nobody.
const SUGGESTIONS_MAX: usize = 100;

/// Words after which a table follows.
const BEFORE_TABLES: [&str; 7] = ["FROM", "JOIN", "INTO", "UPDATE", "TABLE", "DESCRIBE", "VIEW"];

/// Offers what may follow.
pub(super) struct SqlCompleter {
    vocabulary: Vocabulary,
}

impl SqlCompleter {
    /// Completes from this vocabulary.
    pub(super) fn new(vocabulary: &Vocabulary) -> Self {
        Self { vocabulary: vocabulary.clone() }
    }
}

impl Completer for SqlCompleter {
    fn complete(&mut self, line: &str, pos: usize) -> CompletionResult {
        let before = line.get(..pos).unwrap_or(line);
        let (start, candidates) = candidates(&self.vocabulary.words(), before);
        let span = Span::new(start, before.len());
        let suggestions: Vec<Suggestion> = candidates
            .into_iter()
            .take(SUGGESTIONS_MAX)
            .map(|candidate| Suggestion {
                value: candidate.text,
                description: Some(candidate.about.to_owned()),
                span,
                append_whitespace: false,
                ..Suggestion::default()
            })
            .collect();
        CompletionResult::fresh(suggestions)
    }
}

/// One word that may follow.
#[derive(Debug, PartialEq, Eq)]
struct Candidate {
    text: String,
    about: &'static str,
}

/// Where the word under the cursor starts, and what it may become, best first.
fn candidates(words: &Words, before: &str) -> (usize, Vec<Candidate>) {
    if before.starts_with('.') && !before.contains(char::is_whitespace) {
        let commands = COMMANDS.iter().map(|(name, _)| format!(".{name}"));
        return (0, matching(before, commands.map(|text| (text, "command"))));
    }
    let tokens = lexer::tokens(before);
    match tokens.last() {
        Some(Token { kind: Kind::Text, closed: false, text, start }) => {
            let typed = text.get(1..).unwrap_or_default();
            let models = words.models.iter().map(|name| (name.clone(), "model"));
            (start + 1, matching(typed, models))
        }
        Some(Token { kind: Kind::Comment | Kind::Text | Kind::Number, .. }) => {
            (before.len(), Vec::new())
        }
        _ => word_candidates(words, before, &tokens),
    }
}

fn word_candidates(words: &Words, before: &str, tokens: &[Token<'_>]) -> (usize, Vec<Candidate>) {
    let named = |c: char| c.is_alphanumeric() || c == '_' || c == '.';
    let start = before.trim_end_matches(named).len();
    let word = before.get(start..).unwrap_or_default();
    if let Some((qualifier, rest)) = word.rsplit_once('.') {
        let members = members(words, &qualifier.to_lowercase());
        return (before.len() - rest.len(), matching(rest, members));
    }
    let previous = tokens
        .iter()
        .rev()
        .find(|token| token.kind == Kind::Word && token.start < start)
        .map(|token| token.text.to_uppercase());
    let after = |list: &[&str]| previous.as_deref().is_some_and(|word| list.contains(&word));
    if after(&BEFORE_TABLES) {
        return (start, matching(word, tables(words)));
    }
    if after(&["MODEL"]) {
        let models = words.models.iter().map(|name| (name.clone(), "model"));
        return (start, matching(word, models));
    }
    if word.is_empty() {
        return (start, Vec::new());
    }
    let mut found = matching(word, columns(words, tokens));
    found.extend(matching(word, words.functions.keys().map(|name| (name.clone(), "function"))));
    let lower = word.chars().any(char::is_lowercase);
    let keywords = words.keywords.iter().map(|keyword| {
        let text = if lower { keyword.to_lowercase() } else { (*keyword).to_owned() };
        (text, "keyword")
    });
    found.extend(matching(word, keywords));
    found.extend(matching(word, tables(words)));
    (start, found)
}

/// The tables of a schema, or the columns of a table.
fn members(words: &Words, qualifier: &str) -> Vec<(String, &'static str)> {
    let in_schema = words
        .relations
        .iter()
        .filter(|relation| relation.schema == qualifier)
        .map(|relation| (relation.name.clone(), "table"));
    let of_table = words
        .relations
        .iter()
        .filter(|relation| is_named(relation, qualifier))
        .flat_map(column_names)
        .map(|name| (name, "column"));
    in_schema.chain(of_table).collect()
}

fn is_named(relation: &Relation, name: &str) -> bool {
    relation.name == name || format!("{}.{}", relation.schema, relation.name) == name
}

fn column_names(relation: &Relation) -> Vec<String> {
    let fields = relation.columns.as_ref().map(|schema| schema.fields().clone());
    fields.iter().flat_map(|fields| fields.iter()).map(|field| field.name().clone()).collect()
}

/// Names in `main` and `lake` need no schema; others are offered with theirs.
fn tables(words: &Words) -> Vec<(String, &'static str)> {
    let short = |relation: &Relation| matches!(relation.schema.as_str(), "main" | "lake");
    let names = words.relations.iter().map(|relation| match short(relation) {
        true => (relation.name.clone(), "table"),
        false => (format!("{}.{}", relation.schema, relation.name), "table"),
    });
    names.collect()
}

/// The columns of the tables that the statement names.
fn columns(words: &Words, tokens: &[Token<'_>]) -> Vec<(String, &'static str)> {
    let named: Vec<String> = tokens
        .iter()
        .filter(|token| token.kind == Kind::Word)
        .map(|token| token.text.to_lowercase())
        .collect();
    let relations = words.relations.iter().filter(|relation| named.contains(&relation.name));
    relations.flat_map(column_names).map(|name| (name, "column")).collect()
}

fn matching(
    typed: &str,
    names: impl IntoIterator<Item = (String, &'static str)>,
) -> Vec<Candidate> {
    let typed = typed.to_lowercase();
    let mut found: Vec<Candidate> = names
        .into_iter()
        .filter(|(name, _)| name.to_lowercase().starts_with(&typed))
        .map(|(text, about)| Candidate { text, about })
        .collect();
    found.sort_by(|a, b| a.text.cmp(&b.text));
    found.dedup_by(|a, b| a.text == b.text);
    found
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::datatypes::{DataType, Field, Schema};
    use proptest::prelude::*;

    use super::*;

    fn vocabulary() -> Vocabulary {
        let relation = |schema: &str, name: &str, columns: &[&str]| Relation {
            schema: schema.into(),
            name: name.into(),
            kind: "TABLE".into(),
            columns: Some(Arc::new(Schema::new(
                columns
                    .iter()
                    .map(|name| Field::new(*name, DataType::Utf8, true))
                    .collect::<Vec<_>>(),
            ))),
        };
        let relations = vec![
            relation("lake", "orders", &["order_id", "amount"]),
            relation("crm", "people", &["person_id"]),
        ];
        Vocabulary::of(relations, &["main.shop"], &["levenshtein"])
    }

    fn offered(before: &str) -> Vec<String> {
        let (_, found) = candidates(&vocabulary().words(), before);
        found.into_iter().map(|candidate| candidate.text).collect()
    }

    #[test]
    fn tables_follow_from_and_columns_follow_the_table() {
        assert_eq!(offered("SELECT * FROM "), ["crm.people", "orders"]);
        assert_eq!(offered("SELECT * FROM or"), ["orders"]);
        assert_eq!(offered("SELECT orders."), ["amount", "order_id"]);
        assert_eq!(offered("SELECT * FROM crm."), ["people"]);
        assert_eq!(offered("SELECT crm.people.p"), ["person_id"]);
        assert!(offered("SELECT * FROM orders WHERE am").contains(&"amount".to_owned()));
    }

    #[test]
    fn models_are_offered_in_text_and_after_model() {
        assert_eq!(offered("SELECT * FROM ml_recommend('ma"), ["main.shop"]);
        assert_eq!(offered("DESCRIBE MODEL "), ["main.shop"]);
    }

    #[test]
    fn keywords_keep_the_case_that_was_typed() {
        assert!(offered("sele").contains(&"select".to_owned()));
        assert!(offered("SELE").contains(&"SELECT".to_owned()));
        assert!(offered("SELECT leven").contains(&"levenshtein".to_owned()));
    }

    #[test]
    fn nothing_is_offered_in_comments() {
        assert!(offered("-- sel").is_empty());
    }

    #[test]
    fn dot_commands_are_completed() {
        assert_eq!(offered(".ta"), [".tables"]);
    }

    proptest! {
        #[test]
        fn any_text_and_any_position_is_answered(text in ".{0,30}", pos in 0_usize..40) {
            let mut completer = SqlCompleter::new(&vocabulary());
            for suggestion in completer.complete(&text, pos).suggestions() {
                prop_assert!(suggestion.span.end <= text.len());
                prop_assert!(text.is_char_boundary(suggestion.span.start));
            }
        }
    }
}
