//! Sealed values: what `encrypt` and `encrypt_deterministic` give and `decrypt` and `rekey` take.
//!
//! A sealed value is `<key id>.<mode>.<payload>`. The id is that of the generation that sealed it.
//! The mode is `r` (randomized: the payload is a nonce of 16 bytes, then what AES-256-SIV makes
//! under it), `d` (deterministic: the same without a nonce), `k` (a data key, randomized) or `c` (a
//! consent token, randomized). Text
//! becomes text, the payload as base64url without padding (RFC 4648); bytes become bytes, the
//! payload as it is.
//!
//! AES-SIV is RFC 5297: with a nonce it is authenticated encryption that a repeated nonce does not
//! break, without one it is deterministic and shows which values are equal. The associated data
//! are everything in front of the payload, the word `text` or `binary`, and the nonce: no part of
//! one sealed value can be put into another, and what was sealed as bytes opens as bytes only.
//! The length of a value stays visible. NULL is not sealed.

use std::borrow::Cow;

use aes_siv::KeyInit;
use aes_siv::siv::Aes256Siv;
use arrow::array::{Array, AsArray, BinaryArray, BinaryBuilder};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use datafusion_common::{Result, ScalarValue, exec_err};
use datafusion_expr::{Coercion, ColumnarValue, ReturnFieldArgs, Signature, TypeSignature};
use datafusion_expr::{TypeSignatureClass, Volatility};

use super::arguments;
use super::key::{KEY_ID_CHARACTERS_MAX, Key, KeyRing, Mode};
use crate::text::Text;

/// Bytes of a nonce.
const NONCE_BYTES: usize = 16;

/// The nonce of values sealed without one.
pub(super) const NO_NONCE: [u8; NONCE_BYTES] = [0; NONCE_BYTES];

/// What values are before and after: text or bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// Text.
    Text,
    /// Bytes.
    Binary,
}

impl Form {
    /// The form of values of a type.
    pub(super) fn of(data_type: &DataType) -> Self {
        match data_type {
            DataType::Binary
            | DataType::LargeBinary
            | DataType::BinaryView
            | DataType::FixedSizeBinary(_) => Self::Binary,
            _ => Self::Text,
        }
    }

    /// The form of a call's first argument.
    pub(super) fn planned(args: &ReturnFieldArgs) -> Self {
        args.arg_fields.first().map_or(Self::Text, |field| Self::of(field.data_type()))
    }

    /// The type of an answer of this form.
    pub(super) fn data_type(self) -> DataType {
        match self {
            Self::Text => DataType::Utf8,
            Self::Binary => DataType::Binary,
        }
    }

    fn label(self) -> &'static [u8] {
        match self {
            Self::Text => b"text",
            Self::Binary => b"binary",
        }
    }
}

/// A value of text or bytes, then `texts` arguments of text.
pub(super) fn signature(texts: usize, volatility: Volatility) -> Signature {
    let with = |value: Coercion| {
        let more = std::iter::repeat_n(arguments::text_coercion(), texts);
        TypeSignature::Coercible(std::iter::once(value).chain(more).collect())
    };
    let binary = Coercion::new_exact(TypeSignatureClass::Binary);
    Signature::one_of(vec![with(arguments::text_coercion()), with(binary)], volatility)
}

/// The values of an argument of text or bytes, by row; `None` is NULL.
#[derive(Debug)]
pub(super) enum Values {
    /// Text.
    Text(Text),
    /// Bytes, one value a row.
    Rows(BinaryArray),
    /// The same bytes on every row.
    Constant(Option<Vec<u8>>),
}

impl Values {
    /// Reads an argument.
    ///
    /// # Errors
    /// When it is neither text nor bytes.
    pub(super) fn from_argument(function: &str, value: &ColumnarValue) -> Result<Self> {
        if Form::of(&value.data_type()) == Form::Text {
            return Ok(Self::Text(Text::from_argument(function, value)?));
        }
        match value {
            ColumnarValue::Array(array) => {
                Ok(Self::Rows(cast(array, &DataType::Binary)?.as_binary::<i32>().clone()))
            }
            ColumnarValue::Scalar(scalar) => {
                let array = cast(&scalar.to_array()?, &DataType::Binary)?;
                let array = array.as_binary::<i32>();
                let known = !array.is_empty() && array.is_valid(0);
                Ok(Self::Constant(known.then(|| array.value(0).to_vec())))
            }
        }
    }

