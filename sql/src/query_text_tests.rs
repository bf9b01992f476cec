//! What a stored text says of the values in it, and what it must not say.

use proptest::prelude::*;

use super::*;

fn tokens() -> Arc<ValueTokens> {
    Arc::new(ValueTokens::under(b"a key of tests"))
}

/// How a planned text is shown.
fn seen(text: &str) -> String {
    planned(text, Some(tokens())).text().to_string()
}

/// The placeholder of a value.
fn of(kind: &str, value: &str) -> String {
    format!("?{kind}:{}", tokens().token(value))
}

#[test]
fn no_literal_reaches_the_log() {
    let text = "SELECT * FROM t WHERE mail = 'ann@x.org' AND id = 42 -- ann\n";
    assert_eq!(without_literals(text), "SELECT * FROM t WHERE mail = ? AND id = ?");
    for (text, shown) in [
        ("CREATE USER u PASSWORD 'a b' ROLE admin", "CREATE USER u PASSWORD ? ROLE admin"),
        (
            "create or replace user u password \"a b\" role admin;",
            "create or replace user u password ? role admin;",
        ),
        ("ALTER USER u SET PASSWORD my long secret", "ALTER USER u SET PASSWORD ?"),
        ("EXPLAIN CREATE USER u PASSWORD secret", "EXPLAIN CREATE USER u PASSWORD ?"),
        ("FORGET SUBJECT person ann@mail", "FORGET SUBJECT person ?"),
        (
            "RELEASE SUBJECT person \"ann b\" AS crm.id FROM HOLD",
            "RELEASE SUBJECT person ? AS crm.id FROM HOLD",
        ),
        (
            "RECTIFY SUBJECT person '7' SET crm.name = Ann Smith",
            "RECTIFY SUBJECT person ? SET crm.name = ?",
        ),
        ("EXPLAIN FORGET SUBJECT person ann", "EXPLAIN FORGET SUBJECT person ?"),
        ("CREATE SUBJECT person KEY (crm.id)", "CREATE SUBJECT person KEY (crm.id)"),
        ("SELECT user, password FROM t", "SELECT user, password FROM t"),
        (r#"SELECT "a b" FROM t"#, r#"SELECT "a b" FROM t"#),
        ("  SELECT /* ann */\n\t1 ,2 ", "SELECT ? ,?"),
        ("SELECT 'ann", "(no SQL)"),
    ] {
        assert_eq!(without_literals(text), shown);
    }
}

#[test]
fn nor_does_what_stands_in_the_wrong_quotes() {
    for (text, seen) in [
        (
            r#"SELECT * FROM t WHERE mail = "ann@x.org" AND"#,
            r#"SELECT * FROM t WHERE mail = "?" AND"#,
        ),
        ("SELECT X'616e6e', 'ann' FROM", "SELECT ?, ? FROM"),
    ] {
        assert_eq!(refused(text, None), seen);
    }
    let text = r#"SELECT "ann@x.org" FROM t WHERE id = 7"#;
    let expected = format!(r#"SELECT "?" FROM t WHERE id = {}"#, of("number", "7"));
    assert_eq!(refused(text, Some(&tokens())), expected);
}

#[test]
fn one_value_has_one_token_however_it_is_written() {
    let ann = of("text", "it's Ann");
    for text in ["'it''s Ann'", "E'it\\'s Ann'", "$$it's Ann$$", "$q$it's Ann$q$", "N'it''s Ann'"] {
        assert_eq!(seen(&format!("SELECT {text}")), format!("SELECT {ann}"), "{text}");
    }
    for (number, digits) in [
        ("7", "7"),
        ("007", "7"),
        ("7.0", "7"),
        ("7.", "7"),
        ("1_000", "1000"),
        ("1000", "1000"),
        (".5", "0.5"),
        ("0.50", "0.5"),
        ("0", "0"),
        ("0.0", "0"),
        ("1E3", "1e3"),
    ] {
        let expected = format!("SELECT {}", of("number", digits));
        assert_eq!(seen(&format!("SELECT {number}")), expected, "{number}");
    }
    assert_eq!(seen("SELECT X'AB01'"), format!("SELECT {}", of("bytes", "ab01")));
    assert_eq!(seen("SELECT TRUE, NULL, -7"), format!("SELECT TRUE, NULL, -{}", of("number", "7")));
    // The number 7 and the text are the same id of a person.
    assert_eq!(tokens().token("7"), of("text", "7")["?text:".len()..]);
    let other = Arc::new(ValueTokens::under(b"another key"));
    assert_ne!(
        *planned("SELECT 7", Some(other)).text(),
        *planned("SELECT 7", Some(tokens())).text()
    );
}

#[test]
fn a_person_who_is_named_has_the_token_of_the_id() {
    let id = of("text", "ann@x.org");
    for verb in ["EXPORT", "EXPLAIN FORGET", "HOLD"] {
        let text = format!("{verb} SUBJECT person 'ann@x.org'");
        assert_eq!(seen(&text), format!("{verb} SUBJECT person {id}"));
    }
    assert_eq!(
        seen("RECTIFY SUBJECT person 'ann@x.org' AS crm.id SET crm.name = 'Ann';"),
        format!("RECTIFY SUBJECT person {id} AS crm.id SET crm.name = {};", of("text", "Ann"))
    );
    // What is not one literal is nobody's id.
    assert_eq!(seen("HOLD SUBJECT person 'ann' smith"), "HOLD SUBJECT person ?");
    assert_eq!(seen("HOLD SUBJECT person ann"), "HOLD SUBJECT person ?");
}

#[test]
fn what_nobody_may_compare_has_no_token() {
    for (text, shown) in [
        ("CREATE USER u PASSWORD 'long enough'", "CREATE USER u PASSWORD ?"),
        ("CREATE USER u PASWORD 'long enough'", "CREATE USER u PASWORD ?"),
        ("ALTER USER u SET PASSWORD 'long enough'", "ALTER USER u SET PASSWORD ?"),
        ("ALTER ROLE u WITH PASSWORD 'long enough'", "ALTER ROLE u WITH PASSWORD ?"),
        ("SELECT * FROM u WHERE Password = 'x'", "SELECT * FROM u WHERE Password = ?"),
        ("SELECT 'x' = \"my_secret\" FROM u", "SELECT ? = \"my_secret\" FROM u"),
        ("SELECT * FROM u WHERE api_token = $1", "SELECT * FROM u WHERE api_token = $1"),
        (
            "CREATE EXTERNAL TABLE t LOCATION 'a/' OPTIONS ('aws.secret_access_key' 'k')",
            "CREATE EXTERNAL TABLE t LOCATION ? OPTIONS (? ?)",
        ),
        ("RECORD CONSENT 'a token' KEY 'k' INTO c", "RECORD CONSENT ? KEY ? INTO c"),
    ] {
        assert_eq!(seen(text), shown);
        let run = planned(text, Some(tokens())).with(&[ScalarValue::from("x")]);
        assert_eq!(*run, *shown);
        assert_eq!(refused(text, Some(&tokens())).replace("\"?\"", "\"my_secret\""), shown);
    }
    let token = format!("{TOKEN_PREFIX}{}", "0123456789abcdef".repeat(4));
    for credential in [token.as_str(), "eyJhbGciOi.eyJzdWIi.c2ln", "-----BEGIN PRIVATE KEY-----"] {
        assert_eq!(seen(&format!("SELECT '{credential}'")), "SELECT ?");
        let run = planned("SELECT ?", Some(tokens())).with(&[ScalarValue::from(credential)]);
        assert_eq!(&*run, "SELECT ?");
    }
    // Functions that compare words are no secrets.
    let text = "SELECT token_set_ratio(name, 'ann') FROM t";
    assert!(seen(text).contains(&of("text", "ann")));
    assert_eq!(*planned("SELECT 'ann', ?", None).with(&[ScalarValue::from(7)]), *"SELECT ?, ?");
}

#[test]
fn a_parameter_is_shown_as_a_literal_of_its_value_is() {
    let values = [
        ScalarValue::from("ann@x.org"),
        ScalarValue::from(-7_i64),
        ScalarValue::Utf8View(None),
        ScalarValue::from(true),
        ScalarValue::Binary(Some(vec![0xab, 1])),
        ScalarValue::Decimal128(Some(150), 10, 2),
        ScalarValue::Date32(Some(19_723)),
        ScalarValue::Dictionary(Box::new(DataType::Int32), Box::new(ScalarValue::from("ann"))),
    ];
    let shown = [
        of("text", "ann@x.org"),
        format!("-{}", of("number", "7")),
        "NULL".to_owned(),
        "TRUE".to_owned(),
        of("bytes", "ab01"),
        of("number", "1.5"),
        of("date", "2024-01-01"),
        of("text", "ann"),
    ];
    let positional = planned("SELECT ?, ?, ?, ?, ?, ?, ?, ? FROM t", Some(tokens()));
    assert_eq!(*positional.with(&values), format!("SELECT {} FROM t", shown.join(", ")));
    assert_eq!(&**positional.text(), "SELECT ?, ?, ?, ?, ?, ?, ?, ? FROM t");
    assert_eq!(positional.with(&[]), *positional.text());
    let named = planned("SELECT $2 WHERE $1 = a AND b = 'ann' AND $9 > $2", Some(tokens()));
    let (first, second) = (&shown[0], &shown[1]);
    let ann = of("text", "ann");
    let expected = format!("SELECT {second} WHERE {first} = a AND b = {ann} AND $9 > {second}");
    assert_eq!(*named.with(&values), expected);
}

#[test]
fn a_long_list_is_cut_and_what_follows_it_is_not() {
    let list: Vec<String> = (0..200).map(|number| number.to_string()).collect();
    let text = format!("SELECT * FROM t WHERE id IN ({}) AND b = c", list.join(", "));
    let shown = seen(&text);
    assert!(shown.ends_with("?, ?) AND b = c"), "{shown}");
    assert_eq!(shown.matches("?number:").count(), TOKENS_MAX);
    let list: Vec<String> = (0..100_000).map(|number| format!("'ann{number}'")).collect();
    let shown = seen(&format!("SELECT * FROM t WHERE id IN ({}) AND b = ?", list.join(",\n")));
    assert!(shown.ends_with('…') && shown.chars().count() == TEXT_MAX + 1, "{shown}");
    // Parameters after as many values have no tokens either, nor has what was cut.
    let places = vec!["?"; 1_500].join(", ");
    let many = planned(&format!("SELECT {places}"), Some(tokens()));
    let shown = many.with(&vec![ScalarValue::from("ann"); 1_500]);
    assert_eq!(shown.matches(&of("text", "ann")).count(), TOKENS_MAX);
    assert!(shown.ends_with('…'));
}

/// A text that stands in quotes, in one of the ways to write it.
fn quoted(value: &str, way: usize) -> String {
    match way % 3 {
        0 => format!("'{}'", value.replace('\'', "''")),
        1 => format!("N'{}'", value.replace('\'', "''")),
        _ => format!("$quoted${value}$quoted$"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

    #[test]
    fn no_value_of_four_characters_is_in_a_text(
        value in "[g-zG-Z0-9@' äß]{4,40}",
        digits in 1_000_000_000_000_000_u64..,
        way in 0_usize..3,
    ) {
        let literal = quoted(&value, way);
        let text = format!("SELECT a FROM b WHERE c = {literal} AND d = {digits} AND e = ?");
        let planned = planned(&text, Some(tokens()));
        let bound = planned.with(&[ScalarValue::from(value.as_str())]);
        // A text of the statement's own words, such as ` FROM`, says nothing.
        let shapes = [bound.to_string(), refused(&text, Some(&tokens())), without_literals(&text)];
        let own = "SELECT a FROM b WHERE c = ? AND d = ? AND e = ?";
        for shown in shapes {
            prop_assert!(own.contains(&value) || !shown.contains(&value), "{}", shown);
            prop_assert!(!shown.contains(&digits.to_string()), "{}", shown);
        }
        let token = of("text", &value);
        prop_assert_eq!(bound.matches(&token).count(), 2);
        // Nothing of what is not closed is kept.
        let open = format!("SELECT a FROM b WHERE c = '{}", value.replace('\'', "''"));
        prop_assert_eq!(refused(&open, Some(&tokens())), "(no SQL)");
    }
}
