//! What columns a file has, remembered, and what columns all files of a table have together.
//!
//! A file's columns are read once and kept as long as its size, time and ETag stay. A table of very
//! many files gets its first columns from [`FILES_PER_LOOK`] files spread over the list; each later
//! look reads that many more, until all are known. Files whose columns are not known yet are
//! checked when they are scanned.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use arrow::ipc::reader::StreamReader;
use arrow::json::reader::infer_json_schema;
use chrono::{DateTime, Utc};
use datafusion::catalog::Session;
use datafusion::common::parsers::CompressionTypeVariant;
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStoreExt};
use parking_lot::Mutex;

use super::format::{Format, Settings};
use super::listing::{Found, REQUESTS_MAX, object_url};
use super::reason::Subject;
use super::table::{Column, LakeTable};
use super::widen::{widen, widen_guessed};
use crate::error::{Error, Result};
use crate::store::Place;

/// Files of unknown columns that are read in one look at a table.
pub(crate) const FILES_PER_LOOK: usize = 2_000;

/// Bytes at the beginning of a JSON file that are read to tell its columns.
const JSON_SAMPLE_BYTES: u64 = 4 << 20;

/// Bytes at the beginning of an Arrow file that are read first to tell its columns.
const ARROW_SAMPLE_BYTES: u64 = 64 << 10;

/// What is known of a file's content.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(crate) struct FileInfo {
    /// The columns in the file, in the file's order.
    pub schema: SchemaRef,
    /// Whether an Arrow file is of the stream form.
    pub is_stream: bool,
}

/// What tells that a file is still the same.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Version {
    size: u64,
    modified: DateTime<Utc>,
    etag: Option<String>,
}

impl Version {
    fn of(meta: &ObjectMeta) -> Self {
        Self { size: meta.size, modified: meta.last_modified, etag: meta.e_tag.clone() }
    }
}

/// The known files of a table.
#[derive(Default)]
pub(crate) struct Infos {
    known: Mutex<HashMap<Path, (Version, Arc<FileInfo>)>>,
    /// Most files of a table have the same columns; they share one description.
    distinct: Mutex<HashSet<Arc<FileInfo>>>,
    /// Columns of CSV files that are text, whatever their values look like.
    texts: Vec<String>,
}

impl Infos {
    /// Of a table of whose files nothing is known. Personal identifiers in CSV are text: the zero
    /// at the beginning of a telephone number is a part of it.
    pub fn of(table: &LakeTable) -> Self {
        let pii = table.pii.as_ref().filter(|_| table.format == Format::Csv);
        let texts = pii.map(|pii| pii.columns.clone()).unwrap_or_default();
        Self { texts, ..Self::default() }
    }

    /// What is known of a file already.
    pub fn get(&self, meta: &ObjectMeta) -> Option<Arc<FileInfo>> {
        let known = self.known.lock();
        let (version, info) = known.get(&meta.location)?;
        (*version == Version::of(meta)).then(|| Arc::clone(info))
    }

    /// Forgets files that exist no more.
    pub fn retain(&self, files: &[Found]) {
        let existing: HashSet<&Path> = files.iter().map(|file| &file.meta.location).collect();
        self.known.lock().retain(|path, _| existing.contains(path));
    }

    /// Reads the columns of at most `limit` of the unknown files, spread evenly over the list.
    ///
    /// # Errors
    /// When a file cannot be read; the error names it.
    pub async fn look(
        &self,
        session: &dyn Session,
        place: &Place,
        settings: &Settings,
        files: &[Found],
        limit: usize,
    ) -> Result<()> {
        let unknown: Vec<&ObjectMeta> =
            files.iter().map(|file| &file.meta).filter(|meta| self.get(meta).is_none()).collect();
        // The first and the last are among them: old and new columns usually differ there.
        let last = unknown.len().saturating_sub(1);
        let chosen: Vec<&ObjectMeta> = if unknown.len() <= limit {
            unknown
        } else {
            let steps = limit.saturating_sub(1).max(1);
            (0..=steps).filter_map(|step| unknown.get(step * last / steps).copied()).collect()
        };
        let reads = chosen.into_iter().map(|meta| {
            async move {
                let subject = Subject::new(place, &meta.location, 0);
                let info = read(session, place, settings, meta, &self.texts)
                    .await
                    .map_err(|error| subject.explain(&error))?;
                self.remember(meta, info);
                Ok::<_, Error>(())
            }
            .boxed()
        });
        let reads: Vec<BoxFuture<'_, Result<()>>> = reads.collect();
        futures::stream::iter(reads).buffer_unordered(REQUESTS_MAX).try_collect::<()>().await
    }

    fn remember(&self, meta: &ObjectMeta, info: FileInfo) {
        let mut distinct = self.distinct.lock();
        let shared = match distinct.get(&info) {
            Some(shared) => Arc::clone(shared),
            None => {
                let shared = Arc::new(info);
                distinct.insert(Arc::clone(&shared));
                shared
            }
        };
        drop(distinct);
        self.known.lock().insert(meta.location.clone(), (Version::of(meta), shared));
    }
}

