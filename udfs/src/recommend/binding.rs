//! Models as bound values: what a statement's functions hold, and how they are found by name.
//!
//! A function is made for one statement with the models that the statement names. Debug output,
//! comparison and hashing show `name@version`, never the content.

use std::collections::BTreeMap;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use datafusion_common::{Result, ScalarValue, exec_err, plan_err};
use datafusion_expr::{ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs};

use crate::consent::ConsentSet;
use crate::model::{Model, Recommender};

/// One version of a model under its full name.
pub struct BoundModel {
    name: String,
    version: u32,
    model: Arc<Model>,
    /// Who consents to being asked about.
    consents: Vec<Arc<ConsentSet>>,
}

impl BoundModel {
    /// A loaded model.
    pub fn new(name: String, version: u32, model: Arc<Model>) -> Self {
        Self { name, version, model, consents: vec![] }
    }

    /// The same, asked about people alone who consent by all of these sets.
    pub fn with_consents(mut self, consents: Vec<Arc<ConsentSet>>) -> Self {
        self.consents = consents;
        self
    }

    /// Its name, without version.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its version.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// The model itself.
    pub fn model(&self) -> &Arc<Model> {
        &self.model
    }

    /// The model for a function: `als_*` functions ask factorizations only.
    fn asked(&self, function: &str) -> Result<Asked<'_>> {
        let model = self.model.as_ref();
        let type_name = model.type_name();
        let Some(recommender) = model.recommender() else {
            return plan_err!("{function} asks a recommender, and {self} is of type '{type_name}'");
        };
        if model.als().is_none()
            && let Some(what) = function.strip_prefix("als_")
        {
            return plan_err!(
                "{function} asks a matrix factorization, and {self} is of type '{type_name}': use \
                 ml_{what}('{}', …)",
                self.name
            );
        }
        Ok(Asked { model, recommender, consents: &self.consents })
    }

    fn key(&self) -> (&str, u32) {
        (&self.name, self.version)
    }
}

impl fmt::Display for BoundModel {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}@{}", self.name, self.version)
    }
}

impl fmt::Debug for BoundModel {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

impl PartialEq for BoundModel {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for BoundModel {}

impl Hash for BoundModel {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.key().hash(state);
    }
}

/// The model that a call asks, as the recommender that it is.
pub(super) struct Asked<'a> {
    pub(super) model: &'a Model,
    pub(super) recommender: &'a dyn Recommender,
    /// Who consents to being asked about.
    pub(super) consents: &'a [Arc<ConsentSet>],
}

/// The models of one statement, by the name as the statement writes it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct ModelSet(BTreeMap<String, Arc<BoundModel>>);

impl ModelSet {
    /// The models that a statement names.
    pub fn new(models: BTreeMap<String, Arc<BoundModel>>) -> Self {
        Self(models)
    }

    /// The model written as `name`.
    pub fn get(&self, name: &str) -> Option<&Arc<BoundModel>> {
        self.0.get(name)
    }

    /// The model that a call names, while planning.
    pub(super) fn planned(&self, function: &str, args: &ReturnFieldArgs) -> Result<Asked<'_>> {
        match args.scalar_arguments.first().copied().flatten() {
            Some(name) => self.named(function, name),
            None => plan_err!(
                "{function} needs its model as a literal: write {function}('model', …) with the \
                 model's name in quotes"
            ),
        }
    }

    /// The model that a call names, while running.
    pub(super) fn running(&self, function: &str, args: &ScalarFunctionArgs) -> Result<Asked<'_>> {
        match args.args.first() {
            Some(ColumnarValue::Scalar(name)) => self.named(function, name),
            _ => exec_err!("{function} needs its model as a literal"),
        }
    }

    fn named(&self, function: &str, name: &ScalarValue) -> Result<Asked<'_>> {
        let name = match name {
            ScalarValue::Dictionary(_, value) => value.try_as_str(),
            other => other.try_as_str(),
        };
        let Some(Some(name)) = name else {
            return plan_err!("{function} needs the model's name as text, such as 'main.shop'");
        };
        match self.0.get(name) {
            Some(bound) => bound.asked(function),
            None => plan_err!(
                "{function} does not know the model '{name}': SHOW MODELS lists those that exist, \
                 CREATE MODEL makes one"
            ),
        }
    }
}

/// The position, from zero, of the argument of `function_name` that names a model.
pub fn model_argument(function_name: &str) -> Option<usize> {
    super::NAMES.contains(&function_name).then_some(0)
}

/// Implements a function that is bound to models: its type is `return_type(name, model, args)`,
/// its value `invoke(name, model, args)`.
macro_rules! bound_function {
    ($type:ident, $name:literal, $arguments:expr, $return_type:path, $invoke:path) => {
        impl $type {
            /// The function with the models of one statement.
            pub fn new(models: std::sync::Arc<$crate::recommend::ModelSet>) -> Self {
                let counts = $arguments.map(datafusion_expr::TypeSignature::Any).to_vec();
                let signature = datafusion_expr::Signature::one_of(
                    counts,
                    datafusion_expr::Volatility::Immutable,
                );
                Self { signature, models }
            }
        }

        impl datafusion_expr::ScalarUDFImpl for $type {
            fn name(&self) -> &str {
                $name
            }

            fn signature(&self) -> &datafusion_expr::Signature {
                &self.signature
            }

            fn return_type(
                &self,
                _: &[arrow::datatypes::DataType],
            ) -> datafusion_common::Result<arrow::datatypes::DataType> {
                datafusion_common::internal_err!("{} answers by return_field_from_args", $name)
            }

            fn return_field_from_args(
                &self,
                args: datafusion_expr::ReturnFieldArgs,
            ) -> datafusion_common::Result<arrow::datatypes::FieldRef> {
                let model = self.models.planned($name, &args)?;
                let data_type = $return_type($name, &model, &args)?;
                Ok(std::sync::Arc::new(arrow::datatypes::Field::new($name, data_type, true)))
            }

            fn invoke_with_args(
                &self,
                args: datafusion_expr::ScalarFunctionArgs,
            ) -> datafusion_common::Result<datafusion_expr::ColumnarValue> {
                let model = self.models.running($name, &args)?;
                $invoke($name, &model, &args)
            }

            fn documentation(&self) -> Option<&datafusion_expr::Documentation> {
                self.doc()
            }
        }
    };
}

pub(super) use bound_function;
