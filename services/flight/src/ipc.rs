//! Decoder of all Arrow IPC from clients: puts, parameters, and handles of prepared statements.
//!
//! A message claims lengths: of its buffers, of their decompressed content, of its rows, of texts that several fields share. Each claim is
//! checked against the received bytes before anything is allocated for it. A failed allocation would end the process.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::buffer::Buffer;
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::ipc::convert::fb_to_schema;
use arrow::ipc::reader::RecordBatchDecoder;
use arrow::ipc::{Endianness, Message, MessageHeader, root_as_message_with_opts};
use arrow_flight::FlightData;
use bytes::{Buf, Bytes};
use flatbuffers::VerifierOptions;
use position::OffsetRange;
use proto::Message as _;
use proto::metadata::{BatchMetadata, RANGE_OFFSETS_MAX};
use schema::RangedBatch;

/// Largest ratio of the bytes that a message's header describes to the header's own bytes. Writers share only the layouts of the header's
/// tables.
const HEADER_SHARING_MAX: usize = 4;
/// Number of bytes that a header may describe in addition to [`HEADER_SHARING_MAX`] times its own bytes. In the smallest headers, the
/// shared layouts are the largest part.
const HEADER_BYTES_MIN: usize = 4096;
/// Maximum number of columns of a schema. No table and no list of parameters comes near this number.
const COLUMNS_MAX: usize = 65_536;
/// Widest value of a fixed-width type, in bytes: the longest hashes have 64. A null takes as many bytes as a value.
const FIXED_BYTES_MAX: i32 = 1024;
/// Maximum number of rows of a batch whose columns take no bytes, because all values are null.
const ROWS_WITHOUT_BYTES_MAX: usize = 1000;
/// Upper bound of partition numbers: ten times the partitions of the largest topics.
pub(crate) const PARTITIONS_MAX: i32 = 100_000;
/// Upper bound of offsets. Positions are sent as JSON, whose numbers are exact up to this value in every language.
pub(crate) const OFFSETS_MAX: i64 = 1 << 53;
/// First bytes of an encapsulated message.
const CONTINUATION: [u8; 4] = [0xff; 4];
/// Alignment of the buffers that Arrow computes on, in bytes.
const ALIGNMENT: usize = 64;

/// Decoder of the messages of one stream.
#[derive(Debug, Default)]
pub(crate) struct Decoder {
    expected: Option<(&'static str, SchemaRef)>,
    schema: Option<SchemaRef>,
}

impl Decoder {
    /// Returns a decoder for rows of `table`. The stream must have the table's columns. The decoded batches have exactly its schema.
    pub(crate) fn of(table: &'static str, schema: SchemaRef) -> Self {
        Decoder { expected: Some((table, schema)), schema: None }
    }

    /// Decodes the next message of a put of bronze or gold, and the range in its metadata. Returns `None` if it holds no batch.
    ///
    /// # Errors
    ///
    /// Text that describes the defect of the message or of its range. The stream is unusable after an error.
    pub(crate) fn decode_ranged(&mut self, message: &FlightData) -> Result<Option<RangedBatch>, String> {
        let Some(rows) = self.decode(message)? else { return Ok(None) };
        Ok(Some(RangedBatch { range: range_of(message)?, rows }))
    }