async fn read(
    session: &dyn Session,
    place: &Place,
    settings: &Settings,
    meta: &ObjectMeta,
    texts: &[String],
) -> datafusion::error::Result<FileInfo> {
    let name = meta.location.filename().unwrap_or_default();
    let plain = settings.compression_of(name) == CompressionTypeVariant::UNCOMPRESSED;
    let mut is_stream = false;
    let sampled = match settings.format {
        Format::Csv => Some(sample_csv(session, place, settings, meta).await?),
        Format::Json if plain => sample_json(place, settings, meta).await?,
        Format::Arrow => {
            let (schema, is_stream_form) = sample_arrow(place, meta).await?;
            is_stream = is_stream_form;
            Some(schema)
        }
        _ => None,
    };
    let schema = match sampled {
        Some(schema) => schema,
        None => {
            let format = settings.file_format(name);
            format.infer_schema(session, &place.store, std::slice::from_ref(meta)).await?
        }
    };
    Ok(FileInfo { schema: with_texts(named_once(&schema)?, texts), is_stream })
}

/// The same columns, those of some names as text.
fn with_texts(schema: SchemaRef, texts: &[String]) -> SchemaRef {
    if texts.is_empty() {
        return schema;
    }
    let fields = schema.fields().iter().map(|field| match texts.contains(field.name()) {
        true => Arc::new(field.as_ref().clone().with_data_type(DataType::Utf8)),
        false => Arc::clone(field),
    });
    Arc::new(Schema::new(fields.collect::<Vec<FieldRef>>()))
}

/// The columns of a CSV file from its header and first rows.
///
/// Not by `CsvFormat::infer_schema`, which makes one column of two of the same name.
async fn sample_csv(
    session: &dyn Session,
    place: &Place,
    settings: &Settings,
    meta: &ObjectMeta,
) -> datafusion::error::Result<SchemaRef> {
    let format = settings.csv_format(meta.location.filename().unwrap_or_default());
    let bytes = place.store.get(&meta.location).await?.into_stream();
    let chunks = format.read_to_delimited_chunks_from_stream(bytes.err_into().boxed());
    let rows = settings.sample_rows();
    let (schema, _) = format.infer_schema_from_stream(session, rows, chunks).await?;
    Ok(Arc::new(schema))
}

/// The columns of an Arrow file and whether it is of the stream form.
///
/// Both forms begin with the schema's message, the file form after its name and padding.
async fn sample_arrow(
    place: &Place,
    meta: &ObjectMeta,
) -> datafusion::error::Result<(SchemaRef, bool)> {
    let mut end = meta.size.min(ARROW_SAMPLE_BYTES);
    loop {
        let sample = place.store.get_range(&meta.location, 0..end).await?;
        // The first message begins with a byte of ones, after any padding.
        let file_form = sample.strip_prefix(b"ARROW1");
        let start = file_form.and_then(|after| after.iter().position(|byte| *byte != 0));
        let message = file_form.unwrap_or(&sample).get(start.unwrap_or(0)..).unwrap_or_default();
        let is_stream = file_form.is_none();
        match StreamReader::try_new(message, None) {
            Ok(reader) => return Ok((reader.schema(), is_stream)),
            Err(_) if end < meta.size => end = meta.size.min(end.saturating_mul(16)),
            Err(error) => return Err(error.into()),
        }
    }
}

/// The columns of a JSON file from its beginning; `None` when its first line is longer than that.
async fn sample_json(
    place: &Place,
    settings: &Settings,
    meta: &ObjectMeta,
) -> datafusion::error::Result<Option<SchemaRef>> {
    let end = meta.size.min(JSON_SAMPLE_BYTES);
    let mut sample = place.store.get_range(&meta.location, 0..end).await?;
    if end < meta.size {
        match sample.iter().rposition(|byte| *byte == b'\n') {
            Some(newline) => sample.truncate(newline),
            None => return Ok(None),
        }
    }
    let (schema, _) = infer_json_schema(sample.as_ref(), Some(settings.sample_rows()))?;
    Ok(Some(Arc::new(schema)))
}

/// Gives nameless columns a name by their position and refuses two of one name.
fn named_once(schema: &Schema) -> Result<SchemaRef> {
    let mut seen = HashSet::new();
    let mut fields = Vec::with_capacity(schema.fields().len());
    for (index, field) in schema.fields().iter().enumerate() {
        let name = match field.name().trim() {
            "" => format!("column_{}", index + 1),
            _ => field.name().clone(),
        };
        if !seen.insert(name.clone()) {
            let reason = format!("two of its columns are named {name}");
            return Err(Error::File { url: String::new(), reason });
        }
        // Metadata (field ids, writers' notes) differs between files without a meaning for rows,
        // except where it names an extension type.
        let mut metadata = field.metadata().clone();
        metadata.retain(|key, _| key.starts_with("ARROW:extension"));
        fields.push(Field::new(name, field.data_type().clone(), true).with_metadata(metadata));
    }
    Ok(Arc::new(Schema::new(fields)))
}

