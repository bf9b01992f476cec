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

/// All functions, by section.
pub(super) fn list(functions: &[FunctionDoc]) -> String {
    let mut sorted: Vec<&FunctionDoc> = functions.iter().collect();
    sorted.sort_by(|a, b| (&a.section, &a.name).cmp(&(&b.section, &b.name)));
    let mut text = String::new();
    let mut section = None;
    for function in sorted {
        if section != Some(&function.section) {
            let _ = writeln!(text, "\n{}", function.section);
            section = Some(&function.section);
        }
        let summary = function.description.lines().next().unwrap_or_default();
        let _ = writeln!(text, "  {:<28} {summary}", function.name);
    }
    text.trim_start().to_owned()
}

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
    fn the_list_is_by_section_with_one_line_each() {
        let text = list(&[function("b", "Two"), function("a", "One")]);
        let starts: Vec<&str> = text.lines().map(|line| line.trim_start()).collect();
        assert_eq!(starts[0], "One");
        assert!(starts[1].starts_with("a ") && starts[1].ends_with("Counts edits."));
        assert_eq!(starts[3], "Two");
    }
}
