//! What a Delta log says of files that are no longer of the table, and how it says less.
//!
//! A commit names each file with the least and the greatest value of its columns, and a statement
//! that removed rows may stand there with its condition. A commit stays under its version, because
//! who writes the next one creates the first version that is free: where a commit were missing, a
//! late writer would fill the gap, and nobody would ever read it. So what a commit tells of values
//! is taken out, and the names of files stay, by which other writers find out about conflicts.

use std::borrow::Cow;
use std::collections::BTreeSet;

use serde_json::{Map, Value};

use crate::lake::partition::decode;

/// Digits of a version in a file's name.
const DIGITS: usize = 20;
/// A shorter id is in other texts by chance.
const ID_CHARS: usize = 4;

/// A file of a log, by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LogFile {
    /// What a version has changed.
    Commit(u64),
    /// All that there is at a version, or a part of it.
    Checkpoint(u64),
    /// What is known of a version beside it.
    Checksum(u64),
    /// The changes of several versions, to the last of them.
    Compacted(u64),
}

impl LogFile {
    /// `None` when it is nothing of these.
    pub fn of(name: &str) -> Option<Self> {
        let (version, rest) = name.split_once('.')?;
        let version = number(version)?;
        match rest {
            "json" => Some(Self::Commit(version)),
            "crc" => Some(Self::Checksum(version)),
            rest if rest.starts_with("checkpoint.") => Some(Self::Checkpoint(version)),
            rest => {
                let (last, rest) = rest.split_once('.')?;
                (rest == "compacted.json").then_some(Self::Compacted(number(last)?))
            }
        }
    }
}

fn number(text: &str) -> Option<u64> {
    let is_version = text.len() == DIGITS && text.bytes().all(|byte| byte.is_ascii_digit());
    is_version.then(|| text.parse().ok()).flatten()
}

/// What a commit says.
#[derive(Debug, Default)]
pub(crate) struct Said {
    /// The files that it names, relative to the table.
    pub paths: BTreeSet<String>,
    /// Whether it takes files out of the table.
    pub removes: bool,
    /// The commit with less, where it says too much.
    pub less: Option<String>,
}

impl Said {
    /// Reads a commit. Of files that are not active, and of statements, it says no values then; nor
    /// anything in which one of the names is.
    ///
    /// # Errors
    /// When it is no commit.
    pub fn of(
        commit: &str,
        names: &BTreeSet<String>,
        is_active: impl Fn(&str) -> bool,
    ) -> serde_json::Result<Self> {
        let mut said = Self::default();
        let (mut lines, mut says_less) = (Vec::new(), false);
        for line in commit.lines().filter(|line| !line.trim().is_empty()) {
            let mut action: Value = serde_json::from_str(line)?;
            let is_less = said.files(&mut action, &is_active) | statement(&mut action, names);
            lines.push(if is_less { Cow::Owned(action.to_string()) } else { Cow::Borrowed(line) });
            says_less |= is_less;
        }
        said.less = says_less.then(|| lines.join("\n"));
        Ok(said)
    }

    /// Takes the values of files out of an action; whether there were any.
    fn files(&mut self, action: &mut Value, is_active: &impl Fn(&str) -> bool) -> bool {
        let mut is_less = false;
        for kind in ["add", "remove", "cdc"] {
            let Some(Value::Object(file)) = action.get_mut(kind) else { continue };
            let path = decode(file.get("path").and_then(Value::as_str).unwrap_or_default());
            let is_added = kind == "add";
            self.removes |= !is_added;
            if !(is_added && is_active(&path)) {
                for told in ["stats", "tags"] {
                    is_less |= file.remove(told).is_some_and(|told| !told.is_null());
                }
            }
            self.paths.insert(path);
        }
        is_less
    }
}

/// Takes the condition of a statement out of what is said of it, and what has one of the names.
fn statement(action: &mut Value, names: &BTreeSet<String>) -> bool {
    let Some(Value::Object(info)) = action.get_mut("commitInfo") else { return false };
    let mut is_less = false;
    // First, because what stays of them tells nothing then.
    if let Some(Value::Object(parameters)) = info.get_mut("operationParameters") {
        is_less |= retain(parameters, |key, told| {
            let is_condition = key.to_lowercase().contains("predicate") && !is_nothing(told);
            !is_condition && !tells(told, names)
        });
    }
    is_less | retain(info, |_, told| !tells(told, names))
}

/// Whether something was left out.
fn retain(object: &mut Map<String, Value>, stays: impl Fn(&str, &Value) -> bool) -> bool {
    let before = object.len();
    object.retain(|key, value| stays(key, value));
    object.len() < before
}

