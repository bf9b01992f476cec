//! Erasures of persons: the journal by which one that was interrupted is ended, and the certificate
//! that stays.
//!
//! An erasure is a folder `_attune/erasures/<id>/`. `job.json` is written before anything is done:
//! whom to forget, and every step. `decision.json` is created once, when somebody has looked
//! whether the person is held: it says whether the erasure goes on, and no step is done before.
//! Each step that is done leaves a report of its own, created once; a step that was interrupted is
//! done again, for each can be. The certificate is put together from the reports and signed with
//! the key of the record (Ed25519), so that whoever has the public key can check it without the
//! warehouse; then the job goes, which alone holds ids of the person. The rest of the folder knows
//! the person by keyed tokens.

use std::collections::{BTreeMap, BTreeSet};

use futures::TryStreamExt;
use object_store::{ObjectMeta, ObjectStoreExt};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::Catalog;
use crate::audit::PublicKeys;
use crate::bucket::Versioning;
use crate::error::{Error, Result};
use crate::registry::ObjectName;
use crate::store::{Place, is_version};
use crate::subjects::{Subject, SubjectKey};

/// The newest format that this version reads and writes.
const FORMAT: u32 = 1;
/// What a certificate's signature is of begins with this line; its JSON follows.
const SIGNED: &[u8] = b"attune erasure certificate 1\n";
const JOB: &str = "job.json";
const DECISION: &str = "decision.json";
pub(crate) const CERTIFICATE: &str = "certificate.json";
/// How the names of reports begin.
pub(crate) const STEP: &str = "step-";

/// One step of an erasure.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "step", rename_all = "snake_case")]
pub enum Step {
    /// The person's rows of a table over files are not read any more; files in a lake that Attune
    /// may rewrite lose them, and others are named.
    Hide {
        /// The table.
        table: ObjectName,
    },
    /// A warehouse table is rewritten without the person's rows, and its past removed.
    Rewrite {
        /// The table.
        table: ObjectName,
    },
    /// A version of a model is rewritten without the person, or removed.
    Unlearn {
        /// The model.
        model: ObjectName,
        /// The version.
        version: u32,
    },
    /// Caches, results of checks and marks of the person are removed.
    Clear,
}

impl Step {
    /// What the step is about, in a word or two.
    pub fn object(&self) -> String {
        match self {
            Self::Hide { table } | Self::Rewrite { table } => format!("table {table}"),
            Self::Unlearn { model, version } => format!("model {model}@{version}"),
            Self::Clear => "caches and marks".to_owned(),
        }
    }
}

/// What is to be done, and about whom. It is removed when it is done.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErasureJob {
    format: u32,
    /// The erasure's id.
    pub id: String,
    /// The subject as it was when the erasure began.
    pub subject: Subject,
    /// The person's ids.
    pub ids: BTreeSet<String>,
    /// The one key whose ids they are, if it is one.
    pub only: Option<SubjectKey>,
    /// The person's id in the crosswalk.
    pub entity: Option<String>,
    /// The person's tokens.
    pub tokens: Vec<String>,
    /// Who asked for it.
    pub by: String,
    /// When it began, in Unix milliseconds.
    pub started_ms: i64,
    /// What is done, in order.
    pub steps: Vec<Step>,
}

impl std::fmt::Debug for ErasureJob {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "ErasureJob({}, {} steps)", self.id, self.steps.len())
    }
}

/// What an erasure is about.
#[derive(Clone)]
pub struct ErasureOf {
    /// The subject.
    pub subject: Subject,
    /// The person's ids.
    pub ids: BTreeSet<String>,
    /// The one key whose ids they are, if it is one.
    pub only: Option<SubjectKey>,
    /// The person's id in the crosswalk.
    pub entity: Option<String>,
    /// The person's tokens.
    pub tokens: Vec<String>,
}

