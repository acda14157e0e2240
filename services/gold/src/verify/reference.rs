//! Gold by its definition: a second implementation in the simplest form. It shares no code with the service.
//!
//! Each window is cut from all candles of its symbol and computed alone. The definition fixes the order of every addition, so both
//! implementations give the same bits.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arrow::array::{
    ArrayRef, AsArray, Float64Array, Int32Array, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use arrow::datatypes::{Float64Type, Int32Type, Int64Type, TimestampMicrosecondType};
use schema::bronze::{KAFKA_OFFSET, KAFKA_PARTITION};
use schema::candle::MAGNITUDE_MAX;
use schema::gold::{TIMES, WINDOWS, price_ma, price_volatility, samples, volume_ma};
use schema::{CLOSE, EVENT_TIME, HIGH, KAFKA_TIME, LOW, MINUTE_MICROS, OPEN, SYMBOL, VOLUME};

use super::bronze::column;
use super::project;
use kernel::Frame;

/// Longest symbol that fits in an entry of a PostgreSQL index with the rest of its key, in bytes.
const SYMBOL_BYTES_MAX: usize = 2048;
/// Number of gold rows that are computed together.
const BATCH_ROWS: usize = 65_536;

/// All candles of bronze below a position.
#[derive(Debug, Default)]
pub(crate) struct Reference {
    symbols: BTreeMap<String, Vec<Candle>>,
    /// Number of rows that gold cannot store.
    pub(super) asides: u64,
}

/// A row of bronze, except its symbol.
#[derive(Clone, Copy, Debug)]
struct Candle {
    event_time: i64,
    partition: i32,
    offset: i64,
    kafka_time: i64,
    open: f64,
    high: f64,
    low: f64,
    close: f64,
    volume: f64,
}

/// Metrics of one window.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Metrics {
    price_ma: f64,
    price_volatility: Option<f64>,
    volume_ma: f64,
    samples: i32,
}

impl Reference {
    /// Adds the rows of a bronze batch.
    pub(crate) fn push(&mut self, batch: &RecordBatch) {
        let floats = |name| column(batch, name).as_primitive::<Float64Type>().values();
        let times = |name| column(batch, name).as_primitive::<TimestampMicrosecondType>().values();
        let symbols = column(batch, SYMBOL).as_string::<i32>();
        let offsets = column(batch, KAFKA_OFFSET).as_primitive::<Int64Type>().values();
        let partitions = column(batch, KAFKA_PARTITION).as_primitive::<Int32Type>().values();
        for row in 0..batch.num_rows() {
            let symbol = symbols.value(row);
            let candle = Candle {
                event_time: times(EVENT_TIME)[row],
                partition: partitions[row],
                offset: offsets[row],
                kafka_time: times(KAFKA_TIME)[row],
                open: floats(OPEN)[row],
                high: floats(HIGH)[row],
                low: floats(LOW)[row],
                close: floats(CLOSE)[row],
                volume: floats(VOLUME)[row],
            };
            if !candle.can_be_held(symbol) {
                self.asides += 1;
            } else if let Some(candles) = self.symbols.get_mut(symbol) {
                candles.push(candle);
            } else {
                self.symbols.insert(symbol.to_owned(), vec![candle]);
            }
        }
    }

    /// Returns the gold rows of all candles, ordered by symbol and event time.
    pub(crate) fn into_gold(self, frame: Frame) -> impl Iterator<Item = RecordBatch> + Send {
        self.symbols.into_iter().flat_map(move |(symbol, candles)| {
            let candles = valid_candles(candles);
            (0..candles.len()).step_by(BATCH_ROWS).map(move |first| {
                let end = (first + BATCH_ROWS).min(candles.len());
                let windows = WINDOWS.map(|length| {
                    let rows = first..end;
                    rows.map(|row| Metrics::of(window(&candles[..=row], length, frame))).collect()
                });
                batch(&symbol, &candles[first..end], &windows)
            })
        })
    }
}

impl Candle {
    fn can_be_held(&self, symbol: &str) -> bool {
        let numbers = [self.open, self.high, self.low, self.close, self.volume];
        symbol.len() <= SYMBOL_BYTES_MAX
            && !symbol.contains('\0')
            && TIMES.contains(&self.event_time)
            && TIMES.contains(&self.kafka_time)
            && numbers.iter().all(|number| number.is_finite() && number.abs() <= MAGNITUDE_MAX)
    }
}

