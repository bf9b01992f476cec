//! `mask_email(text)`: covers the local part of an e-mail address.
//!
//! `ada@example.com` becomes `a***@example.com`: the first character, three asterisks whatever the
//! length, and the domain. A local part of one character is covered whole. What is no e-mail
//! address becomes `***`, so that nothing unrecognized passes. NULL gives NULL. The domain stays
//! visible, and may itself name a person.

use arrow::datatypes::DataType;
use datafusion_common::Result;
use datafusion_expr::{ColumnarValue, Documentation, ScalarFunctionArgs, ScalarUDFImpl};
use datafusion_expr::{Signature, Volatility};
use datafusion_macros::user_doc;

use super::arguments;

const NAME: &str = "mask_email";

const COVER: &str = "***";

/// The function `mask_email`.
#[user_doc(
    doc_section(label = "Privacy Functions"),
    description = "Covers the local part of an e-mail address but for its first character; its \
length is not shown. Text that is no e-mail address is covered whole.",
    syntax_example = "mask_email(text)",
    sql_example = r#"```sql
> SELECT mask_email('ada.lovelace@example.com') AS email;
+------------------+
| email            |
+------------------+
| a***@example.com |
+------------------+
```"#,
    argument(name = "text", description = "E-mail address. NULL gives NULL.")
)]
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct MaskEmail {
    signature: Signature,
}

impl MaskEmail {
    /// The function.
    pub fn new() -> Self {
        let arguments = vec![arguments::text_coercion()];
        Self { signature: Signature::coercible(arguments, Volatility::Immutable) }
    }
}

impl Default for MaskEmail {
    fn default() -> Self {
        Self::new()
    }
}

impl ScalarUDFImpl for MaskEmail {
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
        arguments::text_rows(args.number_rows, texts.is_constant(), |row, out| {
            let Some(text) = texts.get(row) else { return Ok(false) };
            mask_address(text.trim(), out);
            Ok(true)
        })
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.doc()
    }
}

fn mask_address(address: &str, out: &mut String) {
    let Some((local, domain)) = address.split_once('@').filter(|(local, domain)| {
        is_word(local) && is_word(domain) && domain.contains('.') && !domain.contains('@')
    }) else {
        out.push_str(COVER);
        return;
    };
    let mut characters = local.chars();
    if let (Some(first), Some(_)) = (characters.next(), characters.next()) {
        out.push(first);
    }
    out.push_str(COVER);
    out.push('@');
    out.push_str(domain);
}

/// No blank, quote or bracket: `Ada <ada@example.com>` must not show the name.
fn is_word(text: &str) -> bool {
    let strange = |c: char| c.is_whitespace() || c.is_control() || "\"<>(),;:\\[]".contains(c);
    !text.is_empty() && !text.contains(strange)
}

#[cfg(test)]
mod tests {
    use super::super::arguments::testing::{call, one, text, texts};
    use super::*;

    #[test]
    fn keeps_one_character_and_the_domain() {
        for (address, masked) in [
            ("ada@example.com", "a***@example.com"),
            ("a.very.long.one+tag@mail.example.co.uk", "a***@mail.example.co.uk"),
            ("a@example.com", "***@example.com"),
            ("émile@example.fr", "é***@example.fr"),
            (" ada@example.com ", "a***@example.com"),
            ("ada@bücher.de", "a***@bücher.de"),
        ] {
            assert_eq!(one(MaskEmail::new(), vec![text(address)]).unwrap(), masked);
        }
    }

    #[test]
    fn what_is_no_address_is_covered_whole() {
        for other in [
            "",
            "ada",
            "ada@",
            "@example.com",
            "ada@localhost",
            "a@b@c.de",
            "Ada <ada@example.com>",
            "ada@example.com, bob@example.com",
            "+49 151 234",
        ] {
            assert_eq!(one(MaskEmail::new(), vec![text(other)]).unwrap(), "***", "{other}");
        }
        assert_eq!(call(MaskEmail::new(), vec![texts(&[None])]).unwrap(), [None]);
    }
}
