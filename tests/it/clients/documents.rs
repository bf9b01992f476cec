//! The recipes of `docs/clients.md`: every block of Python in it runs as it stands, against the
//! shop of `attune demo`. Only the address, the password and the certificate's file are put in.

use std::path::Path;
use std::process::Command;

use super::{install, run};
use crate::program::{Program, Server};

const PASSWORD: &str = "correct-horse-battery";

/// The blocks of one language in a page, each with the number of its first line.
fn blocks(page: &str, language: &str) -> Vec<(usize, String)> {
    let fence = format!("```{language}");
    let mut found = Vec::new();
    let mut inside: Option<(usize, String)> = None;
    for (index, line) in page.lines().enumerate() {
        match &mut inside {
            None if line == fence => inside = Some((index + 2, String::new())),
            None => {}
            Some(_) if line == "```" => found.extend(inside.take()),
            Some((_, text)) => {
                text.push_str(line);
                text.push('\n');
            }
        }
    }
    found
}

/// The shop, its only user `ada`, and a certificate for this machine.
async fn shop(folder: &Path) -> (Server, Server) {
    let config = folder.join("attune.toml");
    let program = Program::new(&config);
    program.demo(folder);
    program.add_user("ada", "admin", PASSWORD);
    let names = ["127.0.0.1".to_owned(), "localhost".to_owned()];
    let made = rcgen::generate_simple_self_signed(names).unwrap();
    std::fs::write(folder.join("server.pem"), made.cert.pem()).unwrap();
    std::fs::write(folder.join("server.key"), made.signing_key.serialize_pem()).unwrap();
    let tls = "\n[server]\ntls_certificate_file = \"server.pem\"\ntls_key_file = \"server.key\"\n";
    let text = std::fs::read_to_string(&config).unwrap();
    let secure = folder.join("tls.toml");
    std::fs::write(&secure, text + tls).unwrap();
    (program.serve().await, Program::new(&secure).serve().await)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_python_recipes_run_as_they_stand() {
    let Some(python) = tokio::task::spawn_blocking(install::python).await.unwrap() else {
        return;
    };
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/clients.md");
    let blocks = blocks(&std::fs::read_to_string(page).unwrap(), "python");
    assert!(blocks.len() >= 8, "docs/clients.md has {} blocks of Python", blocks.len());
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("shop");
    let (plain, secure) = shop(&place).await;
    for (line, block) in blocks {
        let text = block
            .replace("attune.example.org:50051", &secure.address.to_string())
            .replace("127.0.0.1:50051", &plain.address.to_string())
            .replace('…', PASSWORD);
        // A block that others import begins with its file's name.
        let named = block.lines().next().and_then(|first| first.strip_prefix("# "));
        let named = named.filter(|name| name.ends_with(".py")).map(str::to_owned);
        if let Some(name) = &named {
            let kept = std::fs::read_to_string(super::folder().join(name));
            assert!(
                kept.map_or(true, |kept| kept == block),
                "tests/clients/{name} is not the page's"
            );
        }
        let script = folder.path().join(named.unwrap_or_else(|| format!("line_{line}.py")));
        std::fs::write(&script, text).unwrap();
        println!("docs/clients.md:{line}");
        let mut command = Command::new(&python);
        command.args(["-W", "ignore"]).arg(&script).current_dir(&place);
        run(command).await;
    }
    plain.stop();
    secure.stop();
}
