//! `attune shell`: SQL by hand, with history, many lines until the semicolon, completion from the
//! catalog and colours. Ctrl-C cancels the statement that runs and never the shell; what is piped
//! into it runs as a script.

mod commands;
mod completion;
mod editor;
mod highlight;
mod vocabulary;

use std::sync::Arc;

use reedline::Signal;

use self::commands::Next;
use self::editor::Editor;
use self::vocabulary::Vocabulary;
use super::Context;
use super::arguments::ShellArguments;
use super::run::{self, Output};
use super::sql;
use super::target::Target;
use crate::error::{Error, Result};

/// Runs the shell until `.quit` or Ctrl-D.
pub(super) async fn run(arguments: &ShellArguments, context: &Context) -> Result<()> {
    let screen = &context.screen;
    let output = Output::new(&arguments.output, screen)?;
    if !screen.input {
        let script = sql::input()?;
        let target = run::open(&arguments.store, &arguments.connect, context).await?;
        let result = sql::statements(target.as_ref(), &script, &output, context).await;
        target.close().await?;
        return result;
    }
    let target: Arc<dyn Target> =
        run::open(&arguments.store, &arguments.connect, context).await?.into();
    if !output.quiet {
        let version = env!("CARGO_PKG_VERSION");
        screen.say(&format!("attune {version} · {} · .help helps", target.description()));
    }
    let mut shell = Shell::new(target, output, context)?;
    let result = shell.talk().await;
    shell.target.close().await?;
    result
}

/// A conversation.
struct Shell<'a> {
    target: Arc<dyn Target>,
    output: Output,
    context: &'a Context,
    vocabulary: Vocabulary,
    editor: Editor,
}

impl<'a> Shell<'a> {
    fn new(target: Arc<dyn Target>, output: Output, context: &'a Context) -> Result<Self> {
        let vocabulary = Vocabulary::default();
        vocabulary.refresh(&target);
        let editor = Editor::new(&vocabulary, context)?;
        Ok(Self { target, output, context, vocabulary, editor })
    }

    async fn talk(&mut self) -> Result<()> {
        loop {
            // The editor blocks on the keyboard; the runtime's other threads go on.
            let line = tokio::task::block_in_place(|| self.editor.read());
            match line? {
                Signal::Success(text) => match self.answer(&text).await? {
                    Next::Quit => return Ok(()),
                    Next::Go => {}
                },
                Signal::CtrlD => return Ok(()),
                // Ctrl-C at the prompt drops the line.
                _ => {}
            }
        }
    }

    /// Runs a line. Only a reader of standard output that went away ends the conversation.
    async fn answer(&mut self, text: &str) -> Result<Next> {
        let result = match text.trim().strip_prefix('.') {
            Some(command) => commands::run(self, command).await,
            None => self.statements(text).await.map(|()| Next::Go),
        };
        match result {
            Ok(next) => Ok(next),
            Err(error) if error.is_broken_pipe() => Err(error),
            Err(Error::Interrupted) => {
                self.context.screen.say("cancelled");
                Ok(Next::Go)
            }
            Err(error) => {
                self.context.screen.complain(&error);
                Ok(Next::Go)
            }
        }
    }

    async fn statements(&mut self, text: &str) -> Result<()> {
        for statement in self.target.split(text).await? {
            run::statement(self.target.as_ref(), &statement, &self.output, &self.context.screen)
                .await?;
        }
        // The statement may have made or dropped something.
        self.vocabulary.refresh(&self.target);
        Ok(())
    }
}
