//! Runs `tests/slt/**/*.slt` against a real engine over a temporary warehouse.
//!
//! Each file has an engine of its own, two keys (`demo`, `other`) and a master key, the lake
//! `tests/data` and the principal of an embedded engine. `connection ann` before a statement runs
//! it as the user ann, and `connection ann:secret` logs in with that password first.
//! `$TEN_MEGABYTES`, behind `control substitution on`, is a text of that length. Floats print as
//! the shortest text that reads back; NULL as `NULL`, an empty text as `(empty)`.

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use arrow::array::RecordBatch;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use async_trait::async_trait;
use attune::auth::hasher::Argon2Hasher;
use catalog::policy::Principal;
use catalog::{Catalog, CatalogConfig, KeyConfig, LakeAccess, LakeConfig, Secret, StoreConfig};
use futures::StreamExt;
use sql::{Engine, Limits, NoiseSource, Session};
use sqllogictest::{AsyncDB, Connection, DBOutput, DefaultColumnType, Record, Runner};

/// An engine over a fresh warehouse in `folder`, and the lake `tests/data`.
pub async fn engine(folder: &Path) -> Engine {
    engine_over(folder, &Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data")).await
}

/// The same over another lake.
pub async fn engine_over(folder: &Path, data: &Path) -> Engine {
    engine_with(folder, data, LakeAccess::Read).await
}

/// The same with what Attune may do with the lake's files.
pub async fn engine_with(folder: &Path, data: &Path, access: LakeAccess) -> Engine {
    let clock = Arc::new(|| {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        i64::try_from(now.as_millis()).unwrap()
    });
    let store =
        |path: PathBuf| StoreConfig { url: path.display().to_string(), ..Default::default() };
    let mut config = CatalogConfig::new(store(folder.join("warehouse")), clock);
    config.freshness = Duration::from_millis(50);
    config.lakes = vec![LakeConfig {
        name: "lake".into(),
        store: store(data.to_path_buf()),
        discover: true,
        access,
        tables: vec![],
    }];
    config.keys = [("demo", "a"), ("other", "b")]
        .map(|(name, letter)| KeyConfig::new(name, None, Secret::new(letter.repeat(32))))
        .to_vec();
    config.master_keys = vec![Secret::new("m".repeat(32))];
    let catalog = Catalog::open(config).await.unwrap();
    let engine = Engine::open(catalog, Limits::default(), Arc::new(Argon2Hasher::default()));
    engine.unwrap().with_noise(Arc::new(CountedNoise::default()))
}

/// Noise that is the same in each run: the seeds are numbers from 0.
#[derive(Debug, Default)]
pub struct CountedNoise(AtomicU64);

impl NoiseSource for CountedNoise {
    fn seed(&self) -> Result<[u8; 32], String> {
        let mut seed = [0; 32];
        seed[..8].copy_from_slice(&self.0.fetch_add(1, Ordering::Relaxed).to_le_bytes());
        Ok(seed)
    }
}

#[derive(Debug)]
struct Failed(String);

impl std::fmt::Display for Failed {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl std::error::Error for Failed {}

struct Database {
    session: Session,
    _folder: Arc<tempfile::TempDir>,
}

impl Database {
    async fn answer(&self, text: &str) -> sql::Result<DBOutput<DefaultColumnType>> {
        let answer = self.session.query(text).await?;
        if answer.schema.fields().is_empty() {
            return Ok(DBOutput::StatementComplete(answer.affected.unwrap_or(0).cast_unsigned()));
        }
        let types = vec![DefaultColumnType::Any; answer.schema.fields().len()];
        let mut batches = Vec::new();
        let mut stream = answer.rows;
        while let Some(batch) = stream.next().await {
            batches.push(batch.map_err(sql::Error::from)?);
        }
        Ok(DBOutput::Rows { types, rows: rows(&batches) })
    }
}

fn rows(batches: &[RecordBatch]) -> Vec<Vec<String>> {
    let options = FormatOptions::default().with_null("NULL").with_display_error(true);
    let mut rows = Vec::new();
    for batch in batches {
        let columns: Vec<ArrayFormatter<'_>> = batch
            .columns()
            .iter()
            .map(|column| ArrayFormatter::try_new(column.as_ref(), &options).unwrap())
            .collect();
        for row in 0..batch.num_rows() {
            let texts = columns.iter().map(|column| match column.value(row).to_string() {
                text if text.is_empty() => "(empty)".to_owned(),
                text => text.replace('\n', "\\n"),
            });
            rows.push(texts.collect());
        }
    }
    rows
}

#[async_trait]
impl AsyncDB for Database {
    type Error = Failed;
    type ColumnType = DefaultColumnType;

    async fn run(&mut self, text: &str) -> Result<DBOutput<DefaultColumnType>, Failed> {
        self.answer(text).await.map_err(|error| {
            let hint = error.hint().map(|hint| format!(" Hint: {hint}")).unwrap_or_default();
            Failed(format!("{}: {error}{hint}", error.code()))
        })
    }

    async fn shutdown(&mut self) {}

    fn engine_name(&self) -> &str {
        "attune"
    }
}

fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        if path.is_dir() {
            files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "slt") {
            found.push(path);
        }
    }
}

