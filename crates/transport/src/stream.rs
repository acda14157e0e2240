//! Record batches with their ranges as Flight messages.

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{Int64Type, SchemaRef};
use arrow::error::ArrowError;
use arrow::ipc::writer::{DictionaryTracker, IpcDataGenerator, IpcWriteContext, IpcWriteOptions};
use arrow_flight::{FlightData, SchemaAsIpc};
use position::OffsetRange;
use schema::bronze::column;

use proto::metadata::{BatchMetadata, RANGE_OFFSETS_MAX};
use proto::{Encoding, Message as _};

/// Largest batch in one message, in bytes of its columns: half of tonic's default limit of 4 MiB, as in arrow-flight's own encoder.
const MESSAGE_BYTES_MAX: usize = 2 * 1024 * 1024;

/// Returns the schema message that opens a stream of batches.
pub fn encode_schema(schema: &SchemaRef) -> FlightData {
    SchemaAsIpc::new(schema, &IpcWriteOptions::default()).into()
}

/// Writes a bronze batch with its range, split where it is too large for one message. The pieces' ranges tile `range`.
///
/// # Errors
///
/// [`ArrowError`] when the batch cannot be written as IPC, which no bronze batch can cause.
pub fn encode_batch(batch: &RecordBatch, range: OffsetRange) -> Result<Vec<FlightData>, ArrowError> {
    let pieces = batch_bytes(batch)?.div_ceil(MESSAGE_BYTES_MAX).max(1);
    let rows_max = batch.num_rows().div_ceil(pieces).max(1);
    let mut messages = Vec::with_capacity(pieces);
    let mut first = range.first;
    let mut row = 0;
    loop {
        let rows = rows_max.min(batch.num_rows() - row);
        let piece = batch.slice(row, rows);
        row += rows;
        let next = if row < batch.num_rows() { offset_at(batch, row) } else { range.next };
        messages.push(encode_message(&piece, OffsetRange { first, next, ..range })?);
        if row >= batch.num_rows() {
            return Ok(messages);
        }
        first = next;
    }
}

/// Writes a bronze batch with its range for a put: like [`encode_batch`], and no piece stands for more than [`RANGE_OFFSETS_MAX`] offsets.
///
/// # Errors
///
/// As for [`encode_batch`].
pub fn encode_put(batch: &RecordBatch, range: OffsetRange) -> Result<Vec<FlightData>, ArrowError> {
    let offsets = batch.column(column::KAFKA_OFFSET).as_primitive::<Int64Type>().values();
    let mut messages = Vec::new();
    let (mut first, mut row) = (range.first, 0);
    loop {
        let next = first.saturating_add(RANGE_OFFSETS_MAX).min(range.next);
        let rows = offsets[row..].partition_point(|offset| *offset < next);
        messages.extend(encode_batch(&batch.slice(row, rows), OffsetRange { first, next, ..range })?);
        if next >= range.next {
            return Ok(messages);
        }
        (first, row) = (next, row + rows);
    }
}

/// Writes a gold batch with its range, split where it is too large for one message. Only the last piece's range moves, so that a reader
/// can continue after any of them and loses nothing.
///
/// # Errors
///
/// [`ArrowError`] when the batch cannot be written as IPC, which no gold batch can cause.
pub fn encode_upserts(batch: &RecordBatch, range: OffsetRange) -> Result<Vec<FlightData>, ArrowError> {
    let pieces = batch_bytes(batch)?.div_ceil(MESSAGE_BYTES_MAX).max(1);
    let rows_max = batch.num_rows().div_ceil(pieces).max(1);
    let starts = (0..batch.num_rows().max(1)).step_by(rows_max);
    let piece = |start: usize| {
        let rows = rows_max.min(batch.num_rows() - start);
        let is_last = start + rows >= batch.num_rows();
        let next = if is_last { range.next } else { range.first };
        encode_message(&batch.slice(start, rows), OffsetRange { next, ..range })
    };
    starts.map(piece).collect()
}

/// Returns the bytes of a batch's rows, without those of larger buffers that they are a slice of.
///
/// # Errors
///
/// [`ArrowError`] for a type without a known layout, which bronze does not have.
pub fn batch_bytes(batch: &RecordBatch) -> Result<usize, ArrowError> {
    batch.columns().iter().map(|column| column.to_data().get_slice_memory_size()).sum()
}

/// Returns the Kafka offset of a bronze row.
pub fn offset_at(batch: &RecordBatch, row: usize) -> i64 {
    batch.column(column::KAFKA_OFFSET).as_primitive::<Int64Type>().value(row)
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
