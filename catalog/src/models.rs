//! shim
use std::collections::BTreeMap;
use std::sync::Arc;
use udfs::model::AlsModel;
use crate::{Catalog, CreateMode, ObjectName, Result};
#[derive(Debug, Clone)]
pub struct StoredMetric { pub name: String, pub value: f64, pub baseline: f64 }
#[derive(Debug, Clone)]
pub struct StoredIteration { pub iteration: u32, pub loss: f64, pub duration_ms: f64 }
#[derive(Debug)]
pub struct Publication { pub model_type: String, pub options: BTreeMap<String, serde_json::Value>, pub query: String, pub user_col: String, pub item_col: String, pub rating_col: Option<String>, pub metrics: Vec<StoredMetric>, pub iterations: Vec<StoredIteration>, pub top_k: usize }
#[derive(Debug)]
pub struct Manifest { pub model_type: String, pub options: BTreeMap<String, serde_json::Value>, pub query: String, pub user_col: String, pub item_col: String, pub rating_col: Option<String>, pub metrics: Vec<StoredMetric>, pub iterations: Vec<StoredIteration>, pub top_k: usize }
#[derive(Debug, Clone)]
pub struct LoadedModel { pub name: ObjectName, pub version: u32, pub model: Arc<AlsModel>, pub manifest: Arc<Manifest> }
impl std::fmt::Display for LoadedModel { fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result { write!(f, "{}@{}", self.name, self.version) } }
#[derive(Debug)]
pub struct Claim;
#[derive(Debug)]
pub struct ModelInfo { pub name: ObjectName, pub model_type: String, pub default_version: u32, pub versions: usize, pub owner: String, pub created_ms: i64, pub metric: Option<(String, f64)>, pub options: String, pub query: String }
impl Catalog {
    pub async fn load_model(&self, _n: &ObjectName, _v: Option<u32>) -> Result<LoadedModel> { Err(crate::Error::invalid("x")) }
    pub async fn models(&self) -> Result<Vec<ModelInfo>> { Ok(vec![]) }
    pub async fn claim_version(&self, _n: &ObjectName, _o: &str, _m: CreateMode) -> Result<Claim> { Ok(Claim) }
    pub async fn publish(&self, _c: Claim, _m: Arc<AlsModel>, _p: Publication) -> Result<u32> { Ok(1) }
    pub async fn set_default_version(&self, _n: &ObjectName, _v: u32) -> Result<()> { Ok(()) }
    pub fn key(&self, _n: &str) -> Result<Arc<udfs::privacy::Key>> { Err(crate::Error::invalid("x")) }
}
