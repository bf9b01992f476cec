//! The line editor: reedline with our prompt, completion, colours and history.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use reedline::{
    ColumnarMenu, DefaultHinter, EditCommand, Emacs, FileBackedHistory, KeyCode, KeyModifiers,
    MenuBuilder, Prompt, PromptEditMode, PromptHistorySearch, PromptHistorySearchStatus, Reedline,
    ReedlineEvent, ReedlineMenu, Signal, ValidationResult, Validator, default_emacs_keybindings,
};

use super::completion::SqlCompleter;
use super::highlight::SqlHighlighter;
use super::vocabulary::Vocabulary;
use crate::cli::{Context, lexer};
use crate::config::Environment;
use crate::error::{Error, Result};

/// Statements the history keeps.
const HISTORY_MAX: usize = 10_000;

const MENU: &str = "completion";

/// Reads statements from the keyboard.
pub(super) struct Editor {
    line_editor: Reedline,
}

impl Editor {
    /// An editor whose completion and colours know `vocabulary`.
    pub(super) fn new(vocabulary: &Vocabulary, context: &Context) -> Result<Self> {
        let mut keys = default_emacs_keybindings();
        keys.add_binding(
            KeyModifiers::NONE,
            KeyCode::Tab,
            ReedlineEvent::UntilFound(vec![
                ReedlineEvent::Menu(MENU.to_owned()),
                ReedlineEvent::MenuNext,
            ]),
        );
        keys.add_binding(
            KeyModifiers::ALT,
            KeyCode::Enter,
            ReedlineEvent::Edit(vec![EditCommand::InsertNewline]),
        );
        let menu = Box::new(ColumnarMenu::default().with_name(MENU));
        let colours = context.screen.error_colours();
        let mut line_editor = Reedline::create()
            .with_ansi_colors(colours)
            .with_validator(Box::new(UntilSemicolon))
            .with_completer(Box::new(SqlCompleter::new(vocabulary)))
            .with_menu(ReedlineMenu::EngineCompleter(menu))
            .with_hinter(Box::new(DefaultHinter::default()))
            // A statement that starts with a space is not remembered: passwords stand in some.
            .with_history_exclusion_prefix(Some(" ".to_owned()))
            .with_edit_mode(Box::new(Emacs::new(keys)));
        if colours {
            line_editor = line_editor.with_highlighter(Box::new(SqlHighlighter::new(vocabulary)));
        }
        if let Some(path) = history_file(&context.environment) {
            // Without a history the shell still works.
            if private_file(&path).is_ok()
                && let Ok(history) = FileBackedHistory::with_file(HISTORY_MAX, path)
            {
                line_editor = line_editor.with_history(Box::new(history));
            }
        }
        Ok(Self { line_editor })
    }

    /// Waits for the next statement.
    pub(super) fn read(&mut self) -> Result<Signal> {
        self.line_editor
            .read_line(&SqlPrompt)
            .map_err(|error| Error::Output(std::io::Error::other(error.to_string())))
    }
}

/// `$XDG_STATE_HOME/attune/history`, else below the home folder.
fn history_file(environment: &Environment) -> Option<PathBuf> {
    let state = match environment.get("XDG_STATE_HOME") {
        Some(folder) => PathBuf::from(folder),
        None => Path::new(environment.get("HOME")?).join(".local/state"),
    };
    Some(state.join("attune/history"))
}

/// Makes the file so that nobody else can read it.
fn private_file(path: &Path) -> std::io::Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let mut options = std::fs::OpenOptions::new();
    options.append(true).create(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path).map(drop)
}

/// A statement ends with its semicolon, a dot command with its line.
struct UntilSemicolon;

impl Validator for UntilSemicolon {
    fn validate(&self, line: &str) -> ValidationResult {
        if line.trim_start().starts_with('.') || lexer::is_complete(line) {
            ValidationResult::Complete
        } else {
            ValidationResult::Incomplete
        }
    }
}

struct SqlPrompt;

impl Prompt for SqlPrompt {
    fn render_prompt_left(&self) -> Cow<'_, str> {
        Cow::Borrowed("attune")
    }

    fn render_prompt_right(&self) -> Cow<'_, str> {
        Cow::Borrowed("")
    }

    fn render_prompt_indicator(&self, _mode: PromptEditMode) -> Cow<'_, str> {
        Cow::Borrowed("> ")
    }

    fn render_prompt_multiline_indicator(&self) -> Cow<'_, str> {
        Cow::Borrowed("   ...> ")
    }

    fn render_prompt_history_search_indicator(&self, search: PromptHistorySearch) -> Cow<'_, str> {
        let state = match search.status {
            PromptHistorySearchStatus::Passing => "search",
            PromptHistorySearchStatus::Failing => "not found",
        };
        Cow::Owned(format!("({state}: {}) ", search.term))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn enter_runs_a_whole_statement_and_a_dot_command() {
        let complete = |line| matches!(UntilSemicolon.validate(line), ValidationResult::Complete);
        assert!(complete("SELECT 1;") && complete(".tables") && complete(""));
        assert!(!complete("SELECT 1") && !complete("SELECT ';"));
    }

    #[test]
    fn the_history_is_where_the_desktop_keeps_state() {
        let environment = Environment::from([("HOME", "/home/ann")]);
        let expected = Path::new("/home/ann/.local/state/attune/history");
        assert_eq!(history_file(&environment).as_deref(), Some(expected));
        assert_eq!(history_file(&Environment::default()), None);
    }

    #[cfg(unix)]
    #[test]
    fn the_history_is_private() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/history");
        private_file(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o077, 0);
    }
}