/// Debug builds use much stack for deeply nested plans; the program gives its threads 8 MiB.
const STACK_BYTES: usize = 64 << 20;

#[test]
fn every_slt_file_holds() {
    let run = || {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .thread_stack_size(STACK_BYTES)
            .build()
            .unwrap();
        runtime.block_on(run_all_files());
    };
    let thread = std::thread::Builder::new().stack_size(STACK_BYTES).spawn(run).unwrap();
    if let Err(failure) = thread.join() {
        std::panic::resume_unwind(failure);
    }
}

async fn run_file(
    path: &Path,
    engine: &Engine,
    folder: &Arc<tempfile::TempDir>,
) -> Result<(), String> {
    // The runner opens a connection when a record first names it, and does not say which.
    let user = RefCell::new(String::new());
    let mut runner = Runner::new(|| async {
        let name = user.borrow().clone();
        let session = engine.session(principal(engine, &name).await?);
        Ok(Database { session, _folder: Arc::clone(folder) })
    });
    runner.set_var("TEN_MEGABYTES".into(), "x".repeat(10 << 20));
    let records = sqllogictest::parse_file(path).map_err(|error| error.to_string())?;
    for record in records {
        match &record {
            Record::Halt { .. } => break,
            Record::Statement { connection, .. } | Record::Query { connection, .. } => {
                *user.borrow_mut() = match connection {
                    Connection::Named(name) => name.clone(),
                    Connection::Default => String::new(),
                };
            }
            _ => {}
        }
        let ran = runner.run_async(record).await;
        ran.map_err(|error| error.display(false).to_string())?;
    }
    Ok(())
}

/// Who runs the statements of a connection; see the top of this file.
async fn principal(engine: &Engine, connection: &str) -> Result<Principal, Failed> {
    let failed = |error: attune::error::Error| Failed(format!("{}: {error}", error.code()));
    if let Some((name, password)) = connection.split_once(':') {
        let password = |_: &str| Ok(password.to_owned());
        let login = attune::engine::embedded_principal(engine, Some(name), password);
        return login.await.map_err(failed);
    }
    if connection.is_empty() {
        return Ok(Principal::embedded());
    }
    let user = engine.catalog().user(connection).await.unwrap();
    Ok(Principal::of(&user.ok_or_else(|| Failed(format!("there is no user {connection}")))?))
}

async fn run_all_files() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/slt");
    let mut found = Vec::new();
    files(&root, &mut found);
    found.sort();
    if let Ok(filter) = std::env::var("ATTUNE_SLT") {
        found.retain(|path| path.to_string_lossy().contains(&filter));
    }
    assert!(!found.is_empty(), "no .slt file in {}", root.display());
    let mut failures = Vec::new();
    for path in &found {
        let folder = Arc::new(tempfile::tempdir().unwrap());
        let engine = engine(folder.path()).await;
        if let Err(error) = run_file(path, &engine, &folder).await {
            let name = path.strip_prefix(&root).unwrap().display();
            failures.push(format!("{name}: {error}"));
        }
    }
    println!("{} .slt files, {} failed", found.len(), failures.len());
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}
