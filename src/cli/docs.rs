//! `attune docs FUNCTION`: the documentation of a SQL function, from the same declaration that
//! `SHOW FUNCTIONS`, the shell's `.help` and `docs/functions.md` use.

use std::fmt::Write as _;
use std::io::Write as _;

use sql::FunctionDoc;

use super::Context;
use super::arguments::DocsArguments;
use crate::engine;
use crate::error::{Error, Result, did_you_mean};

/// Runs `attune docs`.
pub(super) async fn run(arguments: &DocsArguments, _context: &Context) -> Result<()> {
    let functions = engine::functions_documentation().await?;
    let text = match &arguments.function {
        Some(name) => describe(&functions, name)?,
        None => list(&functions),
    };
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", text.trim_end())?;
    Ok(())
}

/// The page of one function.
pub(super) fn describe(functions: &[FunctionDoc], name: &str) -> Result<String> {
    let wanted = name.trim().trim_end_matches("()").to_lowercase();
    let found = functions
        .iter()
        .find(|function| function.name == wanted || function.aliases.contains(&wanted));
    found.map(page).ok_or_else(|| {
        let names = functions.iter().map(|function| function.name.as_str());
        let hint = match did_you_mean(&wanted, names) {
            Some(near) => format!("did you mean {near}?"),
            None => "attune docs lists all".to_owned(),
        };
        Error::usage(format!("there is no function {wanted}"), hint)
    })
}

fn page(function: &FunctionDoc) -> String {
    let mut text = format!("{}\n\n{}\n", function.syntax, function.description);
    if !function.arguments.is_empty() {
        text.push_str("\nArguments\n");
        for (name, about) in &function.arguments {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "  {name}: {about}");
        }
    }
    if !function.example.is_empty() {
        let _ = write!(text, "\nExample\n{}\n", without_fences(&function.example));
    }
    text
}

/// An example without the Markdown around it.
fn without_fences(example: &str) -> String {
    let lines = example.lines().filter(|line| !line.trim_start().starts_with("```"));
    lines.map(|line| format!("  {line}")).collect::<Vec<_>>().join("\n")
}

/// Attune's own functions by section, a line each, then the names of those of DataFusion.
pub(super) fn list(functions: &[FunctionDoc]) -> String {
    let mut sorted: Vec<&FunctionDoc> = functions.iter().collect();
    sorted.sort_by_key(|function| (!function.own, &function.section, &function.name));
    let mut text = String::new();
    let mut section = None;
    for function in sorted {
        if section != Some((function.own, &function.section)) {
            let _ = write!(text, "\n\n{}", function.section);
            section = Some((function.own, &function.section));
            if !function.own {
                text.push_str(" (DataFusion)\n ");
            }
        }
        if function.own {
            let _ = write!(text, "\n  {:<26} {}", function.name, summary(&function.description));
        } else {
            let _ = write!(text, " {}", function.name);
        }
    }
    text.trim_start().to_owned()
}

/// The first sentence, without its details when it is long.
fn summary(description: &str) -> &str {
    let line = description.lines().next().unwrap_or_default();
    let sentence = line.split_once(". ").map_or(line, |(first, _)| first).trim_end_matches('.');
    if sentence.chars().count() <= SUMMARY_MAX {
        return sentence;
    }
    sentence.split_once([':', ';', ',']).map_or(sentence, |(first, _)| first)
}

/// Characters a summary may have before its details are dropped.
const SUMMARY_MAX: usize = 80;

#[cfg(test)]
mod tests {
    use super::*;

    fn function(name: &str, section: &str) -> FunctionDoc {
        FunctionDoc {
            name: name.into(),
            aliases: vec![format!("{name}_alias")],
            kind: "scalar",
            section: section.into(),
            description: "Counts edits.\nIn detail.".into(),
            syntax: format!("{name}(a, b)"),
            example: "```sql\nSELECT 1;\n```".into(),
            arguments: vec![("a".into(), "A text.".into())],
            own: true,
        }
    }

    #[test]
    fn a_page_has_syntax_arguments_and_example() {
        let functions = [function("levenshtein", "Fuzzy")];
        let page = describe(&functions, "LEVENSHTEIN()").unwrap();
        assert_eq!(
            page,
            "levenshtein(a, b)\n\nCounts edits.\nIn detail.\n\nArguments\n  a: A text.\n\n\
             Example\n  SELECT 1;\n"
        );
        assert_eq!(describe(&functions, "levenshtein_alias").unwrap(), page);
        let error = describe(&functions, "levenstein").unwrap_err();
        assert_eq!(error.hint().as_deref(), Some("did you mean levenshtein?"));
    }

    #[test]
    fn the_list_has_our_functions_first_with_a_line_each() {
        let theirs = FunctionDoc { own: false, ..function("abs", "Math") };
        let text = list(&[theirs, function("b", "Two"), function("a", "One")]);
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        assert_eq!(lines[0], "One");
        assert!(lines[1].starts_with("a ") && lines[1].ends_with("Counts edits"), "{text}");
        assert_eq!(lines[3], "Two");
        assert_eq!(lines[6..], ["Math (DataFusion)", "abs"]);
    }

    #[test]
    fn a_summary_is_short() {
        let long = format!("Replaces a number: {}. More.", "x".repeat(80));
        assert_eq!(summary(&long), "Replaces a number");
        assert_eq!(summary("Counts. More."), "Counts");
    }
}
