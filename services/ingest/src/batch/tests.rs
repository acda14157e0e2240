use arrow::array::AsArray;
use arrow::datatypes::{Int64Type, TimestampMicrosecondType};
use position::OffsetRange;
use proptest::prelude::*;
use schema::bronze::column;

use super::{DeadLetter, OpenBatch, PAYLOAD_BYTES_MAX};
use crate::decode::{Unusable, decode};

fn push(batch: &mut OpenBatch, offset: i64) {
    let json =
        format!(r#"{{"symbol":"S","timestamp":{offset},"open":1,"high":4,"low":0,"close":2,"volume":3}}"#);
    batch.push(offset, &decode(Some(json.as_bytes()), Some(1_748_600_000_000)).unwrap());
}

fn letter(offset: i64, payload: &[u8]) -> DeadLetter {
    DeadLetter::new(
        offset,
        Unusable { reason: "not_json", detail: String::new() },
        Some(b"key"),
        Some(payload),
    )
}

#[test]
fn a_batch_holds_rows_of_the_bronze_schema() {
    let mut open = OpenBatch::new(3, 0);
    push(&mut open, 0);
    push(&mut open, 1);
    let rows = open.close().unwrap().rows;
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
    let mut open = OpenBatch::new(0, 10);
    open.push_dead_letter(letter(12, b"x"));
    let batch = open.close().unwrap();
    assert_eq!((batch.range, batch.rows.num_rows()), (OffsetRange { partition: 0, first: 10, next: 13 }, 0));
    assert_eq!(batch.rows.schema(), schema::bronze::schema());
}

#[test]
fn a_huge_payload_is_cut_and_its_length_kept() {
    let letter = letter(0, &vec![b'x'; 10_000_000]);
    assert_eq!((letter.payload.unwrap().len(), letter.payload_bytes), (PAYLOAD_BYTES_MAX, 10_000_000));
}

proptest! {
    /// Whatever offsets are missing or unusable and wherever batches are closed: ranges tile, and each message is in its range.
    #[test]
    fn batches_tile_the_offsets(messages in prop::collection::vec((1..4_i64, any::<bool>(), 0..4_u8), 1..100)) {
        let (mut open, mut batches) = (OpenBatch::new(0, 100), Vec::new());
        let (mut offset, mut usable, mut unusable) = (100, Vec::new(), Vec::new());
        for (step, is_usable, close) in messages {
            offset += step;
            if is_usable {
                push(&mut open, offset);
                usable.push(offset);
            } else {
                open.push_dead_letter(letter(offset, b"x"));
                unusable.push(offset);
            }
            if close == 0 {
                batches.extend(open.close());
                prop_assert!(open.close().is_none() && open.message_count() == 0 && open.bytes() == 0);
            }
        }
        batches.extend(open.close());
        let (mut next, mut rows, mut letters) = (100, Vec::new(), Vec::new());
        for batch in &batches {
            prop_assert_eq!(batch.range.first, next);
            next = batch.range.next;
            let offsets = batch.rows.column(column::KAFKA_OFFSET).as_primitive::<Int64Type>().values();
            let times = batch.rows.column(column::EVENT_TIME).as_primitive::<TimestampMicrosecondType>().values();
            prop_assert!(offsets.iter().zip(times).all(|(offset, time)| offset * 1_000_000 == *time));
            rows.extend_from_slice(offsets);
            letters.extend(batch.dead_letters.iter().map(|letter| letter.offset));
            let within = |offset: &i64| (batch.range.first..batch.range.next).contains(offset);
            prop_assert!(offsets.iter().all(within) && batch.dead_letters.iter().all(|letter| within(&letter.offset)));
        }
        prop_assert_eq!(next, offset + 1);
        prop_assert_eq!(rows, usable);
        prop_assert_eq!(letters, unusable);
    }
}