/// The type of a column in all files and the file that first had that type.
struct Merged<'a> {
    field: Field,
    origin: &'a Path,
}

/// The columns of all files together, in the order of the files and of their columns.
///
/// # Errors
/// When two files' types clash; the error names both files, the column and both types.
pub(crate) fn merge(
    place: &Place,
    settings: &Settings,
    files: &[(&Path, Arc<FileInfo>)],
    partitions: &[Column],
) -> Result<SchemaRef> {
    let mut merged: Vec<Merged<'_>> = Vec::new();
    let mut positions: HashMap<String, usize> = HashMap::new();
    let mut done: HashSet<*const FileInfo> = HashSet::new();
    for (path, info) in files {
        if !done.insert(Arc::as_ptr(info)) {
            continue;
        }
        for field in info.schema.fields() {
            // The folder decides where a writer has repeated the partition's value in the file.
            if partitions.iter().any(|partition| partition.name == *field.name()) {
                continue;
            }
            let Some(known) = positions.get(field.name()).and_then(|at| merged.get_mut(*at)) else {
                positions.insert(field.name().clone(), merged.len());
                merged.push(Merged { field: field.as_ref().clone(), origin: path });
                continue;
            };
            let (before, here) = (known.field.data_type(), field.data_type());
            match widen_for(settings.format, before, here) {
                Some(wider) if wider == *before => {}
                Some(wider) => {
                    known.field.set_data_type(wider);
                    known.origin = path;
                }
                None => {
                    return Err(Error::Clash {
                        url: object_url(place, path),
                        column: field.name().clone(),
                        found: here.to_string(),
                        expected: before.to_string(),
                        other: object_url(place, known.origin),
                    });
                }
            }
            if known.field.metadata() != field.metadata() {
                known.field.set_metadata(HashMap::new());
            }
        }
    }
    let fields: Vec<Field> = merged.into_iter().map(|column| without_null(column.field)).collect();
    Ok(Arc::new(Schema::new(fields)))
}

/// The type for two types of one column; in text files a type is only a guess.
pub(crate) fn widen_for(format: Format, a: &DataType, b: &DataType) -> Option<DataType> {
    if format.is_text() { widen_guessed(a, b) } else { widen(a, b) }
}

/// A column without any value is text, so that clients that know no NULL type can read it.
fn without_null(field: Field) -> Field {
    match field.data_type() {
        DataType::Null => field.with_data_type(DataType::Utf8),
        _ => field,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn place() -> Place {
        Place {
            url: url::Url::parse("s3://b/t/").unwrap(),
            store: Arc::new(object_store::memory::InMemory::new()),
            path: Path::from("t"),
        }
    }

    fn info(columns: &[(&str, DataType)]) -> Arc<FileInfo> {
        let fields: Vec<Field> =
            columns.iter().map(|(name, t)| Field::new(*name, t.clone(), true)).collect();
        Arc::new(FileInfo { schema: Arc::new(Schema::new(fields)), is_stream: false })
    }

    #[test]
    fn a_clash_names_both_files_the_column_and_both_types() {
        let settings = Settings::parse(Format::Parquet, &BTreeMap::new()).unwrap();
        let (a, b, c) = (Path::from("t/a"), Path::from("t/b x"), Path::from("t/c"));
        let files = [
            (&a, info(&[("id", DataType::Int8)])),
            (&b, info(&[("new", DataType::Utf8), ("id", DataType::Int64)])),
        ];
        let schema = merge(&place(), &settings, &files, &[]).unwrap();
        assert_eq!(schema.field(0).data_type(), &DataType::Int64);
        assert_eq!(schema.field(1).name(), "new");
        let mut files = files.to_vec();
        files.push((&c, info(&[("id", DataType::Utf8)])));
        let error = merge(&place(), &settings, &files, &[]).unwrap_err().to_string();
        assert_eq!(error, "column id is Utf8 in s3://b/t/c but Int64 in s3://b/t/b%20x");
        let hidden = [Column::new("id", DataType::Int8)];
        assert_eq!(merge(&place(), &settings, &files, &hidden).unwrap().fields().len(), 1);
    }

    #[test]
    fn nameless_columns_get_a_name_and_two_of_one_name_are_refused() {
        let schema = Schema::new(vec![
            Field::new("a", DataType::Int8, false),
            Field::new(" ", DataType::Int8, false),
        ]);
        assert_eq!(named_once(&schema).unwrap().field(1).name(), "column_2");
        let twice = Schema::new(vec![
            Field::new("a", DataType::Int8, false),
            Field::new("a", DataType::Int8, false),
        ]);
        assert!(named_once(&twice).unwrap_err().to_string().contains("named a"));
    }
}
