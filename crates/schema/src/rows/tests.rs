use std::sync::Arc;

use arrow::array::{
    ArrayRef, Date32Array, Float64Array, Int32Array, Int64Array, RecordBatch, StringArray,
    TimestampMicrosecondArray,
};

use super::{BadRow, check};
use crate::candle::{FUTURE_MICROS_MAX, MAGNITUDE_MAX, TIME_MICROS_MAX};
use crate::{DAY_MICROS, bronze};

/// Three days after the epoch.
const TIME: i64 = 3 * DAY_MICROS;

#[derive(Clone, Copy)]
struct Row {
    symbol: &'static str,
    event_time: i64,
    numbers: [f64; 5],
    kafka_time: i64,
    date: i32,
}

const GOOD: Row = Row {
    symbol: "BTC-USD",
    event_time: TIME,
    numbers: [1.0, 2.0, 0.5, 1.5, 0.0],
    kafka_time: TIME,
    date: 3,
};

fn batch(rows: &[Row]) -> RecordBatch {
    let time = |time: fn(&Row) -> i64| {
        Arc::new(
            rows.iter()
                .map(|row| Some(time(row)))
                .collect::<TimestampMicrosecondArray>()
                .with_timezone("UTC"),
        )
    };
    let number =
        |index: usize| Arc::new(rows.iter().map(|row| Some(row.numbers[index])).collect::<Float64Array>());
    let columns: Vec<ArrayRef> = vec![
        Arc::new(rows.iter().map(|row| Some(row.symbol)).collect::<StringArray>()),
        time(|row| row.event_time),
        number(0),
        number(1),
        number(2),
        number(3),
        number(4),
        Arc::new(Int32Array::from_value(0, rows.len())),
        Arc::new(Int64Array::from_iter_values(0..rows.len().try_into().unwrap())),
        time(|row| row.kafka_time),
        Arc::new(rows.iter().map(|row| Some(row.date)).collect::<Date32Array>()),
    ];
    RecordBatch::try_new(bronze::schema(), columns).unwrap()
}

#[test]
fn candles_are_what_a_message_can_hold() {
    assert_eq!(check(&batch(&[])), Ok(()));
    assert_eq!(check(&batch(&[GOOD, GOOD])), Ok(()));
    let last = i32::try_from(TIME_MICROS_MAX / DAY_MICROS).unwrap();
    let latest = Row { event_time: TIME_MICROS_MAX, kafka_time: TIME_MICROS_MAX, date: last, ..GOOD };
    assert_eq!(check(&batch(&[latest])), Ok(()));
    let numbers = |index: usize, number: f64| {
        let mut numbers = GOOD.numbers;
        numbers[index] = number;
        Row { numbers, ..GOOD }
    };
    let end_of_time = i32::try_from(i64::MAX / DAY_MICROS).unwrap();
    for (row, reason) in [
        (Row { symbol: "", ..GOOD }, "bad_symbol"),
        (Row { symbol: "BTC\0USD", ..GOOD }, "bad_symbol"),
        (Row { event_time: i64::MAX, kafka_time: i64::MAX, date: end_of_time, ..GOOD }, "time_out_of_range"),
        (Row { event_time: -1, date: -1, ..GOOD }, "time_out_of_range"),
        (
            Row { event_time: latest.event_time + 1, kafka_time: latest.kafka_time, ..latest },
            "time_out_of_range",
        ),
        (Row { kafka_time: -1, ..GOOD }, "time_out_of_range"),
        (Row { kafka_time: i64::MAX, ..GOOD }, "time_out_of_range"),
        (Row { event_time: TIME + FUTURE_MICROS_MAX + 1, date: 4, ..GOOD }, "time_out_of_range"),
        (Row { date: 4, ..GOOD }, "date_not_of_event_time"),
        (numbers(0, f64::NAN), "not_finite"),
        (numbers(4, f64::INFINITY), "not_finite"),
        (numbers(1, MAGNITUDE_MAX * 2.0), "number_out_of_range"),
        (numbers(1, 0.0), "high_below_low"),
        (numbers(4, -1.0), "negative_volume"),
    ] {
        assert_eq!(check(&batch(&[GOOD, row, GOOD])), Err(BadRow { index: 1, reason }));
    }
}
