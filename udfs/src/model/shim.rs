//! shim
use std::sync::Arc;
use arrow::array::ArrayRef;
use arrow::datatypes::DataType;
use super::als::{AlsFactors, AlsOptions, Feedback};
use super::{ModelError};
use super::sparse::Csr;
#[derive(Debug, Clone)]
pub struct IdIndex(ArrayRef, DataType);
impl IdIndex {
    pub fn new(_n: &str, _d: &DataType) -> Result<Self, ModelError> { Err(ModelError::Empty) }
    pub fn encode(&mut self, _a: &ArrayRef) -> Result<Vec<u32>, ModelError> { Err(ModelError::Empty) }
    pub fn sort(&mut self) -> Result<Vec<u32>, ModelError> { Err(ModelError::Empty) }
    pub fn len(&self) -> usize { 0 }
    pub fn lookup(&self, _a: &ArrayRef) -> Result<Vec<Option<u32>>, ModelError> { Err(ModelError::Empty) }
    pub fn values(&self) -> ArrayRef { Arc::clone(&self.0) }
    pub fn data_type(&self) -> &DataType { &self.1 }
}
#[derive(Debug)]
pub struct ModelParts { pub users: IdIndex, pub items: IdIndex, pub factors: AlsFactors, pub seen: Csr, pub options: AlsOptions }
#[derive(Debug)]
pub struct AlsModel(ModelParts);
#[derive(Debug)]
pub enum Source { Als, Popularity }
#[derive(Debug)]
pub struct Choice { pub items: Vec<u32>, pub scores: Vec<f32>, pub source: Source }
#[derive(Debug)]
pub struct RecommendRequest<'a> { pub top_k: usize, pub exclude_seen: bool, pub include: Option<&'a [u32]>, pub exclude: Option<&'a [u32]> }
#[derive(Debug)]
pub struct MetricValue { pub name: String, pub value: f64, pub baseline: f64 }
pub fn holdout(_c: &Csr, _f: f64, _s: u64) -> (Csr, Csr) { (Csr::empty(0,0), Csr::empty(0,0)) }
impl AlsModel {
    pub fn from_parts(p: ModelParts) -> Result<Self, ModelError> { Ok(Self(p)) }
    pub fn user_ids(&self) -> &IdIndex { &self.0.users }
    pub fn item_ids(&self) -> &IdIndex { &self.0.items }
    pub fn num_factors(&self) -> usize { 0 }
    pub fn user_factors(&self) -> &[f32] { &[] }
    pub fn item_factors(&self) -> &[f32] { &[] }
    pub fn user_bias(&self) -> &[f32] { &[] }
    pub fn item_bias(&self) -> &[f32] { &[] }
    pub fn seen(&self) -> &Csr { &self.0.seen }
    pub fn options(&self) -> &AlsOptions { &self.0.options }
    pub fn feedback(&self) -> Feedback { self.0.options.feedback }
    pub fn memory_bytes(&self) -> usize { 0 }
    pub fn recommend(&self, _u: &[Option<u32>], _r: &RecommendRequest<'_>) -> Vec<Choice> { vec![] }
    pub fn ranking_metrics(&self, _t: &Csr, _k: usize) -> Vec<MetricValue> { vec![] }
    pub fn rating_metrics(&self, _t: &Csr) -> Vec<MetricValue> { vec![] }
}