/// What is decided of an erasure before its first step.
#[derive(Serialize, Deserialize)]
struct Decision {
    /// Whether it goes on: nobody held the person.
    goes_on: bool,
}

/// What became of a step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepReport {
    /// The table or model.
    pub object: String,
    /// What was done, in a sentence.
    pub outcome: String,
    /// Rows that are gone.
    pub rows: u64,
    /// Objects of the store that are gone.
    pub objects: u64,
    /// Whether nothing of the person is left there.
    pub exact: bool,
    /// Files with rows of the person that somebody else has to rewrite.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<String>,
    /// Files of a lake that were written without the person's rows, or removed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rewritten: Vec<String>,
    /// Whether their store was seen to keep what they were before.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub keeps_versions: bool,
}

impl StepReport {
    /// What was done to a table or model of which nothing of the person is left.
    pub fn new(object: impl Into<String>, outcome: impl Into<String>) -> Self {
        Self {
            object: object.into(),
            outcome: outcome.into(),
            rows: 0,
            objects: 0,
            exact: true,
            files: vec![],
            rewritten: vec![],
            keeps_versions: false,
        }
    }
}

/// What was erased, without saying whom.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Certificate {
    format: u32,
    /// The erasure's id.
    pub id: String,
    /// The subject.
    pub subject: String,
    /// The person's tokens: whoever knows an id can find the certificate of it in this warehouse.
    pub tokens: Vec<String>,
    /// Who asked for it.
    pub by: String,
    /// When it began, in Unix milliseconds.
    pub started_ms: i64,
    /// When it was done.
    pub finished_ms: i64,
    /// What was done.
    pub steps: Vec<StepReport>,
    /// What may still hold something of the person, and whose turn it is.
    pub remains: Vec<String>,
}

/// A certificate under a signature.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedCertificate {
    /// What is certified.
    pub certificate: Certificate,
    /// The id of the public key that checks it: one of the record's. `None`: an earlier version
    /// made it, under a signature that only the warehouse's secret could check.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Ed25519 over a line that says what it is, and the certificate's JSON without white space;
    /// in hexadecimal digits.
    pub signature: String,
}

/// How far an erasure is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Erasure {
    /// Its id.
    pub id: String,
    /// The subject.
    pub subject: String,
    /// Who asked for it.
    pub by: String,
    /// When it began, in Unix milliseconds.
    pub started_ms: i64,
    /// Steps in all, and those that are done.
    pub steps: [usize; 2],
    /// The certificate once it is done, and whether its signature holds; that of an earlier
    /// version, which names no key, nobody can tell.
    pub signed: Option<(SignedCertificate, Option<bool>)>,
}

impl Catalog {
    /// Begins an erasure: from here on it is ended, whatever happens.
    ///
    /// # Errors
    /// When the warehouse cannot be written.
    pub async fn begin_erasure(
        &self,
        of: ErasureOf,
        by: &str,
        steps: Vec<Step>,
    ) -> Result<ErasureJob> {
        self.writable().await?;
        let ErasureOf { subject, ids, only, entity, tokens } = of;
        let (id, started_ms) = (self.new_id(), self.now_ms());
        let by = by.to_owned();
        let format = FORMAT;
        let job =
            ErasureJob { format, id, subject, ids, only, entity, tokens, by, started_ms, steps };
        self.tell_erasure(&job.id).await?;
        let place = self.erasure(&job.id).child(JOB);
        if !place.create(to_bytes(&place, &job)?).await? {
            return Err(Error::Conflict { name: format!("erasure {}", job.id) });
        }
        Ok(job)
    }

