//! `pseudonymize(value, 'key')`: a stable, joinable stand-in for an identifier.
//!
//! The token is `<key id>.<32 hexadecimal digits>`, the first 128 bits of HMAC-SHA-256 (RFC 2104)
//! of the value's UTF-8 bytes under the key's sub-key for pseudonyms. 128 bits keep the chance of
//! any collision among a billion values below 10^-20; hexadecimal survives tools that fold case.
//! The same value under the same key is the same token in every table, so tokens join; the
//! id in front says which generation of the key made it, so keys can rotate.
//!
//! Integers are hashed as their decimal text: 42 and '42' agree. Text is hashed as it is: apply
//! `normalize_email` and the like first where spellings differ. Fractions are refused because
//! 1 and 1.0 would differ. NULL in, NULL out; the empty text has a token like any other.

use std::fmt::Write;
use std::sync::Arc;

use datafusion_common::Result;
use datafusion_expr::{Coercion, ColumnarValue, Documentation};
use datafusion_expr::{ScalarFunctionArgs, Signature, TypeSignature};
use datafusion_expr::{TypeSignatureClass, Volatility};
use datafusion_macros::user_doc;
use hmac::{Hmac, Mac};
use sha2::Sha256;

use super::arguments::{self, Identifiers};
use super::key::{self, Key, KeySet};
use super::keyed::Keyed;

const NAME: &str = "pseudonymize";

/// How many bytes of the MAC a token shows.
const TOKEN_BYTES: usize = 16;

/// The function `pseudonymize`, with the keys of one statement or with none.
#[user_doc(
    doc_section(label = "Privacy Functions"),
    description = "Replaces an identifier by a token that is the same wherever the same identifier \
stands under the same key, so that tables still join: HMAC-SHA-256, shown as \
`<key id>.<32 hexadecimal digits>`. Integers count as their decimal text. Whoever holds the key \
can recompute tokens: this is pseudonymization, not anonymization.",
    syntax_example = "pseudonymize(value, 'key')",
    sql_example = r#"```sql
