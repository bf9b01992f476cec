//! Statements that a connection keeps, and what the client is told of them.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::common::ScalarValue;
use pgwire::messages::PgWireBackendMessage as Backend;
use pgwire::messages::data::{FieldDescription, NoData, ParameterDescription, RowDescription};
use sql::pg::control::{Control, control};
use sql::pg::types;
use sql::{Prepared, Session};

use super::cells::Column;
use super::problem::{Problem, Stop};
use super::values;

/// A statement as it was read.
#[derive(Debug)]
pub struct Statement {
    /// What it does.
    pub work: Work,
    /// The types that the client declared for its parameters; 0 where it did not.
    pub declared: Vec<u32>,
    /// Its first words.
    tag: String,
}

/// What a statement does.
#[derive(Debug)]
pub enum Work {
    /// Nothing: it is blank.
    Nothing,
    /// Something with the connection.
    Control(Control),
    /// Something with data.
    Data(Prepared),
}

impl Statement {
    /// Reads a statement and plans it. `admits` says whether it may: in a transaction that failed,
    /// only its end is read.
    ///
    /// # Errors
    /// When it is no statement, or names, types or rights do not fit.
    pub async fn read(
        session: &Session,
        text: &str,
        declared: Vec<u32>,
        admits: Result<(), Problem>,
    ) -> Result<Self, Stop> {
        let tag = tag(text);
        if sql::parse::is_blank(text) {
            return Ok(Self { work: Work::Nothing, declared, tag });
        }
        let work = match control(text)? {
            Some(ends) if ends.ends_failure() => Work::Control(ends),
            Some(Control::Show(name)) => {
                admits?;
                Work::Data(session.prepare(&show(session, &name)?).await?)
            }
            Some(other) => {
                admits?;
                Work::Control(other)
            }
            None => {
                admits?;
                Work::Data(session.prepare(text).await?)
            }
        };
        Ok(Self { work, declared, tag })
    }

    /// What its parameters are, as far as the client or the statement tells.
    pub fn parameters(&self) -> Vec<u32> {
        let wanted = self.wanted();
        let declared = |index: usize| self.declared.get(index).copied().filter(|oid| *oid != 0);
        let told = |index: usize| types::type_oid(wanted.field(index).data_type());
        (0..wanted.fields().len()).map(|n| declared(n).unwrap_or_else(|| told(n))).collect()
    }

    /// One field a parameter, as the statement wants it. A parameter that the client declared and
    /// that means nothing to the statement as it is planned takes any value.
    pub fn wanted(&self) -> Schema {
        let Work::Data(prepared) = &self.work else { return Schema::empty() };
        let mut fields = prepared.parameters().fields().to_vec();
        for number in fields.len() + 1..=self.declared.len() {
            fields.push(Arc::new(Field::new(format!("${number}"), DataType::Null, true)));
        }
        Schema::new(fields)
    }

    /// The values that the statement as it is planned takes.
    pub fn taken<'a>(&self, values: &'a [ScalarValue]) -> &'a [ScalarValue] {
        let count = match &self.work {
            Work::Data(prepared) => prepared.parameters().fields().len(),
            _ => 0,
        };
        values.get(..count).unwrap_or(values)
    }

    /// The columns of its result with these values, in text form; none without a result.
    pub fn columns(&self, values: &[ScalarValue]) -> Vec<Column> {
        let Work::Data(prepared) = &self.work else { return Vec::new() };
        let schema: SchemaRef = prepared.schema_with(self.taken(values));
        schema.fields().iter().map(|field| Column::of(field)).collect()
    }

    /// The same before values are bound.
    pub fn columns_unbound(&self) -> Vec<Column> {
        let wanted = self.wanted();
        let declared = |index: usize| self.declared.get(index).copied().unwrap_or(0);
        let fields = wanted.fields().iter().enumerate();
        let values: Vec<ScalarValue> = fields
            .map(|(index, field)| values::placeholder(declared(index), field.data_type()))
            .collect();
        self.columns(&values)
    }

    /// Whether it has a result, even one without columns.
    pub fn has_rows(&self) -> bool {
        matches!(&self.work, Work::Data(prepared) if !prepared.is_update())
    }

    /// Whether it changes more than the session.
    pub fn changes(&self) -> bool {
        let session = self.tag.starts_with("SET ") || self.tag.starts_with("USE ");
        matches!(&self.work, Work::Data(prepared) if prepared.is_update()) && !session
    }

    /// What the client is told when it is done.
    pub fn tag(&self, rows: u64) -> String {
        let first = self.tag.split(' ').next().unwrap_or_default();
        match first {
            "INSERT" => format!("INSERT 0 {rows}"),
            "UPDATE" | "DELETE" | "MERGE" => format!("{first} {rows}"),
            "SHOW" | "EXPLAIN" | "SET" | "USE" => first.to_owned(),
            _ if self.has_rows() => format!("SELECT {rows}"),
            _ => self.tag.clone(),
        }
    }
}

