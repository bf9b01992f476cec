//! A warehouse with a table under each kind of policy and the tables that never had what these
//! hide, and the servers over it.

use std::fs::File;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use arrow::array::RecordBatch;
use attune::auth::hasher::Argon2Hasher;
use attune::server::flight::bind;
use attune::server::pg::{PgOptions, bind as bind_postgres};
use catalog::policy::{Principal, Role};
use catalog::{Catalog, CatalogConfig, KeyConfig, LakeAccess, LakeConfig, Secret, StoreConfig};
use futures::TryStreamExt;
use parquet::arrow::ArrowWriter;
use sql::{Engine, Limits, Session};
use tokio_util::sync::CancellationToken;

use super::doors::{Door, Script, Shell};
use super::kinds::{KEY, KINDS, Lies, ORACLES, ROWS_SEEN, rows};
use crate::flight::support as flight;
use crate::pg::support as pg;

/// Who asks. The password is the name with `-secret`.
const USER: &str = "ada";
/// What the key of pseudonyms is made of.
const SECRET: &str = "a secret of thirty-two characters";

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

/// A session of a user.
pub async fn session(engine: &Engine, name: &str) -> Session {
    let record = engine.catalog().user(name).await.unwrap().unwrap();
    engine.session(Principal::of(&record))
}

/// An engine over a warehouse, a lake and a key, of which the program in this folder knows too.
async fn engine(folder: &Path) -> Engine {
    let [warehouse, lake, key] =
        ["warehouse", "lake", "web.key"].map(|name| folder.join(name).display().to_string());
    for made in [&warehouse, &lake] {
        std::fs::create_dir(made).unwrap();
    }
    std::fs::write(&key, SECRET).unwrap();
    let known = format!("[lake]\nurl = {lake:?}\n\n[keys.{KEY}]\nfile = {key:?}\n");
    std::fs::write(folder.join("attune.toml"), known).unwrap();
    let store = |url: String| StoreConfig { url, ..StoreConfig::default() };
    let started = Instant::now();
    let clock = move || flight::NOW_MS + started.elapsed().as_millis() as i64;
    let mut config = CatalogConfig::new(store(warehouse), Arc::new(clock));
    config.lakes = vec![LakeConfig {
        name: "lake".into(),
        store: store(lake),
        access: LakeAccess::Read,
        discover: false,
        tables: vec![],
    }];
    config.keys = vec![KeyConfig::new(KEY, None, Secret::new(SECRET))];
    let catalog = Catalog::open(config).await.unwrap();
    Engine::open(catalog, Limits::default(), Arc::new(Argon2Hasher::default())).unwrap()
}

/// Writes rows into a file of a lake.
fn write(path: &Path, lies: Lies, rows: &[RecordBatch]) {
    let schema = rows[0].schema();
    if lies == Lies::Csv {
        let names = schema.fields().iter().map(|field| field.name().as_str());
        let mut lines = vec![names.collect::<Vec<_>>().join(",")];
        lines.extend(flight::lines(rows).iter().map(|line| line.replace('|', ",")));
        std::fs::write(path.with_extension("csv"), lines.join("\n") + "\n").unwrap();
        return;
    }
    let file = File::create(path.with_extension("parquet")).unwrap();
    let mut writer = ArrowWriter::try_new(file, schema, None).unwrap();
    for batch in rows {
        writer.write(batch).unwrap();
    }
    writer.close().unwrap();
}

impl House {
    /// Everything, in force.
    pub async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let engine = engine(folder.path()).await;
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
        let pseudonyms = format!("GRANT USAGE ON KEY {KEY} TO USER root FOR PSEUDONYMIZE");
        run(&self.dpo, &pseudonyms).await;
        for kind in KINDS {
            self.laid(kind.table, kind.lies, kind.secret_where, kind.columns()).await;
        }
        for (name, lies, query) in ORACLES {
            let parts = ["id <= 60", "id > 60"].map(|part| query.replace("{part}", part));
            self.lay(name, *lies, parts).await;
            self.beside(name, "").await;
        }
        for text in [
            "CREATE ROLE trusted".to_owned(),
            format!("GRANT ROLE trusted TO USER {USER}"),
            "CREATE TABLE consents AS SELECT * FROM \
             (VALUES (3, 'ads', FALSE), (7, 'ads', FALSE), (1, 'ads', TRUE)) AS v (who, what, given)"
                .to_owned(),
            "GRANT SELECT ON consents TO USER dpo".to_owned(),
            // All have consented: 3 for a time that is over, 7 for one that is to come.
            "CREATE TABLE permits AS SELECT value AS who, 'ads' AS what, TRUE AS given, \
             CASE WHEN value = 7 THEN TIMESTAMP '2100-01-01 00:00:00' \
             ELSE TIMESTAMP '2020-01-01 00:00:00' END AS starts, \
             CASE WHEN value = 3 THEN TIMESTAMP '2021-01-01 00:00:00' END AS ends \
             FROM generate_series(0, 11) AS s (value)"
                .to_owned(),
            "GRANT SELECT ON permits TO USER dpo".to_owned(),
        ] {
            run(&self.root, &text).await;
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
        // Whom its policies do not except is bound by them.
        assert_eq!(run(&self.dpo, "SELECT id FROM g_except").await, ROWS_SEEN);
    }

    /// Makes a table, with what lies beside it, which is under no policy yet.
    pub async fn guarded(&self, table: &str, secret_where: &str, columns: &str) {
        self.laid(table, Lies::Warehouse, secret_where, columns).await;
    }

    async fn laid(&self, table: &str, lies: Lies, secret_where: &str, columns: &str) {
        let parts = [(1, 60), (61, 70)].map(|(a, b)| rows(secret_where, a, b));
        self.lay(table, lies, parts).await;
        run(&self.root, &format!("GRANT SELECT ON {table} TO USER dpo")).await;
        self.beside(table, columns).await;
    }

    /// Makes a table of the rows of two queries, which lie in files of their own.
    async fn lay(&self, table: &str, lies: Lies, [first, rest]: [String; 2]) {
        if lies == Lies::Warehouse {
            run(&self.root, &format!("CREATE TABLE {table} AS {first}")).await;
            run(&self.root, &format!("INSERT INTO {table} {rest}")).await;
            return;
        }
        let folder = self.folder.path().join("lake").join(table);
        std::fs::create_dir(&folder).unwrap();
        for (name, text) in [("first", first), ("rest", rest)] {
            let answer = self.root.query(&text).await.unwrap();
            let mut rows: Vec<RecordBatch> = answer.rows.try_collect().await.unwrap();
            rows.retain(|batch| batch.num_rows() > 0);
            if !rows.is_empty() {
                write(&folder.join(name), lies, &rows);
            }
        }
        run(&self.root, &lies.external(table)).await;
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
