//! `attune audit report`: what is processed, by whom and for what, in Markdown: the record of
//! processing activities (GDPR article 30), and a data protection impact assessment (article 35) in
//! the four parts that its paragraph 7 asks for.
//!
//! It is made of queries that anybody may run, so that it shows what whoever asks may see. What no
//! program knows (why a purpose is necessary, who the controller is) is left to be written, and the
//! report says so where it belongs.

use std::io::Write;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use futures::TryStreamExt;

use super::super::Context;
use super::super::arguments::{AuditReportArguments, ReportFormat};
use super::super::run::open;
use super::super::target::Target;
use super::chapters::{ASSESSMENT, Chapter, OPEN, PARTS, RECORD};
use crate::error::{Error, Result};

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
    add(&mut text, target, &RECORD).await?;
    text.push_str(ASSESSMENT);
    for part in &PARTS {
        text.push_str(&format!("\n## {}\n\n{}\n", part.title, part.about));
        add(&mut text, target, part.chapters).await?;
    }
    text.push('\n');
    text.push_str(OPEN);
    Ok(text)
}

async fn add(text: &mut String, target: &dyn Target, chapters: &[Chapter]) -> Result<()> {
    for Chapter { title, about, query } in chapters {
        let batches = rows(target, query).await?;
        text.push_str(&format!("\n{title}\n\n{about}\n\n"));
        text.push_str(&table(&batches)?);
    }
    Ok(())
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
