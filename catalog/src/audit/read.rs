//! Where the record's objects are, and reading its entries in order.
//!
//! Segments lie in folders of a thousand, so that the newest is found by two listings, however long
//! the record is.

use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};
use object_store::ObjectMeta;
use object_store::path::Path;

use super::chain::{Seal, parse};
use super::entry::AuditEntry;
use crate::error::{Error, Result};
use crate::store::Place;

/// Segments in a folder.
const FOLDER_SEGMENTS: u64 = 1_000;
/// Segments that are fetched ahead of their reader.
pub(super) const AHEAD: usize = 16;

const SEGMENT: &str = ".log";
const SEAL: &str = ".json";

/// Where a segment is.
pub(super) fn segment(folder: &Place, number: u64) -> Place {
    folder.child(&format!("segments/{:012}/{number:015}{SEGMENT}", number / FOLDER_SEGMENTS))
}

/// Where the checkpoint of a segment is.
pub(super) fn checkpoint(folder: &Place, number: u64) -> Place {
    folder.child(&format!("checkpoints/{number:015}{SEAL}"))
}

/// Where it is said that the retention removed everything up to a segment.
pub(super) fn removal(folder: &Place, number: u64) -> Place {
    folder.child(&format!("removals/{number:015}{SEAL}"))
}

fn number(path: &Path, ending: &str) -> Option<u64> {
    path.filename()?.strip_suffix(ending)?.parse().ok()
}

/// The objects below a folder; none where there is no folder.
///
/// # Errors
/// When the store cannot be reached.
pub(super) async fn objects(folder: &Place) -> Result<Vec<Path>> {
    let listed: Result<Vec<ObjectMeta>, _> =
        folder.store.list(Some(&folder.path)).try_collect().await;
    match listed {
        Ok(objects) => Ok(objects.into_iter().map(|object| object.location).collect()),
        Err(object_store::Error::NotFound { .. }) => Ok(Vec::new()),
        Err(error) => Err(Error::store(folder.url.as_str(), &error)),
    }
}

async fn numbers(folder: &Place, ending: &str) -> Result<Vec<u64>> {
    let objects = objects(folder).await?;
    let mut found: Vec<u64> = objects.iter().filter_map(|path| number(path, ending)).collect();
    found.sort_unstable();
    Ok(found)
}

/// The folders of segments, in order.
async fn folders(folder: &Place) -> Result<Vec<Place>> {
    let segments = folder.child("segments");
    let listed = match segments.store.list_with_delimiter(Some(&segments.path)).await {
        Ok(listed) => listed.common_prefixes,
        Err(object_store::Error::NotFound { .. }) => Vec::new(),
        Err(error) => return Err(Error::store(segments.url.as_str(), &error)),
    };
    let mut names: Vec<&str> = listed.iter().filter_map(Path::filename).collect();
    names.sort_unstable();
    Ok(names.into_iter().map(|name| segments.child(name)).collect())
}

/// The number of the newest segment; 0 when there is none.
///
/// # Errors
/// When the store cannot be reached.
pub(super) async fn last(folder: &Place) -> Result<u64> {
    for block in folders(folder).await?.iter().rev() {
        if let Some(newest) = numbers(block, SEGMENT).await?.last() {
            return Ok(*newest);
        }
    }
    Ok(0)
}

/// The numbers of the oldest segments: those of the first folder that holds any.
///
/// # Errors
/// When the store cannot be reached.
pub(super) async fn oldest(folder: &Place) -> Result<Vec<u64>> {
    for block in folders(folder).await? {
        let found = numbers(&block, SEGMENT).await?;
        if !found.is_empty() {
            return Ok(found);
        }
    }
    Ok(Vec::new())
}

/// The numbers of all segments, in order.
///
/// # Errors
/// When the store cannot be reached.
pub(super) async fn all(folder: &Place) -> Result<Vec<u64>> {
    numbers(&folder.child("segments"), SEGMENT).await
}

/// The numbers of all checkpoints, in order.
///
/// # Errors
/// When the store cannot be reached.
pub(super) async fn checkpoints(folder: &Place) -> Result<Vec<u64>> {
    numbers(&folder.child("checkpoints"), SEAL).await
}

/// The numbers up to which the retention has removed segments, in order.
///
/// # Errors
/// When the store cannot be reached.
pub(super) async fn removals(folder: &Place) -> Result<Vec<u64>> {
    numbers(&folder.child("removals"), SEAL).await
}

/// A seal in an object of its own; `None` when there is no such object. The inner error is what is
/// wrong with it.
///
/// # Errors
/// When the store cannot be reached.
pub(super) async fn seal(place: &Place) -> Result<Option<Result<Seal, String>>> {
    let content = place.read_if_exists().await?;
    Ok(content.map(|content| serde_json::from_slice(&content).map_err(|error| error.to_string())))
}

/// The entries of the record below `folder`, a segment at a time, oldest first. A segment that does
/// not hold together ends it with an error.
pub(super) fn entries(folder: Place) -> BoxStream<'static, Result<Vec<AuditEntry>>> {
    let listed = async move {
        let numbers = all(&folder).await?;
        let read = stream::iter(numbers).map(move |number| {
            let place = segment(&folder, number);
            async move { read(&place, number).await }
        });
        Ok::<_, Error>(read.buffered(AHEAD))
    };
    stream::once(listed).try_flatten().boxed()
}

async fn read(place: &Place, number: u64) -> Result<Vec<AuditEntry>> {
    // One that the retention has removed meanwhile is gone.
    let Some(content) = place.read_if_exists().await? else { return Ok(Vec::new()) };
    let segment = parse(number, &content, None)
        .map_err(|fault| Error::Corrupt { what: "the record".into(), reason: fault.to_string() })?;
    Ok(segment.lines.into_iter().map(|line| line.entry).collect())
}
