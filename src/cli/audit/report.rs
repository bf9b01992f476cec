//! `attune audit report`: what is processed, by whom and for what, in Markdown: the record of
//! processing activities (GDPR article 30) and the facts that a data protection impact assessment
//! (article 35) starts from.
//!
//! It is made of queries that anybody may run, so that it shows what whoever asks may see. What no
//! program knows (necessity, proportionality, who the controller is) is left to be written, and the
//! report says so.

use std::io::Write;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use futures::TryStreamExt;

use super::super::Context;
use super::super::arguments::{AuditReportArguments, ReportFormat};
use super::super::run::open;
use super::super::target::Target;
use crate::error::{Error, Result};

/// A chapter: its title, what it says, and the query that fills its table.
struct Chapter {
    title: &'static str,
    about: &'static str,
    query: &'static str,
}

const CHAPTERS: [Chapter; 10] = [
    Chapter {
        title: "Data",
        about: "Tables, views and models, whose they are, and what they hold. Columns marked as \
                personal data are named; where none is marked, none was tagged. Rows are kept for \
                the retention, counted from the time in the column that it names (article 5 (1) \
                (e)); where none is told, nothing limits how long they are kept.",
        query: "SELECT schema, name, kind, origin, owner, columns, personal, retention \
                FROM system.processing_activities ORDER BY schema, name",
    },
    Chapter {
        title: "Purposes and policies",
        about: "The purposes for which each may be read, and the policies on it. An empty list \
                means that nothing limits the reading of whoever holds a grant.",
        query: "SELECT schema, name, purposes, policies FROM system.processing_activities \
                ORDER BY schema, name",
    },
    Chapter {
        title: "Sale and sharing",
        about: "Purposes that sell or share personal information, and the policies by which who says \
                \"do not sell or share\" is absent (California, CCPA §§ 1798.120 and 1798.135). \
                `exceptions`: how many are absent where the default is to allow, or there where it \
                is to deny; empty where it was not asked since the program started. A policy that \
                lists channels has a row for each, and one for what is read for all of them.",
        query: "SELECT p.name AS purpose, p.description, c.schema, c.\"table\", c.name AS policy, \
                c.channel, c.\"default\", c.exceptions, c.version FROM system.purposes p \
                LEFT JOIN system.consents c ON c.purpose = p.name WHERE p.sells_or_shares \
                ORDER BY p.name, c.schema, c.\"table\", c.name, c.channel",
    },
    Chapter {
        title: "Sold or shared without a choice",
        about: "What was read for such a purpose and holds personal data, and has no consent policy \
                that names the purpose: nobody can opt out there.",
        query: "SELECT p.name AS purpose, a.schema, a.name, a.kind, a.personal, a.last_used \
                FROM system.purposes p JOIN system.processing_activities a \
                ON array_has(a.used_for, p.name) WHERE p.sells_or_shares \
                AND a.kind <> 'model' AND cardinality(a.personal) > 0 \
                AND NOT array_has(a.purposes, p.name) ORDER BY p.name, a.schema, a.name",
    },
    Chapter {
        title: "Recipients",
        about: "Who may have what. Administrators read everything, owners what is theirs.",
        query: "SELECT schema, name, recipients FROM system.processing_activities \
                ORDER BY schema, name",
    },
    Chapter {
        title: "Use",
        about: "What was done with each, as far back as the record goes: for which stated \
                purposes, by whom, how often, and when last.",
        query: "SELECT schema, name, used_for, used_by, reads, changes, last_used \
                FROM system.processing_activities ORDER BY schema, name",
    },
    Chapter {
        title: "Models",
        about: "What learns from the data: profiling in the sense of article 4 (4) where its rows \
                are of persons.",
        query: "SELECT schema, name, model_type, owner, default_version, created, query \
                FROM system.models ORDER BY schema, name",
    },
    Chapter {
        title: "Users and roles",
        about: "Who can log in. `admin` manages users and reads everything; `policy_admin` manages \
                policies and keys.",
        query: "SELECT name, roles FROM system.users ORDER BY name",
    },
    Chapter {
        title: "Accuracy",
        about: "What is expected of the data (article 5 (1) (d)).",
        query: "SELECT * FROM system.expectations",
    },
    Chapter {
        title: "Refusals and failed logins",
        about: "Who was refused what, by day.",
        query: "SELECT date_trunc('day', at) AS day, event, principal, error_code, \
                count(*) AS times FROM system.audit \
                WHERE outcome = 'failed' AND (event = 'login' OR error_code = 'ATT-2003') \
                GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3, 4",
    },
];

