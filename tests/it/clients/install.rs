//! Installs the clients that the tests run, once, outside the checkout: into the folder that
//! `ATTUNE_CLIENTS_DIR` names, by default `~/.cache/attune/clients`.
//!
//! A file beside what is installed holds the list it was installed from; when the list changes, it
//! is installed anew. A lock keeps two runs of the tests from installing at once.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

/// A Python with the ADBC driver, pandas, polars, SQLAlchemy and OpenDP; `None` without `python3`.
pub fn python() -> Option<PathBuf> {
    static PYTHON: OnceLock<Option<PathBuf>> = OnceLock::new();
    PYTHON.get_or_init(install_python).clone()
}

/// The folder with the packages that Superset loads, which go before those of [`python`].
pub fn superset(python: &Path) -> PathBuf {
    static SUPERSET: OnceLock<PathBuf> = OnceLock::new();
    SUPERSET.get_or_init(|| install_superset(python)).clone()
}

/// The JDBC driver's jar; `None` without `java`, `javac` and `mvn`.
pub fn jdbc_driver() -> Option<PathBuf> {
    if ["java", "javac", "mvn"].iter().any(|program| !installed(program, "-version")) {
        println!("not run: no java, javac or mvn here");
        return None;
    }
    let project = super::folder().join("jdbc");
    let target = home().join("jdbc");
    once(&target, &project.join("pom.xml"), |target| {
        succeed(
            "the JDBC driver",
            Command::new("mvn")
                .args(["-q", "-B", "dependency:copy-dependencies", "-f"])
                .arg(project.join("pom.xml"))
                .arg(format!("-DoutputDirectory={}", target.display())),
        );
    });
    let mut files = std::fs::read_dir(&target).unwrap().flatten().map(|entry| entry.path());
    let driver = files.find(|path| path.extension().is_some_and(|end| end == "jar"));
    Some(driver.expect("the JDBC driver's jar"))
}

/// The folder with PostgreSQL's JDBC driver; `None` without `java`, `javac` and `mvn`.
pub fn postgresql_driver() -> Option<PathBuf> {
    if ["java", "javac", "mvn"].iter().any(|program| !installed(program, "-version")) {
        println!("not run: no java, javac or mvn here");
        return None;
    }
    let pom = super::folder().join("pgjdbc/pom.xml");
    let target = home().join("pgjdbc");
    once(&target, &pom, |target| {
        succeed(
            "PostgreSQL's JDBC driver",
            Command::new("mvn")
                .args(["-q", "-B", "dependency:copy-dependencies", "-f"])
                .arg(&pom)
                .arg(format!("-DoutputDirectory={}", target.display())),
        );
    });
    Some(target)
}

/// The Go client, built; `None` without `go`.
pub fn go_client() -> Option<PathBuf> {
    if !installed("go", "version") {
        println!("not run: no go here");
        return None;
    }
    let target = home().join("go");
    std::fs::create_dir_all(&target).unwrap();
    let _lock = lock(&target);
    let program = target.join("client");
    // Go's own cache makes a second build quick.
    succeed(
        "the Go client",
        Command::new("go")
            .args(["build", "-mod=readonly", "-o"])
            .arg(&program)
            .arg(".")
            .current_dir(super::folder().join("go")),
    );
    Some(program)
}

fn install_python() -> Option<PathBuf> {
    if !installed("python3", "--version") {
        println!("not run: no python3 here");
        return None;
    }
    let venv = home().join("venv");
    let python = venv.join("bin/python");
    once(&venv, &super::folder().join("requirements.txt"), |venv| {
        succeed("a Python of its own", Command::new("python3").args(["-m", "venv"]).arg(venv));
        let list = super::folder().join("requirements.txt");
        succeed("the Python clients", pip(&python).arg("-r").arg(list));
    });
    Some(python)
}

fn install_superset(python: &Path) -> PathBuf {
    let target = home().join("superset");
    let list = super::folder().join("requirements-superset.txt");
    once(&target, &list, |target| {
        let _ = std::fs::remove_dir_all(target);
        let install = &mut pip(python);
        install.args(["--no-deps", "--target"]).arg(target).arg("-r").arg(&list);
        succeed("what Superset loads", install);
    });
    target
}

fn pip(python: &Path) -> Command {
    let mut pip = Command::new(python);
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]);
    pip
}

fn home() -> PathBuf {
    let named = std::env::var_os("ATTUNE_CLIENTS_DIR").map(PathBuf::from);
    named.unwrap_or_else(|| {
        let home = std::env::var_os("HOME").expect("HOME, or ATTUNE_CLIENTS_DIR, names a folder");
        Path::new(&home).join(".cache/attune/clients")
    })
}

/// Installs into a folder unless it was installed from this list.
fn once(target: &Path, list: &Path, install: impl FnOnce(&Path)) {
    std::fs::create_dir_all(target).unwrap();
    let _lock = lock(target);
    let wanted = std::fs::read(list).unwrap();
    let stamp = target.with_extension("installed");
    if std::fs::read(&stamp).is_ok_and(|found| found == wanted) && target.is_dir() {
        return;
    }
    install(target);
    std::fs::write(stamp, wanted).unwrap();
}

/// Held until the file is dropped.
fn lock(target: &Path) -> File {
    let file = File::create(target.with_extension("lock")).unwrap();
    file.lock().unwrap();
    file
}

/// Whether a program is here: whether it tells its version.
pub fn installed(program: &str, version: &str) -> bool {
    let mut command = Command::new(program);
    command.arg(version).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

fn succeed(what: &str, command: &mut Command) {
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let failed = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{what} cannot be installed:\n{said}\n{failed}");
}
