//! Batches and their ranges as Flight messages.

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use arrow::ipc::writer::{DictionaryTracker, IpcDataGenerator, IpcWriteContext, IpcWriteOptions};
use arrow_flight::{FlightData, SchemaAsIpc};
use position::OffsetRange;
use schema::RangedBatch;
use schema::ranged::offset_at;

use proto::metadata::{BatchMetadata, RANGE_OFFSETS_MAX};
use proto::{Encoding, Message as _};

/// Largest batch in one message, in bytes of its columns: half of tonic's default limit of 4 MiB, as in arrow-flight's own encoder.
const MESSAGE_BYTES_MAX: usize = 2 * 1024 * 1024;

/// Returns the schema message that opens a stream of batches.
pub fn encode_schema(schema: &SchemaRef) -> FlightData {
    SchemaAsIpc::new(schema, &IpcWriteOptions::default()).into()
}

/// Writes a bronze batch, split where it is too large for one message. The pieces' ranges tile its range.
///
/// # Errors
///
/// [`ArrowError`] when the batch cannot be written as IPC, which no bronze batch can cause.
pub fn encode_batch(batch: &RangedBatch) -> Result<Vec<FlightData>, ArrowError> {
    let RangedBatch { range, rows } = batch;
    let pieces = batch_bytes(rows)?.div_ceil(MESSAGE_BYTES_MAX).max(1);
    let rows_max = rows.num_rows().div_ceil(pieces).max(1);
    let mut messages = Vec::with_capacity(pieces);
    let mut first = range.first;
    let mut row = 0;
    loop {
        let count = rows_max.min(rows.num_rows() - row);
        let piece = rows.slice(row, count);
        row += count;
        let next = if row < rows.num_rows() { offset_at(rows, row) } else { range.next };
        messages.push(encode_message(&piece, OffsetRange { first, next, ..*range })?);
        if row >= rows.num_rows() {
            return Ok(messages);
        }
        first = next;
    }
}

/// Writes a bronze batch for a put: like [`encode_batch`], and no piece stands for more than [`RANGE_OFFSETS_MAX`] offsets.
///
/// # Errors
///
/// As for [`encode_batch`].
pub fn encode_put(batch: &RangedBatch) -> Result<Vec<FlightData>, ArrowError> {
    let mut messages = Vec::new();
    let mut rest = Some(batch.clone());
    while let Some(batch) = rest {
        let next = batch.range.first.saturating_add(RANGE_OFFSETS_MAX).min(batch.range.next);
        // An empty range has no offset below its end.
        messages.extend(encode_batch(&batch.below(next).unwrap_or_else(|| batch.clone()))?);
        rest = batch.above(next);
    }
    Ok(messages)
}

/// Writes a gold batch, split where it is too large for one message. Only the range of the last piece advances, so a reader can continue
/// after any piece without a loss.
///
/// # Errors
///
/// [`ArrowError`] when the batch cannot be written as IPC, which no gold batch can cause.
pub fn encode_upserts(batch: &RangedBatch) -> Result<Vec<FlightData>, ArrowError> {
    let RangedBatch { range, rows } = batch;
    let pieces = batch_bytes(rows)?.div_ceil(MESSAGE_BYTES_MAX).max(1);
    let rows_max = rows.num_rows().div_ceil(pieces).max(1);
    let starts = (0..rows.num_rows().max(1)).step_by(rows_max);
    let piece = |start: usize| {
        let count = rows_max.min(rows.num_rows() - start);
        let is_last = start + count >= rows.num_rows();
        let next = if is_last { range.next } else { range.first };
        encode_message(&rows.slice(start, count), OffsetRange { next, ..*range })
    };
    starts.map(piece).collect()
}

/// Returns the number of bytes of a batch's rows. If the rows are slices of larger buffers, only the slices count.
///
/// # Errors
///
/// [`ArrowError`] for a type without a known layout, which bronze does not have.
pub fn batch_bytes(batch: &RecordBatch) -> Result<usize, ArrowError> {
    batch.columns().iter().map(|column| column.to_data().get_slice_memory_size()).sum()
}

fn encode_message(batch: &RecordBatch, range: OffsetRange) -> Result<FlightData, ArrowError> {
    // Neither table has dictionaries, so a new tracker for each message loses nothing.
    let mut dictionaries = DictionaryTracker::new(false);
    let (_, encoded) = IpcDataGenerator::default().encode(
        batch,
        &mut dictionaries,
        &IpcWriteOptions::default(),
        &mut IpcWriteContext::default(),
    )?;
    Ok(FlightData::from(encoded).with_app_metadata(BatchMetadata { range }.encode(Encoding::Protobuf)))
}

#[cfg(test)]
mod tests;
