//! As much of protocol buffers' text format as the statistical cases are written in.

use std::path::Path;

/// A message: its fields in order; a field of several values is there several times.
#[derive(Debug, Default)]
pub(super) struct Message(Vec<(String, Value)>);

#[derive(Debug)]
enum Value {
    Word(String),
    Message(Message),
}

impl Message {
    /// The messages of a field.
    pub(super) fn messages<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Message> {
        self.0.iter().filter(move |field| field.0 == name).filter_map(|field| match &field.1 {
            Value::Message(message) => Some(message),
            Value::Word(_) => None,
        })
    }

    /// The only message of a field.
    pub(super) fn message(&self, name: &str) -> &Message {
        let found = self.0.iter().find_map(|field| match &field.1 {
            Value::Message(message) if field.0 == name => Some(message),
            _ => None,
        });
        found.unwrap_or_else(|| panic!("no message {name}"))
    }

    /// A field's words and numbers, as they are written.
    pub(super) fn words(&self, name: &str) -> Vec<&str> {
        let fields = self.0.iter().filter(|field| field.0 == name);
        fields
            .filter_map(|field| match &field.1 {
                Value::Word(word) => Some(word.as_str()),
                Value::Message(_) => None,
            })
            .collect()
    }

    /// A field's numbers.
    pub(super) fn numbers(&self, name: &str) -> Vec<f64> {
        self.words(name).iter().map(|word| word.parse().unwrap()).collect()
    }

    /// A field's number, or zero, as the format has it.
    pub(super) fn number(&self, name: &str) -> f64 {
        self.numbers(name).first().copied().unwrap_or(0.0)
    }
}

/// Reads one of the files of cases.
pub(super) fn read(file: &str) -> Message {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/dp");
    let text = std::fs::read_to_string(folder.join(file)).unwrap();
    let tokens = tokens(&text);
    let mut tokens = tokens.iter().map(String::as_str).peekable();
    message(&mut tokens)
}

/// Names, numbers, texts without their quotes, and signs.
fn tokens(text: &str) -> Vec<String> {
    let mut tokens = Vec::new();
    for line in text.lines() {
        let mut rest = line.trim_start();
        while !rest.is_empty() && !rest.starts_with('#') {
            let length = if let Some(quoted) = rest.strip_prefix('"') {
                let end = quoted.find('"').unwrap();
                tokens.push(quoted[..end].to_string());
                end + 2
            } else {
                let word = rest.find(|c: char| c.is_whitespace() || "{}[]:,#;".contains(c));
                let end = word.unwrap_or(rest.len()).max(1);
                tokens.push(rest[..end].to_string());
                end
            };
            rest = rest[length..].trim_start();
        }
    }
    tokens
}

fn message<'a>(tokens: &mut std::iter::Peekable<impl Iterator<Item = &'a str>>) -> Message {
    let mut fields = Vec::new();
    while let Some(name) = tokens.next() {
        if name == "}" {
            break;
        }
        if tokens.peek() == Some(&":") {
            tokens.next();
        }
        match tokens.next() {
            Some("{") => fields.push((name.to_string(), Value::Message(message(tokens)))),
            Some("[") => {
                for word in tokens.by_ref().take_while(|word| *word != "]") {
                    if word != "," {
                        fields.push((name.to_string(), Value::Word(word.to_string())));
                    }
                }
            }
            Some(word) => fields.push((name.to_string(), Value::Word(word.to_string()))),
            None => panic!("{name} has no value"),
        }
    }
    Message(fields)
}

#[test]
fn cases_are_read() {
    let file = read("count_dp_test_cases.textproto");
    let cases: Vec<&Message> = file.messages("count_dp_test_case").collect();
    assert_eq!(cases.len(), 36);
    let sampling = cases[5].message("count_sampling_parameters");
    assert_eq!(cases[5].words("name"), ["Laplace noise, small count, default parameters"]);
    assert_eq!(sampling.words("noise_type"), ["LAPLACE"]);
    assert_eq!(sampling.numbers("raw_increment_by"), [7.0, 1.0, 8.0, 12.0]);
    assert_eq!(sampling.numbers("neighbour_raw_increment_by"), [7.0, 1.0, 8.0, 12.0, 1.0]);
    assert_eq!(file.message("voting_parameters").number("number_of_votes"), 9.0);
}
