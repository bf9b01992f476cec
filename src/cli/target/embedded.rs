//! The engine in this process.

use async_trait::async_trait;
use futures::{StreamExt, TryStreamExt};
use sql::{Session, TableFilter};

use super::{ProgressReceiver, Relation, Reply, Target};
use crate::cli::terminal::Screen;
use crate::error::{Error, Result};

/// A session of the engine in this process.
pub struct Embedded {
    session: Session,
    description: String,
    screen: Screen,
}

impl Embedded {
    /// Wraps a session; `description` says where its warehouse is.
    pub fn new(session: Session, description: String, screen: Screen) -> Self {
        Self { session, description, screen }
    }
}

#[async_trait]
impl Target for Embedded {
    async fn run(&self, statement: &str) -> Result<Reply> {
        let answer = self.session.query(statement).await?;
        let rows = answer.rows.map_err(|error| Error::Sql(sql::Error::from(error)));
        Ok(Reply {
            schema: answer.schema,
            rows: rows.boxed(),
            affected: answer.affected,
            message: answer.message,
        })
    }

    async fn split(&self, script: &str) -> Result<Vec<String>> {
        Ok(self.session.script(script)?)
    }

    async fn relations(&self, with_columns: bool) -> Result<Vec<Relation>> {
        let filter = TableFilter { with_columns, ..TableFilter::default() };
        let tables = self.session.tables(&filter).await?;
        let relations = tables.into_iter().map(|table| Relation {
            schema: table.schema,
            name: table.name,
            kind: table.kind.to_owned(),
            columns: table.columns,
        });
        Ok(relations.collect())
    }

    async fn functions(&self) -> Result<Vec<sql::FunctionDoc>> {
        Ok(self.session.engine().functions_documentation())
    }

    fn progress(&self) -> Option<ProgressReceiver> {
        Some(self.session.progress())
    }

    fn description(&self) -> String {
        self.description.clone()
    }

    async fn close(&self) -> Result<()> {
        let audit = self.session.engine().catalog().audit();
        match audit.flush().await {
            Err(error) if audit.config().strict => Err(Error::Catalog(error)),
            Err(error) => {
                self.screen.say(&format!("note: the last statements are not on record: {error}"));
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }
}