> SELECT pseudonymize('ada@example.com', 'demo') AS token;
+-------------------------------------------+
| token                                     |
+-------------------------------------------+
| 13797227.18aa9ab6b5c7fd61938de171ff2920ab |
+-------------------------------------------+
```"#,
    argument(name = "value", description = "Text or integer identifier. NULL gives NULL."),
    argument(name = "key", description = "Name of a key that you may use, as a literal.")
)]
#[derive(Debug, Default, PartialEq, Eq, Hash)]
pub struct Pseudonymize;

/// The pseudonym of an identifier's text under a generation of a key.
///
/// # Errors
/// When the key cannot be used.
pub fn pseudonym(key: &Key, value: &str) -> Result<String> {
    let mut token = String::new();
    shown(key, key.pseudonym_mac()?, value, &mut token)?;
    Ok(token)
}

fn shown(key: &Key, mut mac: Hmac<Sha256>, value: &str, token: &mut String) -> Result<()> {
    mac.update(value.as_bytes());
    token.push_str(key.id());
    token.push('.');
    for byte in mac.finalize().into_bytes().iter().take(TOKEN_BYTES) {
        write!(token, "{byte:02x}")?;
    }
    Ok(())
}

impl Keyed for Pseudonymize {
    const NAME: &'static str = NAME;

    fn signature() -> Signature {
        let text = arguments::text_coercion();
        let integer = Coercion::new_exact(TypeSignatureClass::Integer);
        Signature::one_of(
            vec![
                TypeSignature::Coercible(vec![text.clone(), text.clone()]),
                TypeSignature::Coercible(vec![integer, text]),
            ],
            Volatility::Immutable,
        )
    }

    fn call(keys: Option<&Arc<KeySet>>, args: &ScalarFunctionArgs) -> Result<ColumnarValue> {
        let values = Identifiers::from_argument(NAME, arguments::argument(NAME, args, 0)?)?;
        let key = key::called(NAME, keys, args)?;
        let mac = key.pseudonym_mac()?;
        arguments::text_rows(args.number_rows, values.is_constant(), |row, token| {
            let made = values.with(row, |value| shown(key, mac.clone(), value, token));
            made.transpose().map(|made| made.is_some())
        })
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.doc()
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{Int8Array, UInt64Array};
    use datafusion_common::ScalarValue;

    use super::super::arguments::testing::{call, int, one, text, texts};
    use super::super::key::tests::demo_keys;
    use super::*;

    fn token(value: ColumnarValue, key: &str) -> Option<String> {
        one(Pseudonymize::bound(demo_keys()), vec![value, text(key)])
    }

    #[test]
    fn tokens_are_those_of_an_independent_hmac() {
        // Python: hmac(hmac(b'a' * 32, b'attune/pseudonymize/v1'), value), with sha256.
        assert_eq!(
            token(text("ada@example.com"), "demo").unwrap(),
            "13797227.18aa9ab6b5c7fd61938de171ff2920ab"
        );
    }

    #[test]
    fn the_pseudonym_of_a_text_is_that_of_a_statement() {
        let keys = demo_keys();
        let ring = keys.get("demo", key::KeyUse::Pseudonymize).unwrap();
        let made = pseudonym(ring.newest(), "ada@example.com").unwrap();
        assert_eq!(Some(made), token(text("ada@example.com"), "demo"));
    }

    #[test]
    fn integers_and_their_text_agree_in_every_width() {
        let expected = token(text("42"), "demo");
        assert_eq!(token(int(42), "demo"), expected);
        let small = ColumnarValue::Array(Arc::new(Int8Array::from(vec![42, -1])));
        let rows = call(Pseudonymize::bound(demo_keys()), vec![small, text("demo")]).unwrap();
        assert_eq!(rows[0], expected);
        assert_eq!(rows[1], token(text("-1"), "demo"));
        let large = ColumnarValue::Array(Arc::new(UInt64Array::from(vec![u64::MAX])));
        let rows = call(Pseudonymize::bound(demo_keys()), vec![large, text("demo")]).unwrap();
        assert_eq!(rows[0], token(text("18446744073709551615"), "demo"));
        assert_eq!(token(int(i64::MIN), "demo"), token(text("-9223372036854775808"), "demo"));
    }

    #[test]
    fn values_and_keys_are_told_apart() {
        let tokens = [
            token(text("a"), "demo"),
            token(text("A"), "demo"),
            token(text(""), "demo"),
            token(text("é"), "demo"),
            token(text("a"), "other"),
        ];
        for (i, left) in tokens.iter().enumerate() {
            assert_eq!(left.as_ref().unwrap().len(), 41);
            assert!(tokens.iter().skip(i + 1).all(|right| left != right));
        }
    }

    #[test]
    fn null_gives_null() {
        let rows = texts(&[None, Some("x")]);
        let tokens = call(Pseudonymize::bound(demo_keys()), vec![rows, text("demo")]).unwrap();
        assert!(tokens[0].is_none() && tokens[1].is_some());
        assert_eq!(token(ColumnarValue::Scalar(ScalarValue::Null), "demo"), None);
    }

    #[test]
    fn what_cannot_be_planned_says_why() {
        let error = |function: super::super::keyed::KeyedFunction<Pseudonymize>,
                     key: ColumnarValue| {
            call(function, vec![text("x"), key]).unwrap_err().to_string()
        };
        let unbound = error(Pseudonymize::unbound(), text("demo"));
        assert!(unbound.contains("no key bound"), "{unbound}");
        let unknown = error(Pseudonymize::bound(demo_keys()), text("nope"));
        assert!(unknown.contains("unknown key 'nope'") && !unknown.contains("demo"), "{unknown}");
        let column = error(Pseudonymize::bound(demo_keys()), texts(&[Some("demo")]));
        assert!(column.contains("must be a literal"), "{column}");
        let null = ColumnarValue::Scalar(ScalarValue::Utf8(None));
        let null = error(Pseudonymize::bound(demo_keys()), null);
        assert!(null.contains("must be text"), "{null}");
    }
}
