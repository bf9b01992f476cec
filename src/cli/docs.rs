//! `attune docs FUNCTION`: the documentation of a SQL function, from the same declaration that
//! `SHOW FUNCTIONS`, the shell's `.help` and `docs/functions.md` use.

use std::fmt::Write as _;
use std::io::Write as _;

use sql::FunctionDoc;

use super::Context;
use super::arguments::DocsArguments;
use crate::error::{Error, Result, did_you_mean};

/// Runs `attune docs`.
pub(super) async fn run(arguments: &DocsArguments, _context: &Context) -> Result<()> {
    let functions = sql::functions_documentation();
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
    let found = functions.iter().find(|function| function.name == wanted);
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
    if let Some(example) = &function.example {
        let _ = write!(text, "\nExample\n{example}\n");
    }
    text
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
