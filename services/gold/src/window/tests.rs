use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, Date32Array, Float64Array, Int32Array, Int64Array, RecordBatch, StringArray,
    TimestampMicrosecondArray,
};
use arrow::datatypes::TimestampMicrosecondType;
use arrow::util::display::array_value_to_string;
use futures::FutureExt as _;
use position::{OffsetRange, Position};
use prometheus_client::metrics::counter::Counter;
use proptest::prelude::*;
use proto::ticket::{History, Margin};
use schema::MINUTE_MICROS;

use super::{Arrivals, Window};
use crate::compute::{CHANGED_ROWS_MAX, Pieces};
use crate::rows::Rows;
use crate::run::Run;
use crate::state::{NewestBySymbol, SymbolPartitions};
use crate::verify;
use crate::verify::reference::Reference;
use kernel::Frame;

#[derive(Clone, Debug, PartialEq)]
struct Message {
    symbol: &'static str,
    event_time: i64,
    price: f64,
    kafka_time: i64,
    partition: i32,
    offset: i64,
}

/// Cuts of a stream into batches, and the restarts while it is processed.
#[derive(Clone, Debug)]
struct Cuts {
    /// Indices of the messages before which a batch ends.
    batches: Vec<usize>,
    /// Numbers of the batches before which gold restarts.
    restarts: Vec<usize>,
    changed_rows_max: usize,
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
        Arc::new(Int32Array::from_iter_values(messages.iter().map(|message| message.partition))),
        Arc::new(Int64Array::from_iter_values(messages.iter().map(|message| message.offset))),
        micros(|message| message.kafka_time),
        Arc::new(Date32Array::from_iter_values(
            messages.iter().map(|message| schema::date_of(message.event_time)),
        )),
    ];
    RecordBatch::try_new(schema::bronze::schema(), columns).unwrap()
}

/// Returns bronze as the Flight server returns it, written from the documentation of [`History`].
fn read_history(bronze: &[Message], history: &History) -> Vec<RecordBatch> {
    let mut latest = BTreeMap::new();
    let below =
        |message: &&Message| history.below.next(message.partition).is_some_and(|next| message.offset < next);
    for message in bronze.iter().filter(|message| message.symbol == history.symbol).filter(below) {
        latest.insert((message.event_time, message.partition), message);
    }
    let candles: Vec<&Message> = latest.into_values().collect();
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
            let rows = usize::try_from(rows).unwrap() * history.below.iter().count();
            let before = candles.iter().filter(|candle| candle.event_time < history.first_micros).count();
            let until = candles.iter().filter(|candle| candle.event_time <= history.last_micros).count();
            candles[before.saturating_sub(rows)..(until + rows).min(candles.len())].to_vec()
        }
    };
    // The answer has two batches, as a server may send it.
    let (head, tail) = chosen.split_at(chosen.len() / 2);
    vec![bronze_batch(head), bronze_batch(tail)]
}

/// The gold table. The values of each row that verify compares are text, which differs for different floats.
type Gold = BTreeMap<(String, i64), Vec<String>>;

fn upsert(gold: &mut Gold, rows: &RecordBatch) {
    let rows = verify::project(rows);
    let (symbols, event_times) =
        (rows.column(0).as_string::<i32>(), rows.column(1).as_primitive::<TimestampMicrosecondType>());
    let mut last = None;
    for row in 0..rows.num_rows() {
        let key = (symbols.value(row).to_owned(), event_times.value(row));
        assert!(last.as_ref() < Some(&key), "rows are ordered by key, each key once");
        let text = |column: &ArrayRef| {
            if column.is_null(row) { "NULL".to_owned() } else { array_value_to_string(column, row).unwrap() }
        };
        gold.insert(key.clone(), rows.columns().iter().map(text).collect());
        last = Some(key);
    }
}

fn newest(gold: &Gold) -> NewestBySymbol {
    let mut newest = BTreeMap::new();
    for (symbol, event_time) in gold.keys() {
        newest.insert(symbol.clone(), *event_time);
    }
    newest.into_iter().collect()
}

