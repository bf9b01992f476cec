//! The main job over an S3-compatible store: the real program, the Python ADBC driver, a restart.
//!
//! The store is `s3s-fs` in this process, or the endpoint that these variables name:
//! `ATTUNE_TEST_S3_ENDPOINT`, `ATTUNE_TEST_S3_BUCKET`, `ATTUNE_TEST_S3_ACCESS_KEY_ID`,
//! `ATTUNE_TEST_S3_SECRET_ACCESS_KEY`.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};

use arrow_flight::sql::client::FlightSqlServiceClient;
use catalog::{Catalog, CatalogConfig, Secret, StoreConfig};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use object_store::aws::AmazonS3Builder;
use object_store::path::Path as StorePath;
use object_store::{ObjectStore, ObjectStoreExt};
use s3s::auth::SimpleAuth;
use s3s::service::S3ServiceBuilder;
use s3s::{S3, S3Request, S3Response, S3Result, dto, s3_error};
use tokio::sync::Mutex;
use tonic::transport::Endpoint;

use crate::clients::install::python;
use crate::program::{Process, Program, shared_data};

/// The bucket of a store in this process.
pub const BUCKET: &str = "attune";

/// An S3-compatible store for one test.
pub struct Store {
    pub endpoint: String,
    pub bucket: String,
    pub access_key_id: String,
    pub secret_access_key: String,
    /// What its users may do yet; of a store in this process alone.
    pub lives: Arc<Lives>,
    versioning: Arc<parking_lot::Mutex<Versioning>>,
    _folder: Option<tempfile::TempDir>,
}

/// What a bucket answers when it is asked whether it keeps earlier versions.
#[derive(Debug, Clone, Copy, Default)]
pub enum Versioning {
    /// It never has.
    #[default]
    Off,
    /// Its `Status`.
    Is(&'static str),
    /// Nothing.
    Denied,
}

/// What becomes of a program's last request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Last {
    /// It is not done.
    Undone,
    /// It is done, and nobody hears the answer.
    Unanswered,
}

/// After how many writes the users of a store are as good as killed: whatever they ask for is
/// refused. A program may be killed in earnest at that moment.
#[derive(Debug)]
pub struct Lives {
    writes_left: AtomicUsize,
    is_over: AtomicBool,
    writes_done: AtomicUsize,
    program: parking_lot::Mutex<Option<(Process, Last)>>,
}

impl Default for Lives {
    fn default() -> Self {
        Self {
            writes_left: AtomicUsize::new(usize::MAX),
            is_over: AtomicBool::default(),
            writes_done: AtomicUsize::default(),
            program: parking_lot::Mutex::default(),
        }
    }
}

impl Lives {
    /// So many writes are done, and nothing after them.
    pub fn kill_after(&self, writes: usize) {
        self.writes_left.store(writes, Ordering::SeqCst);
    }

    /// So many writes are done, and the program is killed: when it asks for the next one, or before
    /// it hears of the last one, which there has to be then.
    pub fn kill_program_after(&self, writes: usize, program: Process, last: Last) {
        assert!(last == Last::Undone || writes > 0, "no write is done that could be unanswered");
        *self.program.lock() = Some((program, last));
        self.kill_after(writes);
    }

    /// Others use the store; whether the last ones were killed.
    pub fn revive(&self) -> bool {
        self.writes_left.store(usize::MAX, Ordering::SeqCst);
        *self.program.lock() = None;
        self.is_over.swap(false, Ordering::SeqCst)
    }

    /// Whether the program that was to be killed is dead.
    pub fn are_over(&self) -> bool {
        // Whoever kills it holds the lock until it is dead.
        self.is_over.load(Ordering::SeqCst) && self.program.lock().is_none()
    }

    /// How many writes are done.
    pub fn writes_done(&self) -> usize {
        self.writes_done.load(Ordering::SeqCst)
    }

    /// Takes a write; it is one at a time.
    fn write(&self) -> S3Result<()> {
        match self.writes_left.load(Ordering::SeqCst) {
            usize::MAX => {}
            0 => {
                self.end();
                // It is not done, whoever revives the store meanwhile.
                return Err(s3_error!(AccessDenied));
            }
            left => self.writes_left.store(left - 1, Ordering::SeqCst),
        }
        self.read()
    }

