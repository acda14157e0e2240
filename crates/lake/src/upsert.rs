//! The files that an upsert must rewrite, and their new rows.

use std::collections::{HashMap, HashSet};
use std::pin::pin;
use std::sync::Arc;

use arrow::array::{AsArray, BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::datatypes::TimestampMicrosecondType;
use deltalake_core::kernel::Add;
use futures::{StreamExt, TryStreamExt};
use schema::{EVENT_TIME, SYMBOL};

use crate::LakeError;
use crate::file::DataFile;
use crate::read::read_files;
use crate::table::Table;
use crate::write::{FileRows, put_files, split};

/// Dates that are rewritten at once. Each holds the rows of its files in memory.
const DATES_AT_ONCE: usize = 4;

/// Files of a date that are read at once.
const FILES_AT_ONCE: usize = 4;

/// The keys of the new rows of one date.
struct Keys(HashMap<String, HashSet<i64>>);

impl Table {
    /// Puts the files of an upsert. Returns the files that they replace, and their add actions.
    pub(crate) async fn plan_upsert(
        &self,
        batches: &[RecordBatch],
    ) -> Result<(Vec<Arc<DataFile>>, Vec<Add>), LakeError> {
        let mut held: HashMap<i32, Vec<Arc<DataFile>>> = HashMap::new();
        for file in &self.snapshot.0.files {
            held.entry(file.date).or_default().push(Arc::clone(file));
        }
        let (mut plain, mut rewrites) = (Vec::new(), Vec::new());
        for rows in split(&self.spec, batches, true)? {
            match held.remove(&rows.date()) {
                None => plain.push(rows),
                Some(held) => rewrites.push(self.rewrite(rows, batches, held)),
            }
        }
        let mut added = put_files(&self.spec, &self.store, batches.to_vec(), plain, true).await?;
        let mut removed = Vec::new();
        let mut rewrites = futures::stream::iter(rewrites).buffer_unordered(DATES_AT_ONCE);
        while let Some((replaced, adds)) = rewrites.try_next().await? {
            removed.extend(replaced);
            added.extend(adds);
        }
        Ok((removed, added))
    }

    /// Puts one file with the new `rows` of a date, and with the rows that stay. The latter come from the `held` files that contain a new
    /// key.
    async fn rewrite(
        &self,
        rows: FileRows,
        batches: &[RecordBatch],
        held: Vec<Arc<DataFile>>,
    ) -> Result<(Vec<Arc<DataFile>>, Vec<Add>), LakeError> {
        let arrange = |source| LakeError::Rows { table: self.spec.name, source };
        let new = rows.gather(batches).map_err(arrange)?;
        let keys = Keys::of(&new);
        let (mut replaced, mut merged) = (Vec::new(), vec![new]);
        let touched = held.into_iter().filter(|file| keys.may_be_in(file)).collect();
        let mut reads = pin!(read_files(&self.spec, &self.store, touched, FILES_AT_ONCE));
        while let Some((file, old)) = reads.try_next().await? {
            let masks: Vec<BooleanArray> = old.iter().map(|batch| keys.absent_in(batch)).collect();
            if masks.iter().all(|mask| mask.false_count() == 0) {
                continue;
            }
            for (batch, mask) in old.iter().zip(&masks) {
                merged.push(filter_record_batch(batch, mask).map_err(arrange)?);
            }
            replaced.push(file);
        }
        let files = split(&self.spec, &merged, false)?;
        let added = put_files(&self.spec, &self.store, merged, files, true).await?;
        Ok((replaced, added))
    }
}

impl Keys {
    fn of(batch: &RecordBatch) -> Keys {
        let mut keys: HashMap<String, HashSet<i64>> = HashMap::new();
        for (symbol, time) in rows_of(batch) {
            match keys.get_mut(symbol) {
                Some(times) => _ = times.insert(time),
                None => _ = keys.insert(symbol.to_owned(), HashSet::from([time])),
            }
        }
        Keys(keys)
    }

    fn may_be_in(&self, file: &DataFile) -> bool {
        let in_symbols = |symbol: &String| {
            file.symbol.as_ref().is_none_or(|(least, greatest)| least <= symbol && symbol <= greatest)
        };
        let in_times = |time: &i64| file.event_time.is_none_or(|(first, last)| (first..=last).contains(time));
        self.0.iter().any(|(symbol, times)| in_symbols(symbol) && times.iter().any(in_times))
    }

    fn absent_in(&self, batch: &RecordBatch) -> BooleanArray {
        rows_of(batch)
            .map(|(symbol, time)| Some(!self.0.get(symbol).is_some_and(|times| times.contains(&time))))
            .collect()
    }
}

/// Iterates over (symbol, event time). A key has two columns, and no kernel looks up both together.
fn rows_of(batch: &RecordBatch) -> impl Iterator<Item = (&str, i64)> {
    let column = |name| batch.column_by_name(name).expect("rows of the table have its columns");
    let symbols = column(SYMBOL).as_string::<i32>();
    let times = column(EVENT_TIME).as_primitive::<TimestampMicrosecondType>().values();
    (0..batch.num_rows()).map(|row| (symbols.value(row), times[row]))
}
