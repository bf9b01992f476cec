//! One error in the configuration, with the place it stands: file, line, column and a caret.
//!
//! A line that assigns a secret is cut at its equals sign, because errors end in logs.

use std::fmt::Write;
use std::ops::Range;

/// One thing that is wrong in the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// A sentence.
    pub message: String,
    /// What to write instead.
    pub hint: Option<String>,
    /// Where it stands; `None` for the environment and for what is missing altogether.
    pub place: Option<Place>,
}

/// A place in a configuration file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The file as the user named it.
    pub file: String,
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// The line itself.
    pub text: String,
    /// How many characters the caret underlines, at least 1.
    pub width: usize,
}

impl Fault {
    /// A fault without a place.
    pub fn new(message: impl Into<String>, hint: Option<String>) -> Self {
        Self { message: message.into(), hint, place: None }
    }

    /// The fault as lines for a person, with the caret under the place.
    pub fn render(&self, code: &str, colour: bool) -> String {
        let (red, blue, plain) =
            if colour { ("\x1b[1;31m", "\x1b[1;34m", "\x1b[0m") } else { ("", "", "") };
        let mut text = format!("{red}error[{code}]{plain}: {}", self.message);
        if let Some(place) = &self.place {
            let number = place.line.to_string();
            let gutter = " ".repeat(number.len());
            let indent = " ".repeat(place.column.saturating_sub(1));
            let carets = "^".repeat(place.width);
            // Writing to a String cannot fail.
            let _ = write!(
                text,
                "\n{gutter}{blue}-->{plain} {}:{}:{}\n{gutter} {blue}|{plain}\n\
                 {blue}{number} |{plain} {}\n{gutter} {blue}|{plain} {indent}{red}{carets}{plain}",
                place.file, place.line, place.column, place.text
            );
        }
        if let Some(hint) = &self.hint {
            text.push_str("\n  hint: ");
            text.push_str(hint);
        }
        text
    }
}

impl Place {
    /// The place of a byte range of `text`; a range beyond the end points at the end.
    pub fn of(file: &str, text: &str, span: &Range<usize>) -> Self {
        let mut start = span.start.min(text.len());
        while !text.is_char_boundary(start) {
            start -= 1;
        }
        let before = &text[..start];
        let line_start = before.rfind('\n').map_or(0, |position| position + 1);
        let line_end = text[start..].find('\n').map_or(text.len(), |offset| start + offset);
        let line_text = text[line_start..line_end].trim_end_matches('\r');
        let column = text[line_start..start].chars().count() + 1;
        let length = text
            .get(start..span.end.min(line_end).max(start))
            .map_or(1, |marked| marked.trim_end().chars().count());
        Self {
            file: file.to_owned(),
            line: before.matches('\n').count() + 1,
            column,
            text: without_secret(line_text),
            width: length.max(1),
        }
    }
}

/// Cuts the value of a line such as `secret_access_key = "…"`.
fn without_secret(line: &str) -> String {
    let secret = ["secret", "token", "password", "access_key", "master_key"]
        .iter()
        .any(|word| line.to_lowercase().contains(word));
    match line.split_once('=') {
        Some((key, _)) if secret => format!("{}= …", key),
        _ => line.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_counts_characters_and_not_bytes() {
        let text = "a = 1\nü = [ oops ]\n";
        let start = text.find("oops").unwrap();
        let place = Place::of("attune.toml", text, &(start..start + 4));
        assert_eq!((place.line, place.column, place.width), (2, 7, 4));
        assert_eq!(place.text, "ü = [ oops ]");
    }

    #[test]
    fn a_place_beyond_the_end_is_the_end() {
        let place = Place::of("f", "x = ", &(90..95));
        assert_eq!((place.line, place.column, place.width), (1, 5, 1));
        assert_eq!(Place::of("f", "", &(0..0)).line, 1);
    }

    #[test]
    fn the_caret_stands_under_the_place() {
        let text = "[lake]\ndiscovr = true\n";
        let fault = Fault {
            message: "unknown key discovr".into(),
            hint: Some("did you mean discover?".into()),
            place: Some(Place::of("attune.toml", text, &(7..14))),
        };
        assert_eq!(
            fault.render("ATT-1101", false),
            "error[ATT-1101]: unknown key discovr\n --> attune.toml:2:1\n  |\n\
             2 | discovr = true\n  | ^^^^^^^\n  hint: did you mean discover?"
        );
    }

    #[test]
    fn a_secret_is_not_shown() {
        let text = "secret_access_key = \"hunter2\" x";
        let place = Place::of("f", text, &(30..31));
        assert!(!place.text.contains("hunter2"), "{}", place.text);
    }
}
