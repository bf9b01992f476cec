//! `redact(text)`: replaces what identifies a person in free text by what it was.
//!
//! E-mail addresses become `[EMAIL]`, payment card numbers `[CARD]` (13 to 19 digits with a valid
//! Luhn sum), bank accounts `[IBAN]` (the country's length and a valid ISO 7064 sum), IPv4
//! and IPv6 addresses `[IP]`, phone numbers `[PHONE]`. Time is linear in the text, whatever it
//! holds.
//!
//! Phone numbers have no check digit: where in doubt a number is replaced, so that an order number
//! of ten digits goes too. Names, addresses, spelled-out numbers and digits of other scripts
//! stay: this lessens what free text shows, it does not make it anonymous. NULL gives NULL.

use arrow::datatypes::DataType;
use datafusion_common::Result;
use datafusion_expr::{ColumnarValue, Documentation, ScalarFunctionArgs, ScalarUDFImpl};
use datafusion_expr::{Signature, Volatility};
use datafusion_macros::user_doc;

use super::arguments;
use super::redact_scan::{Span, find};

const NAME: &str = "redact";

/// The function `redact`.
#[user_doc(
    doc_section(label = "Privacy Functions"),
    description = "Replaces e-mail addresses, phone numbers, payment cards (Luhn), IBANs and IP \
addresses in free text by [EMAIL], [PHONE], [CARD], [IBAN] and [IP]. In doubt a number is \
replaced. Names and postal addresses stay.",
    syntax_example = "redact(text)",
    sql_example = r#"```sql