    /// The form of the values.
    pub(super) fn form(&self) -> Form {
        match self {
            Self::Text(_) => Form::Text,
            Self::Rows(_) | Self::Constant(_) => Form::Binary,
        }
    }

    /// Whether one value stands for every row.
    pub(super) fn is_constant(&self) -> bool {
        match self {
            Self::Text(text) => text.is_constant(),
            Self::Rows(_) => false,
            Self::Constant(_) => true,
        }
    }

    fn get(&self, row: usize) -> Option<&[u8]> {
        match self {
            Self::Text(text) => text.get(row).map(str::as_bytes),
            Self::Rows(array) => array.is_valid(row).then(|| array.value(row)),
            Self::Constant(value) => value.as_deref(),
        }
    }

    /// The answer in the form of the values: `change(row, value, answer)` writes into the empty
    /// answer and says whether the row has one at all. With `once` it is asked for one row, and
    /// its answer stands for all.
    ///
    /// # Errors
    /// Those of `change`, and when an answer of text is none.
    pub(super) fn map(
        &self,
        function: &str,
        rows: usize,
        once: bool,
        mut change: impl FnMut(usize, &[u8], &mut Vec<u8>) -> Result<bool>,
    ) -> Result<ColumnarValue> {
        let mut made = Vec::new();
        let mut answer = |row: usize, made: &mut Vec<u8>| {
            made.clear();
            self.get(row).map_or(Ok(false), |value| change(row, value, made))
        };
        if self.form() == Form::Text {
            return arguments::text_rows(rows, once, |row, text| {
                let known = answer(row, &mut made)?;
                match std::str::from_utf8(&made) {
                    Ok(made) => text.push_str(made),
                    Err(_) => return exec_err!("{function}: a value is no text"),
                }
                Ok(known)
            });
        }
        if once {
            let known = answer(0, &mut made)?;
            return Ok(ColumnarValue::Scalar(ScalarValue::Binary(known.then_some(made))));
        }
        let mut builder = BinaryBuilder::with_capacity(rows, rows.saturating_mul(64));
        for row in 0..rows {
            match answer(row, &mut made)? {
                true => builder.append_value(&made),
                false => builder.append_null(),
            }
        }
        Ok(ColumnarValue::Array(std::sync::Arc::new(builder.finish())))
    }
}

fn letter(mode: Mode) -> char {
    match mode {
        Mode::Randomized => 'r',
        Mode::Deterministic => 'd',
        Mode::DataKey => 'k',
        Mode::Consent => 'c',
    }
}

/// One generation of a key in one mode, for the values of one batch.
pub(super) struct Sealer {
    header: String,
    mode: Mode,
    form: Form,
    cipher: Aes256Siv,
}

impl Sealer {
    /// A sealer of values of `form` under `key`.
    pub(super) fn new(key: &Key, mode: Mode, form: Form) -> Self {
        let header = format!("{}.{}.", key.id(), letter(mode));
        Self { header, mode, form, cipher: Aes256Siv::new(&(*key.siv_key(mode)).into()) }
    }

    /// Appends `value`, sealed; deterministic sealing leaves the nonce out.
    ///
    /// # Errors
    /// When the cipher refuses the value, as one longer than it takes.
    pub(super) fn seal(
        &mut self,
        value: &[u8],
        nonce: &[u8; NONCE_BYTES],
        sealed: &mut Vec<u8>,
    ) -> Result<()> {
        let (header, label) = (self.header.as_bytes(), self.form.label());
        let front: &[u8] = match self.mode {
            Mode::Deterministic => &[],
            Mode::Randomized | Mode::DataKey | Mode::Consent => nonce,
        };
        let body = match self.mode {
            Mode::Deterministic => self.cipher.encrypt([header, label], value),
            Mode::Randomized | Mode::DataKey | Mode::Consent => {
                self.cipher.encrypt([header, label, front], value)
            }
        };
        let Ok(body) = body else { return exec_err!("a value cannot be sealed") };
        sealed.extend_from_slice(header);
        match self.form {
            Form::Binary => {
                sealed.extend_from_slice(front);
                sealed.extend_from_slice(&body);
            }
            Form::Text => {
                let payload = URL_SAFE_NO_PAD.encode([front, &body].concat());
                sealed.extend_from_slice(payload.as_bytes());
            }
        }
        Ok(())
    }

