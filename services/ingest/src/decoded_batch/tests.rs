use arrow::array::AsArray;
use arrow::datatypes::{Int64Type, TimestampMicrosecondType};
use position::OffsetRange;
use proptest::prelude::*;
use schema::bronze::column;

use super::{DeadLetter, DecodedBatch, PAYLOAD_BYTES_MAX};
use crate::raw_batch::Message;

fn json(offset: i64) -> Vec<u8> {
    format!(r#"{{"symbol":"S","timestamp":{offset},"open":1,"high":4,"low":0,"close":2,"volume":3}}"#).into()
}

fn message(offset: i64, payload: &[u8]) -> Message<'_> {
    Message { offset, kafka_millis: Some(1_748_600_000_000), key: Some(b"key"), payload: Some(payload) }
}

fn letter(message: Message<'_>) -> DeadLetter {
    let range = OffsetRange { partition: 0, first: message.offset, next: message.offset + 1 };
    DecodedBatch::decode(range, [message].into_iter()).dead_letters.pop().unwrap()
}

#[test]
fn a_batch_holds_rows_of_the_bronze_schema() {
    let payloads = [json(0), json(1)];
    let range = OffsetRange { partition: 3, first: 0, next: 2 };
    let rows =
        DecodedBatch::decode(range, (0..).zip(&payloads).map(|(offset, payload)| message(offset, payload)))
            .batch
            .rows;
    assert_eq!(rows.schema(), schema::bronze::schema());
    let text = arrow::util::pretty::pretty_format_batches(&[rows]).unwrap().to_string();
    let expected = "\
+--------+----------------------+------+------+-----+-------+--------+-----------------+--------------+----------------------+------------+
| symbol | event_time           | open | high | low | close | volume | kafka_partition | kafka_offset | kafka_time           | date       |
+--------+----------------------+------+------+-----+-------+--------+-----------------+--------------+----------------------+------------+
| S      | 1970-01-01T00:00:00Z | 1.0  | 4.0  | 0.0 | 2.0   | 3.0    | 3               | 0            | 2025-05-30T10:13:20Z | 1970-01-01 |
| S      | 1970-01-01T00:00:01Z | 1.0  | 4.0  | 0.0 | 2.0   | 3.0    | 3               | 1            | 2025-05-30T10:13:20Z | 1970-01-01 |
+--------+----------------------+------+------+-----+-------+--------+-----------------+--------------+----------------------+------------+";
    assert_eq!(text, expected);
}

#[test]
fn a_batch_of_dead_letters_only_has_a_range_and_no_rows() {
    let range = OffsetRange { partition: 0, first: 10, next: 13 };
    let decoded = DecodedBatch::decode(range, [message(12, b"x")].into_iter());
    assert_eq!(
        (decoded.batch.range, decoded.batch.rows.num_rows(), decoded.dead_letters.len()),
        (range, 0, 1)
    );
    assert_eq!(decoded.batch.rows.schema(), schema::bronze::schema());
}

#[test]
fn a_null_value_and_an_empty_one_stay_apart() {
    let null = Message { payload: None, ..message(0, b"") };
    assert_eq!((letter(null).payload, letter(message(0, b"")).payload), (None, Some(Vec::new())));
}

#[test]
fn a_huge_payload_is_cut_and_its_length_kept() {
    let letter = letter(message(0, &vec![b'x'; 10_000_000]));
    assert_eq!((letter.payload.unwrap().len(), letter.payload_bytes), (PAYLOAD_BYTES_MAX, 10_000_000));
}

proptest! {
    /// Each message is a row or a letter, in its order, whatever messages are unusable.
    #[test]
    fn every_message_is_a_row_or_a_letter(usable in prop::collection::vec(any::<bool>(), 1..100)) {
        let payloads: Vec<_> = (0..).zip(&usable).map(|(offset, usable)| if *usable { json(offset) } else { b"x".into() }).collect();
        let range = OffsetRange { partition: 0, first: 0, next: i64::try_from(usable.len()).unwrap() };
        let decoded = DecodedBatch::decode(range, (0..).zip(&payloads).map(|(offset, payload)| message(offset, payload)));
        let offsets = |wanted| (0..).zip(&usable).filter(move |(_, usable)| **usable == wanted).map(|(offset, _)| offset);
        let times = decoded.batch.rows.column(column::EVENT_TIME).as_primitive::<TimestampMicrosecondType>().values();
        let rows = decoded.batch.rows.column(column::KAFKA_OFFSET).as_primitive::<Int64Type>().values();
        prop_assert!(rows.iter().copied().eq(offsets(true)));
        prop_assert!(rows.iter().zip(times).all(|(offset, time)| offset * 1_000_000 == *time));
        prop_assert!(decoded.dead_letters.iter().map(|letter| letter.offset).eq(offsets(false)));
    }
}