    /// What was decided of an erasure: whether it goes on. None where nobody has decided, so that
    /// nothing has been done; a journal of an earlier version tells it by a step that is done.
    ///
    /// # Errors
    /// When the warehouse cannot be reached, or the decision cannot be read.
    pub async fn erasure_decision(&self, job: &ErasureJob) -> Result<Option<bool>> {
        if let Some(decision) = read::<Decision>(&self.erasure(&job.id).child(DECISION)).await? {
            return Ok(Some(decision.goes_on));
        }
        for step in 0..job.steps.len() {
            if self.step_report(&job.id, step).await?.is_some() {
                return Ok(Some(true));
            }
        }
        Ok(None)
    }

    /// Decides whether an erasure goes on, and gives what is decided: what was first stays.
    ///
    /// # Errors
    /// When somebody has given it up or ended it, or the warehouse cannot be reached or written.
    pub async fn decide_erasure(&self, id: &str, goes_on: bool) -> Result<bool> {
        let place = self.erasure(id).child(DECISION);
        let is_first = place.create(to_bytes(&place, &Decision { goes_on })?).await?;
        // Who gives an erasure up removes the journal before the decision: where that was not there
        // any more, neither is the journal.
        if self.job(id).await?.is_none() {
            if is_first {
                place.remove().await?;
            }
            return Err(Error::Conflict { name: format!("erasure {id}") });
        }
        if is_first {
            return Ok(goes_on);
        }
        let decided: Option<Decision> = read(&place).await?;
        let decided = decided.ok_or_else(|| Error::Conflict { name: format!("erasure {id}") })?;
        Ok(decided.goes_on)
    }

    /// Gives up an erasure of which nothing has been done.
    ///
    /// # Errors
    /// When the warehouse cannot be written.
    pub async fn abandon_erasure(&self, id: &str) -> Result<()> {
        let folder = self.erasure(id);
        folder.child(JOB).remove().await?;
        folder.child(DECISION).remove().await?;
        self.untell_erasure(id).await
    }

    /// Goes on with an erasure that has begun: also one of an earlier version, which did not say
    /// that it was there, is told of.
    ///
    /// # Errors
    /// When the warehouse cannot be written.
    pub async fn go_on_with_erasure(&self, id: &str) -> Result<()> {
        self.tell_erasure(id).await
    }

    /// The erasures that are not done, oldest first, and why the journal of another one cannot be
    /// read.
    ///
    /// # Errors
    /// When the warehouse cannot be reached.
    pub async fn open_erasures(&self) -> Result<(Vec<ErasureJob>, Option<Error>)> {
        let (mut jobs, mut fault) = (Vec::new(), None);
        for (id, files) in self.erasure_files().await? {
            if !files.contains(JOB) {
                continue;
            }
            match self.job(&id).await {
                Ok(job) => jobs.extend(job),
                // One that is damaged keeps nobody else waiting.
                Err(error @ Error::Corrupt { .. }) => fault = Some(error),
                Err(error) => return Err(error),
            }
        }
        jobs.sort_by(|a, b| (a.started_ms, &a.id).cmp(&(b.started_ms, &b.id)));
        Ok((jobs, fault))
    }

    /// The report of a step that is done.
    ///
    /// # Errors
    /// When the warehouse cannot be reached, or the report cannot be read.
    pub async fn step_report(&self, id: &str, step: usize) -> Result<Option<StepReport>> {
        read(&self.erasure(id).child(&step_file(step))).await
    }

    /// Notes that a step is done. The report of who was first stays.
    ///
    /// # Errors
    /// When the warehouse cannot be written.
    pub async fn end_step(&self, id: &str, step: usize, report: &StepReport) -> Result<()> {
        let place = self.erasure(id).child(&step_file(step));
        place.create(to_bytes(&place, report)?).await.map(|_| ())
    }