    /// A write is done, and not answered yet.
    fn written(&self) {
        self.writes_done.fetch_add(1, Ordering::SeqCst);
        let is_last = self.writes_left.load(Ordering::SeqCst) == 0;
        let becomes = self.program.lock().as_ref().map(|(_, last)| *last);
        if is_last && becomes == Some(Last::Unanswered) {
            self.end();
        }
    }

    fn end(&self) {
        self.is_over.store(true, Ordering::SeqCst);
        if let Some((program, _)) = self.program.lock().take() {
            program.kill();
        }
    }

    fn read(&self) -> S3Result<()> {
        match self.is_over.load(Ordering::SeqCst) {
            // Nobody tries again what is refused.
            true => Err(s3_error!(AccessDenied)),
            false => Ok(()),
        }
    }
}

impl Store {
    /// The external store that the environment names, or one in this process.
    pub async fn start() -> Self {
        let variable = |name: &str| std::env::var(format!("ATTUNE_TEST_S3_{name}")).ok();
        if let Some(endpoint) = variable("ENDPOINT") {
            return Self {
                endpoint,
                bucket: variable("BUCKET").expect("ATTUNE_TEST_S3_BUCKET"),
                access_key_id: variable("ACCESS_KEY_ID").expect("ATTUNE_TEST_S3_ACCESS_KEY_ID"),
                secret_access_key: variable("SECRET_ACCESS_KEY")
                    .expect("ATTUNE_TEST_S3_SECRET_ACCESS_KEY"),
                lives: Arc::default(),
                versioning: Arc::default(),
                _folder: None,
            };
        }
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join(BUCKET)).unwrap();
        let store = Self::over(folder.path()).await;
        Self { _folder: Some(folder), ..store }
    }

    /// A store in this process whose bucket is the folder [`BUCKET`] of a folder.
    pub async fn over(folder: &Path) -> Self {
        let (lives, versioning) = (Arc::<Lives>::default(), Arc::default());
        let address = serve(folder, Arc::clone(&lives), Arc::clone(&versioning)).await;
        Self {
            endpoint: format!("http://{address}"),
            bucket: BUCKET.into(),
            access_key_id: "test".into(),
            secret_access_key: "a test's secret".into(),
            lives,
            versioning,
            _folder: None,
        }
    }

    /// Sets what its bucket says of its versioning; of a store in this process alone.
    pub fn set_versioning(&self, versioning: Versioning) {
        *self.versioning.lock() = versioning;
    }

    /// The settings of a store below `prefix`, for a catalog.
    pub fn config(&self, prefix: &str) -> StoreConfig {
        StoreConfig {
            url: format!("s3://{}/{prefix}", self.bucket),
            endpoint: Some(self.endpoint.clone()),
            access_key_id: Some(self.access_key_id.clone()),
            secret_access_key: Some(Secret::new(self.secret_access_key.clone())),
            allow_http: true,
            path_style: true,
            ..StoreConfig::default()
        }
    }

    /// A client of its own, independent of the program's.
    pub fn client(&self) -> impl ObjectStore {
        AmazonS3Builder::new()
            .with_endpoint(&self.endpoint)
            .with_allow_http(true)
            .with_region("us-east-1")
            .with_bucket_name(&self.bucket)
            .with_access_key_id(&self.access_key_id)
            .with_secret_access_key(&self.secret_access_key)
            .build()
            .unwrap()
    }

    /// The settings of a store below `prefix`, for a section of `attune.toml`.
    pub fn toml(&self, prefix: &str) -> String {
        format!(
            "url = \"s3://{}/{prefix}\"\nendpoint = \"{}\"\nallow_http = true\npath_style = true\n\
             access_key_id = \"{}\"\nsecret_access_key = \"{}\"\n",
            self.bucket, self.endpoint, self.access_key_id, self.secret_access_key
        )
    }
}