/// The first words of a statement, such as `CREATE TABLE`.
fn tag(text: &str) -> String {
    const NOISE: [&str; 4] = ["OR", "REPLACE", "EXTERNAL", "TEMPORARY"];
    let shown = sql::without_literals(text);
    let words = shown
        .split(|character: char| !character.is_ascii_alphabetic())
        .map(str::to_ascii_uppercase)
        .filter(|word| !word.is_empty() && !NOISE.contains(&word.as_str()));
    words.take(2).collect::<Vec<_>>().join(" ")
}

/// The query for a parameter's value, under its own name.
fn show(session: &Session, name: &str) -> Result<String, Stop> {
    if name == "all" {
        let query = "SELECT name, setting, short_desc AS description FROM pg_catalog.pg_settings";
        return Ok(query.to_owned());
    }
    let known = session.parameters();
    let found = known.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
    let Some((name, _)) = found else {
        return Err(Problem::new("42704", format!("parameter {name} does not exist")).into());
    };
    Ok(format!("SELECT setting AS \"{name}\" FROM pg_catalog.pg_settings WHERE name = '{name}'"))
}

/// The parameters of a statement, for the client.
pub fn described_parameters(oids: Vec<u32>) -> Backend {
    Backend::ParameterDescription(ParameterDescription::new(oids))
}

/// The columns of a result, for the client.
pub fn described(has_rows: bool, columns: &[Column]) -> Backend {
    if !has_rows {
        return Backend::NoData(NoData::new());
    }
    let field = |column: &Column| {
        FieldDescription::new(
            column.name.replace('\0', ""),
            0,
            0,
            column.oid,
            types::length_of(column.oid),
            column.modifier,
            i16::from(column.binary),
        )
    };
    Backend::RowDescription(RowDescription::new(columns.iter().map(field).collect()))
}

/// The statements by their names.
#[derive(Debug, Default)]
pub struct Statements(HashMap<String, Arc<Statement>>);

impl Statements {
    /// Keeps a statement; the unnamed one replaces the one before.
    ///
    /// # Errors
    /// When the name is taken, or when there are as many as there may be.
    pub fn keep(
        &mut self,
        name: String,
        statement: Statement,
        held_max: usize,
    ) -> Result<(), Problem> {
        if !name.is_empty() {
            if self.0.contains_key(&name) {
                let what = format!("prepared statement \"{name}\" already exists");
                return Err(Problem::new("42P05", what));
            }
            if self.0.len() >= held_max {
                let what = format!("this connection keeps {held_max} prepared statements already");
                return Err(Problem::new("54000", what).hint("DEALLOCATE some"));
            }
        }
        self.0.insert(name, Arc::new(statement));
        Ok(())
    }

    /// A statement by its name.
    ///
    /// # Errors
    /// When there is none.
    pub fn get(&self, name: &str) -> Result<Arc<Statement>, Problem> {
        self.0.get(name).cloned().ok_or_else(|| missing(name))
    }

    /// Forgets a statement; whether it was there.
    pub fn forget(&mut self, name: &str) -> bool {
        self.0.remove(name).is_some()
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        self.0.clear();
    }
}

/// A prepared statement that the connection does not have.
pub fn missing(name: &str) -> Problem {
    Problem::new("26000", format!("prepared statement \"{name}\" does not exist"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_is_the_first_words() {
        for (text, expected) in [
            ("select 1", "SELECT"),
            ("CREATE OR REPLACE TABLE t AS SELECT 1", "CREATE TABLE"),
            ("/* x */ insert into t values (1)", "INSERT INTO"),
            ("drop view v", "DROP VIEW"),
        ] {
            assert!(tag(text).starts_with(expected), "{text}: {}", tag(text));
        }
    }
}
