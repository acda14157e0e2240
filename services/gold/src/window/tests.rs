use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, Date32Array, Float64Array, Int32Array, Int64Array, RecordBatch, StringArray,
    TimestampMicrosecondArray,
};
use arrow::datatypes::TimestampMicrosecondType;
use arrow::util::display::array_value_to_string;
use position::OffsetRange;
use proptest::prelude::*;
use proto::ticket::{History, Margin};
use schema::MINUTE_MICROS;

use super::{Arrivals, Run, Window};
use crate::kernel::Frame;
use crate::rows::Rows;
use crate::sink::{Newest, Partitions};

#[derive(Clone, Debug, PartialEq)]
struct Message {
    symbol: &'static str,
    event_time: i64,
    price: f64,
    offset: i64,
}

fn bronze_batch(messages: &[&Message]) -> RecordBatch {
    let float = |of: fn(&Message) -> f64| -> ArrayRef {
        Arc::new(Float64Array::from_iter_values(messages.iter().map(|message| of(message))))
    };
    let micros = |of: fn(&Message) -> i64| -> ArrayRef {
        Arc::new(
            TimestampMicrosecondArray::from_iter_values(messages.iter().map(|message| of(message)))
                .with_timezone("UTC"),
        )
    };
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from_iter_values(messages.iter().map(|message| message.symbol))),
        micros(|message| message.event_time),
        float(|message| message.price - 1.0),
        float(|message| message.price + 2.0),
        float(|message| message.price - 2.0),
        float(|message| message.price),
        float(|message| message.price / 7.0),
        Arc::new(Int32Array::from(vec![0; messages.len()])),
        Arc::new(Int64Array::from_iter_values(messages.iter().map(|message| message.offset))),
        micros(|message| message.offset),
        Arc::new(Date32Array::from_iter_values(
            messages.iter().map(|message| schema::date_of(message.event_time)),
        )),
    ];
    RecordBatch::try_new(schema::bronze::schema(), columns).unwrap()
}

/// Bronze as the Flight server answers for it, written from the words of [`History`].
fn read_history(bronze: &[Message], history: &History) -> Vec<RecordBatch> {
    let mut winners = BTreeMap::new();
    for message in bronze
        .iter()
        .filter(|message| message.symbol == history.symbol && message.offset < history.below_offset)
    {
        winners.insert(message.event_time, message);
    }
    let candles: Vec<&Message> = winners.into_values().collect();
    let chosen: Vec<&Message> = match history.margin {
        Margin::Micros(margin) => candles
            .into_iter()
            .filter(|candle| {
                i128::from(candle.event_time) > i128::from(history.first_micros) - i128::from(margin)
            })
            .filter(|candle| {
                i128::from(candle.event_time) < i128::from(history.last_micros) + i128::from(margin)
            })
            .collect(),
        Margin::Rows(rows) => {
            let rows = usize::try_from(rows).unwrap();
            let before = candles.iter().filter(|candle| candle.event_time < history.first_micros).count();
            let until = candles.iter().filter(|candle| candle.event_time <= history.last_micros).count();
            candles[before.saturating_sub(rows)..(until + rows).min(candles.len())].to_vec()
        }
    };
    // In two batches, as a server may.
    let (head, tail) = chosen.split_at(chosen.len() / 2);
    vec![bronze_batch(head), bronze_batch(tail)]
}

/// The gold table: all values of each row as text, which tells any two floats apart, but the time of computing.
type Gold = BTreeMap<(String, i64), Vec<String>>;

fn upsert(gold: &mut Gold, rows: &RecordBatch) {
    let (symbols, event_times) =
        (rows.column(0).as_string::<i32>(), rows.column(1).as_primitive::<TimestampMicrosecondType>());
    let mut last = None;
    for row in 0..rows.num_rows() {
        let key = (symbols.value(row).to_owned(), event_times.value(row));
        assert!(last.as_ref() < Some(&key), "rows are ordered by key, each key once");
        let values = rows.columns().iter().enumerate().filter(|(index, _)| *index != rows.num_columns() - 2);
        let text = |column: &ArrayRef| {
            if column.is_null(row) { "NULL".to_owned() } else { array_value_to_string(column, row).unwrap() }
        };
        gold.insert(key.clone(), values.map(|(_, column)| text(column)).collect());
        last = Some(key);
    }
}

