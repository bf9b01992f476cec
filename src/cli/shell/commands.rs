//! The dot commands.

use std::io::Write;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringArray};
use clap::ValueEnum;

use super::Shell;
use crate::cli::docs;
use crate::cli::format::{Destination, Format, TableStyle, sink};
use crate::cli::run::statement;
use crate::cli::target::Relation;
use crate::cli::terminal::Screen;
use crate::error::{Error, Result, did_you_mean};

/// What the shell does after a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// Asks for the next.
    Go,
    /// Ends.
    Quit,
}

/// The commands and what they do.
pub(super) const COMMANDS: [(&str, &str); 8] = [
    ("help", "[FUNCTION]   this list, or the documentation of a SQL function"),
    ("tables", "           the tables and views you may see"),
    ("schema", "TABLE      the columns of a table"),
    ("models", "           the models"),
    ("format", "FORMAT     table, csv, json or ndjson"),
    ("rows", "N            rows a table shows; 0 for all"),
    ("timing", "on|off     whether the time is told"),
    ("quit", "             ends the shell, as Ctrl-D does"),
];

/// Runs a command, given without its dot.
pub(super) async fn run(shell: &mut Shell<'_>, line: &str) -> Result<Next> {
    let line = line.trim().trim_end_matches(';').trim_end();
    let (name, argument) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    let argument = argument.trim();
    match name {
        "help" if argument.is_empty() => help()?,
        "help" => page(&docs::describe(&shell.target.functions().await?, argument)?)?,
        "tables" => {
            let relations = shell.target.relations(false).await?;
            show(&tables(&relations)?, &shell.context.screen)?;
        }
        "schema" => {
            let relations = shell.target.relations(true).await?;
            show(&schema(&relations, argument)?, &shell.context.screen)?;
        }
        "models" => {
            let screen = &shell.context.screen;
            statement(shell.target.as_ref(), "SHOW MODELS", &shell.output, screen).await?;
        }
        "format" => shell.output.format = format(argument)?,
        "rows" => {
            shell.output.rows_max = argument
                .parse()
                .map_err(|_| Error::usage(format!("{argument:?} is no number"), ".rows 100"))?;
        }
        "timing" => shell.output.timing = switch(argument)?,
        "quit" | "exit" | "q" => return Ok(Next::Quit),
        _ => return Err(unknown(name)),
    }
    Ok(Next::Go)
}

fn unknown(name: &str) -> Error {
    let names = COMMANDS.iter().map(|(name, _)| *name);
    let hint = match did_you_mean(name, names) {
        Some(near) => format!("did you mean .{near}?"),
        None => ".help lists the commands".to_owned(),
    };
    Error::usage(format!("there is no command .{name}"), hint)
}

fn help() -> Result<()> {
    let mut text = String::from("Statements end with a semicolon. Tab completes.\n\n");
    for (name, about) in COMMANDS {
        text.push_str(&format!(".{name:<7} {about}\n"));
    }
    page(&text)
}

fn page(text: &str) -> Result<()> {
    writeln!(std::io::stdout().lock(), "{}", text.trim_end())?;
    Ok(())
}

fn format(name: &str) -> Result<Format> {
    let format = Format::from_str(name, true).ok().filter(|format| !format.is_binary());
    format.ok_or_else(|| {
        Error::usage(
            format!("the shell does not show {name:?}"),
            ".format table, csv, json or ndjson; attune sql -o FILE writes the others",
        )
    })
}

fn switch(word: &str) -> Result<bool> {
    match word {
        "on" | "" => Ok(true),
        "off" => Ok(false),
        _ => Err(Error::usage(format!("{word:?} is neither on nor off"), ".timing off")),
    }
}

fn tables(relations: &[Relation]) -> Result<RecordBatch> {
    let of = |get: fn(&Relation) -> &str| -> ArrayRef {
        Arc::new(StringArray::from_iter_values(relations.iter().map(get)))
    };
    batch([
        ("schema", of(|relation| &relation.schema)),
        ("name", of(|relation| &relation.name)),
        ("kind", of(|relation| &relation.kind)),
    ])
}

fn schema(relations: &[Relation], name: &str) -> Result<RecordBatch> {
    let wanted = name.to_lowercase();
    let full = |relation: &Relation| format!("{}.{}", relation.schema, relation.name);
    let found = relations
        .iter()
        .find(|relation| full(relation) == wanted || relation.name == wanted)
        .and_then(|relation| relation.columns.as_ref());
    let Some(columns) = found else {
        let hint = match did_you_mean(&wanted, relations.iter().map(|table| table.name.as_str())) {
            Some(near) => format!("did you mean {near}?"),
            None => ".tables lists them".to_owned(),
        };
        return Err(Error::usage(format!("there is no table {name}"), hint));
    };
    let fields = columns.fields();
    let names = fields.iter().map(|field| field.name().as_str());
    let types = fields.iter().map(|field| field.data_type().to_string());
    let nulls = fields.iter().map(|field| if field.is_nullable() { "yes" } else { "no" });
    batch([
        ("column", Arc::new(StringArray::from_iter_values(names)) as ArrayRef),
        ("type", Arc::new(StringArray::from_iter_values(types))),
        ("nullable", Arc::new(StringArray::from_iter_values(nulls))),
    ])
}

fn batch<const N: usize>(columns: [(&str, ArrayRef); N]) -> Result<RecordBatch> {
    RecordBatch::try_from_iter(columns)
        .map_err(|error| Error::Format { format: "table", reason: error.to_string() })
}

fn show(batch: &RecordBatch, screen: &Screen) -> Result<()> {
    let style =
        TableStyle { width_max: screen.width, rows_max: None, colours: screen.output_colours() };
    let writer = Destination::Output.open()?;
    let mut sink = sink(Format::Table, batch.schema(), writer, style)?;
    sink.write(batch)?;
    sink.finish()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::{DataType, Field, Schema};

    use super::*;

    #[test]
    fn the_columns_of_a_table_are_found_with_and_without_its_schema() {
        let relations = [Relation {
            schema: "lake".into(),
            name: "orders".into(),
            kind: "TABLE".into(),
            columns: Some(Arc::new(Schema::new(vec![Field::new("id", DataType::Int64, false)]))),
        }];
        for name in ["orders", "lake.orders", "ORDERS"] {
            assert_eq!(schema(&relations, name).unwrap().num_rows(), 1, "{name}");
        }
        let error = schema(&relations, "ordrs").unwrap_err();
        assert_eq!(error.hint().as_deref(), Some("did you mean orders?"));
    }

    #[test]
    fn a_mistyped_command_is_corrected() {
        assert_eq!(unknown("tabels").hint().as_deref(), Some("did you mean .tables?"));
        assert!(format("parquet").is_err());
        assert_eq!(format("CSV").unwrap(), Format::Csv);
        assert!(switch("perhaps").is_err());
    }
}
