//! The repository's own invariants: ARCHITECTURE.md's arrows and the house style's limits.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

const LINES_MAX: usize = 600;
const COLUMNS_MAX: usize = 100;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn sources() -> Vec<PathBuf> {
    let mut found = Vec::new();
    for folder in ["src", "udfs", "catalog", "sql", "tests", "benches"] {
        walk(&root().join(folder), &mut found);
    }
    assert!(found.len() > 20, "the sources were not found");
    found
}

fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        if path.is_dir() {
            walk(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

fn name(path: &Path) -> String {
    path.strip_prefix(root()).unwrap().display().to_string()
}

/// The packages that a member of the workspace links, without those of its tests, up to `depth`.
fn dependencies(package: &str, depth: &str) -> BTreeSet<String> {
    let output = Command::new(env!("CARGO"))
        .args(["tree", "--offline", "-e", "normal", "--prefix", "none", "-p", package])
        .args(["--depth", depth])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect()
}

#[test]
fn the_arrows_point_downward_only() {
    let far: [(&str, &[&str]); 3] = [
        ("attune-udfs", &["attune-catalog", "attune-sql", "attune", "datafusion", "deltalake"]),
        ("attune-catalog", &["attune-sql", "attune", "arrow-flight", "axum"]),
        ("attune-sql", &["attune", "arrow-flight", "axum"]),
    ];
    // DataFusion's own crates link these; ours name them only where storage and sockets belong.
    let near: [(&str, &[&str]); 2] = [
        ("attune-udfs", &["tokio", "object_store", "async-trait", "futures"]),
        ("attune-sql", &["object_store", "tonic", "hyper"]),
    ];
    for (rules, depth) in [(&far[..], "99"), (&near[..], "1")] {
        for (package, forbidden) in rules {
            let linked = dependencies(package, depth);
            for other in *forbidden {
                assert!(*other == *package || !linked.contains(*other), "{package} links {other}");
            }
        }
    }
}

#[test]
fn no_openssl_is_linked() {
    let linked = dependencies("attune", "99");
    for package in ["openssl", "openssl-sys", "native-tls"] {
        assert!(!linked.contains(package), "{package} is linked");
    }
}

#[test]
fn layers_do_not_reach_past_their_invariant() {
    let rules: [(&str, &[&str]); 4] = [
        (
            "udfs/src",
            &[
                "std::fs",
                "TcpStream",
                "UdpSocket",
                "std::env",
                "SystemTime",
                "Instant::now",
                "async fn",
            ],
        ),
        ("catalog/src", &["sqlparser", "TcpListener", "std::env", "SystemTime::now"]),
        (
            "sql/src",
            &["use object_store", "TcpListener", "std::env", "SystemTime::now", "Instant::now"],
        ),
        ("sql/src", &["SessionContext::sql", ".sql(&"]),
    ];
    for path in sources() {
        let name = name(&path);
        let text = std::fs::read_to_string(&path).unwrap();
        let code = text.split("#[cfg(test)]").next().unwrap_or(&text);
        for (folder, words) in rules {
            if !name.starts_with(folder) || name.ends_with("tests.rs") || name.contains("/tests/") {
                continue;
            }
            for line in code.lines().filter(|line| !line.trim_start().starts_with("//")) {
                for word in words {
                    assert!(!line.contains(word), "{name} holds {word}: {line}");
                }
            }
        }
    }
}

#[test]
fn files_and_lines_are_short() {
    for path in sources() {
        let text = std::fs::read_to_string(&path).unwrap();
        let lines = text.lines().count();
        assert!(lines <= LINES_MAX, "{} has {lines} lines", name(&path));
        for (number, line) in text.lines().enumerate() {
            let columns = line.chars().count();
            // A text that people read is not cut in two for its length.
            let fits = columns <= COLUMNS_MAX || line.contains('"') || line.contains('|');
            assert!(fits, "{}:{} has {columns} columns", name(&path), number + 1);
        }
    }
}

/// rustdoc compiles what is indented by four as Rust; a fence says what it is.
#[test]
fn examples_in_docs_are_fenced() {
    for path in sources() {
        let mut fenced = false;
        for (index, line) in std::fs::read_to_string(&path).unwrap().lines().enumerate() {
            let line = line.trim_start();
            let doc = line.strip_prefix("//!").or_else(|| line.strip_prefix("///"));
            let Some(doc) = doc else { continue };
            fenced ^= doc.trim_start().starts_with("```");
            let bare = !fenced && doc.starts_with("     ");
            assert!(!bare, "{}:{}: fence this example", name(&path), index + 1);
        }
    }
}

#[test]
fn every_file_says_what_it_is() {
    for path in sources() {
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("//!"), "{} has no header", name(&path));
        assert!(!text.contains(concat!("//! ", "placeholder")), "{} is a placeholder", name(&path));
    }
}