const OPEN: &str = "\
## To be written

What this report cannot know, and an assessment needs: who the controller and its representatives
are; why each purpose is necessary and proportionate; the legal basis of each; transfers to third
countries; the risks to the persons concerned, and what is done about them.
";

/// Runs `attune audit report`.
pub(super) async fn run(arguments: &AuditReportArguments, context: &Context) -> Result<()> {
    let target = open(&arguments.store, &arguments.connect, context).await?;
    let text = match arguments.format {
        ReportFormat::Markdown => report(target.as_ref()).await,
    };
    target.close().await?;
    std::io::stdout().lock().write_all(text?.as_bytes())?;
    Ok(())
}

async fn report(target: &dyn Target) -> Result<String> {
    let mut text = format!(
        "# Record of processing activities\n\nMade by attune {} of {}.\n",
        env!("CARGO_PKG_VERSION"),
        target.description()
    );
    for chapter in &CHAPTERS {
        let batches = rows(target, chapter.query).await?;
        text.push_str(&format!("\n## {}\n\n{}\n\n", chapter.title, chapter.about));
        text.push_str(&table(&batches)?);
    }
    text.push('\n');
    text.push_str(OPEN);
    Ok(text)
}

async fn rows(target: &dyn Target, query: &str) -> Result<Vec<RecordBatch>> {
    target.run(query).await?.rows.try_collect().await
}

/// A table in Markdown; lists become lines.
fn table(batches: &[RecordBatch]) -> Result<String> {
    let Some(first) = batches.iter().find(|batch| batch.num_rows() > 0) else {
        return Ok("Nothing.\n".into());
    };
    let schema = first.schema();
    let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
    let rule = vec!["---"; names.len()].join(" | ");
    let mut text = format!("| {} |\n| {rule} |\n", names.join(" | "));
    for batch in batches {
        for row in 0..batch.num_rows() {
            let cells = batch.columns().iter().map(|column| cell(column.as_ref(), row));
            let cells = cells.collect::<Result<Vec<String>>>()?;
            text.push_str(&format!("| {} |\n", cells.join(" | ")));
        }
    }
    Ok(text)
}

fn cell(column: &dyn Array, row: usize) -> Result<String> {
    if column.is_null(row) {
        return Ok(String::new());
    }
    if let Some(list) = column.as_list_opt::<i32>() {
        let values = list.value(row);
        let shown = (0..values.len()).map(|index| cell(values.as_ref(), index));
        return Ok(shown.collect::<Result<Vec<String>>>()?.join("<br>"));
    }
    let wrong = |error: arrow::error::ArrowError| Error::Format {
        format: "markdown",
        reason: error.to_string(),
    };
    let options = FormatOptions::default();
    let shown = ArrayFormatter::try_new(column, &options).map_err(wrong)?;
    let shown = shown.value(row).try_to_string().map_err(wrong)?;
    Ok(escaped(&shown))
}

/// Text as it stands in a cell: names come from users, and must not become markup.
fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\n' | '\r' => safe.push(' '),
            '<' => safe.push_str("&lt;"),
            '&' => safe.push_str("&amp;"),
            '|' | '\\' | '`' | '*' | '_' | '[' | ']' | '#' => {
                safe.push('\\');
                safe.push(character);
            }
            other => safe.push(other),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array, ListBuilder, StringBuilder};

    use super::*;

    #[test]
    fn lists_become_lines_and_names_no_markup() {
        let mut lists = ListBuilder::new(StringBuilder::new());
        lists.values().append_value("a|b");
        lists.values().append_value("<script>");
        lists.append(true);
        lists.append(false);
        let columns: [(&str, ArrayRef); 2] = [
            ("n", Arc::new(Int64Array::from(vec![Some(1), None]))),
            ("names", Arc::new(lists.finish())),
        ];
        let batch = RecordBatch::try_from_iter(columns).unwrap();
        assert_eq!(
            table(&[batch]).unwrap(),
            "| n | names |\n| --- | --- |\n| 1 | a\\|b<br>&lt;script> |\n|  |  |\n"
        );
        assert_eq!(table(&[]).unwrap(), "Nothing.\n");
    }
}
