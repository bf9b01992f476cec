//! The real program and real clients, started by a test, on loopback, stopped by their own id.

use std::fs::File;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// How long a server may take to answer; a loaded machine is slow.
const START_MAX: Duration = Duration::from_secs(30);
/// How often it is looked whether one answers yet.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// How long one may take to end: its drain and some more.
const STOP_MAX: Duration = Duration::from_secs(60);

/// The folder of a data set beside the checkout, or `None`.
pub fn shared_data(name: &str) -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let beside = std::env::var_os("ATTUNE_SHARED").map(PathBuf::from);
    let beside = beside.unwrap_or_else(|| root.join("../shared"));
    let folder = beside.join("data").join(name);
    folder.is_dir().then_some(folder)
}

/// The program that the tests built, to which their own environment says nothing.
pub fn attune() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_attune"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("ATTUNE_") {
            command.env_remove(name);
        }
    }
    command.stdin(Stdio::null());
    command
}

/// The program with a configuration.
pub struct Program {
    config: PathBuf,
}

impl Program {
    /// The program that the tests built, with a configuration file.
    pub fn new(config: &Path) -> Self {
        Self { config: config.to_owned() }
    }

    /// Writes the demonstration's shop into a folder that is made.
    pub fn demo(&self, folder: &Path) {
        let mut command = attune();
        let output = command.args(["demo", "--exit", "--dir"]).arg(folder).output().unwrap();
        assert!(output.status.success(), "{}", said(&output));
    }

    /// Adds a user to the warehouse.
    pub fn add_user(&self, name: &str, role: &str, password: &str) {
        let output = attune()
            .args(["user", "add", name, "--role", role, "--config"])
            .arg(&self.config)
            .env("ATTUNE_PASSWORD", password)
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", said(&output));
    }

    /// What `attune sql` writes for a statement: the rows as CSV, and the rest.
    pub fn sql(&self, text: &str) -> (String, String) {
        let output = attune()
            .args(["sql", "--format", "csv", "-c", text, "--config"])
            .arg(&self.config)
            .output()
            .unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (text(&output.stdout), text(&output.stderr))
    }

    /// Runs `attune audit …` as somebody, or as nobody: whether it succeeded, and what it wrote.
    pub fn audit(&self, arguments: &[&str], login: Option<(&str, &str)>) -> (bool, String) {
        let mut command = attune();
        command.arg("audit").args(arguments).arg("--config").arg(&self.config);
        if let Some((name, password)) = login {
            command.args(["--user", name]).env("ATTUNE_PASSWORD", password);
        }
        let output = command.output().unwrap();
        (output.status.success(), said(&output))
    }

    /// Starts the server on a free port and waits until it listens.
    pub async fn serve(&self) -> Server {
        self.start(Stdio::inherit()).await
    }

    /// Starts the server with its log in a file.
    pub async fn serve_logged(&self, log: &Path) -> Server {
        self.start(File::create(log).unwrap().into()).await
    }

    async fn start(&self, log: Stdio) -> Server {
        let (flight, http) = (free_address(), free_address());
        let child = attune()
            .args(["serve", "--flight", &flight.to_string(), "--http", &http.to_string()])
            .arg("--config")
            .arg(&self.config)
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let server = Server { process: Process::of(child), address: flight, http };
        let started = Instant::now();
        while TcpStream::connect(flight).is_err() {
            let ended = server.process.0.lock().try_wait().unwrap();
            assert!(ended.is_none(), "the server ended: {ended:?}");
            assert!(started.elapsed() < START_MAX, "the server does not listen on {flight}");
            tokio::time::sleep(LOOK_EVERY).await;
        }
        server
    }
}

/// A process that this one has started, for whoever kills it.
#[derive(Debug, Clone)]
pub struct Process(Arc<Mutex<Child>>);

impl Process {
    fn of(child: Child) -> Self {
        Self(Arc::new(Mutex::new(child)))
    }

    /// Ends it as a crash does (SIGKILL); one that has ended stays as it is.
    pub fn kill(&self) {
        let mut child = self.0.lock();
        child.kill().unwrap();
        child.wait().unwrap();
    }
}

/// A running server; stopped when it is dropped.
pub struct Server {
    /// Its process.
    pub process: Process,
    /// Where it listens.
    pub address: SocketAddr,
    /// Where health and metrics are.
    pub http: SocketAddr,
}

impl Server {
    /// Runs a client script and gives what it printed.
    pub fn python(
        &self,
        python: &Path,
        script: &Path,
        user: &str,
        password: &str,
        step: &str,
    ) -> String {
        let output = Command::new(python)
            .arg(script)
            .arg(format!("grpc://{}", self.address))
            .args([user, step])
            .env("ATTUNE_PASSWORD", password)
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", said(&output));
        String::from_utf8(output.stdout).unwrap()
    }

    /// The memory that the server holds; `None` where there is no `/proc`.
    pub fn resident_bytes(&self) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id())).ok()?;
        let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
        Some(line.split_whitespace().nth(1)?.parse::<u64>().ok()? * 1024)
    }

    /// Asks the server to end (SIGTERM) and waits for it.
    pub fn stop(self) {
        self.terminate();
        self.wait(STOP_MAX);
    }

    /// Waits for a server that has been asked to end; the drop of one that does not kills it.
    pub fn wait(self, time: Duration) {
        let started = Instant::now();
        loop {
            let ended = self.process.0.lock().try_wait().unwrap();
            if let Some(status) = ended {
                assert!(status.success(), "the server ended with {status}");
                return;
            }
            assert!(started.elapsed() < time, "the server has not ended after {time:?}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Ends the server as a crash does (SIGKILL).
    pub fn kill(self) {
        self.process.kill();
    }

    /// Asks the server to end.
    pub fn terminate(&self) {
        let id = self.id().to_string();
        let _ = Command::new("kill").args(["-TERM", &id]).status();
    }

    fn id(&self) -> u32 {
        self.process.0.lock().id()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let mut child = self.process.0.lock();
        if let Ok(None) = child.try_wait() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn free_address() -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap()
}

fn said(output: &Output) -> String {
    format!(
        "{}\n{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}