fn is_nothing(told: &Value) -> bool {
    told.is_null() || told.as_str().is_some_and(|text| matches!(text, "" | "[]" | "true"))
}

/// Whether one of the names is in a text, or in one that is within something.
fn tells(told: &Value, names: &BTreeSet<String>) -> bool {
    let text = match told {
        Value::String(text) => text,
        Value::Array(parts) => return parts.iter().any(|part| tells(part, names)),
        Value::Object(parts) => return parts.values().any(|part| tells(part, names)),
        Value::Null | Value::Bool(_) | Value::Number(_) => return false,
    };
    names.iter().filter(|name| !name.is_empty()).any(|name| {
        let is_long = name.chars().nth(ID_CHARS - 1).is_some();
        text == name || (is_long && text.contains(name.as_str()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_a_log_is_known_by_its_name() {
        for (rest, file) in [
            ("json", Some(LogFile::Commit(7))),
            ("crc", Some(LogFile::Checksum(7))),
            ("checkpoint.parquet", Some(LogFile::Checkpoint(7))),
            ("checkpoint.0000000001.0000000002.parquet", Some(LogFile::Checkpoint(7))),
            ("checkpoint.3a0d65cd-4056-49b8-937b-95f9e3ee90e5.json", Some(LogFile::Checkpoint(7))),
            ("00000000000000000009.compacted.json", Some(LogFile::Compacted(9))),
            ("json.tmp", None),
        ] {
            assert_eq!(LogFile::of(&format!("00000000000000000007.{rest}")), file, "{rest}");
        }
        for name in ["_last_checkpoint", "7.json", ".00000000000000000007.json.crc", "x.json"] {
            assert_eq!(LogFile::of(name), None, "{name}");
        }
    }

    #[test]
    fn a_commit_says_no_values_of_what_is_gone_and_keeps_its_other_lines_to_the_byte() {
        let commit = [
            r#"{"commitInfo":{"operation":"DELETE","operationParameters":{"predicate":"[\"id = 'ann-1'\"]","mode":"Append"},"userMetadata":"for ann-1"}}"#,
            r#"{"metaData":  {"id":"x"}}"#,
            r#"{"add":{"path":"d=1/here%20.parquet","size":10000000000000000000,"stats":"{}"}}"#,
            r#"{"add":{"path":"gone.parquet","stats":"{\"minValues\":{\"id\":\"ann\"}}","tags":null}}"#,
            r#"{"remove":{"path":"before.parquet","stats":"ann","tags":{"a":"ann"}}}"#,
        ]
        .join("\n");
        let names = BTreeSet::from(["ann-1".to_owned()]);
        let said = Said::of(&commit, &names, |path| path == "d=1/here .parquet").unwrap();
        assert!(said.removes);
        let paths: Vec<&str> = said.paths.iter().map(String::as_str).collect();
        assert_eq!(paths, ["before.parquet", "d=1/here .parquet", "gone.parquet"]);
        let less = said.less.unwrap();
        assert!(!less.contains("ann"), "{less}");
        for stays in [
            r#"{"metaData":  {"id":"x"}}"#,
            r#"{"add":{"path":"d=1/here%20.parquet","size":10000000000000000000,"stats":"{}"}}"#,
            r#""mode":"Append""#,
            r#""path":"gone.parquet""#,
            r#""path":"before.parquet""#,
        ] {
            assert!(less.contains(stays), "{stays} in {less}");
        }
        // It says no more than it has to, and so it is left alone.
        let again = Said::of(&less, &names, |path| path == "d=1/here .parquet").unwrap();
        assert!(again.less.is_none() && again.removes);
        assert!(Said::of("{", &names, |_| true).is_err());
    }

    #[test]
    fn a_short_id_is_no_part_of_a_text() {
        let names = BTreeSet::from(["1".to_owned()]);
        for (commit, less) in [
            (r#"{"commitInfo":{"engineInfo":"delta 1.1","timestamp":1}}"#, false),
            (r#"{"commitInfo":{"userMetadata":"1"}}"#, true),
            (r#"{"commitInfo":{"job":{"of":["0","1"]},"operationMetrics":{"n":1}}}"#, true),
            (r#"{"commitInfo":{"operationParameters":{"predicate":"[]"}}}"#, false),
        ] {
            let said = Said::of(commit, &names, |_| true).unwrap();
            assert_eq!(said.less.is_some(), less, "{commit}");
        }
    }
}
