//! A file of a lake's table, written without some of its rows.
//!
//! Everything else stays as it was: lines of text byte by byte, Parquet values column by column
//! under the same schema, compression and notes, rows in their order. Which rows go is a bit for
//! each of them, in the order of the file; a file that has not exactly as many rows is refused, and
//! so is one that cannot be written back without a loss. The content is in memory as a whole,
//! because it takes the file's place as a whole.

mod arrow_file;
mod parquet_file;
mod text;

use arrow::buffer::BooleanBuffer;
use bytes::Bytes;
use datafusion::common::parsers::CompressionTypeVariant;
use datafusion::error::DataFusionError;
use datafusion_datasource::file_compression_type::FileCompressionType;
use futures::{StreamExt, TryStreamExt};

use super::format::{Format, Settings};
use crate::error::{Error, Result};
use crate::personal_columns::PersonalColumns;

/// Bytes of a file, and of what it holds once decompressed, that is written anew.
pub(crate) const FILE_BYTES_MAX: u64 = 1 << 30;
/// How many times a file is in memory at once: as it is, plain, and as it is written.
pub(crate) const TIMES_IN_MEMORY: usize = 3;

/// Why a file stays as it is, in words that go behind its name and tell no value of it.
pub(crate) type Refusal = &'static str;

pub(crate) const TOO_LARGE: Refusal = "too large to be rewritten in memory";
const NOT_WHOLE: Refusal = "it is not read as its rows are";
const NOT_PACKED: Refusal = "its compression cannot be written";

/// A file's content and how it is read.
pub(crate) struct Content {
    pub name: String,
    pub settings: Settings,
    pub bytes: Bytes,
    /// The columns of which a Parquet file gets no statistics.
    pub personal: PersonalColumns,
}

/// Why files of a format are never written anew; `None` when they are.
pub(crate) fn refused(format: Format) -> Option<Refusal> {
    match format {
        Format::Parquet | Format::Csv | Format::Json | Format::Arrow => None,
        Format::Avro => Some("Avro files are not rewritten"),
        Format::Delta => Some("Delta tables are not rewritten"),
    }
}

/// The content without the rows that go; a refusal when it cannot be written so.
///
/// # Errors
/// When the work is ended from outside.
pub(crate) async fn without(
    content: Content,
    gone: BooleanBuffer,
) -> Result<Result<Bytes, Refusal>> {
    let compression = content.settings.compression_of(&content.name);
    let written = tokio::task::spawn_blocking(move || written(&content, &gone)).await;
    let plain = match written {
        Ok(Ok(plain)) => Bytes::from(plain),
        Ok(Err(refusal)) => return Ok(Err(refusal)),
        // A decoder gives up on a damaged file in its own way.
        Err(ended) if ended.is_panic() => return Ok(Err(NOT_WHOLE)),
        Err(ended) => return Err(Error::invalid(format!("a file's rewriting: {ended}"))),
    };
    if compression == CompressionTypeVariant::UNCOMPRESSED {
        return Ok(Ok(plain));
    }
    Ok(packed(plain, compression).await.map_err(|_| NOT_PACKED))
}

fn written(content: &Content, gone: &BooleanBuffer) -> Result<Vec<u8>, Refusal> {
    let Content { name, settings, bytes, personal } = content;
    let mut mask = Mask { gone, next: 0 };
    let written = match settings.format {
        Format::Csv => {
            let plain = text::unpacked(bytes, settings.compression_of(name))?;
            text::csv(&plain, settings.has_header(), &settings.csv_options(name), &mut mask)
        }
        Format::Json => {
            let plain = text::unpacked(bytes, settings.compression_of(name))?;
            text::json(&plain, &mut mask)
        }
        Format::Parquet => parquet_file::written(bytes, personal, &mut mask),
        Format::Arrow => arrow_file::written(bytes, &mut mask),
        Format::Avro | Format::Delta => Err(refused(settings.format).unwrap_or(NOT_WHOLE)),
    }?;
    mask.end()?;
    Ok(written)
}

async fn packed(
    plain: Bytes,
    compression: CompressionTypeVariant,
) -> Result<Bytes, DataFusionError> {
    let plain = futures::stream::once(async move { Ok(plain) }).boxed();
    let packed = FileCompressionType::from(compression).convert_to_compress_stream(plain)?;
    let parts = packed.try_collect::<Vec<Bytes>>().await?;
    Ok(Bytes::from(parts.concat()))
}

/// Which rows go, told one after another.
struct Mask<'a> {
    gone: &'a BooleanBuffer,
    next: usize,
}

impl Mask<'_> {
    /// Whether the next row goes.
    ///
    /// # Errors
    /// When there are more rows than was said.
    fn take(&mut self) -> Result<bool, Refusal> {
        if self.next >= self.gone.len() {
            return Err(NOT_WHOLE);
        }
        let is_gone = self.gone.value(self.next);
        self.next += 1;
        Ok(is_gone)
    }

    /// # Errors
    /// When there were fewer rows than was said.
    fn end(&self) -> Result<(), Refusal> {
        if self.next == self.gone.len() { Ok(()) } else { Err(NOT_WHOLE) }
    }
}

#[cfg(test)]
mod tests;