    /// Ends an erasure whose steps are all done: the certificate is signed, and what knew the
    /// person is removed.
    ///
    /// # Errors
    /// When a step is not done, or the warehouse cannot be read or written.
    pub async fn end_erasure(
        &self,
        job: &ErasureJob,
        remains: Vec<String>,
    ) -> Result<SignedCertificate> {
        let folder = self.erasure(&job.id);
        let place = folder.child(CERTIFICATE);
        if read::<SignedCertificate>(&place).await?.is_none() {
            let mut steps = Vec::with_capacity(job.steps.len());
            for step in 0..job.steps.len() {
                let report = self.step_report(&job.id, step).await?;
                steps.push(report.ok_or_else(|| Error::Conflict {
                    name: format!("step {step} of erasure {}", job.id),
                })?);
            }
            let certificate = Certificate {
                format: FORMAT,
                id: job.id.clone(),
                subject: job.subject.name.clone(),
                tokens: job.tokens.clone(),
                by: job.by.clone(),
                started_ms: job.started_ms,
                finished_ms: self.now_ms(),
                steps,
                remains,
            };
            let signer = self.audit_signer().await?;
            let signature = signer.sign(&message(&place, &certificate)?)?;
            let signed = SignedCertificate { certificate, key: Some(signer.id()), signature };
            if !place.create(to_bytes(&place, &signed)?).await? {
                tracing::debug!(id = job.id, "another server has signed the certificate");
            }
        }
        self.tell_erasure_done(&job.id).await?;
        self.sweep_rewritings(&job.id).await?;
        folder.child(JOB).remove().await?;
        folder.child(DECISION).remove().await?;
        for step in 0..job.steps.len() {
            folder.child(&step_file(step)).remove().await?;
        }
        read(&place).await?.ok_or_else(|| Error::Corrupt {
            what: place.url.to_string(),
            reason: "it is gone".into(),
        })
    }

    /// Every erasure, by id.
    ///
    /// # Errors
    /// When the warehouse cannot be reached, or a document of one cannot be read.
    pub async fn erasures(&self) -> Result<Vec<Erasure>> {
        let mut erasures = Vec::new();
        let keys = self.audit_keys().await?;
        for (id, files) in self.erasure_files().await? {
            let place = self.erasure(&id).child(CERTIFICATE);
            if let Some(signed) = read::<SignedCertificate>(&place).await? {
                erasures.push(certified(id, &place, signed, &keys)?);
            } else if let Some(job) = self.job(&id).await? {
                let done = files.iter().filter(|file| file.starts_with(STEP)).count();
                erasures.push(Erasure {
                    id,
                    subject: job.subject.name.clone(),
                    by: job.by.clone(),
                    started_ms: job.started_ms,
                    steps: [job.steps.len(), done],
                    signed: None,
                });
            }
        }
        Ok(erasures)
    }

    /// Whether the warehouse's store keeps earlier versions of objects, which nobody here removes.
    ///
    /// Its bucket tells it, and so do the object that probed it and the newest one, which an
    /// erasure's journal is: the bucket may have been set to keep them since.
    ///
    /// # Errors
    /// When the warehouse cannot be reached.
    pub async fn versioning(&self) -> Result<Versioning> {
        let said = self.warehouse.versioning().await?;
        if matches!(said, Versioning::Enabled | Versioning::Suspended) {
            return Ok(said);
        }
        let journals = self.erasure_objects().await?.into_iter();
        let Some(newest) = journals.max_by_key(|object| object.last_modified) else {
            return Ok(said);
        };
        let place = self.warehouse.place();
        match place.store.head(&newest.location).await {
            Ok(found) if is_version(found.version.as_deref()) => Ok(Versioning::Enabled),
            Ok(_) | Err(object_store::Error::NotFound { .. }) => Ok(said),
            Err(error) => Err(Error::store(place.url.as_str(), &error)),
        }
    }

