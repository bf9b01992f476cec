//! `bloom_similarity(a, b)`: how alike two texts are by their encodings.
//!
//! Twice the bits that the two share over all bits that they have (Dice 1945), 0 to 1. NULL for
//! NULL; a text that is no encoding of `bloom_encode`, and encodings under different keys, are
//! errors.

use arrow::array::Float64Array;
use arrow::datatypes::DataType;
use datafusion_common::{Result, ScalarValue, exec_err};
use datafusion_expr::{ColumnarValue, Documentation, ScalarFunctionArgs, ScalarUDFImpl};
use datafusion_expr::{Signature, Volatility};
use datafusion_macros::user_doc;

use super::{arguments, bloom};
use crate::text::Text;

const NAME: &str = "bloom_similarity";

/// The function `bloom_similarity`.
#[user_doc(
    doc_section(label = "Privacy Functions"),
    description = "How alike two texts are that `bloom_encode` has encoded under one key: twice the \
bits that both have, divided by the bits of each; from 0 to 1.",
    syntax_example = "bloom_similarity(a, b)",
    sql_example = r#"```sql
> SELECT bloom_similarity(bloom_encode('Müller', 'demo'), bloom_encode('MULLER', 'demo')) AS alike;
+-------+
| alike |
+-------+
| 1.0   |
+-------+
```"#,
    argument(name = "a", description = "An encoding."),
    argument(name = "b", description = "The encoding to compare it with.")
)]
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct BloomSimilarity {
    signature: Signature,
}

impl Default for BloomSimilarity {
    fn default() -> Self {
        let text = arguments::text_coercion();
        Self { signature: Signature::coercible(vec![text.clone(), text], Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for BloomSimilarity {
    fn name(&self) -> &str {
        NAME
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arg_types: &[DataType]) -> Result<DataType> {
        Ok(DataType::Float64)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let left = Text::from_argument(NAME, arguments::argument(NAME, &args, 0)?)?;
        let right = Text::from_argument(NAME, arguments::argument(NAME, &args, 1)?)?;
        let alike = |row: usize| match (left.get(row), right.get(row)) {
            (Some(left), Some(right)) => similarity(left, right).map(Some),
            _ => Ok(None),
        };
        if left.is_constant() && right.is_constant() {
            return Ok(ColumnarValue::Scalar(ScalarValue::Float64(alike(0)?)));
        }
        let values: Result<Float64Array> = (0..args.number_rows).map(alike).collect();
        Ok(ColumnarValue::Array(std::sync::Arc::new(values?)))
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.doc()
    }
}

fn similarity(left: &str, right: &str) -> Result<f64> {
    let (Some((key, left)), Some((other, right))) = (bloom::parse(left), bloom::parse(right))
    else {
        return exec_err!(
            "{NAME} compares what bloom_encode has encoded, and a text is no such encoding. Hint: \
             encode both sides first"
        );
    };
    if key != other {
        return exec_err!(
            "{NAME}: the two texts were encoded under the keys {key} and {other}. Hint: encode \
             both under one key"
        );
    }
    Ok(bloom::dice(&left, &right))
}