    /// Decodes the next message. Returns `None` if it holds no batch. Drops the metadata of the schema.
    ///
    /// # Errors
    ///
    /// Text that describes the defect of the message. The stream is unusable after an error.
    pub(crate) fn decode(&mut self, message: &FlightData) -> Result<Option<RecordBatch>, String> {
        if message.data_header.is_empty() {
            return Ok(None);
        }
        let header = header(&message.data_header)?;
        match header.header_type() {
            MessageHeader::NONE => Ok(None),
            MessageHeader::Schema => {
                let mut schema = read_schema(&header)?;
                if let Some((table, expected)) = &self.expected {
                    if *expected != schema {
                        return Err(format!(
                            "the schema is not {table}'s: expected {expected}, found {schema}"
                        ));
                    }
                    schema = Arc::clone(expected);
                }
                if self.schema.as_ref().is_some_and(|before| *before != schema) {
                    return Err("the schema changes within the stream".to_owned());
                }
                self.schema = Some(schema);
                Ok(None)
            }
            MessageHeader::RecordBatch => {
                let schema = self.schema.clone().ok_or("a batch came before its schema")?;
                read_batch(&header, &message.data_body, schema).map(Some)
            }
            MessageHeader::DictionaryBatch => {
                Err("dictionaries are not supported: send the values themselves".to_owned())
            }
            other => Err(format!("a message of kind {other:?} does not belong in a stream of batches")),
        }
    }
}

/// Reads the range of a batch of bronze or gold.
///
/// # Errors
///
/// The message holds no range, or one that no batch of Kafka messages can have. A wrong range would move the position, and a position never
/// goes back.
fn range_of(message: &FlightData) -> Result<OffsetRange, String> {
    let metadata = BatchMetadata::decode(&message.app_metadata);
    let range = metadata.map_err(|error| format!("its app_metadata is not a range: {error}"))?.range;
    if range.first < 0 || range.partition < 0 || range.next < range.first {
        return Err(format!("{range} is not a range of offsets"));
    }
    if range.partition >= PARTITIONS_MAX || range.next >= OFFSETS_MAX {
        return Err(format!(
            "{range} is beyond all topics: partitions end at {PARTITIONS_MAX}, offsets at {OFFSETS_MAX}"
        ));
    }
    if range.next - range.first > RANGE_OFFSETS_MAX {
        return Err(format!(
            "{range} is too long a range for one batch: put batches of at most {RANGE_OFFSETS_MAX} offsets, and empty batches where there are no rows"
        ));
    }
    Ok(range)
}

/// Decodes the first batch of an untrusted Arrow stream.
///
/// # Errors
///
/// Text that describes the defect of the stream.
pub(crate) fn first_batch(stream: &[u8]) -> Result<RecordBatch, String> {
    let mut stream = Bytes::copy_from_slice(stream);
    let mut decoder = Decoder::default();
    loop {
        let message = next_message(&mut stream)?.ok_or("the stream ends before its first batch")?;
        if let Some(batch) = decoder.decode(&message)? {
            return Ok(batch);
        }
    }
}

/// Takes the next message from a stream. Returns `None` at its end.
fn next_message(stream: &mut Bytes) -> Result<Option<FlightData>, String> {
    if stream.is_empty() {
        return Ok(None);
    }
    let cut_off = || "the stream ends within a message".to_owned();
    if stream.len() < 8 || stream[..4] != CONTINUATION {
        return Err("the stream is not an Arrow stream".to_owned());
    }
    stream.advance(CONTINUATION.len());
    let header_bytes = usize::try_from(stream.get_u32_le()).map_err(|_| cut_off())?;
    if header_bytes == 0 {
        return Ok(None);
    }
    if header_bytes > stream.len() {
        return Err(cut_off());
    }
    let data_header = stream.split_to(header_bytes);
    let body_bytes = usize::try_from(header(&data_header)?.bodyLength()).unwrap_or(usize::MAX);
    if body_bytes > stream.len() {
        return Err(cut_off());
    }
    let data_body = stream.split_to(body_bytes);
    Ok(Some(FlightData { data_header, data_body, ..FlightData::default() }))
}

/// Reads a message's header. The header may describe only a few times its own bytes, however often it shares its parts.
fn header(bytes: &[u8]) -> Result<Message<'_>, String> {
    let limits = VerifierOptions {
        max_apparent_size: bytes.len().saturating_mul(HEADER_SHARING_MAX).saturating_add(HEADER_BYTES_MIN),
        ..VerifierOptions::default()
    };
    root_as_message_with_opts(&limits, bytes)
        .map_err(|error| format!("a message has no valid Arrow header: {error}"))
}

