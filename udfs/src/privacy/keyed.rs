//! Functions with a key: what each of them says of itself, and what all of them do alike.
//!
//! By its name alone a function is listed and documented, and refused when it is planned. A
//! statement gets one that holds the keys it may use.

use std::fmt;
use std::hash::Hash;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion_common::{Result, internal_err};
use datafusion_expr::{ColumnarValue, Documentation, ReturnFieldArgs, ScalarFunctionArgs};
use datafusion_expr::{ScalarUDFImpl, Signature};

use super::key::{self, KeySet};

/// A function with a key.
pub trait Keyed: fmt::Debug + Default + Eq + Hash + Send + Sync + Sized + 'static {
    /// Its name in SQL.
    const NAME: &'static str;

    /// What it is called with.
    fn signature() -> Signature;

    /// The type of what it gives.
    fn data_type(_args: &ReturnFieldArgs) -> DataType {
        DataType::Utf8
    }

    /// The types of arguments that its signature leaves to it.
    ///
    /// # Errors
    /// When it does not take such arguments, or its signature says which it takes.
    fn coerce_types(_arg_types: &[DataType]) -> Result<Vec<DataType>> {
        internal_err!("the signature of {} says what it takes", Self::NAME)
    }

    /// What it gives, while a call is planned.
    ///
    /// # Errors
    /// When the call names no key that was bound for this use, as a literal.
    fn planned(keys: Option<&Arc<KeySet>>, args: &ReturnFieldArgs) -> Result<FieldRef> {
        key::planned(Self::NAME, keys, args)?;
        Ok(Arc::new(Field::new(Self::NAME, Self::data_type(args), true)))
    }

    /// Computes a call.
    ///
    /// # Errors
    /// As [`planned`](Self::planned), and for values that it cannot take.
    fn call(keys: Option<&Arc<KeySet>>, args: &ScalarFunctionArgs) -> Result<ColumnarValue>;

    /// What users read of it.
    fn documentation(&self) -> Option<&Documentation>;

    /// The function by name alone: listed and documented, refused when planned.
    fn unbound() -> KeyedFunction<Self> {
        KeyedFunction::new(None)
    }

    /// The function with the keys of one statement.
    fn bound(keys: Arc<KeySet>) -> KeyedFunction<Self> {
        KeyedFunction::new(Some(keys))
    }
}

/// A function, with the keys of one statement or with none.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct KeyedFunction<F> {
    function: F,
    signature: Signature,
    keys: Option<Arc<KeySet>>,
}

impl<F: Keyed> KeyedFunction<F> {
    fn new(keys: Option<Arc<KeySet>>) -> Self {
        Self { function: F::default(), signature: F::signature(), keys }
    }
}

impl<F: Keyed> ScalarUDFImpl for KeyedFunction<F> {
    fn name(&self) -> &str {
        F::NAME
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arg_types: &[DataType]) -> Result<DataType> {
        internal_err!("{} answers through return_field_from_args", F::NAME)
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        F::planned(self.keys.as_ref(), &args)
    }

    fn coerce_types(&self, arg_types: &[DataType]) -> Result<Vec<DataType>> {
        F::coerce_types(arg_types)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        F::call(self.keys.as_ref(), &args)
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.function.documentation()
    }
}
