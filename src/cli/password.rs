//! Passwords come from `ATTUNE_PASSWORD`, from a prompt that shows nothing, or from the first line
//! of standard input; never from the command line, where every user of the machine can read them.

use std::borrow::Cow;

use reedline::{
    Color, Highlighter, Prompt, PromptEditMode, PromptHistorySearch, Reedline, Signal, StyledText,
};

use super::terminal::Screen;
use crate::config::Environment;
use crate::error::{Error, Result};

/// The variable that holds the password.
const VARIABLE: &str = "ATTUNE_PASSWORD";

/// The password of an existing user: from the environment, else asked for on a terminal.
pub fn existing(environment: &Environment, screen: &Screen, name: &str) -> Result<String> {
    match environment.get(VARIABLE) {
        Some(password) => Ok(password.to_owned()),
        None if screen.input && screen.error => ask(&format!("password of {name}: ")),
        None => Err(Error::LoginRequired),
    }
}

/// A new password: from the environment, else asked for twice on a terminal, else the first line
/// of standard input.
pub fn new(environment: &Environment, screen: &Screen, name: &str) -> Result<String> {
    let password = match environment.get(VARIABLE) {
        Some(password) => password.to_owned(),
        None if screen.input && screen.error => ask_twice(name)?,
        None => first_line(std::io::stdin().lock())?,
    };
    if password.chars().count() < LENGTH_MIN {
        return Err(Error::usage(
            format!("the password has fewer than {LENGTH_MIN} characters"),
            "choose a longer one; a sentence is good",
        ));
    }
    Ok(password)
}

/// Shorter passwords are guessed (NIST SP 800-63B asks for at least 8).
const LENGTH_MIN: usize = 8;

fn ask_twice(name: &str) -> Result<String> {
    let first = ask(&format!("new password of {name}: "))?;
    let second = ask("once more: ")?;
    if first == second {
        return Ok(first);
    }
    Err(Error::usage("the two passwords differ", "try again"))
}

fn first_line(mut input: impl std::io::BufRead) -> Result<String> {
    let mut line = String::new();
    input.read_line(&mut line)?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

fn ask(question: &str) -> Result<String> {
    let mut editor = Reedline::create().with_highlighter(Box::new(Masked));
    match editor.read_line(&Question(question)) {
        Ok(Signal::Success(password)) => Ok(password),
        Ok(_) => Err(Error::Interrupted),
        Err(error) => Err(Error::Output(std::io::Error::other(error.to_string()))),
    }
}

/// Shows an asterisk for each byte.
struct Masked;

impl Highlighter for Masked {
    fn highlight(&self, line: &str, _cursor: usize) -> StyledText {
        let mut styled = StyledText::new();
        styled.push((Color::Default.normal(), "*".repeat(line.len())));
        styled
    }
}

struct Question<'a>(&'a str);

impl Prompt for Question<'_> {
    fn render_prompt_left(&self) -> Cow<'_, str> {
        Cow::Borrowed(self.0)
    }

    fn render_prompt_right(&self) -> Cow<'_, str> {
        Cow::Borrowed("")
    }

    fn render_prompt_indicator(&self, _mode: PromptEditMode) -> Cow<'_, str> {
        Cow::Borrowed("")
    }

    fn render_prompt_multiline_indicator(&self) -> Cow<'_, str> {
        Cow::Borrowed("")
    }

    fn render_prompt_history_search_indicator(&self, _: PromptHistorySearch) -> Cow<'_, str> {
        Cow::Borrowed("")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_password_comes_from_the_environment_and_is_not_short() {
        let from = |password| {
            let environment = Environment::from([("ATTUNE_PASSWORD", password)]);
            new(&environment, &Screen::none(), "ann")
        };
        assert_eq!(from("correct horse").unwrap(), "correct horse");
        assert_eq!(from("short").unwrap_err().exit_code(), 2);
    }

    #[test]
    fn a_missing_password_is_told_and_not_guessed() {
        let error = existing(&Environment::default(), &Screen::none(), "ann").unwrap_err();
        assert!(error.hint().unwrap().contains("ATTUNE_PASSWORD"));
    }

    #[test]
    fn the_line_break_of_a_piped_password_is_no_part_of_it() {
        assert_eq!(first_line("secret words\r\nmore".as_bytes()).unwrap(), "secret words");
    }

    #[test]
    fn the_mask_shows_nothing_of_the_password() {
        assert_eq!(Masked.highlight("abcé", 0).raw_string(), "*****");
    }
}
