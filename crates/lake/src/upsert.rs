//! The files that an upsert must rewrite, and their new rows.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::Arc;

use arrow::array::{AsArray, BooleanArray, RecordBatch};
use arrow::compute::{filter_record_batch, interleave_record_batch};
use arrow::datatypes::TimestampMicrosecondType;
use arrow::error::ArrowError;
use deltalake_core::kernel::Add;
use futures::{StreamExt, TryStreamExt};
use schema::{EVENT_TIME, SYMBOL};

use crate::LakeError;
use crate::file::DataFile;
use crate::read::read_files;
use crate::table::Table;
use crate::write::{FileRows, put_files, split};

/// Dates that are rewritten at once.
const DATES_AT_ONCE: usize = 4;
/// Files of a date that are read, and that are rewritten, at once. Their rows are in memory.
const FILES_AT_ONCE: usize = 2;

/// The keys of the new rows of one date.
struct Keys {
    /// Index of the row of each symbol and event time.
    rows: HashMap<String, HashMap<i64, usize>>,
    /// True for each row whose key is in a file that was read.
    is_found: Vec<bool>,
}

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

    /// Writes the new `rows` of a date. Each `held` file that contains one of the new keys is rewritten as one file with the new values.
    /// Rows whose key is in no file go to separate files. So the cost depends on the rewritten files, and no file grows.
    async fn rewrite(
        &self,
        rows: FileRows,
        batches: &[RecordBatch],
        held: Vec<Arc<DataFile>>,
    ) -> Result<(Vec<Arc<DataFile>>, Vec<Add>), LakeError> {
        let arrange = |source| LakeError::Rows { table: self.spec.name, source };
        let new = rows.gather(batches).map_err(arrange)?;
        let mut keys = Keys::of(&new);
        let (mut replaced, mut added) = (Vec::new(), Vec::new());
        let touched = held.into_iter().filter(|file| keys.may_be_in(file)).collect();
        let read = read_files(&self.spec, &self.store, touched, FILES_AT_ONCE);
        {
            let writes = read.map(|read| {
                let merged = read.map(|(file, old)| (file, keys.replace_in(&old, &new)));
                async move {
                    match merged? {
                        (_, None) => Ok(None),
                        (file, Some(merged)) => Ok(Some((file, self.write(merged.map_err(arrange)?).await?))),
                    }
                }
            });
            let mut writes = pin!(writes.buffer_unordered(FILES_AT_ONCE));
            while let Some(written) = writes.try_next().await? {
                let Some((file, adds)) = written else { continue };
                replaced.push(file);
                added.extend(adds);
            }
        }
        let fresh = keys.unfound(&new).map_err(arrange)?;
        if fresh.num_rows() > 0 {
            added.extend(self.write(vec![fresh]).await?);
        }
        Ok((replaced, added))
    }

    /// Puts rows of one date, which hold each key once.
    async fn write(&self, rows: Vec<RecordBatch>) -> Result<Vec<Add>, LakeError> {
        let files = split(&self.spec, &rows, false)?;
        put_files(&self.spec, &self.store, rows, files, true).await
    }
}

impl Keys {
    /// Collects the keys of `batch`, which holds each key once.
    fn of(batch: &RecordBatch) -> Keys {
        let mut rows: HashMap<String, HashMap<i64, usize>> = HashMap::new();
        for (row, (symbol, time)) in rows_of(batch).enumerate() {
            match rows.get_mut(symbol) {
                Some(times) => _ = times.insert(time, row),
                None => _ = rows.insert(symbol.to_owned(), HashMap::from([(time, row)])),
            }
        }
        Keys { rows, is_found: vec![false; batch.num_rows()] }
    }

    fn may_be_in(&self, file: &DataFile) -> bool {
        let in_symbols = |symbol: &String| {
            file.symbol.as_ref().is_none_or(|(least, greatest)| least <= symbol && symbol <= greatest)
        };
        let in_times = |time: &i64| file.event_time.is_none_or(|(first, last)| (first..=last).contains(time));
        self.rows.iter().any(|(symbol, times)| in_symbols(symbol) && times.keys().any(in_times))
    }

    /// Returns the rows of a file, with the rows of `new` in the place of those with the same key. Returns `None` if the file has no such
    /// row. A key that another file has had before is left out, so that each key comes once.
    fn replace_in(
        &mut self,
        old: &[RecordBatch],
        new: &RecordBatch,
    ) -> Option<Result<Vec<RecordBatch>, ArrowError>> {
        let mut has_key = false;
        let mut places = |batch: &RecordBatch| -> Vec<(usize, usize)> {
            let places = rows_of(batch).enumerate().filter_map(|(row, (symbol, time))| {
                let Some(new) = self.rows.get(symbol).and_then(|times| times.get(&time)) else {
                    return Some((0, row));
                };
                has_key = true;
                (!std::mem::replace(&mut self.is_found[*new], true)).then_some((1, *new))
            });
            places.collect()
        };
        let places: Vec<_> = old.iter().map(&mut places).collect();
        let replace = |(batch, places): (&RecordBatch, &Vec<(usize, usize)>)| {
            interleave_record_batch(&[batch, new], places)
        };
        has_key.then(|| old.iter().zip(&places).map(replace).collect())
    }

    /// Returns the rows of `new` whose key was found in no file.
    fn unfound(&self, new: &RecordBatch) -> Result<RecordBatch, ArrowError> {
        let mask: BooleanArray = self.is_found.iter().map(|is_found| Some(!is_found)).collect();
        filter_record_batch(new, &mask)
    }
}

/// Iterates over (symbol, event time). A key has two columns, and no kernel looks up both together.
fn rows_of(batch: &RecordBatch) -> impl Iterator<Item = (&str, i64)> {
    let column = |name| batch.column_by_name(name).expect("rows of the table have its columns");
    let symbols = column(SYMBOL).as_string::<i32>();
    let times = column(EVENT_TIME).as_primitive::<TimestampMicrosecondType>().values();
    (0..batch.num_rows()).map(|row| (symbols.value(row), times[row]))
}
