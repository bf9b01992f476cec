//! `attune demo`: writes a small shop into a folder, runs the case study on it through the same
//! session as anybody's, and serves it.
//!
//! The folder holds a configuration of its own, so that everything said here can be done again by
//! hand: `attune shell --config attune-demo/attune.toml`.

mod files;
mod random;
mod recipe;
mod shop;
mod words;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Instant;

use self::recipe::Step;
use self::shop::Shop;
use super::Context;
use super::arguments::DemoArguments;
use super::format::{Destination, Format};
use super::run::{self, Output};
use super::serve;
use super::target::{Embedded, Target};
use crate::config::{Config, Overrides};
use crate::engine;
use crate::error::{Error, Result};

/// The case study, which anybody can run.
const CASE_STUDY: &str = include_str!("../../../sql/recipes/01_case_study.sql");

/// The seed of the shop: the demo is the same everywhere.
const SEED: u64 = 42;

/// Tells a folder of the demo from one that holds somebody's work.
const MARK: &str = "# Written by `attune demo`; the folder is written anew by each run.\n";

/// Runs the demo.
pub(super) async fn run(arguments: &DemoArguments, context: &Context) -> Result<()> {
    let started = Instant::now();
    let mut story = Story::new(context);
    let config_file = prepare(&arguments.dir)?;
    let shop = Shop::generate(SEED, arguments.scale as usize);
    files::write(&shop, &arguments.dir.join("lake"))?;
    story.tell(&format!(
        "A shop of {} and {}, in {}.",
        run::count((shop.crm.len() + shop.web.len()) as u64, "customer record"),
        run::count(shop.clicks.iter().map(Vec::len).sum::<usize>() as u64, "click"),
        arguments.dir.join("lake").display()
    ))?;

    let overrides = Overrides { config: Some(config_file.clone()), ..Overrides::default() };
    let config = Config::load(&overrides, &context.environment)?;
    let engine = engine::open(&config, &context.environment).await?;
    let principal = catalog::policy::Principal::embedded();
    let target = Embedded::new(engine.session(principal), "the demo".to_owned(), context.screen);
    for (index, step) in recipe::steps(CASE_STUDY).iter().enumerate() {
        story.step(&target, index + 1, step).await?;
    }
    story.tell(&format!("\nThat took {}.", run::duration(started.elapsed())))?;
    story.tell(&next(&config_file))?;
    if arguments.exit {
        return Ok(());
    }
    serve::listen(engine, &config, &arguments.listen, context).await
}

fn next(config_file: &Path) -> String {
    let file = config_file.display();
    format!(
        "To go on by hand:\n  attune shell --config {file}\n  \
         attune sql --config {file} -c \"SELECT * FROM ml_recommend('main.shop', 'C00007', 5)\""
    )
}

/// Makes the folder, with keys and a configuration; what an earlier demo wrote is removed.
fn prepare(folder: &Path) -> Result<PathBuf> {
    let config_file = folder.join("attune.toml");
    let empty = std::fs::read_dir(folder).map_or(true, |mut entries| entries.next().is_none());
    let ours = std::fs::read_to_string(&config_file).is_ok_and(|text| text.starts_with(MARK));
    if !empty && !ours {
        return Err(Error::usage(
            format!("{} holds something else than a demo", folder.display()),
            "choose another folder with --dir DIR",
        ));
    }
    for part in ["lake", "warehouse"] {
        let path = folder.join(part);
        if path.exists() {
            std::fs::remove_dir_all(&path).map_err(|error| Error::file("remove", &path, &error))?;
        }
    }
    for part in ["lake", "warehouse", "keys"] {
        let path = folder.join(part);
        std::fs::create_dir_all(&path).map_err(|error| Error::file("create", &path, &error))?;
    }
    write_key(&folder.join("keys/demo.key"))?;
    write_key(&folder.join("keys/master.key"))?;
    let text = format!(
        "{MARK}\n[lake]\nurl = \"lake\"\ndiscover = true\n\n[warehouse]\nurl = \"warehouse\"\n\n\
         [keys.demo]\nfile = \"keys/demo.key\"\n\n\
         [keyring]\nmaster_key_file = \"keys/master.key\"\n"
    );
    std::fs::write(&config_file, text)
        .map_err(|error| Error::file("write", &config_file, &error))?;
    Ok(config_file)
}

/// A key of 256 random bits, made once and readable by its owner only.
fn write_key(path: &Path) -> Result<()> {
    if path.exists() {
        return Ok(());
    }
    let mut bytes = [0_u8; 32];
    getrandom::fill(&mut bytes).map_err(|error| Error::file("make", path, &error))?;
    let text: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path).map_err(|error| Error::file("create", path, &error))?;
    file.write_all(text.as_bytes()).map_err(|error| Error::file("write", path, &error))
}

/// Tells the story on standard output: here the text is the result.
struct Story<'a> {
    context: &'a Context,
    output: Output,
}

impl<'a> Story<'a> {
    fn new(context: &'a Context) -> Self {
        let output = Output {
            format: Format::Table,
            destination: Destination::Output,
            rows_max: 20,
            quiet: true,
            timing: false,
        };
        Self { context, output }
    }

    fn tell(&self, text: &str) -> Result<()> {
        writeln!(std::io::stdout().lock(), "{text}")?;
        Ok(())
    }

    async fn step(&mut self, target: &dyn Target, number: usize, step: &Step) -> Result<()> {
        let (bold, dim, plain) = match self.context.screen.output_colours() {
            true => ("\x1b[1m", "\x1b[2m", "\x1b[0m"),
            false => ("", "", ""),
        };
        self.tell(&format!("\n{bold}{number}. {}{plain}\n", step.title))?;
        for statement in &step.statements {
            let indented: Vec<String> =
                statement.lines().map(|line| format!("    {dim}{line}{plain}")).collect();
            self.tell(&format!("{};\n", indented.join("\n")))?;
            run::statement(target, statement, &self.output, &self.context.screen).await?;
        }
        self.tell(&format!("→ {}", step.meaning))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_with_other_things_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("thesis.txt"), "years of work").unwrap();
        assert_eq!(prepare(folder.path()).unwrap_err().exit_code(), 2);
        assert!(folder.path().join("thesis.txt").exists());
    }

    #[test]
    fn a_second_demo_keeps_its_key_and_forgets_its_tables() {
        let folder = tempfile::tempdir().unwrap();
        let config = prepare(folder.path()).unwrap();
        let key = std::fs::read(folder.path().join("keys/demo.key")).unwrap();
        assert_eq!(key.len(), 64);
        std::fs::write(folder.path().join("warehouse/old"), "x").unwrap();
        assert_eq!(prepare(folder.path()).unwrap(), config);
        assert_eq!(std::fs::read(folder.path().join("keys/demo.key")).unwrap(), key);
        assert!(!folder.path().join("warehouse/old").exists());
    }

    #[test]
    fn the_demos_configuration_can_be_read() {
        let folder = tempfile::tempdir().unwrap();
        let overrides =
            Overrides { config: Some(prepare(folder.path()).unwrap()), ..Overrides::default() };
        let config = Config::load(&overrides, &Default::default()).unwrap();
        assert!(config.lakes["lake"].discovery.discover);
        assert!(config.warehouse.url.0.ends_with("warehouse"));
        assert!(config.catalog(&Default::default()).unwrap().keys.len() == 1);
    }
}
