//! Documentation that is made from the code: `docs/functions.md`. A stale page fails; run with
//! `ATTUNE_UPDATE_DOCS=1` to write it anew.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::{Path, PathBuf};

use sql::FunctionDoc;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

async fn own_functions() -> Vec<FunctionDoc> {
    let folder = tempfile::tempdir().unwrap();
    let engine = crate::slt::engine(folder.path()).await;
    engine.functions_documentation().into_iter().filter(|function| function.own).collect()
}

fn page(functions: &[FunctionDoc]) -> String {
    let mut text = String::from(
        "# Functions\n\nAttune's own functions. DataFusion's (`SHOW FUNCTIONS` lists all) work as \
         its documentation says.\nThis page is made from the code; `attune docs NAME` shows one \
         function.\n",
    );
    let sections: BTreeSet<&str> = functions.iter().map(|f| f.section.as_str()).collect();
    for section in sections {
        let _ = write!(text, "\n## {section}\n");
        for function in functions.iter().filter(|function| function.section == section) {
            let _ = write!(text, "\n### {}\n\n{}\n", function.name, function.description.trim());
            let _ = write!(text, "\n    {}\n", function.syntax.trim());
            if !function.arguments.is_empty() {
                text.push('\n');
            }
            for (name, meaning) in &function.arguments {
                let meaning = meaning.split_whitespace().collect::<Vec<_>>().join(" ");
                let _ = writeln!(text, "- `{name}`: {meaning}");
            }
            let example = function.example.trim();
            let fenced = match example.starts_with("```") {
                true => example.to_owned(),
                false => format!("```sql\n{example}\n```"),
            };
            let _ = write!(text, "\n{fenced}\n");
        }
    }
    text
}

#[tokio::test]
async fn the_page_of_functions_is_fresh() {
    let made = page(&own_functions().await);
    let file = root().join("docs/functions.md");
    if std::env::var_os("ATTUNE_UPDATE_DOCS").is_some() {
        std::fs::write(&file, &made).unwrap();
    }
    let kept = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(kept == made, "docs/functions.md is stale: ATTUNE_UPDATE_DOCS=1 cargo test fresh");
}

fn slt_files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        match entry.path() {
            path if path.is_dir() => slt_files(&path, found),
            path => found.push(path),
        }
    }
}

#[tokio::test]
async fn every_function_has_words_an_example_and_an_slt_file() {
    let mut files = Vec::new();
    slt_files(&root().join("tests/slt"), &mut files);
    let tested: String = files.iter().map(|file| std::fs::read_to_string(file).unwrap()).collect();
    for function in own_functions().await {
        let name = &function.name;
        assert!(!function.description.trim().is_empty(), "{name} has no description");
        assert!(!function.example.trim().is_empty(), "{name} has no example");
        let twin = name.replacen("ml_", "ML.", 1).to_uppercase();
        let called = tested.contains(&format!("{name}(")) || tested.contains(&format!("{twin}("));
        assert!(called, "no .slt file calls {name}");
    }
}
