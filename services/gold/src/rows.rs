//! Builds gold batches from candles.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, Date32Array, Float64Array, Int32Array, RecordBatch, StringBuilder, TimestampMicrosecondArray,
};
use schema::gold::WINDOWS;

use crate::candle::Candle;
use kernel::{Averages, Frame, Series, WIDEST};

/// Gold rows under construction, in append order.
#[derive(Debug, Default)]
pub(crate) struct Rows {
    /// Runs of rows with one symbol: the symbol, and the number of rows.
    symbols: Vec<(String, usize)>,
    candles: Vec<Candle>,
    averages: [Averages; WINDOWS.len()],
}

impl Rows {
    /// Returns the number of rows.
    pub(crate) fn len(&self) -> usize {
        self.candles.len()
    }

    /// Returns the event time of the last row, if that row has this `symbol`.
    pub(crate) fn last_event_time(&self, symbol: &str) -> Option<i64> {
        let last = self.symbols.last().filter(|(last, _)| last == symbol);
        last.and(self.candles.last()).map(|candle| candle.event_time)
    }

    /// Computes and appends the rows of `range`. `candles` must contain the complete windows of all of them.
    pub(crate) fn append(&mut self, symbol: &str, candles: &[Candle], range: Range<usize>, frame: Frame) {
        if range.is_empty() {
            return;
        }
        let first = first_needed(candles, range.start, frame);
        let window = &candles[first..range.end];
        let event_times: Vec<i64> = window.iter().map(|candle| candle.event_time).collect();
        let closes: Vec<f64> = window.iter().map(|candle| candle.close).collect();
        let volumes: Vec<f64> = window.iter().map(|candle| candle.volume).collect();
        let series = Series { event_times: &event_times, closes: &closes, volumes: &volumes };
        kernel::compute(series, frame, range.start - first..window.len(), &mut self.averages);
        match self.symbols.last_mut() {
            Some((last, rows)) if last == symbol => *rows += range.len(),
            _ => self.symbols.push((symbol.to_owned(), range.len())),
        }
        self.candles.extend_from_slice(&candles[range]);
    }

    /// Returns the rows as a batch of [`schema::gold::schema`].
    pub(crate) fn finish(self, computed_at: i64) -> RecordBatch {
        let candles = &self.candles;
        let float = |of: fn(&Candle) -> f64| -> ArrayRef {
            Arc::new(Float64Array::from_iter_values(candles.iter().map(of)))
        };
        let event_times: Vec<i64> = candles.iter().map(|candle| candle.event_time).collect();
        let dates: Vec<i32> = event_times.iter().map(|event_time| schema::date_of(*event_time)).collect();
        let mut symbols = StringBuilder::new();
        for (symbol, rows) in &self.symbols {
            (0..*rows).for_each(|_| symbols.append_value(symbol));
        }
        let mut columns: Vec<ArrayRef> = vec![Arc::new(symbols.finish()), micros(event_times)];
        columns.extend([
            float(|candle| candle.open),
            float(|candle| candle.high),
            float(|candle| candle.low),
            float(|candle| candle.close),
            float(|candle| candle.volume),
        ]);
        for averages in self.averages {
            columns.push(Arc::new(Float64Array::from(averages.price_ma)));
            let has_volatility = averages.samples.iter().map(|samples| *samples > 1).collect();
            columns.push(Arc::new(Float64Array::new(averages.price_volatility.into(), Some(has_volatility))));
            columns.push(Arc::new(Float64Array::from(averages.volume_ma)));
            columns.push(Arc::new(Int32Array::from(averages.samples)));
        }
        columns.push(micros(candles.iter().map(|candle| candle.kafka_time).collect()));
        columns.push(micros(vec![computed_at; candles.len()]));
        columns.push(Arc::new(Date32Array::from(dates)));
        RecordBatch::try_new(schema::gold::schema(), columns)
            .expect("the columns are those of the schema, in its order")
    }
}

/// Returns the index of the first candle in the widest window of `row`.
fn first_needed(candles: &[Candle], row: usize, frame: Frame) -> usize {
    match frame {
        Frame::Rows => (row + 1).saturating_sub(usize::from(WIDEST)),
        Frame::Time => {
            let before = candles[row].event_time - i64::from(WIDEST) * schema::MINUTE_MICROS;
            candles.partition_point(|candle| candle.event_time <= before)
        }
    }
}

fn micros(values: Vec<i64>) -> ArrayRef {
    Arc::new(TimestampMicrosecondArray::from(values).with_timezone("UTC"))
}
