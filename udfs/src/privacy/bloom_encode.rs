//! `bloom_encode(text, 'key')`: a text as a keyed Bloom filter of its pairs of letters, so that two
//! parties can find out whom both know by likeness and neither reads the other's names.
//!
//! What it is, and how it is shown: [`super::bloom`]. NULL for NULL and for a text without letters
//! and digits. Who holds the key can try names; who does not can still count how often encodings
//! and bits come, and guess common names from it: exchange encodings, not the key, and keep them.

use std::sync::Arc;

use datafusion_common::Result;
use datafusion_expr::{ColumnarValue, Documentation};
use datafusion_expr::{ScalarFunctionArgs, Signature, Volatility};
use datafusion_macros::user_doc;

use super::key::{self, KeySet};
use super::keyed::Keyed;
use super::{arguments, bloom};
use crate::text::Text;

const NAME: &str = "bloom_encode";

/// The function `bloom_encode`, with the keys of one statement or with none.
#[user_doc(
    doc_section(label = "Privacy Functions"),
    description = "Encodes a text so that it can be compared by likeness and not read: a Bloom \
filter of 512 bits over its pairs of letters under a key, shown as `<key id>.<128 hexadecimal \
digits>`. Case, accents and signs do not count. Compare with `bloom_similarity`, or link records \
by it with `model_type = 'entity_resolution'`. NULL when the text has neither letters nor digits.",
    syntax_example = "bloom_encode(text, 'key')",
    sql_example = r#"```sql
> SELECT length(bloom_encode('Müller', 'demo')) AS length;
+--------+
| length |
+--------+
| 137    |
+--------+
```"#,
    argument(name = "text", description = "What nobody is to read, such as a name."),
    argument(name = "key", description = "Name of a key that you may use, as a literal.")
)]
#[derive(Debug, Default, PartialEq, Eq, Hash)]
pub struct BloomEncode;

impl Keyed for BloomEncode {
    const NAME: &'static str = NAME;

    fn signature() -> Signature {
        let text = arguments::text_coercion();
        Signature::coercible(vec![text.clone(), text], Volatility::Immutable)
    }

    fn call(keys: Option<&Arc<KeySet>>, args: &ScalarFunctionArgs) -> Result<ColumnarValue> {
        let texts = Text::from_argument(NAME, arguments::argument(NAME, args, 0)?)?;
        let key = key::called(NAME, keys, args)?;
        let mac = key.bloom_mac()?;
        arguments::text_rows(args.number_rows, texts.is_constant(), |row, shown| {
            let bits = texts.get(row).and_then(|text| bloom::encoded(text, &mac));
            let Some(bits) = bits else { return Ok(false) };
            bloom::show(key.id(), &bits, shown)?;
            Ok(true)
        })
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.doc()
    }
}

#[cfg(test)]
mod tests {
    use super::super::arguments::testing::{one, text};
    use super::super::bloom::{dice, parse};
    use super::super::key::tests::demo_keys;
    use super::*;

    fn bits(name: &str, key: &str) -> [u64; 8] {
        let shown = one(BloomEncode::bound(demo_keys()), vec![text(name), text(key)]).unwrap();
        parse(&shown).unwrap().1
    }

    #[test]
    fn likeness_outlives_the_encoding() {
        let of = |a: &str, b: &str| dice(&bits(a, "demo"), &bits(b, "demo"));
        assert_eq!(of("Müller", "MULLER"), 1.0);
        assert!(of("schneider", "schnieder") > 0.6);
        assert!(of("schneider", "schneidr") > of("schneider", "snyder"));
        assert!(of("schneider", "wolf") < 0.4);
        assert_ne!(bits("wolf", "demo"), bits("wolf", "other"));
        assert!(one(BloomEncode::bound(demo_keys()), vec![text(" - "), text("demo")]).is_none());
    }
}