/// Returns the candle that counts for each event time, ascending. Within a partition, the candle with the last offset counts. Among
/// partitions, the candle with the last Kafka time counts. If these times are equal, the candle of the highest partition counts.
fn valid_candles(mut candles: Vec<Candle>) -> Vec<Candle> {
    candles.sort_unstable_by_key(|candle| (candle.event_time, candle.partition, candle.offset));
    let of_one_time = candles.chunk_by(|one, next| one.event_time == next.event_time);
    let valid = of_one_time.filter_map(|rivals| {
        let lasts = rivals.chunk_by(|one, next| one.partition == next.partition).filter_map(<[_]>::last);
        lasts.max_by_key(|candle| (candle.kafka_time, candle.partition)).copied()
    });
    valid.collect()
}

/// Returns the window that ends with the last of the candles.
fn window(candles: &[Candle], length: u16, frame: Frame) -> &[Candle] {
    let first = match (frame, candles.last()) {
        (Frame::Time, Some(last)) => {
            let before = last.event_time - i64::from(length) * MINUTE_MICROS;
            candles.partition_point(|candle| candle.event_time <= before)
        }
        _ => candles.len().saturating_sub(usize::from(length)),
    };
    &candles[first..]
}

impl Metrics {
    fn of(window: &[Candle]) -> Self {
        let samples = i32::try_from(window.len()).expect("a window is far shorter than 2³¹ candles");
        let closes = Mean::of(window, |candle| candle.close);
        let volumes = Mean::of(window, |candle| candle.volume);
        Metrics {
            price_ma: closes.origin + closes.shifted,
            price_volatility: (samples > 1).then(|| (closes.squares(window) / f64::from(samples - 1)).sqrt()),
            volume_ma: volumes.origin + volumes.shifted,
            samples,
        }
    }
}

/// Mean of a value over a window: the first value, plus the mean of the differences from it.
struct Mean {
    value: fn(&Candle) -> f64,
    origin: f64,
    shifted: f64,
}

impl Mean {
    fn of(window: &[Candle], value: fn(&Candle) -> f64) -> Self {
        let origin = value(&window[0]);
        let sum = window.iter().fold(0.0, |sum, candle| sum + (value(candle) - origin));
        #[expect(clippy::cast_precision_loss, reason = "a window is short")]
        let shifted = sum / window.len() as f64;
        Mean { value, origin, shifted }
    }

    /// Returns the sum of the squared deviations from the mean.
    fn squares(&self, window: &[Candle]) -> f64 {
        let deviation = |candle| ((self.value)(candle) - self.origin) - self.shifted;
        window.iter().fold(0.0, |sum, candle| sum + deviation(candle) * deviation(candle))
    }
}

/// Returns the gold rows of one symbol in the columns that verify compares.
fn batch(symbol: &str, candles: &[Candle], windows: &[Vec<Metrics>; WINDOWS.len()]) -> RecordBatch {
    let floats = |of: fn(&Candle) -> f64| -> ArrayRef {
        Arc::new(Float64Array::from_iter_values(candles.iter().map(of)))
    };
    let times = |of: fn(&Candle) -> i64| -> ArrayRef {
        let times = TimestampMicrosecondArray::from_iter_values(candles.iter().map(of));
        Arc::new(times.with_timezone("UTC"))
    };
    let symbols: ArrayRef = Arc::new(StringArray::from_iter_values(candles.iter().map(|_| symbol)));
    let mut columns: HashMap<String, ArrayRef> = HashMap::from([
        (SYMBOL.to_owned(), symbols),
        (EVENT_TIME.to_owned(), times(|candle| candle.event_time)),
        (OPEN.to_owned(), floats(|candle| candle.open)),
        (HIGH.to_owned(), floats(|candle| candle.high)),
        (LOW.to_owned(), floats(|candle| candle.low)),
        (CLOSE.to_owned(), floats(|candle| candle.close)),
        (VOLUME.to_owned(), floats(|candle| candle.volume)),
        (KAFKA_TIME.to_owned(), times(|candle| candle.kafka_time)),
    ]);
    for (length, metrics) in WINDOWS.into_iter().zip(windows) {
        let averages = metrics.iter().map(|metrics| metrics.price_ma);
        columns.insert(price_ma(length), Arc::new(Float64Array::from_iter_values(averages)));
        let volatilities: Float64Array = metrics.iter().map(|metrics| metrics.price_volatility).collect();
        columns.insert(price_volatility(length), Arc::new(volatilities));
        let volumes = metrics.iter().map(|metrics| metrics.volume_ma);
        columns.insert(volume_ma(length), Arc::new(Float64Array::from_iter_values(volumes)));
        let counts = metrics.iter().map(|metrics| metrics.samples);
        columns.insert(samples(length), Arc::new(Int32Array::from_iter_values(counts)));
    }
    let schema = project(&RecordBatch::new_empty(schema::gold::schema())).schema();
    let columns = schema.fields().iter().map(|field| Arc::clone(&columns[field.name()])).collect();
    RecordBatch::try_new(schema, columns).expect("the columns are those of gold")
}

#[cfg(test)]
mod tests;