fn newest(gold: &Gold) -> Newest {
    let mut newest = BTreeMap::new();
    for (symbol, event_time) in gold.keys() {
        newest.insert(symbol.clone(), *event_time);
    }
    newest.into_iter().collect()
}

/// Runs `bronze` through a window in batches that end before each offset of `cuts`, starting anew from gold at each of `restarts`.
/// Returns gold and how many histories were read.
fn run(bronze: &[Message], frame: Frame, cuts: &[usize], restarts: &[usize]) -> (Gold, usize) {
    let (mut gold, mut reads) = (Gold::new(), 0);
    let mut window = Window::new(frame, Newest::default(), Partitions::default());
    let mut bounds: Vec<usize> =
        cuts.iter().map(|cut| cut % (bronze.len() + 1)).chain([0, bronze.len()]).collect();
    bounds.sort_unstable();
    bounds.dedup();
    for (step, pair) in bounds.windows(2).enumerate() {
        if restarts.contains(&step) {
            window = Window::new(frame, newest(&gold), Partitions::default());
        }
        let messages: Vec<&Message> = bronze[pair[0]..pair[1]].iter().collect();
        let (head, tail) = messages.split_at(messages.len() / 3);
        let offset = |index| i64::try_from(index).unwrap();
        let range = OffsetRange { partition: 0, first: offset(pair[0]), next: offset(pair[1]) };
        let arrivals = Arrivals::of(&Run { range, batches: vec![bronze_batch(head), bronze_batch(tail)] });
        for history in window.unread(&arrivals) {
            let candles = read_history(bronze, &history);
            window.remember(history, &candles);
        }
        let mut rows = Rows::default();
        for change in window.apply(arrivals).unwrap() {
            let history = change.history().map(|history| read_history(bronze, history));
            reads += usize::from(history.is_some());
            window.compute(&change, &history.unwrap_or_default(), &mut rows);
        }
        upsert(&mut gold, &rows.finish(0));
    }
    (gold, reads)
}

fn in_order(bronze: &[Message]) -> Vec<Message> {
    let mut sorted = bronze.to_vec();
    sorted.sort_by_key(|message| message.event_time);
    for (message, offset) in sorted.iter_mut().zip(0..) {
        message.offset = offset;
    }
    sorted
}

/// Drops what the order of arrival decides by itself: the offset, which travels here as `kafka_time`.
fn without_kafka_time(gold: Gold) -> Gold {
    gold.into_iter()
        .map(|(key, mut values)| {
            values.remove(values.len() - 2);
            (key, values)
        })
        .collect()
}

fn minutes(minutes: impl IntoIterator<Item = i64>) -> Vec<Message> {
    minutes
        .into_iter()
        .zip(0..)
        .map(|(minute, offset)| Message {
            symbol: "BTC-USD",
            event_time: minute * MINUTE_MICROS,
            price: 100.0 + f64::from(u8::try_from(minute % 7).unwrap()),
            offset,
        })
        .collect()
}

#[track_caller]
fn check_reads(minutes_of: Vec<i64>, frame: Frame, expected: usize) {
    let bronze = minutes(minutes_of);
    let cuts: Vec<usize> = (0..bronze.len()).collect();
    let (gold, reads) = run(&bronze, frame, &cuts, &[]);
    assert_eq!(reads, expected);
    let (sorted, _) = run(&in_order(&bronze), frame, &[], &[]);
    assert_eq!(without_kafka_time(gold), without_kafka_time(sorted));
}

#[test]
fn candles_in_order_need_no_history() {
    check_reads((0..1000).collect(), Frame::Time, 0);
    check_reads((0..1000).collect(), Frame::Rows, 0);
}

#[test]
fn a_candle_half_an_hour_late_needs_no_history() {
    check_reads((0..970).chain(971..1000).chain([970]).collect(), Frame::Time, 0);
    check_reads((0..970).chain(971..1000).chain([970]).collect(), Frame::Rows, 0);
}