/// Files as objects, one write at a time: the file system behind checks a condition first and
/// writes afterwards, so two conditional writes at once would both win, as no real store has it.
struct OneWriteAtATime {
    files: s3s_fs::FileSystem,
    turn: Mutex<()>,
    lives: Arc<Lives>,
    versioning: Arc<parking_lot::Mutex<Versioning>>,
}

macro_rules! delegate {
    ($($turn:ident $call:ident($input:ident) -> $output:ident;)+) => {
        #[async_trait::async_trait]
        impl S3 for OneWriteAtATime {
            $(async fn $call(
                &self,
                request: S3Request<dto::$input>,
            ) -> S3Result<S3Response<dto::$output>> {
                let _turn = delegate!(@$turn self);
                self.lives.$turn()?;
                let answer = self.files.$call(request).await;
                delegate!(@done $turn self);
                answer
            })+

            async fn get_bucket_versioning(
                &self,
                _request: S3Request<dto::GetBucketVersioningInput>,
            ) -> S3Result<S3Response<dto::GetBucketVersioningOutput>> {
                self.lives.read()?;
                let status = match *self.versioning.lock() {
                    Versioning::Off => None,
                    Versioning::Is(status) => Some(status),
                    Versioning::Denied => return Err(s3_error!(AccessDenied)),
                };
                let status = status.map(dto::BucketVersioningStatus::from_static);
                let output = dto::GetBucketVersioningOutput { status, ..Default::default() };
                Ok(S3Response::new(output))
            }
        }
    };
    (@write $this:ident) => { Some($this.turn.lock().await) };
    (@read $this:ident) => { None::<()> };
    (@done write $this:ident) => { $this.lives.written() };
    (@done read $this:ident) => {};
}

delegate! {
    write put_object(PutObjectInput) -> PutObjectOutput;
    write copy_object(CopyObjectInput) -> CopyObjectOutput;
    write delete_object(DeleteObjectInput) -> DeleteObjectOutput;
    write delete_objects(DeleteObjectsInput) -> DeleteObjectsOutput;
    write create_multipart_upload(CreateMultipartUploadInput) -> CreateMultipartUploadOutput;
    write upload_part(UploadPartInput) -> UploadPartOutput;
    write complete_multipart_upload(CompleteMultipartUploadInput)
        -> CompleteMultipartUploadOutput;
    write abort_multipart_upload(AbortMultipartUploadInput) -> AbortMultipartUploadOutput;
    read get_object(GetObjectInput) -> GetObjectOutput;
    read head_object(HeadObjectInput) -> HeadObjectOutput;
    read list_objects(ListObjectsInput) -> ListObjectsOutput;
    read list_objects_v2(ListObjectsV2Input) -> ListObjectsV2Output;
    read get_bucket_location(GetBucketLocationInput) -> GetBucketLocationOutput;
    read head_bucket(HeadBucketInput) -> HeadBucketOutput;
}

async fn serve(
    folder: &Path,
    lives: Arc<Lives>,
    versioning: Arc<parking_lot::Mutex<Versioning>>,
) -> SocketAddr {
    let files = s3s_fs::FileSystem::new(folder).unwrap();
    let files = OneWriteAtATime { files, turn: Mutex::new(()), lives, versioning };
    let mut service = S3ServiceBuilder::new(files);
    service.set_auth(SimpleAuth::from_single("test", "a test's secret"));
    let service = service.build();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let service = service.clone();
            tokio::spawn(async move {
                let server = Builder::new(TokioExecutor::new());
                let _ = server.serve_connection(TokioIo::new(socket), service).await;
            });
        }
    });
    address
}

