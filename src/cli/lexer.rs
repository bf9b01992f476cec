//! Cuts SQL text into tokens, for the three things a terminal needs before the engine sees the
//! text: colours, the end of a statement, and the word under the cursor.
//!
//! It knows quotes, comments and dollar quotes and no grammar: what a statement means is decided
//! in `sql` alone. Every byte of the text belongs to exactly one token.

/// What a token is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A keyword or an unquoted name.
    Word,
    /// `"a name"` or `` `a name` ``.
    QuotedName,
    /// `'text'` or `$$text$$`.
    Text,
    /// A number.
    Number,
    /// `-- …` or `/* … */`.
    Comment,
    /// One other character.
    Symbol,
    /// White space.
    Space,
}

/// A piece of the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Token<'a> {
    /// What it is.
    pub kind: Kind,
    /// Its characters.
    pub text: &'a str,
    /// Where it starts, in bytes.
    pub start: usize,
    /// Whether a quote or comment is closed; true for all else.
    pub closed: bool,
}

/// The tokens of a text, in order and without gaps.
pub fn tokens(text: &str) -> Vec<Token<'_>> {
    let mut found = Vec::new();
    let mut start = 0;
    while let Some(first) = text[start..].chars().next() {
        let rest = &text[start..];
        let (kind, length, closed) = token(rest, first);
        let end = start + length;
        found.push(Token { kind, text: &text[start..end], start, closed });
        start = end;
    }
    found
}

/// The statements of a script: the text between semicolons, trimmed, empty ones left out.
pub fn split(script: &str) -> Vec<&str> {
    let mut statements = Vec::new();
    let mut start = 0;
    let mut meaningful = false;
    let all = tokens(script);
    for token in &all {
        if token.kind == Kind::Symbol && token.text == ";" {
            if meaningful {
                statements.push(script[start..token.start].trim());
            }
            start = token.start + 1;
            meaningful = false;
        } else {
            meaningful |= !matches!(token.kind, Kind::Space | Kind::Comment);
        }
    }
    if meaningful {
        statements.push(script[start..].trim());
    }
    statements
}

/// Whether the text is empty or ends with a semicolon outside of quotes and comments.
pub fn is_complete(text: &str) -> bool {
    let all = tokens(text);
    let last = all.iter().rev().find(|token| !matches!(token.kind, Kind::Space | Kind::Comment));
    all.iter().all(|token| token.closed || token.kind == Kind::Comment)
        && last.is_none_or(|token| token.text == ";")
}

/// Kind, length in bytes, and whether it is closed, of the token that starts `rest`.
fn token(rest: &str, first: char) -> (Kind, usize, bool) {
    if rest.starts_with("--") {
        let end = rest.find('\n').map_or(rest.len(), |position| position + 1);
        return (Kind::Comment, end, true);
    }
    if rest.starts_with("/*") {
        let (length, closed) = block_comment(rest);
        return (Kind::Comment, length, closed);
    }
    match first {
        '\'' => quoted(rest, '\'', Kind::Text),
        '"' | '`' => quoted(rest, first, Kind::QuotedName),
        '$' => dollar_quoted(rest).unwrap_or((Kind::Symbol, 1, true)),
        c if c.is_whitespace() => (Kind::Space, run(rest, char::is_whitespace), true),
        c if c.is_ascii_digit() => (Kind::Number, number(rest), true),
        c if c.is_alphabetic() || c == '_' => {
            (Kind::Word, run(rest, |c| c.is_alphanumeric() || c == '_'), true)
        }
        c => (Kind::Symbol, c.len_utf8(), true),
    }
}

fn run(rest: &str, belongs: impl Fn(char) -> bool) -> usize {
    rest.find(|c| !belongs(c)).unwrap_or(rest.len())
}