/// Runs `bronze` through a window and restarts from gold at each restart. Returns gold and the number of histories read.
fn run(bronze: &[Message], frame: Frame, cuts: &Cuts) -> (Gold, u64) {
    let (mut gold, reads) = (Gold::new(), Counter::default());
    let (mut position, mut partitions) = (Position::default(), SymbolPartitions::default());
    let start = |position: &Position, gold: &Gold, partitions: &SymbolPartitions| {
        let window = Window::new(frame, position.clone(), newest(gold), partitions.clone());
        Pieces::new(window, cuts.changed_rows_max)
    };
    let mut pieces = start(&position, &gold, &partitions);
    let bounds = cuts.batches.iter().map(|cut| cut % (bronze.len() + 1)).chain([0, bronze.len()]);
    let bounds: Vec<usize> = bounds.collect::<BTreeSet<_>>().into_iter().collect();
    for (step, pair) in bounds.windows(2).enumerate() {
        if cuts.restarts.contains(&step) {
            pieces = start(&position, &gold, &partitions);
        }
        let mut by_partition: BTreeMap<i32, Vec<&Message>> = BTreeMap::new();
        for message in &bronze[pair[0]..pair[1]] {
            by_partition.entry(message.partition).or_default().push(message);
            partitions.insert(message.symbol, message.partition);
        }
        for (partition, messages) in by_partition {
            let (head, tail) = messages.split_at(messages.len() / 3);
            let range = OffsetRange {
                partition,
                first: messages[0].offset,
                next: messages[messages.len() - 1].offset + 1,
            };
            let mut rest = Some(Run { range, batches: vec![bronze_batch(head), bronze_batch(tail)] });
            while let Some(run) = rest {
                let read = async |history: &History| Ok(Some(read_history(bronze, history)));
                let next = pieces.next(&run, &read, &reads).now_or_never().expect("nothing waits");
                let (computed, behind) = next.unwrap().expect("nothing stops");
                assert_eq!(computed.batch.range.first, run.range.first);
                assert!(
                    computed.arrived.len() == 1 || computed.batch.rows.num_rows() <= cuts.changed_rows_max
                );
                upsert(&mut gold, &computed.batch.rows);
                rest = behind;
            }
            position.advance(range);
        }
    }
    (gold, reads.get())
}

/// Returns cuts for one batch with everything.
fn whole() -> Cuts {
    Cuts { batches: Vec::new(), restarts: Vec::new(), changed_rows_max: usize::MAX }
}

/// Returns gold by its definition.
fn defined(bronze: &[Message], frame: Frame) -> Gold {
    let mut reference = Reference::default();
    reference.push(&bronze_batch(&bronze.iter().collect::<Vec<_>>()));
    let mut gold = Gold::new();
    reference.into_gold(frame).for_each(|rows| upsert(&mut gold, &rows));
    gold
}

/// Numbers the messages of each partition.
fn with_offsets(mut messages: Vec<Message>) -> Vec<Message> {
    let mut next: BTreeMap<i32, i64> = BTreeMap::new();
    for message in &mut messages {
        let next = next.entry(message.partition).or_default();
        message.offset = *next;
        *next += 1;
    }
    messages
}

fn minutes(minutes: impl IntoIterator<Item = i64>) -> Vec<Message> {
    minutes
        .into_iter()
        .zip(0..)
        .map(|(minute, offset)| Message {
            symbol: "BTC-USD",
            event_time: minute * MINUTE_MICROS,
            price: 100.0 + f64::from(u8::try_from(minute % 7).unwrap()),
            kafka_time: minute,
            partition: 0,
            offset,
        })
        .collect()
}

