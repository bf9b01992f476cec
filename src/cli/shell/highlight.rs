//! Colours of SQL as it is typed; a quote that is not closed is red.

use reedline::{Color, Highlighter, StyledText};

use super::vocabulary::Vocabulary;
use crate::cli::lexer::{self, Kind};

/// Colours a line.
pub(super) struct SqlHighlighter {
    vocabulary: Vocabulary,
}

impl SqlHighlighter {
    /// Knows functions and keywords from this vocabulary.
    pub(super) fn new(vocabulary: &Vocabulary) -> Self {
        Self { vocabulary: vocabulary.clone() }
    }
}

impl Highlighter for SqlHighlighter {
    fn highlight(&self, line: &str, _cursor: usize) -> StyledText {
        let words = self.vocabulary.words();
        let mut styled = StyledText::new();
        for token in lexer::tokens(line) {
            let style = match token.kind {
                _ if !token.closed => Color::Red.normal(),
                Kind::Word if words.keywords.contains(token.text.to_uppercase().as_str()) => {
                    Color::Blue.bold()
                }
                Kind::Word if words.functions.contains_key(&token.text.to_lowercase()) => {
                    Color::Cyan.normal()
                }
                Kind::Text => Color::Green.normal(),
                Kind::Number => Color::Magenta.normal(),
                Kind::Comment => Color::DarkGray.normal(),
                _ => Color::Default.normal(),
            };
            styled.push((style, token.text.to_owned()));
        }
        styled
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn colours(line: &str) -> Vec<(Option<Color>, String)> {
        let styled =
            SqlHighlighter::new(&Vocabulary::of(Vec::new(), &[], &["soundex"])).highlight(line, 0);
        styled.buffer.into_iter().map(|(style, text)| (style.foreground, text)).collect()
    }

    #[test]
    fn keywords_functions_and_open_quotes_differ() {
        let found = colours("select soundex('x'), 'open");
        assert_eq!(found[0], (Some(Color::Blue), "select".into()));
        assert_eq!(found[2], (Some(Color::Cyan), "soundex".into()));
        assert_eq!(found[4], (Some(Color::Green), "'x'".into()));
        assert_eq!(found.last(), Some(&(Some(Color::Red), "'open".into())));
    }

    #[test]
    fn the_text_stays_what_was_typed() {
        let line = "SELECT 'é' -- ü\n, 1;";
        let whole: String = colours(line).into_iter().map(|(_, text)| text).collect();
        assert_eq!(whole, line);
    }
}