> SELECT redact('Write to ada@example.com or call +44 20 7946 0958.') AS note;
+-----------------------------------+
| note                              |
+-----------------------------------+
| Write to [EMAIL] or call [PHONE]. |
+-----------------------------------+
```"#,
    argument(name = "text", description = "Free text. NULL gives NULL.")
)]
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct Redact {
    signature: Signature,
}

impl Redact {
    /// The function.
    pub fn new() -> Self {
        let arguments = vec![arguments::text_coercion()];
        Self { signature: Signature::coercible(arguments, Volatility::Immutable) }
    }
}

impl Default for Redact {
    fn default() -> Self {
        Self::new()
    }
}

impl ScalarUDFImpl for Redact {
    fn name(&self) -> &str {
        NAME
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arg_types: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let texts = arguments::text_argument(NAME, &args, 0)?;
        let mut spans = vec![];
        arguments::text_rows(args.number_rows, texts.is_constant(), |row, out| {
            let Some(text) = texts.get(row) else { return Ok(false) };
            find(text, &mut spans);
            replace(text, &spans, out);
            Ok(true)
        })
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.doc()
    }
}

fn replace(text: &str, spans: &[Span], out: &mut String) {
    let mut from = 0;
    for span in spans {
        out.push_str(text.get(from..span.start).unwrap_or_default());
        out.push_str(span.kind.label());
        from = span.end;
    }
    out.push_str(text.get(from..).unwrap_or_default());
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::arguments::testing::{call, texts};
    use super::*;

    fn redact(text: &str) -> String {
        let (mut spans, mut out) = (vec![], String::new());
        find(text, &mut spans);
        replace(text, &spans, &mut out);
        out
    }

    fn check(cases: &[(&str, &str)]) {
        for (text, expected) in cases {
            assert_eq!(redact(text), *expected, "{text}");
        }
    }

    #[test]
    fn mail_addresses() {
        check(&[
            ("ada@example.com", "[EMAIL]"),
            ("Mail ada.l+tag@mail.example.co.uk, now.", "Mail [EMAIL], now."),
            ("<mailto:émile@bücher.de>", "<mailto:[EMAIL]>"),
            ("a@b.de,c@d.fr", "[EMAIL],[EMAIL]"),
            ("4111111111111111@example.com", "[EMAIL]"),
            ("end ada@example.com.", "end [EMAIL]."),
            ("@ada at home@ a@b", "@ada at home@ a@b"),
            ("a@b@c.de", "a@[EMAIL]"),
        ]);
    }

    #[test]
    fn cards_need_a_valid_sum() {
        check(&[
            ("card 4111 1111 1111 1111 cvv 123", "card [CARD] cvv 123"),
            ("4111-1111-1111-1111", "[CARD]"),
            ("x5500005555555559y", "x[CARD]y"),
            ("378282246310005 and 6011111111111117", "[CARD] and [CARD]"),
            ("4111 1111 1111 1111 123", "[CARD] 123"),
            ("id 41111111111111122", "id 41111111111111122"),
            // With a slip in it, it is a number in doubt, and none of it stays.
            ("4111 1111 1111 1112 on file", "[PHONE] on file"),
            ("4111-1111-1111-1112", "[PHONE]"),
        ]);
    }

    #[test]
    fn bank_accounts_need_length_and_sum() {
        check(&[
            ("IBAN DE89 3704 0044 0532 0130 00 thanks", "IBAN [IBAN] thanks"),
            ("GB82WEST12345698765432.", "[IBAN]."),
            ("fr1420041010050500013m02606", "[IBAN]"),
            ("no NO9386011117947", "no [IBAN]"),
        ]);
        assert!(!redact("DE88 3704 0044 0532 0130 00").contains("[IBAN]"));
        assert!(!redact("XX89370400440532013000").contains("[IBAN]"));
    }

    #[test]
    fn internet_addresses() {
        check(&[
            ("from 192.168.0.1:8080", "from [IP]:8080"),
            ("999.1.1.1 is none, 1.2.3.4.5 neither", "999.1.1.1 is none, 1.2.3.4.5 neither"),
            ("v6 2001:db8::8a2e:370:7334, ok", "v6 [IP], ok"),
            ("host:fe80::1 up", "host:[IP] up"),
            ("::1", "[IP]"),
            ("::ffff:10.0.0.1.", "[IP]."),
            ("at 12:30:45, std::fmt, a :: b", "at 12:30:45, std::fmt, a :: b"),
        ]);
    }

    #[test]
    fn phone_numbers() {
        check(&[
            ("call +44 20 7946 0958.", "call [PHONE]."),
            ("(555) 123-4567 or 555.123.4567", "[PHONE] or [PHONE]"),
            ("0301234567, 0151/23456789", "[PHONE], [PHONE]"),
            ("tel:+4915123456789;ext=5", "tel:[PHONE];ext=5"),
            ("555-1234 2 times", "[PHONE] 2 times"),
            ("1 800 555 1234", "[PHONE]"),
            ("tel +33 6 12 34 56 78, fax", "tel [PHONE], fax"),
            ("0033 6 12 34 56 78", "[PHONE]"),
            ("+33 (0)6 12 34 56 78.", "[PHONE]."),
            ("+1 2 3", "+1 2 3"),
        ]);
    }

    #[test]
    fn dates_amounts_and_codes_stay() {
        for text in [
            "on 2024-05-17 12:30",
            "17.05.2024",
            "5/17/2024",
            "1939-1945",
            "1.234.567,89",
            "1234567.89",
            "order 12345",
            "550e8400-e29b-41d4-a716-446655440000",
            "SKU-1234567890",
            "",
            "ünïcödé ✓ 12",
            "v1.2.3",
        ] {
            assert_eq!(redact(text), text);
        }
    }

    #[test]
    fn null_gives_null() {
        let rows = call(Redact::new(), vec![texts(&[None, Some("a@b.de")])]).unwrap();
        assert_eq!(rows, [None, Some("[EMAIL]".to_string())]);
    }

    #[test]
    fn long_hostile_text_takes_linear_time() {
        for unit in
            ["@", "a@", "1", "1 ", "1-", "a:", "::", "1.", "+(", "DE89 ", "a.", "(1", "é@é."]
        {
            let steps = |length: usize| {
                let text = unit.repeat(length / unit.len());
                let mut spans = vec![];
                super::super::redact_scan::counted(|| find(&text, &mut spans))
            };
            let (short, long) = (steps(2_000), steps(64_000));
            assert!(long <= short * 33 + 1_000, "{unit}: {short} steps, {long} at 32 times");
        }
    }

    proptest! {
        #[test]
        fn spans_are_ordered_and_what_is_outside_them_stays(
            text in "([a-c0-9@.:+() é-]|DE89 3704|4111 1111 1111 1111|a@b.de){0,40}",
        ) {
            let mut spans = vec![];
            find(&text, &mut spans);
            let mut from = 0;
            for span in &spans {
                prop_assert!(from <= span.start && span.start < span.end);
                prop_assert!(text.is_char_boundary(span.start) && text.is_char_boundary(span.end));
                from = span.end;
            }
            prop_assert!(from <= text.len());
        }

        #[test]
        fn addresses_and_cards_never_survive(before in "[a-z ]{0,9}", after in "[a-z ,]{0,9}") {
            let text = format!("{before} ada@example.com {after} 4111 1111 1111 1111 {after}");
            let redacted = redact(&text);
            prop_assert!(!redacted.contains("example") && !redacted.contains("1111"));
        }
    }
}