    /// Opens what this seals; `None` when it is nothing of the kind, or was changed.
    fn open(&mut self, payload: &[u8]) -> Option<Opened> {
        let (header, label) = (self.header.as_bytes(), self.form.label());
        let (nonce, opened) = match self.mode {
            Mode::Deterministic => (NO_NONCE, self.cipher.decrypt([header, label], payload)),
            Mode::Randomized | Mode::DataKey | Mode::Consent => {
                let (nonce, body) = payload.split_first_chunk::<NONCE_BYTES>()?;
                (*nonce, self.cipher.decrypt([header, label, nonce.as_slice()], body))
            }
        };
        Some(Opened { mode: self.mode, nonce, value: opened.ok()? })
    }
}

/// What was sealed, and how.
pub(super) struct Opened {
    pub(super) mode: Mode,
    pub(super) nonce: [u8; NONCE_BYTES],
    pub(super) value: Vec<u8>,
}

/// All generations of a key in some modes, for the values of one batch.
pub(super) struct Opener {
    function: &'static str,
    name: String,
    form: Form,
    /// The newest generation's first.
    sealers: Vec<Sealer>,
    modes: usize,
}

impl Opener {
    /// An opener of values of `form` that were sealed under any generation of a key.
    pub(super) fn new(function: &'static str, ring: &KeyRing, modes: &[Mode], form: Form) -> Self {
        let every = ring.generations().flat_map(|key| modes.iter().map(move |mode| (key, *mode)));
        Self {
            function,
            name: ring.newest().name().to_owned(),
            form,
            sealers: every.map(|(key, mode)| Sealer::new(key, mode, form)).collect(),
            modes: modes.len(),
        }
    }

    /// Whether a value says that the newest generation sealed it.
    pub(super) fn is_newest(&self, value: &[u8]) -> bool {
        let newest = self.sealers.iter().take(self.modes);
        header_of(value).is_some_and(|header| newest.clone().any(|sealer| sealer.is(header)))
    }

    /// What was sealed.
    ///
    /// # Errors
    /// When the value is not sealed, was sealed under another key or a retired generation, or was
    /// changed since. No error shows a value or a part of it.
    pub(super) fn open(&mut self, value: &[u8]) -> Result<Opened> {
        let function = self.function;
        let (payload, header) = match (header_of(value), self.form) {
            (Some(header), Form::Binary) => (Cow::Borrowed(&value[header.len()..]), header),
            (Some(header), Form::Text) => match URL_SAFE_NO_PAD.decode(&value[header.len()..]) {
                Ok(payload) => (Cow::Owned(payload), header),
                Err(_) => return not_sealed(function),
            },
            (None, _) => return not_sealed(function),
        };
        let Some(sealer) = self.sealers.iter_mut().find(|sealer| sealer.is(header)) else {
            return self.another_key();
        };
        match sealer.open(&payload) {
            Some(opened) => Ok(opened),
            None => exec_err!(
                "{function}: a value was changed since key '{}' sealed it, or the key has another \
                 secret now. Hint: restore the value, or the secret of that generation",
                self.name
            ),
        }
    }

    fn another_key<T>(&self) -> Result<T> {
        let ids: Vec<&str> =
            self.sealers.iter().step_by(self.modes.max(1)).map(Sealer::id).collect();
        exec_err!(
            "{}: a value was sealed under another key, in another way, or by a generation that is \
             retired; key '{}' has {}. Hint: the id of the generation that sealed a value stands \
             in front of its first '.'",
            self.function,
            self.name,
            ids.join(", ")
        )
    }
}

impl Sealer {
    fn is(&self, header: &[u8]) -> bool {
        self.header.as_bytes() == header
    }

    fn id(&self) -> &str {
        self.header.split('.').next().unwrap_or_default()
    }
}

fn not_sealed<T>(function: &str) -> Result<T> {
    if function == super::consent_open::NAME {
        return exec_err!(
            "{function}: a value is nothing that consent_seal gave. Hint: leave out the rows that \
             hold something else"
        );
    }
    exec_err!(
        "{function}: a value is nothing that encrypt gave. Hint: leave out the rows whose value is \
         not encrypted yet"
    )
}

/// What stands in front of the payload: `<key id>.<mode>.`.
fn header_of(value: &[u8]) -> Option<&[u8]> {
    let dot = value.iter().take(KEY_ID_CHARACTERS_MAX + 1).position(|byte| *byte == b'.')?;
    let header = value.get(..dot + 3)?;
    header.ends_with(b".").then_some(header)
}

#[cfg(test)]
#[path = "seal_tests.rs"]
mod tests;