async fn put(store: &Arc<dyn ObjectStore>, key: &str, file: PathBuf) {
    let content = std::fs::read(file).unwrap();
    store.put(&StorePath::from(key), content.into()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn gowalla_over_s3_survives_a_restart() {
    let Some(data) = shared_data("gowalla") else {
        println!("skipped: there is no ../shared/data/gowalla");
        return;
    };
    let Some(python) = python() else {
        return;
    };
    let s3 = Store::start().await;
    // The store in this process makes file names of keys, so keys are kept short.
    let run = uuid::Uuid::new_v4().simple().to_string()[..6].to_owned();
    let store: Arc<dyn ObjectStore> = Arc::new(s3.client());
    for (file, key) in [("train", "gowalla/train"), ("test", "gowalla_test")] {
        let key = format!("{run}/l/{key}/part-0.parquet");
        put(&store, &key, data.join(format!("{file}.parquet"))).await;
    }
    let folder = tempfile::tempdir().unwrap();
    let config = format!(
        "[warehouse]\n{}\n[lake]\ndiscover = true\n{}",
        s3.toml(&format!("{run}/w")),
        s3.toml(&format!("{run}/l")),
    );
    let config_file = folder.path().join("attune.toml");
    std::fs::write(&config_file, config).unwrap();

    let program = Program::new(&config_file);
    program.add_user("ann", "admin", "correct horse");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients/gowalla_s3.py");
    let server = program.serve().await;
    let first = server.python(&python, &script, "ann", "correct horse", "train");
    server.stop();
    let server = program.serve().await;
    let second = server.python(&python, &script, "ann", "correct horse", "again");
    server.stop();
    println!("{first}");
    assert!(first.contains("check-ins 810128"), "{first}");
    assert_eq!(first, second);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_refuses_or_is_away_is_named_and_the_rest_works() {
    let s3 = Store::start().await;
    let folder = tempfile::tempdir().unwrap();
    let good = s3.toml("good");
    let refused = good.replace(&s3.secret_access_key, "not the secret");
    let away = good.replace(&s3.endpoint, "http://127.0.0.1:9");
    let missing = good.replace(&format!("s3://{}/", s3.bucket), "s3://no-such-bucket/");
    let store: Arc<dyn ObjectStore> = Arc::new(s3.client());
    let csv = "id,name\n1,ann\n2,bob\n";
    store.put(&StorePath::from("good/people/a.csv"), csv.into()).await.unwrap();
    store.put(&StorePath::from("good/broken/a.parquet"), "PAR1 no more".into()).await.unwrap();
    let bad_row = "id,name\n1,ann\n2\n";
    store.put(&StorePath::from("good/ragged/a.csv"), bad_row.into()).await.unwrap();
    let warehouse = folder.path().join("w").display().to_string();
    let program = |name: &str, lake: &str| {
        let config_file = folder.path().join(format!("{name}.toml"));
        let config = format!("[warehouse]\nurl = \"{warehouse}\"\n[lake]\ndiscover = true\n{lake}");
        std::fs::write(&config_file, config).unwrap();
        Program::new(&config_file)
    };
    let fine = program("good", &good);
    assert_eq!(fine.sql("SELECT count(*) FROM people").0, "count(*)\n2\n");
    for (table, code, word) in
        [("broken", "ATT-5006", "a.parquet"), ("ragged", "ATT-5006", "a.csv")]
    {
        let (_, error) = fine.sql(&format!("SELECT * FROM {table}"));
        assert!(error.contains(code) && error.contains(word), "{table}: {error}");
    }
    assert_eq!(fine.sql("SELECT max(name) FROM people").0, "max(people.name)\nbob\n");
    for (name, lake, code) in [
        ("refused", &refused, "ATT-5002"),
        ("away", &away, "ATT-5001"),
        ("missing", &missing, "ATT-5"),
    ] {
        let program = program(name, lake);
        let (rows, error) = program.sql("SELECT * FROM lake.people");
        assert!(error.contains(code) && error.contains("s3://"), "{name}: {rows} {error}");
        assert!(!error.contains("not the secret"), "{error}");
        assert_eq!(program.sql("SELECT 1 AS one").0, "one\n1\n", "{name}");
    }
}

/// What one client of one server did to the table `log` and the names `race_0` to `race_9`.
async fn writer(address: SocketAddr, number: usize) -> (usize, usize) {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
    let mut client = FlightSqlServiceClient::new(endpoint.connect().await.unwrap());
    client.handshake("ann", "correct horse").await.unwrap();
    let (mut rows, mut tables) = (0, 0);
    for round in 0..10 {
        let insert = format!("INSERT INTO main.log VALUES ({number}, {round})");
        rows += usize::from(client.execute_update(insert, None).await.unwrap() == 1);
        let create = format!("CREATE TABLE main.race_{round} AS SELECT {number} AS writer");
        match client.execute_update(create, None).await {
            Ok(_) => tables += 1,
            Err(error) => {
                let error = error.to_string();
                assert!(error.contains("ATT-4"), "a lost race is told as one: {error}");
            }
        }
    }
    (rows, tables)
}

#[tokio::test(flavor = "multi_thread")]
async fn two_servers_over_one_bucket_lose_no_commit_and_never_both_win() {
    let s3 = Store::start().await;
    let folder = tempfile::tempdir().unwrap();
    let run = uuid::Uuid::new_v4().simple().to_string()[..6].to_owned();
    let config_file = folder.path().join("attune.toml");
    let config = format!("[warehouse]\n{}", s3.toml(&format!("{run}/w")));
    std::fs::write(&config_file, config).unwrap();
    let program = Program::new(&config_file);
    program.add_user("ann", "admin", "correct horse");
    let (one, two) = (program.serve().await, program.serve().await);
    {
        let endpoint = Endpoint::from_shared(format!("http://{}", one.address)).unwrap();
        let mut client = FlightSqlServiceClient::new(endpoint.connect().await.unwrap());
        client.handshake("ann", "correct horse").await.unwrap();
        let create = "CREATE TABLE main.log (writer BIGINT, round BIGINT)".to_owned();
        client.execute_update(create, None).await.unwrap();
    }
    let writers = (0..4).map(|number| {
        let address = if number % 2 == 0 { one.address } else { two.address };
        tokio::spawn(writer(address, number))
    });
    let outcomes: Vec<(usize, usize)> =
        futures::future::join_all(writers).await.into_iter().map(Result::unwrap).collect();
    let rows: usize = outcomes.iter().map(|(rows, _)| rows).sum();
    let tables: usize = outcomes.iter().map(|(_, tables)| tables).sum();
    assert_eq!((rows, tables), (40, 10), "each row once, each table by one writer: {outcomes:?}");
    one.stop();
    two.stop();
    // A third process, which has seen nothing, finds it all.
    let server = program.serve().await;
    let endpoint = Endpoint::from_shared(format!("http://{}", server.address)).unwrap();
    let mut client = FlightSqlServiceClient::new(endpoint.connect().await.unwrap());
    client.handshake("ann", "correct horse").await.unwrap();
    let count = "SELECT count(*) AS n, count(DISTINCT writer * 100 + round) AS d FROM main.log";
    let found = crate::flight::support::rows(&mut client, count).await;
    assert_eq!(found, ["40|40"]);
    server.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_revoked_at_one_server_is_refused_at_the_other() {
    let s3 = Store::start().await;
    let run = uuid::Uuid::new_v4().simple().to_string()[..6].to_owned();
    let clock = Arc::new(AtomicI64::new(1_700_000_000_000));
    let open = || {
        let clock = Arc::clone(&clock);
        let warehouse = s3.config(&run);
        let now = move || clock.load(Ordering::Relaxed);
        Catalog::open(CatalogConfig::new(warehouse, Arc::new(now)))
    };
    let (one, other) = (open().await.unwrap(), open().await.unwrap());
    let key = one.signing_key(one.signing_period()).await.unwrap().unwrap();
    let same = other.signing_key(other.signing_period()).await.unwrap().unwrap();
    assert_eq!(key.reveal(), same.reveal());
    // The first look lists everything, later ones only what is new: also across the ten minutes
    // that a folder of revocations stands for.
    for (id, later_ms) in [("a-1", 0), ("b-2", 1_000), ("c-3", 599_000), ("d-4", 2_000)] {
        clock.fetch_add(later_ms, Ordering::Relaxed);
        assert!(!other.is_session_revoked(id).await.unwrap(), "{id}");
        one.revoke_session(id, one.now_ms() + 3_600_000).await.unwrap();
        clock.fetch_add(1_000, Ordering::Relaxed);
        assert!(other.is_session_revoked(id).await.unwrap(), "{id}");
    }
    assert!(!other.is_session_revoked("e-5").await.unwrap());
}
