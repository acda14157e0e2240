use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, Decimal128Array, FixedSizeBinaryArray, Int64Array, NullArray, RecordBatch, StringArray,
};
use arrow::datatypes::{DataType, Field, Fields, Int32Type, Schema};
use arrow::ipc::writer::{IpcWriteOptions, StreamWriter};
use arrow::ipc::{self, CompressionType, FieldNode, MessageHeader, MetadataVersion};
use arrow_flight::{FlightData, SchemaAsIpc};
use flatbuffers::{FlatBufferBuilder, WIPOffset};
use proptest::prelude::*;
use proptest::sample::Index;

use super::{Decoder, first_batch};

/// Claimed length that is far more than all memory.
const CLAIM: i64 = 1 << 62;

fn batch(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
    RecordBatch::try_from_iter(columns).unwrap()
}

/// Returns numbers and texts that compress well.
fn numbers() -> RecordBatch {
    let numbers = Arc::new(Int64Array::from(vec![7; 100])) as ArrayRef;
    batch(vec![("$1", numbers), ("$2", Arc::new(StringArray::from(vec!["seven"; 100])))])
}

fn stream(batch: &RecordBatch, compression: Option<CompressionType>) -> Vec<u8> {
    let options = IpcWriteOptions::default().try_with_compression(compression).unwrap();
    let mut bytes = Vec::new();
    let mut writer = StreamWriter::try_new_with_options(&mut bytes, &batch.schema(), options).unwrap();
    writer.write(batch).unwrap();
    writer.finish().unwrap();
    bytes
}

/// Replaces the length that the first buffer claims: 800 bytes of numbers.
fn claiming(mut stream: Vec<u8>, claim: i64) -> Vec<u8> {
    let honest = 800_i64.to_le_bytes();
    let at = stream.windows(8).rposition(|bytes| bytes == honest).expect("a buffer of 800 bytes");
    stream[at..at + 8].copy_from_slice(&claim.to_le_bytes());
    stream
}

#[track_caller]
fn check_refused<T: std::fmt::Debug>(read: Result<T, String>, reason: &str) {
    let refused = read.unwrap_err();
    assert!(refused.contains(reason), "{refused}");
}

#[test]
fn plain_batches_come_as_they_are() {
    let all = batch(vec![
        ("number", Arc::new(Int64Array::from(vec![Some(1), None]))),
        ("text", Arc::new(StringArray::from(vec![Some("é"), None]))),
        ("nothing", Arc::new(NullArray::new(2))),
        ("decimal", Arc::new(Decimal128Array::from(vec![1, 2]))),
        (
            "hash",
            Arc::new(FixedSizeBinaryArray::try_from_iter([[1_u8; 32], [2_u8; 32]].into_iter()).unwrap()),
        ),
    ]);
    for batch in [numbers(), all, numbers().slice(0, 0), numbers().slice(13, 29)] {
        assert_eq!(first_batch(&stream(&batch, None)).unwrap(), batch);
    }
}

#[test]
fn what_a_compressed_buffer_claims_is_never_allocated() {
    for kind in [CompressionType::LZ4_FRAME, CompressionType::ZSTD] {
        let compressed = stream(&numbers(), Some(kind));
        for stream in [claiming(compressed.clone(), CLAIM), compressed] {
            check_refused(first_batch(&stream), "compressed");
        }
    }
}