fn read_schema(header: &Message<'_>) -> Result<SchemaRef, String> {
    let schema = header.header_as_schema().ok_or("a schema message holds no schema")?;
    let fields = schema.fields().ok_or("the schema has no list of columns")?;
    if fields.len() > COLUMNS_MAX {
        return Err(format!("the schema has {} columns; at most {COLUMNS_MAX} are supported", fields.len()));
    }
    if schema.endianness() != Endianness::Little {
        return Err("the stream is big-endian: send it little-endian".to_owned());
    }
    // Checked before the types are built, because types can nest without limit.
    let nested =
        |field: &arrow::ipc::Field<'_>| field.children().is_some_and(|children| !children.is_empty());
    if let Some(field) = fields.iter().find(nested) {
        return Err(format!(
            "column {:?} is nested: only plain values are supported",
            field.name().unwrap_or_default()
        ));
    }
    let schema = caught(|| Ok(fb_to_schema(schema)))?;
    let plain = |field: &FieldRef| {
        if is_plain(field.data_type()) {
            return Ok(Field::new(field.name(), field.data_type().clone(), field.is_nullable()));
        }
        Err(format!(
            "column {:?} is of type {}: only plain values are supported",
            field.name(),
            field.data_type()
        ))
    };
    let fields = schema.fields().iter().map(plain).collect::<Result<Vec<_>, _>>()?;
    Ok(Arc::new(Schema::new(fields)))
}

/// Returns true if each value of the type has its own bytes in the batch. Views and dictionaries can describe more bytes than they hold,
/// and so can nested types.
fn is_plain(kind: &DataType) -> bool {
    match kind {
        DataType::FixedSizeBinary(width) => (1..=FIXED_BYTES_MAX).contains(width),
        DataType::Null
        | DataType::Boolean
        | DataType::Binary
        | DataType::LargeBinary
        | DataType::Utf8
        | DataType::LargeUtf8 => true,
        _ => kind.is_primitive(),
    }
}

fn read_batch(header: &Message<'_>, body: &Bytes, schema: SchemaRef) -> Result<RecordBatch, String> {
    let batch = header.header_as_record_batch().ok_or("a batch message holds no batch")?;
    check_batch(&batch, &schema, body.len())?;
    // An aligned body is not copied.
    let is_aligned = body.as_ptr().addr().is_multiple_of(ALIGNMENT);
    let body = if is_aligned { Buffer::from(body.clone()) } else { Buffer::from(&body[..]) };
    let no_dictionaries = HashMap::new();
    caught(|| {
        RecordBatchDecoder::try_new(&body, batch, schema, &no_dictionaries, &header.version())?
            .read_record_batch()
    })
}

/// Checks the lengths that a batch claims against the bytes of its message.
fn check_batch(
    batch: &arrow::ipc::RecordBatch<'_>,
    schema: &Schema,
    body_bytes: usize,
) -> Result<(), String> {
    if batch.compression().is_some() {
        return Err("a batch is compressed: send it uncompressed".to_owned());
    }
    // Each value takes at least one bit.
    let rows_max = body_bytes.saturating_mul(8).saturating_add(ROWS_WITHOUT_BYTES_MAX);
    if usize::try_from(batch.length()).is_ok_and(|rows| rows > rows_max) || batch.length() < 0 {
        return Err(format!("a batch of {body_bytes} bytes cannot hold {} rows", batch.length()));
    }
    let nodes = batch.nodes().ok_or("a batch has no list of columns")?;
    let is_whole = nodes
        .iter()
        .all(|node| node.length() == batch.length() && (0..=node.length()).contains(&node.null_count()));
    if nodes.len() != schema.fields().len() || !is_whole {
        return Err("the columns of a batch are not those of its schema, or not of its length".to_owned());
    }
    let (mut used, mut is_inside) = (0_usize, true);
    for buffer in batch.buffers().ok_or("a batch has no list of buffers")? {
        let (start, bytes) = (usize::try_from(buffer.offset()), usize::try_from(buffer.length()));
        let end = start.ok().zip(bytes.ok()).and_then(|(start, bytes)| {
            used = used.saturating_add(bytes);
            start.checked_add(bytes)
        });
        is_inside &= end.is_some_and(|end| end <= body_bytes);
    }
    // Buffers that share bytes would be copied separately.
    if !is_inside || used > body_bytes {
        return Err(format!("the buffers of a batch claim more than its {body_bytes} bytes"));
    }
    Ok(())
}

/// Runs a function of the library, which panics on some unexpected input.
fn caught<T>(read: impl FnOnce() -> Result<T, ArrowError>) -> Result<T, String> {
    match catch_unwind(AssertUnwindSafe(read)) {
        Ok(read) => read.map_err(|error| format!("a message cannot be read: {error}")),
        Err(_) => Err("a message cannot be read".to_owned()),
    }
}

#[cfg(test)]
mod tests;
