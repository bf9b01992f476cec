//! Reads a recipe: a SQL script whose comments tell a story.
//!
//! `-- # Title` begins a step, `-- > …` says what its result means, all else is SQL. The same file
//! runs as it is with `attune sql -f`.

use crate::cli::lexer;

/// One step of a recipe.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Step {
    /// What the step does.
    pub(super) title: String,
    /// Its statements, without the semicolons.
    pub(super) statements: Vec<String>,
    /// What the result means.
    pub(super) meaning: String,
}

/// The steps of a recipe. What stands before the first title belongs to no step.
pub(super) fn steps(text: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let mut body = String::new();
    for line in text.lines() {
        if let Some(title) = line.strip_prefix("-- # ") {
            finish(steps.last_mut(), &mut body);
            steps.push(Step { title: title.trim().to_owned(), ..Step::default() });
        } else if let Some(meaning) = line.strip_prefix("-- > ") {
            if let Some(step) = steps.last_mut() {
                if !step.meaning.is_empty() {
                    step.meaning.push(' ');
                }
                step.meaning.push_str(meaning.trim());
            }
        } else {
            body.push_str(line);
            body.push('\n');
        }
    }
    finish(steps.last_mut(), &mut body);
    steps
}

fn finish(step: Option<&mut Step>, body: &mut String) {
    if let Some(step) = step {
        step.statements = lexer::split(body).into_iter().map(str::to_owned).collect();
    }
    body.clear();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn titles_statements_and_meanings_are_told_apart() {
        let text = "-- preface\nSELECT 0;\n-- # One\nSELECT 1; -- note\nSELECT ';'\n  AS x;\n\
                    -- > It is\n-- > one.\n\n-- # Two\n-- > Nothing.\n";
        let found = steps(text);
        assert_eq!(found.len(), 2);
        assert_eq!(found[0].title, "One");
        assert_eq!(found[0].statements, ["SELECT 1", "-- note\nSELECT ';'\n  AS x"]);
        assert_eq!(found[0].meaning, "It is one.");
        assert_eq!((found[1].statements.len(), found[1].meaning.as_str()), (0, "Nothing."));
    }

    #[test]
    fn every_step_of_the_case_study_has_a_title_sql_and_a_meaning() {
        let found = steps(super::super::CASE_STUDY);
        assert!(found.len() >= 8, "{}", found.len());
        for step in found {
            assert!(!step.title.is_empty());
            assert!(!step.statements.is_empty(), "{}", step.title);
            assert!(step.meaning.ends_with('.'), "{}", step.title);
        }
    }
}