#[test]
fn values_that_can_stand_for_more_than_their_bytes_are_refused() {
    let text = || Box::new(DataType::Utf8);
    let wide = |kind: DataType| Arc::new(Field::new("item", kind, true));
    let endless = DataType::FixedSizeList(wide(DataType::FixedSizeBinary(i32::MAX)), i32::MAX);
    for kind in [
        DataType::Utf8View,
        DataType::BinaryView,
        DataType::FixedSizeBinary(i32::MAX),
        DataType::FixedSizeBinary(0),
        DataType::FixedSizeBinary(-1),
        DataType::Dictionary(Box::new(DataType::Int8), text()),
        DataType::Dictionary(Box::new(DataType::Int8), Box::new(endless.clone())),
        DataType::List(wide(DataType::Null)),
        DataType::ListView(wide(DataType::Int8)),
        DataType::Struct(Fields::empty()),
        DataType::Map(wide(DataType::Struct(vec![wide(DataType::Int8), wide(DataType::Int8)].into())), false),
        DataType::RunEndEncoded(Arc::new(Field::new("ends", DataType::Int64, false)), wide(DataType::Null)),
        endless,
    ] {
        let schema = Schema::new(vec![Field::new("$1", kind, true)]);
        let message = FlightData::from(SchemaAsIpc::new(&schema, &IpcWriteOptions::default()));
        check_refused(Decoder::default().decode(&message), "only plain values are supported");
    }
}

/// Returns a batch message with the given claims.
fn message(rows: i64, nodes: &[(i64, i64)], buffers: &[(i64, i64)], body: usize) -> FlightData {
    let mut builder = FlatBufferBuilder::new();
    let nodes: Vec<_> = nodes.iter().map(|(length, nulls)| FieldNode::new(*length, *nulls)).collect();
    let nodes = builder.create_vector(&nodes);
    let buffers: Vec<_> = buffers.iter().map(|(offset, length)| ipc::Buffer::new(*offset, *length)).collect();
    let buffers = builder.create_vector(&buffers);
    let mut batch = ipc::RecordBatchBuilder::new(&mut builder);
    batch.add_length(rows);
    batch.add_nodes(nodes);
    batch.add_buffers(buffers);
    let header = batch.finish().as_union_value();
    let mut message = ipc::MessageBuilder::new(&mut builder);
    message.add_version(MetadataVersion::V5);
    message.add_header_type(MessageHeader::RecordBatch);
    message.add_bodyLength(i64::try_from(body).unwrap());
    message.add_header(header);
    let message = message.finish();
    builder.finish(message, None);
    let data_header = builder.finished_data().to_vec().into();
    FlightData { data_header, data_body: vec![0; body].into(), ..FlightData::default() }
}

#[test]
fn a_batch_claims_no_more_than_its_bytes() {
    let whole = [(0, 0), (0, 64)];
    for (rows, nodes, buffers, reason) in [
        (8, [(8, 0)], whole, ""),
        (CLAIM, [(CLAIM, 0)], whole, "cannot hold"),
        (-1, [(-1, 0)], whole, "cannot hold"),
        (8, [(9, 0)], whole, "not of its length"),
        (8, [(8, -1)], whole, "not of its length"),
        (8, [(8, 9)], whole, "not of its length"),
        (8, [(8, 0)], [(0, 0), (0, 65)], "claim more than its 64 bytes"),
        (8, [(8, 0)], [(0, 0), (1, 64)], "claim more than its 64 bytes"),
        (8, [(8, 0)], [(0, 0), (i64::MAX, i64::MAX)], "claim more than its 64 bytes"),
        (8, [(8, 0)], [(0, 0), (-8, 64)], "claim more than its 64 bytes"),
        (8, [(8, 0)], [(0, 0), (0, -64)], "claim more than its 64 bytes"),
        (8, [(8, 0)], [(0, 1), (0, 64)], "claim more than its 64 bytes"),
        (16, [(16, 0)], whole, "cannot be read"),
    ] {
        let schema = Schema::new(vec![Field::new("$1", DataType::Int64, true)]);
        let mut decoder = Decoder::default();
        let schema = SchemaAsIpc::new(&schema, &IpcWriteOptions::default()).into();
        assert_eq!(decoder.decode(&schema), Ok(None));
        let read = decoder.decode(&message(rows, &nodes, &buffers, 64));
        if reason.is_empty() {
            assert_eq!(read.unwrap().unwrap().num_rows(), 8);
        } else {
            check_refused(read, reason);
        }
    }
}

