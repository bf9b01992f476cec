//! Lines of text without some: what stays is copied byte by byte.
//!
//! Records are told apart by the parsers that read them as rows: quotes, escapes, comments and line
//! ends mean here what they mean there. Blank lines and comments in front of a record go with it.

use std::io::{Cursor, Read};

use bytes::Bytes;
use csv_core::{ReadRecordResult, ReaderBuilder, Terminator};
use datafusion::common::config::CsvOptions;
use datafusion::common::parsers::CompressionTypeVariant;
use datafusion_datasource::file_compression_type::FileCompressionType;
use serde::de::IgnoredAny;

use super::{FILE_BYTES_MAX, Mask, NOT_WHOLE, Refusal, TOO_LARGE};

/// Bytes and fields of a record that are parsed at once; they are not kept.
const PARSED_AT_ONCE: usize = 4_096;

/// A text file as it is once decompressed.
pub(super) fn unpacked(
    bytes: &Bytes,
    compression: CompressionTypeVariant,
) -> Result<Bytes, Refusal> {
    if compression == CompressionTypeVariant::UNCOMPRESSED {
        return Ok(bytes.clone());
    }
    let compression = FileCompressionType::from(compression);
    let packed = compression.convert_read(Cursor::new(bytes.clone())).map_err(|_| NOT_WHOLE)?;
    let mut plain = Vec::new();
    packed.take(FILE_BYTES_MAX + 1).read_to_end(&mut plain).map_err(|_| NOT_WHOLE)?;
    match plain.len() as u64 > FILE_BYTES_MAX {
        true => Err(TOO_LARGE),
        false => Ok(Bytes::from(plain)),
    }
}

/// A CSV file without the rows that go.
pub(super) fn csv(
    content: &[u8],
    has_header: bool,
    options: &CsvOptions,
    mask: &mut Mask<'_>,
) -> Result<Vec<u8>, Refusal> {
    let mut builder = ReaderBuilder::new();
    builder.delimiter(options.delimiter).quote(options.quote);
    builder.escape(options.escape).comment(options.comment);
    if let Some(terminator) = options.terminator {
        builder.terminator(Terminator::Any(terminator));
    }
    let mut parser = builder.build();
    let (mut fields, mut ends) = ([0; PARSED_AT_ONCE], [0; PARSED_AT_ONCE]);
    let mut kept = Vec::with_capacity(content.len());
    let mut is_header = has_header;
    let (mut start, mut at) = (0, 0);
    loop {
        let rest = content.get(at..).unwrap_or_default();
        let (result, read, _, _) = parser.read_record(rest, &mut fields, &mut ends);
        at += read;
        match result {
            // The record goes on. An empty rest tells the parser that it ends here.
            ReadRecordResult::InputEmpty
            | ReadRecordResult::OutputFull
            | ReadRecordResult::OutputEndsFull => {}
            ReadRecordResult::Record => {
                if std::mem::take(&mut is_header) || !mask.take()? {
                    kept.extend_from_slice(content.get(start..at).unwrap_or_default());
                }
                start = at;
            }
            ReadRecordResult::End => break,
        }
    }
    kept.extend_from_slice(content.get(start..).unwrap_or_default());
    if options.terminator.is_none() {
        without_line_ends(&mut kept);
    }
    Ok(kept)
}

/// A file of JSON objects without those that go.
pub(super) fn json(content: &[u8], mask: &mut Mask<'_>) -> Result<Vec<u8>, Refusal> {
    let mut values = serde_json::Deserializer::from_slice(content).into_iter::<IgnoredAny>();
    let mut kept = Vec::with_capacity(content.len());
    let mut start = 0;
    while let Some(value) = values.next() {
        value.map_err(|_| NOT_WHOLE)?;
        let end = values.byte_offset();
        if !mask.take()? {
            kept.extend_from_slice(content.get(start..end).unwrap_or_default());
        }
        start = end;
    }
    kept.extend_from_slice(content.get(start..).unwrap_or_default());
    without_line_ends(&mut kept);
    Ok(kept)
}

/// The line end of a first record that is gone may be left in front of the next one.
fn without_line_ends(kept: &mut Vec<u8>) {
    let blank = kept.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
    kept.drain(..blank);
}