#[test]
fn a_candle_that_memory_has_lost_the_windows_of_is_computed_from_one_history() {
    check_reads((0..500).chain(501..1000).chain([500]).collect(), Frame::Time, 1);
    check_reads((0..500).chain(501..1000).chain([500]).collect(), Frame::Rows, 1);
}

#[test]
fn one_candle_in_the_future_does_not_push_the_others_out() {
    check_reads((0..500).chain([5000]).chain(500..600).collect(), Frame::Time, 0);
}

#[test]
fn a_symbol_in_two_partitions_is_refused_after_a_restart_too() {
    let bronze = minutes(0..1);
    let run = |partition| Run {
        range: OffsetRange { partition, first: 0, next: 1 },
        batches: vec![bronze_batch(&bronze.iter().collect::<Vec<_>>())],
    };
    let mut window = Window::new(Frame::Time, Newest::default(), Partitions::default());
    assert!(window.apply(Arrivals::of(&run(0))).is_ok());
    assert!(window.apply(Arrivals::of(&run(1))).is_err());
    let known = Partitions::from_iter([("BTC-USD".to_owned(), 0)]);
    let mut window = Window::new(Frame::Time, Newest::default(), known);
    assert!(window.apply(Arrivals::of(&run(1))).is_err());
    assert!(window.apply(Arrivals::of(&run(0))).is_ok());
}

#[test]
fn memory_stays_small_however_long_the_stream() {
    let bronze = minutes(0..10_000);
    let mut window = Window::new(Frame::Time, Newest::default(), Partitions::default());
    for messages in bronze.chunks(2000) {
        let range = OffsetRange { partition: 0, first: messages[0].offset, next: messages[0].offset + 2000 };
        let arrivals =
            Arrivals::of(&Run { range, batches: vec![bronze_batch(&messages.iter().collect::<Vec<_>>())] });
        for change in window.apply(arrivals).unwrap() {
            window.compute(&change, &[], &mut Rows::default());
        }
        let memory = &window.symbols["BTC-USD"];
        assert!(
            memory.candles.len() <= super::KEEP_ROWS + super::EVICT_ROWS
                && memory.candles.capacity() <= 2 * super::KEEP_ROWS
        );
    }
}

prop_compose! {
    /// A stream in the order of arrival: minutes with gaps and odd seconds, of which some come late, some very late, some twice with
    /// another price.
    fn stream()(
        candles in prop::collection::vec(
            (
                prop::sample::select(vec!["BTC-USD", "ETH-USD"]),
                prop_oneof![12 => Just(60_i64), 1 => 0_i64..90, 1 => 60_i64..4000],
                1.0..1e5,
                prop_oneof![12 => Just(0_usize), 2 => 0_usize..40, 1 => 0_usize..400],
            ),
            1..400,
        ),
        again in prop::collection::vec((any::<prop::sample::Index>(), 1.0..1e5, 0_usize..400), 0..20),
    ) -> Vec<Message> {
        let mut seconds = BTreeMap::new();
        let mut arrivals = Vec::new();
        for (index, (symbol, step, price, delay)) in candles.into_iter().enumerate() {
            let second = seconds.entry(symbol).and_modify(|second| *second += step).or_insert(1_700_000_000);
            arrivals.push((index + delay, Message { symbol, event_time: *second * 1_000_000, price, offset: 0 }));
        }
        for (index, price, delay) in again {
            let (at, message) = index.get(&arrivals).clone();
            arrivals.push((at + delay, Message { price, ..message }));
        }
        arrivals.sort_by_key(|(at, _)| *at);
        arrivals.into_iter().zip(0..).map(|((_, message), offset)| Message { offset, ..message }).collect()
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn gold_is_the_same_whatever_the_order_batches_and_restarts(
        bronze in stream(),
        by_rows in any::<bool>(),
        cuts in prop::collection::vec(any::<usize>(), 0..60),
        restarts in prop::collection::vec(0_usize..60, 0..4),
    ) {
        let frame = if by_rows { Frame::Rows } else { Frame::Time };
        let (gold, _) = run(&bronze, frame, &cuts, &restarts);
        let (sorted, _) = run(&in_order(&bronze), frame, &[], &[]);
        prop_assert_eq!(without_kafka_time(gold), without_kafka_time(sorted));
    }
}