    /// Empties the earlier states of definitions that name one of the ids: a local disk keeps a few
    /// of each, also of views and policies that were changed or dropped since.
    ///
    /// # Errors
    /// When the warehouse cannot be read or written.
    pub async fn forget_past_definitions(&self, ids: &BTreeSet<String>) -> Result<()> {
        let mut texts: BTreeSet<String> = ids.clone();
        // As JSON writes them, without the quotes.
        texts.extend(ids.iter().map(|id| {
            let written = serde_json::Value::from(id.as_str()).to_string();
            written.trim_matches('"').to_owned()
        }));
        texts.remove("");
        for registry in [
            &self.objects,
            &self.expectations,
            &self.checks,
            &self.policies,
            &self.purposes,
            &self.privacy_policies,
        ] {
            registry.blank_naming(&texts).await?;
        }
        Ok(())
    }

    pub(crate) async fn job(&self, id: &str) -> Result<Option<ErasureJob>> {
        let place = self.erasure(id).child(JOB);
        let job: Option<ErasureJob> = read(&place).await?;
        match job {
            Some(job) if job.format > FORMAT => Err(Error::Corrupt {
                what: place.url.to_string(),
                reason: format!("it has format {}, newer than {FORMAT}", job.format),
            }),
            job => Ok(job),
        }
    }

    pub(crate) fn erasure(&self, id: &str) -> Place {
        self.warehouse.place().child("_attune/erasures").child(id).folder()
    }

    async fn erasure_objects(&self) -> Result<Vec<ObjectMeta>> {
        let folder = self.warehouse.place().child("_attune/erasures");
        match folder.store.list(Some(&folder.path)).try_collect().await {
            Ok(objects) => Ok(objects),
            Err(object_store::Error::NotFound { .. }) => Ok(vec![]),
            Err(error) => Err(Error::store(folder.url.as_str(), &error)),
        }
    }

    async fn erasure_files(&self) -> Result<BTreeMap<String, BTreeSet<String>>> {
        let folder = self.warehouse.place().child("_attune/erasures");
        let mut found: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for object in self.erasure_objects().await? {
            let Some(mut parts) = object.location.prefix_match(&folder.path) else { continue };
            if let (Some(id), Some(file)) = (parts.next(), parts.next()) {
                let files = found.entry(id.as_ref().to_owned()).or_default();
                files.insert(file.as_ref().to_owned());
            }
        }
        Ok(found)
    }
}

pub(crate) fn step_file(step: usize) -> String {
    format!("{STEP}{step:04}.json")
}

/// An erasure that is done, and whether what its folder has is its certificate.
fn certified(
    id: String,
    place: &Place,
    signed: SignedCertificate,
    keys: &PublicKeys,
) -> Result<Erasure> {
    let of = &signed.certificate;
    let content = message(place, of)?;
    let holds = |key: &String| keys.holds(key, &content, &signed.signature).is_ok();
    let is_sound = signed.key.as_ref().map(|key| of.id == id && holds(key));
    Ok(Erasure {
        id,
        subject: of.subject.clone(),
        by: of.by.clone(),
        started_ms: of.started_ms,
        steps: [of.steps.len(); 2],
        signed: Some((signed, is_sound)),
    })
}

/// What the signature of a certificate is of.
fn message(place: &Place, certificate: &Certificate) -> Result<Vec<u8>> {
    let content = serde_json::to_vec(certificate).map_err(|error| corrupt(place, &error))?;
    Ok([SIGNED, &content].concat())
}

fn to_bytes<T: Serialize>(place: &Place, content: &T) -> Result<Vec<u8>> {
    serde_json::to_vec_pretty(content).map_err(|error| corrupt(place, &error))
}

fn corrupt(place: &Place, error: &serde_json::Error) -> Error {
    Error::Corrupt { what: place.url.to_string(), reason: error.to_string() }
}

pub(crate) async fn read<T: DeserializeOwned>(place: &Place) -> Result<Option<T>> {
    match place.read_if_exists().await? {
        Some(content) => {
            serde_json::from_slice(&content).map(Some).map_err(|error| corrupt(place, &error))
        }
        None => Ok(None),
    }
}

#[cfg(test)]
#[path = "erasures_tests.rs"]
mod tests;
