//! `mask_phone(text)`: covers a phone number but for its last digits.
//!
//! Letters and digits become `*`; blanks and punctuation stay, so the form is still that of a phone
//! number. Of ten digits or more the last four stay, of seven to nine the last two, of fewer
//! none. Digits are counted in any script. NULL gives NULL. Four digits of a number tell two
//! customers of a shop apart almost always: this hides the number, it does not make anonymous.

use arrow::datatypes::DataType;
use datafusion_common::Result;
use datafusion_expr::{ColumnarValue, Documentation, ScalarFunctionArgs, ScalarUDFImpl};
use datafusion_expr::{Signature, Volatility};
use datafusion_macros::user_doc;

use super::arguments;

const NAME: &str = "mask_phone";

/// The function `mask_phone`.
#[user_doc(
    doc_section(label = "Privacy Functions"),
    description = "Covers a phone number but for its last four digits (the last two of seven to \
nine digits, none of fewer). Blanks and punctuation stay.",
    syntax_example = "mask_phone(text)",
    sql_example = r#"```sql
> SELECT mask_phone('+49 (151) 2345-6789') AS phone;
+---------------------+
| phone               |
+---------------------+
| +** (***) ****-6789 |
+---------------------+
```"#,
    argument(name = "text", description = "Phone number. NULL gives NULL.")
)]
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct MaskPhone {
    signature: Signature,
}

impl MaskPhone {
    /// The function.
    pub fn new() -> Self {
        let arguments = vec![arguments::text_coercion()];
        Self { signature: Signature::coercible(arguments, Volatility::Immutable) }
    }
}

impl Default for MaskPhone {
    fn default() -> Self {
        Self::new()
    }
}

impl ScalarUDFImpl for MaskPhone {
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
            mask_number(text, out);
            Ok(true)
        })
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.doc()
    }
}

fn mask_number(text: &str, out: &mut String) {
    let digits = text.chars().filter(|c| c.is_numeric()).count();
    let kept = match digits {
        10.. => 4,
        7..=9 => 2,
        _ => 0,
    };
    let mut seen = 0;
    for character in text.chars() {
        if character.is_numeric() {
            seen += 1;
            out.push(if seen > digits - kept { character } else { '*' });
        } else if character.is_alphanumeric() {
            out.push('*');
        } else {
            out.push(character);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::arguments::testing::{call, one, text, texts};
    use super::*;

    #[test]
    fn keeps_the_last_digits_and_the_form() {
        for (number, masked) in [
            ("+49 (151) 2345-6789", "+** (***) ****-6789"),
            ("5551234567", "******4567"),
            ("555-1234", "***-**34"),
            ("12345", "*****"),
            ("1-800-FLOWERS", "*-***-*******"),
            ("٠١٢٣٤٥٦٧٨٩", "******٦٧٨٩"),
            ("Zoë", "***"),
            ("", ""),
        ] {
            assert_eq!(one(MaskPhone::new(), vec![text(number)]).unwrap(), masked);
        }
        assert_eq!(call(MaskPhone::new(), vec![texts(&[None])]).unwrap(), [None]);
    }
}
