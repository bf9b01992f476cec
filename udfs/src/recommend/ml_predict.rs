//! What `ML.PREDICT` of a model of features computes for each row: a struct of the columns that
//! [`Model::predicted`](crate::model::Model::predicted) names.
//!
//! The SQL layer makes an instance for one bound model and gives it the model's own columns in
//! their order; it is no function that a statement can name.

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion_common::Result;
use datafusion_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility};

use super::binding::BoundModel;
use super::lists::model_error;

/// Predictions of one bound model.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct PredictRows {
    model: Arc<BoundModel>,
    signature: Signature,
}

impl PredictRows {
    /// Of a model of features.
    pub fn new(model: Arc<BoundModel>) -> Self {
        Self { model, signature: Signature::variadic_any(Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for PredictRows {
    fn name(&self) -> &'static str {
        "ml_predict_rows"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Struct(self.model.model().predicted()))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let rows = args.number_rows;
        let columns = args.args.into_iter().map(|column| column.into_array(rows));
        let columns = columns.collect::<Result<Vec<_>>>()?;
        let predicted = self.model.model().predict(&columns, rows).map_err(model_error)?;
        Ok(ColumnarValue::Array(Arc::new(predicted)))
    }
}