#[track_caller]
fn check_reads(minutes_of: Vec<i64>, frame: Frame, expected: u64) {
    let bronze = minutes(minutes_of);
    let cuts = Cuts { batches: (0..bronze.len()).collect(), ..whole() };
    let (gold, reads) = run(&bronze, frame, &cuts);
    assert_eq!(reads, expected);
    assert_eq!(gold, defined(&bronze, frame));
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

/// Checks the candle that counts for minute 5. The messages are (partition, Kafka time, price), in order of arrival.
#[track_caller]
fn check_winner(frame: Frame, messages: &[(i32, i64, f64)], expected: f64) {
    let message = |(partition, kafka_time, price): &(i32, i64, f64)| Message {
        symbol: "BTC-USD",
        event_time: 5 * MINUTE_MICROS,
        price: *price,
        kafka_time: *kafka_time,
        partition: *partition,
        offset: 0,
    };
    let bronze = with_offsets(messages.iter().map(message).collect());
    for batches in [Vec::new(), (0..bronze.len()).collect()] {
        for restarts in [Vec::new(), (0..bronze.len()).collect()] {
            let (gold, _) = run(&bronze, frame, &Cuts { batches: batches.clone(), restarts, ..whole() });
            let close = &gold[&("BTC-USD".to_owned(), 5 * MINUTE_MICROS)][5];
            assert_eq!(close.parse::<f64>().unwrap(), expected, "{messages:?}");
        }
    }
}

#[test]
fn of_one_partition_the_later_offset_wins_and_of_several_the_one_produced_last() {
    for frame in [Frame::Time, Frame::Rows] {
        check_winner(frame, &[(0, 1, 10.0), (0, 1, 20.0)], 20.0);
        // The clock was set back.
        check_winner(frame, &[(0, 2, 10.0), (0, 1, 20.0)], 20.0);
        check_winner(frame, &[(1, 2, 10.0), (0, 1, 20.0)], 10.0);
        check_winner(frame, &[(0, 1, 20.0), (1, 2, 10.0)], 10.0);
        check_winner(frame, &[(0, 1, 20.0), (3, 1, 10.0), (1, 1, 30.0)], 10.0);
        // The later offset counts for its partition, although its clock was set back behind that of the other partition.
        check_winner(frame, &[(0, 5, 10.0), (1, 4, 20.0), (0, 3, 30.0)], 20.0);
    }
}

#[test]
fn scattered_late_candles_are_computed_in_pieces_that_change_few_rows() {
    // All minutes in order, then every 31st again: each of these changes 30 rows.
    let bronze = minutes((0..31 * 200).chain((0..200).map(|index| 31 * index)));
    for (frame, changed_rows_max) in [(Frame::Time, 1000), (Frame::Rows, 1000), (Frame::Time, 7)] {
        let cuts = Cuts { batches: vec![31 * 200], restarts: vec![1], changed_rows_max };
        let (gold, _) = run(&bronze, frame, &cuts);
        assert_eq!(gold, defined(&bronze, frame));
    }
}

#[test]
fn memory_stays_small_however_long_the_stream() {
    let bronze = minutes(0..10_000);
    let mut window =
        Window::new(Frame::Time, Position::default(), NewestBySymbol::default(), SymbolPartitions::default());
    for messages in bronze.chunks(2000) {
        let range = OffsetRange { partition: 0, first: messages[0].offset, next: messages[0].offset + 2000 };
        let arrivals =
            Arrivals::of(&Run { range, batches: vec![bronze_batch(&messages.iter().collect::<Vec<_>>())] });
        for change in window.apply(arrivals) {
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
    /// A stream in order of arrival: minutes with gaps and odd seconds. Some come late, some very late, some twice with a different price.
    /// Some are in another partition than the rest of their symbol, with a different Kafka time.
    fn stream()(
        candles in prop::collection::vec(
            (
                prop::sample::select(vec!["BTC-USD", "ETH-USD"]),
                prop_oneof![12 => Just(60_i64), 1 => 0_i64..90, 1 => 60_i64..4000],
                1.0..1e5,
                prop_oneof![12 => Just(0_usize), 2 => 0_usize..40, 1 => 0_usize..400],
                prop_oneof![8 => Just(0), 1 => 1..3_i32],
                0..40_i64,
            ),
            1..400,
        ),
        again in prop::collection::vec((any::<prop::sample::Index>(), 1.0..1e5, 0_usize..400, 0..3_i32, 0..40_i64), 0..40),
    ) -> Vec<Message> {
        let mut seconds = BTreeMap::new();
        let mut arrivals = Vec::new();
        for (index, (symbol, step, price, delay, partition, kafka_time)) in candles.into_iter().enumerate() {
            let second = seconds.entry(symbol).and_modify(|second| *second += step).or_insert(1_700_000_000);
            arrivals.push((index + delay, Message { symbol, event_time: *second * 1_000_000, price, kafka_time, partition, offset: 0 }));
        }
        for (index, price, delay, partition, kafka_time) in again {
            let (at, message) = index.get(&arrivals).clone();
            arrivals.push((at + delay, Message { price, kafka_time, partition, ..message }));
        }
        arrivals.sort_by_key(|(at, _)| *at);
        with_offsets(arrivals.into_iter().map(|(_, message)| message).collect())
    }
}

prop_compose! {
    fn cuts()(
        batches in prop::collection::vec(any::<usize>(), 0..60),
        restarts in prop::collection::vec(0_usize..60, 0..4),
        changed_rows_max in prop_oneof![Just(CHANGED_ROWS_MAX), 1..200_usize],
    ) -> Cuts {
        Cuts { batches, restarts, changed_rows_max }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn gold_is_as_defined_whatever_the_order_batches_and_restarts(
        bronze in stream(),
        by_rows in any::<bool>(),
        cuts in cuts(),
    ) {
        let frame = if by_rows { Frame::Rows } else { Frame::Time };
        let (gold, _) = run(&bronze, frame, &cuts);
        prop_assert_eq!(gold, defined(&bronze, frame));
    }

    #[test]
    fn gold_is_the_same_however_the_partitions_take_turns(
        bronze in stream(),
        by_rows in any::<bool>(),
        cuts in cuts(),
        turns in prop::collection::vec(0..3_i32, 0..400),
    ) {
        let frame = if by_rows { Frame::Rows } else { Frame::Time };
        let (gold, _) = run(&bronze, frame, &cuts);
        let mut waiting: BTreeMap<i32, VecDeque<Message>> = BTreeMap::new();
        for message in bronze {
            waiting.entry(message.partition).or_default().push_back(message);
        }
        let mut turned: Vec<Message> =
            turns.into_iter().filter_map(|partition| waiting.get_mut(&partition)?.pop_front()).collect();
        turned.extend(waiting.into_values().flatten());
        let (otherwise, _) = run(&turned, frame, &cuts);
        prop_assert_eq!(gold, otherwise);
    }
}
