//! A warehouse with a table under each kind of policy and the tables that never had what these
//! hide, and the servers over it.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use attune::server::flight::bind;
use attune::server::pg::{PgOptions, bind as bind_postgres};
use catalog::policy::{Principal, Role};
use futures::TryStreamExt;
use sql::{Engine, Limits, Session};
use tokio_util::sync::CancellationToken;

use super::doors::{Door, Script, Shell};
use super::kinds::{KINDS, ORACLES, rows};
use crate::flight::support as flight;
use crate::pg::support as pg;

/// Who asks. The password is the name with `-secret`.
const USER: &str = "ada";

/// The warehouse, its servers, and who administers what.
pub struct House {
    pub engine: Engine,
    /// Makes tables and grants.
    pub root: Session,
    /// Makes policies.
    pub dpo: Session,
    flight: SocketAddr,
    postgres: SocketAddr,
    stop: CancellationToken,
    folder: tempfile::TempDir,
}

impl Drop for House {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Runs a statement that has to succeed.
pub async fn run(session: &Session, text: &str) -> usize {
    let answer = session.query(text).await.unwrap_or_else(|error| panic!("{text}: {error}"));
    let rows: Result<Vec<_>, _> = answer.rows.try_collect().await;
    let rows = rows.unwrap_or_else(|error| panic!("{text}: {error}"));
    rows.iter().map(arrow::array::RecordBatch::num_rows).sum()
}

async fn session(engine: &Engine, name: &str) -> Session {
    let record = engine.catalog().user(name).await.unwrap().unwrap();
    engine.session(Principal::of(&record))
}

impl House {
    /// Everything, in force.
    pub async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let warehouse = folder.path().join("warehouse");
        std::fs::create_dir(&warehouse).unwrap();
        let engine = flight::engine(&warehouse, &Arc::default(), Limits::default()).await;
        for (name, role) in
            [("root", Role::Admin), ("dpo", Role::PolicyAdmin), (USER, Role::Analyst)]
        {
            let user = flight::user(name, role, &format!("{name}-secret"));
            engine.catalog().put_user(user, false).await.unwrap();
        }
        let (root, dpo) = (session(&engine, "root").await, session(&engine, "dpo").await);
        let stop = CancellationToken::new();
        let server = bind(engine.clone(), flight::options()).await.unwrap();
        let flight = server.local_addr();
        tokio::spawn(server.run(stop.clone().cancelled_owned(), std::future::pending()));
        let (tls, _files) = pg::certificate();
        let options = PgOptions { tls: Some(tls), ..pg::options() };
        let server = bind_postgres(engine.clone(), options).await.unwrap();
        let postgres = server.local_addr();
        tokio::spawn(server.run(stop.clone().cancelled_owned(), std::future::pending()));
        let house = Self { engine, root, dpo, flight, postgres, stop, folder };
        house.fill().await;
        house
    }

    async fn fill(&self) {
        for kind in KINDS {
            self.guarded(kind.table, kind.secret_where, kind.columns()).await;
        }
        for (name, query) in ORACLES {
            let [first, rest] = ["id <= 60", "id > 60"].map(|part| query.replace("{part}", part));
            run(&self.root, &format!("CREATE TABLE {name} AS {first}")).await;
            run(&self.root, &format!("INSERT INTO {name} {rest}")).await;
            self.beside(name, "").await;
        }
        for text in [
            "CREATE TABLE consents AS SELECT * FROM \
             (VALUES (3, 'ads', FALSE), (7, 'ads', FALSE), (1, 'ads', TRUE)) AS v (who, what, given)",
            "GRANT SELECT ON consents TO USER dpo",
        ] {
            run(&self.root, text).await;
        }
        for text in [
            "CREATE PURPOSE ads".to_owned(),
            format!("GRANT PURPOSE ads TO USER {USER}"),
            format!("ALTER USER {USER} SET DEFAULT PURPOSE ads"),
        ] {
            run(&self.dpo, &text).await;
        }
        for kind in KINDS {
            for policy in kind.policies {
                run(&self.dpo, policy).await;
            }
        }
    }

    /// Makes a table, with what lies beside it, which is under no policy yet.
    pub async fn guarded(&self, table: &str, secret_where: &str, columns: &str) {
        let [first, rest] = [(1, 60), (61, 70)].map(|(a, b)| rows(secret_where, a, b));
        run(&self.root, &format!("CREATE TABLE {table} AS {first}")).await;
        run(&self.root, &format!("INSERT INTO {table} {rest}")).await;
        run(&self.root, &format!("GRANT SELECT ON {table} TO USER dpo")).await;
        self.beside(table, columns).await;
    }

    /// The views of a table, and what analysts may do with all of it.
    async fn beside(&self, table: &str, columns: &str) {
        for text in [
            format!("CREATE VIEW {table}_view AS SELECT * FROM {table}"),
            format!(
                "CREATE VIEW {table}_ladder AS SELECT mail AS step, region AS land FROM {table}"
            ),
            format!("GRANT SELECT{columns}, INSERT, UPDATE, DELETE ON {table} TO ROLE analyst"),
            format!("GRANT SELECT ON {table}_view TO ROLE analyst"),
            format!("GRANT SELECT ON {table}_ladder TO ROLE analyst"),
        ] {
            run(&self.root, &text).await;
        }
    }

    /// Flight SQL, logged in.
    pub async fn by_flight(&self) -> Door {
        let channel = tonic::transport::Endpoint::from_shared(format!("http://{}", self.flight));
        let mut client = flight::Client::new(channel.unwrap().connect().await.unwrap());
        client.handshake(USER, &format!("{USER}-secret")).await.unwrap();
        Door::Flight(Box::new(client))
    }

    /// PostgreSQL's protocol, logged in.
    pub async fn by_postgres(&self) -> Door {
        let mut client = pg::Client::stranger(self.postgres, true).await;
        let parameters = [("user", USER), ("database", "attune")];
        client.start(&parameters, Some(&format!("{USER}-secret"))).await.unwrap();
        Door::Postgres(Box::new(client), 0)
    }

    /// The program, which asks the server.
    pub fn by_program(&self) -> Door {
        Door::Program(self.script(["--connect".to_owned(), format!("grpc://{}", self.flight)]))
    }

    /// The program's shell, which asks the server.
    pub fn by_shell(&self) -> Door {
        let server = ["--connect".to_owned(), format!("grpc://{}", self.flight)];
        Door::Shell(Shell::start(&self.script(server)))
    }

    /// The program, which opens the warehouse itself.
    pub fn by_embedded_program(&self) -> Door {
        let warehouse = self.folder.path().join("warehouse");
        Door::Program(self.script(["--warehouse".to_owned(), warehouse.display().to_string()]))
    }

    fn script(&self, place: [String; 2]) -> Script {
        let folder: &Path = self.folder.path();
        let user = ["--user".to_owned(), USER.to_owned()];
        Script {
            arguments: place.into_iter().chain(user).collect(),
            password: format!("{USER}-secret"),
            folder: folder.to_owned(),
        }
    }
}
