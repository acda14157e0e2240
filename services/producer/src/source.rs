//! All inputs as one stream of candles in the order of their timestamps.

use std::path::PathBuf;
use std::str::FromStr;

use schema::candle::Candle;

use crate::Error;
use crate::csv::{CsvFile, Row};

/// A file and the symbol of its candles.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Input {
    /// A CSV file, plain, gzipped or zipped.
    pub path: PathBuf,
    /// Symbol of all its candles.
    pub symbol: String,
}

impl FromStr for Input {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (path, symbol) = text.rsplit_once('=').ok_or("an input is written FILE=SYMBOL")?;
        if path.is_empty() || symbol.is_empty() || symbol.len() > schema::candle::SYMBOL_BYTES_MAX {
            return Err("an input is written FILE=SYMBOL");
        }
        Ok(Input { path: path.into(), symbol: symbol.to_owned() })
    }
}

impl Input {
    /// Returns the name that records carry in their `source` header.
    pub(crate) fn name(&self) -> String {
        self.path.file_name().unwrap_or(self.path.as_os_str()).to_string_lossy().into_owned()
    }
}

/// The next line of all inputs.
pub(crate) struct Next<'a> {
    /// Index of the input.
    pub(crate) input: usize,
    /// Number of the line in its file.
    pub(crate) line: u64,
    /// Its candle, or why it has none.
    pub(crate) candle: Result<Candle<'a>, &'static str>,
}

/// Reads all inputs, merged by timestamp; a file that is not in order is merged as it comes.
pub(crate) struct Source {
    streams: Vec<Stream>,
    now_micros: i64,
}

struct Stream {
    symbol: String,
    file: CsvFile,
    head: Head,
}

enum Head {
    /// Not read yet.
    Unread,
    Row(Row),
    End,
}

impl Source {
    /// Opens the inputs; input i goes on after line `after[i]`. Candles much later than `now_micros` count as wrong.
    pub(crate) fn open(inputs: &[Input], after: &[u64], now_micros: i64) -> Result<Self, Error> {
        let open = |(input, after): (&Input, &u64)| {
            let mut file = CsvFile::open(&input.path)?;
            file.skip_to(*after)?;
            Ok(Stream { symbol: input.symbol.clone(), file, head: Head::Unread })
        };
        let streams = inputs.iter().zip(after).map(open).collect::<Result<_, Error>>()?;
        Ok(Source { streams, now_micros })
    }

    /// Returns the earliest candle, or before it each line that cannot be used; `None` at the end.
    pub(crate) fn next(&mut self) -> Result<Option<Next<'_>>, Error> {
        for input in 0..self.streams.len() {
            if let Some(reason) = self.streams[input].fill(self.now_micros)? {
                let line = self.streams[input].file.line();
                return Ok(Some(Next { input, line, candle: Err(reason) }));
            }
        }
        let timestamp = |stream: &Stream| match stream.head {
            Head::Row([timestamp, ..]) => Some(timestamp),
            Head::Unread | Head::End => None,
        };
        let earliest = (0..self.streams.len())
            .filter_map(|input| Some((timestamp(&self.streams[input])?, input)))
            .min_by(|(left, _), (right, _)| left.total_cmp(right));
        let Some((_, input)) = earliest else { return Ok(None) };
        let stream = &mut self.streams[input];
        let Head::Row(row) = std::mem::replace(&mut stream.head, Head::Unread) else { return Ok(None) };
        Ok(Some(Next { input, line: stream.file.line(), candle: Ok(candle(&stream.symbol, row)) }))
    }

    /// Returns how far the files have been read, in bytes.
    pub(crate) fn bytes_read(&self) -> u64 {
        self.streams.iter().map(|stream| stream.file.bytes_read()).sum()
    }
}

impl Stream {
    /// Reads the head if there is none; returns why the line read has none.
    fn fill(&mut self, now_micros: i64) -> Result<Option<&'static str>, Error> {
        if !matches!(self.head, Head::Unread) {
            return Ok(None);
        }
        let row = match self.file.next()? {
            None => {
                self.head = Head::End;
                return Ok(None);
            }
            Some(Err(reason)) => return Ok(Some(reason)),
            Some(Ok(row)) => row,
        };
        match candle(&self.symbol, row).validate(now_micros) {
            Err(rejection) => Ok(Some(rejection.reason())),
            Ok(_) => {
                self.head = Head::Row(row);
                Ok(None)
            }
        }
    }
}

fn candle(symbol: &str, [timestamp, open, high, low, close, volume]: Row) -> Candle<'_> {
    Candle { symbol: symbol.into(), timestamp, open, high, low, close, volume }
}

#[cfg(test)]
mod tests;
