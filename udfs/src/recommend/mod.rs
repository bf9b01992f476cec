//! shim
use std::collections::BTreeMap;
use std::sync::Arc;
use datafusion_expr::ScalarUDF;
use crate::model::AlsModel;
#[derive(Debug)]
pub struct BoundModel;
impl BoundModel { pub fn new(_n: String, _v: u32, _m: Arc<AlsModel>) -> Self { Self } }
#[derive(Debug, Default)]
pub struct ModelSet(#[allow(dead_code)] BTreeMap<String, Arc<BoundModel>>);
impl ModelSet { pub fn new(m: BTreeMap<String, Arc<BoundModel>>) -> Self { Self(m) } }
pub fn bound_functions(_m: Arc<ModelSet>) -> Vec<Arc<ScalarUDF>> { vec![] }
pub fn model_argument(_f: &str) -> Option<usize> { None }
