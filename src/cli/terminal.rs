//! What the process is attached to: colours, widths and bars are for terminals only, and rows go
//! to standard output while everything else goes to standard error.

use std::io::{IsTerminal, Write};
use std::process::{Command, Stdio};

use crate::config::Environment;
use crate::error::Error;

/// The terminal, or the absence of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Screen {
    /// Standard input is a person.
    pub input: bool,
    /// Standard output is a person.
    pub output: bool,
    /// Standard error is a person.
    pub error: bool,
    /// Colours are wanted (`NO_COLOR` is not set and the terminal is not dumb).
    pub colours: bool,
    /// Characters a line of standard output has; `None` when it is no terminal.
    pub width: Option<usize>,
}

/// What is assumed of a terminal that does not tell its width.
const WIDTH_ASSUMED: usize = 100;

impl Screen {
    /// What this process is attached to.
    pub fn of_process(environment: &Environment) -> Self {
        let output = std::io::stdout().is_terminal();
        let colours =
            environment.get("NO_COLOR").is_none() && environment.get("TERM") != Some("dumb");
        Self {
            input: std::io::stdin().is_terminal(),
            output,
            error: std::io::stderr().is_terminal(),
            colours,
            width: output.then(|| width(environment)),
        }
    }

    /// A process without any terminal.
    pub fn none() -> Self {
        Self { input: false, output: false, error: false, colours: false, width: None }
    }

    /// Whether standard output takes colours.
    pub fn output_colours(&self) -> bool {
        self.output && self.colours
    }

    /// Whether standard error takes colours.
    pub fn error_colours(&self) -> bool {
        self.error && self.colours
    }

    /// A line on standard error. A reader that went away is no error: nobody is left to tell.
    pub fn say(&self, line: &str) {
        let _ = writeln!(std::io::stderr().lock(), "{line}");
    }

    /// A line on standard error, dim on a terminal.
    pub fn whisper(&self, line: &str) {
        if self.error_colours() {
            self.say(&format!("\x1b[2m{line}\x1b[0m"));
        } else {
            self.say(line);
        }
    }

    /// An error on standard error.
    pub fn complain(&self, error: &Error) {
        self.say(&error.render(self.error_colours()));
    }
}

/// The terminal's width: `COLUMNS` when a person exported it, else what the terminal driver says.
fn width(environment: &Environment) -> usize {
    let exported = environment.get("COLUMNS").and_then(|columns| columns.parse().ok());
    exported.or_else(driver_width).filter(|width| *width >= 20).unwrap_or(WIDTH_ASSUMED)
}

fn driver_width() -> Option<usize> {
    let terminal = std::fs::File::open("/dev/tty").ok()?;
    let mut command = Command::new("stty");
    command.arg("size").stdin(terminal).stderr(Stdio::null());
    let answer = String::from_utf8(command.output().ok()?.stdout).ok()?;
    answer.split_whitespace().nth(1)?.parse().ok()
}

/// How many columns a text takes on a terminal: combining marks take none, East Asian wide
/// characters and emoji take two (the blocks of Unicode's `EastAsianWidth.txt`, rounded to whole
/// blocks).
pub fn columns(text: &str) -> usize {
    text.chars().map(character_columns).sum()
}

/// The columns of one character.
pub fn character_columns(c: char) -> usize {
    match u32::from(c) {
        0x0300..=0x036F | 0x200B..=0x200F | 0x20D0..=0x20FF | 0xFE00..=0xFE0F | 0xFE20..=0xFE2F => {
            0
        }
        0x1100..=0x115F
        | 0x2E80..=0x303E
        | 0x3041..=0xA4CF
        | 0xAC00..=0xD7A3
        | 0xF900..=0xFAFF
        | 0xFE30..=0xFE6F
        | 0xFF00..=0xFF60
        | 0xFFE0..=0xFFE6
        | 0x1F300..=0x1F64F
        | 0x1F680..=0x1F6FF
        | 0x1F900..=0x1F9FF
        | 0x20000..=0x3FFFD => 2,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wide_and_combining_characters_are_counted_as_the_terminal_shows_them() {
        assert_eq!(columns("abc"), 3);
        assert_eq!(columns("日本"), 4);
        assert_eq!(columns("e\u{301}"), 1);
    }

    #[test]
    fn without_a_terminal_there_are_no_colours() {
        let screen = Screen::none();
        assert!(!screen.output_colours() && !screen.error_colours());
        assert_eq!(screen.width, None);
    }

    #[test]
    fn an_exported_width_is_taken_and_a_silly_one_is_not() {
        assert_eq!(width(&Environment::from([("COLUMNS", "132")])), 132);
        assert!(width(&Environment::from([("COLUMNS", "3")])) >= 20);
    }
}