fn quoted(rest: &str, quote: char, kind: Kind) -> (Kind, usize, bool) {
    let mut position = 1;
    while let Some(offset) = rest[position..].find(quote) {
        position += offset + 1;
        // A doubled quote stands for one.
        if !rest[position..].starts_with(quote) {
            return (kind, position, true);
        }
        position += 1;
    }
    (kind, rest.len(), false)
}

fn dollar_quoted(rest: &str) -> Option<(Kind, usize, bool)> {
    let tag = rest[1..].find('$')? + 2;
    let delimiter = &rest[..tag];
    let name = &delimiter[1..tag - 1];
    let is_tag = name.chars().all(|c| c.is_alphanumeric() || c == '_')
        && !name.starts_with(|c: char| c.is_ascii_digit());
    if !is_tag {
        return None;
    }
    match rest[tag..].find(delimiter) {
        Some(offset) => Some((Kind::Text, tag + offset + tag, true)),
        None => Some((Kind::Text, rest.len(), false)),
    }
}

fn block_comment(rest: &str) -> (usize, bool) {
    let mut depth = 0_usize;
    let mut position = 0;
    while position < rest.len() {
        let here = &rest[position..];
        if here.starts_with("/*") {
            depth += 1;
            position += 2;
        } else if here.starts_with("*/") {
            depth -= 1;
            position += 2;
            if depth == 0 {
                return (position, true);
            }
        } else {
            position += here.chars().next().map_or(1, char::len_utf8);
        }
    }
    (rest.len(), false)
}

fn number(rest: &str) -> usize {
    let mut previous = ' ';
    let mut end = 0;
    for c in rest.chars() {
        let sign = matches!(c, '+' | '-') && matches!(previous, 'e' | 'E');
        if !(c.is_ascii_alphanumeric() || c == '.' || c == '_' || sign) {
            break;
        }
        previous = c;
        end += c.len_utf8();
    }
    end
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn semicolons_in_quotes_and_comments_end_nothing() {
        let script =
            "SELECT ';' AS \"a;b\"; -- ; no\nSELECT $$x;y$$ /* ; /* ; */ ; */;;\n SELECT 1";
        assert_eq!(
            split(script),
            ["SELECT ';' AS \"a;b\"", "-- ; no\nSELECT $$x;y$$ /* ; /* ; */ ; */", "SELECT 1"]
        );
    }

    #[test]
    fn comments_alone_are_no_statement() {
        assert!(split("-- nothing\n/* here */ ;; \n").is_empty());
    }

    #[test]
    fn a_statement_is_complete_at_its_semicolon() {
        for complete in ["", "  ", "SELECT 1;", "SELECT ';' ; -- done", "SELECT 1; /* x */"] {
            assert!(is_complete(complete), "{complete}");
        }
        for open in ["SELECT 1", "SELECT 'a;", "SELECT \"a;", "SELECT $$ ;", "SELECT 1 -- ;"] {
            assert!(!is_complete(open), "{open}");
        }
    }

    #[test]
    fn placeholders_and_numbers() {
        let kinds: Vec<_> =
            tokens("$1 1.5e-3 'it''s'").iter().map(|token| (token.kind, token.text)).collect();
        assert_eq!(
            kinds,
            [
                (Kind::Symbol, "$"),
                (Kind::Number, "1"),
                (Kind::Space, " "),
                (Kind::Number, "1.5e-3"),
                (Kind::Space, " "),
                (Kind::Text, "'it''s'"),
            ]
        );
    }

    proptest! {
        #[test]
        fn the_tokens_are_the_text(text in "[-'\"`$;/*a1 é\n]{0,40}|.{0,40}") {
            let whole: String = tokens(&text).iter().map(|token| token.text).collect();
            prop_assert_eq!(whole, text);
        }

        #[test]
        fn every_statement_is_in_the_script(text in "[-'\"$;/*a1 é\n]{0,40}") {
            for statement in split(&text) {
                prop_assert!(!statement.is_empty());
                prop_assert!(text.contains(statement));
            }
        }
    }
}
