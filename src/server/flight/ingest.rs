//! StatementIngest: bulk loading of a warehouse table.

use arrow_flight::sql::{
    CommandStatementIngest, TableDefinitionOptions, TableExistsOption, TableNotExistOption,
};
use sql::{IfMissing, IfPresent, Ingest};
use tonic::Status;

use super::incoming::{Incoming, into_engine};
use super::rows::Told;
use super::sessions::Caller;
use super::statements::{Statements, refuse_transaction};
use super::status;

/// Writes the rows into a table, in one commit.
pub async fn ingest(
    statements: &Statements,
    caller: &Caller,
    command: CommandStatementIngest,
    incoming: Incoming,
) -> Result<Told, Status> {
    let target = target(command)?;
    let Some(schema) = incoming.schema else {
        return Err(status::malformed("an ingestion came without a schema and rows"));
    };
    let session = &caller.client.session;
    let query_id = session.engine().new_query_id();
    let rows = into_engine(schema, incoming.batches);
    statements.effect(&query_id, session.ingest(&query_id, &target, rows)).await
}

/// Where the rows go, once everything that Attune does not have is refused.
fn target(command: CommandStatementIngest) -> Result<Ingest, Status> {
    refuse_transaction(command.transaction_id.as_ref())?;
    if command.temporary {
        return Err(status::unsupported(
            "there are no temporary tables",
            "ingest into a table of your own schema and drop it",
        ));
    }
    if let Some(name) = command.options.keys().min() {
        return Err(status::malformed(&format!("there is no option {name:?} of an ingestion")));
    }
    if command.table.is_empty() {
        return Err(status::malformed("an ingestion names no table"));
    }
    let (if_missing, if_present) = modes(command.table_definition_options)?;
    let named = |name: Option<String>| name.filter(|name| !name.is_empty());
    Ok(Ingest {
        catalog: named(command.catalog),
        schema: named(command.schema),
        table: command.table,
        if_missing,
        if_present,
    })
}

fn modes(options: Option<TableDefinitionOptions>) -> Result<(IfMissing, IfPresent), Status> {
    let unsaid =
        || status::malformed("an ingestion must say what to do when the table exists or does not");
    let options = options.ok_or_else(unsaid)?;
    let if_missing = match TableNotExistOption::try_from(options.if_not_exist) {
        Ok(TableNotExistOption::Create) => IfMissing::Create,
        Ok(TableNotExistOption::Fail) => IfMissing::Fail,
        _ => return Err(unsaid()),
    };
    let if_present = match TableExistsOption::try_from(options.if_exists) {
        Ok(TableExistsOption::Fail) => IfPresent::Fail,
        Ok(TableExistsOption::Append) => IfPresent::Append,
        Ok(TableExistsOption::Replace) => IfPresent::Replace,
        _ => return Err(unsaid()),
    };
    Ok((if_missing, if_present))
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use tonic::Code;

    use super::*;

    fn command() -> CommandStatementIngest {
        CommandStatementIngest {
            table: "t".into(),
            table_definition_options: Some(TableDefinitionOptions {
                if_not_exist: TableNotExistOption::Create as i32,
                if_exists: TableExistsOption::Append as i32,
            }),
            ..CommandStatementIngest::default()
        }
    }

    #[test]
    fn a_target_is_read() {
        let schema = Some(String::new());
        let read = target(CommandStatementIngest { schema, ..command() }).unwrap();
        assert_eq!((read.catalog, read.schema, read.table), (None, None, "t".into()));
        assert_eq!((read.if_missing, read.if_present), (IfMissing::Create, IfPresent::Append));
    }

    #[test]
    fn what_there_is_not_is_refused() {
        let temporary = CommandStatementIngest { temporary: true, ..command() };
        assert_eq!(target(temporary).unwrap_err().code(), Code::Unimplemented);
        let transaction_id = Some(b"t".as_slice().into());
        let inside = CommandStatementIngest { transaction_id, ..command() };
        assert_eq!(target(inside).unwrap_err().code(), Code::Unimplemented);
        let options = HashMap::from([("speed".to_owned(), "high".to_owned())]);
        let nameless = CommandStatementIngest { table: String::new(), ..command() };
        let silent = CommandStatementIngest { table_definition_options: None, ..command() };
        let unspecified = CommandStatementIngest {
            table_definition_options: Some(TableDefinitionOptions::default()),
            ..command()
        };
        for wrong in
            [CommandStatementIngest { options, ..command() }, nameless, silent, unspecified]
        {
            assert_eq!(target(wrong).unwrap_err().code(), Code::InvalidArgument);
        }
    }
}