#[test]
fn a_text_that_many_fields_share_counts_each_time() {
    let mut builder = FlatBufferBuilder::new();
    let text = builder.create_string(&"x".repeat(100_000));
    let pair = |builder: &mut FlatBufferBuilder<'static>| {
        let mut pair = ipc::KeyValueBuilder::new(builder);
        pair.add_key(text);
        pair.add_value(text);
        pair.finish()
    };
    let pairs: Vec<_> = (0..1000).map(|_| pair(&mut builder)).collect();
    let pairs = builder.create_vector(&pairs);
    let fields: [WIPOffset<ipc::Field<'_>>; 0] = [];
    let fields = builder.create_vector(&fields);
    let mut schema = ipc::SchemaBuilder::new(&mut builder);
    schema.add_fields(fields);
    schema.add_custom_metadata(pairs);
    let header = schema.finish().as_union_value();
    let mut message = ipc::MessageBuilder::new(&mut builder);
    message.add_version(MetadataVersion::V5);
    message.add_header_type(MessageHeader::Schema);
    message.add_header(header);
    let message = message.finish();
    builder.finish(message, None);
    let message =
        FlightData { data_header: builder.finished_data().to_vec().into(), ..FlightData::default() };
    check_refused(Decoder::default().decode(&message), "no valid Arrow header");
}

#[test]
fn metadata_of_a_schema_is_left_out_and_many_columns_are_taken() {
    let pandas = HashMap::from([("pandas".to_owned(), "{\"columns\":[]}".repeat(10_000))]);
    let field = |index| Field::new(format!("${index}"), DataType::Int64, true).with_metadata(pandas.clone());
    let one = Arc::new(Schema::new_with_metadata(vec![field(1)], pandas.clone()));
    let rows = RecordBatch::try_new(one, vec![Arc::new(Int64Array::from(vec![1]))]).unwrap();
    let read = first_batch(&stream(&rows, None)).unwrap();
    assert_eq!(read.schema().metadata().len() + read.schema().field(0).metadata().len(), 0);
    let many: Vec<_> = (0..5000).map(|index| format!("${index}")).collect();
    let column = Arc::new(Int64Array::from(vec![1])) as ArrayRef;
    let many = batch(many.iter().map(|name| (name.as_str(), Arc::clone(&column))).collect());
    assert_eq!(first_batch(&stream(&many, None)).unwrap(), many);
}

#[test]
fn dictionaries_are_refused_with_what_to_do() {
    let texts: arrow::array::DictionaryArray<Int32Type> = ["a", "b", "a"].into_iter().collect();
    let dictionary = batch(vec![("$1", Arc::new(texts))]);
    check_refused(first_batch(&stream(&dictionary, None)), "only plain values are supported");
}

proptest! {
    /// A false claim that the decoder accepted would end the process, and this test with it.
    #[test]
    fn corrupt_streams_are_rejected(
        compression in prop::sample::select(vec![None, Some(CompressionType::LZ4_FRAME), Some(CompressionType::ZSTD)]),
        flips in prop::collection::vec((any::<Index>(), any::<u8>()), 0..8),
        claims in prop::collection::vec((any::<Index>(), any::<i64>()), 0..3),
        cut in any::<Index>(),
        is_cut in any::<bool>(),
    ) {
        let mut stream = stream(&numbers(), compression);
        for (index, byte) in flips {
            let index = index.index(stream.len());
            stream[index] = byte;
        }
        for (index, claim) in claims {
            let index = index.index(stream.len() / 8 - 1) * 8;
            stream[index..index + 8].copy_from_slice(&claim.to_le_bytes());
        }
        if is_cut {
            stream.truncate(cut.index(stream.len()));
        }
        if let Ok(batch) = first_batch(&stream) {
            prop_assert!(batch.num_rows() <= 8 * stream.len() + 1000);
            prop_assert!(batch.get_array_memory_size() <= 4 * stream.len() + 4096, "{}", batch.get_array_memory_size());
        }
    }
}
