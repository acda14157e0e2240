//! All of bronze up to a position, and the gold that follows from it.

use std::collections::BTreeMap;
use std::pin::pin;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{Int32Type, Int64Type};
use futures::TryStreamExt;
use position::{OffsetRange, Position};
use proto::client;
use proto::ticket::{Follow, Ticket};
use schema::bronze::column;

use crate::candle::{self, Candle};
use crate::error::Error;
use crate::kernel::Frame;
use crate::rows::Rows;

/// Gold rows that are computed together.
const BATCH_ROWS: usize = 65_536;

/// Bronze below a position.
#[derive(Debug, Default)]
pub(super) struct Bronze {
    pub(super) rows: u64,
    /// Rows that gold cannot hold.
    pub(super) asides: u64,
    /// Where offsets are missing, double or out of place.
    pub(super) faults: Vec<String>,
    reached: Position,
    symbols: BTreeMap<String, Vec<Candle>>,
}

impl Bronze {
    /// Reads all offsets below `until`, waiting until bronze has received them.
    pub(super) async fn read(
        address: &str,
        identity: &access::Client,
        until: &Position,
    ) -> Result<Self, Error> {
        let mut client = client::connect(address, identity).await?;
        let ticket = Ticket::Bronze(Follow::default().until(until.clone()));
        let mut stream = pin!(client::read(&mut client, &ticket).await?);
        let mut bronze = Bronze::default();
        while let Some((range, batch)) = stream.try_next().await? {
            bronze.push(range, &batch)?;
        }
        for (partition, next) in until.iter() {
            let reached = bronze.reached.next(partition).unwrap_or(0);
            if reached != next {
                bronze.faults.push(format!("partition {partition}: bronze ends at {reached}, not at {next}"));
            }
        }
        bronze.symbols.values_mut().for_each(candle::sort);
        Ok(bronze)
    }

    fn push(&mut self, range: OffsetRange, batch: &RecordBatch) -> Result<(), Error> {
        // A gap is a fault to report here, not an error: the check is against the range's own begin.
        crate::source::check(&Position::default(), range, batch)?;
        self.check_offsets(range, batch);
        self.reached.advance(range);
        self.rows += u64::try_from(batch.num_rows()).unwrap_or(0);
        self.asides += u64::try_from(batch.num_rows()).unwrap_or(0);
        for (symbol, candle) in candle::decode(batch) {
            self.asides -= 1;
            if !self.symbols.contains_key(symbol) {
                self.symbols.insert(symbol.to_owned(), Vec::new());
            }
            self.symbols.get_mut(symbol).expect("just inserted").push(candle);
        }
        Ok(())
    }

    /// Checks that the range joins the one before, and that the rows' offsets ascend strictly within it: none missing, none double.
    fn check_offsets(&mut self, range: OffsetRange, batch: &RecordBatch) {
        if let Some(expected) = self.reached.next(range.partition).filter(|expected| *expected != range.first)
        {
            self.faults.push(format!("bronze sent {range} where offset {expected} was expected"));
        }
        let offsets = batch.column(column::KAFKA_OFFSET).as_primitive::<Int64Type>().values();
        let partitions = batch.column(column::KAFKA_PARTITION).as_primitive::<Int32Type>().values();
        let ascends = offsets.windows(2).all(|pair| pair[0] < pair[1]);
        let inside = offsets.first().is_none_or(|first| *first >= range.first)
            && offsets.last().is_none_or(|last| *last < range.next);
        if !ascends || !inside || partitions.iter().any(|partition| *partition != range.partition) {
            self.faults
                .push(format!("the rows of {range} have offsets that are double, out of order or outside"));
        }
    }

    /// Returns the gold rows of all candles, ordered by symbol and event time.
    pub(super) fn into_gold(self, frame: Frame) -> impl Iterator<Item = RecordBatch> + Send {
        self.symbols.into_iter().flat_map(move |(symbol, candles)| {
            let candles = candle::winners(&candles).into_owned();
            (0..candles.len()).step_by(BATCH_ROWS).map(move |first| {
                let mut rows = Rows::default();
                rows.append(&symbol, &candles, first..(first + BATCH_ROWS).min(candles.len()), frame);
                rows.finish(0)
            })
        })
    }
}
