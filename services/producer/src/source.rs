//! Merges all inputs into one stream of candles, ordered by timestamp.

use schema::candle::Candle;

use crate::csv::{CsvFile, Row};
use crate::resume::{Sent, Start};
use crate::{Error, Input};

/// Next item of the merged inputs. `input` is the index of the input that the item comes from.
pub(crate) enum Next<'a> {
    /// The earliest candle of all inputs.
    Candle {
        /// Index of the input.
        input: usize,
        /// Number of the line in the file.
        line: u64,
        /// True if the line has no line end, so that it may be incomplete.
        is_cut: bool,
        /// The candle.
        candle: Candle<'a>,
    },
    /// A line that cannot be used.
    Rejected {
        /// Index of the input.
        input: usize,
        /// Number of the line in the file.
        line: u64,
        /// Reason code.
        reason: &'static str,
    },
    /// An input has failed. The others continue.
    Failed {
        /// Index of the input.
        input: usize,
        /// The error.
        error: Error,
    },
}

/// All inputs, merged by timestamp. A file that is not sorted is merged in the order of its lines.
pub(crate) struct Source {
    streams: Vec<Stream>,
    now_micros: i64,
}

struct Stream {
    symbol: String,
    head: Head,
    file: Option<CsvFile>,
    /// Record that was sent last, until it is compared with its line in the file.
    sent: Option<Sent>,
    /// Summary of the unusable lines. `None` once a line was usable.
    unusable: Option<Unusable>,
    topic: String,
}

/// Number of unusable lines, and a description of the first one.
#[derive(Default)]
struct Unusable {
    count: u64,
    line: u64,
    text: String,
    hint: String,
}

enum Head {
    /// Not read yet.
    Unread,
    /// The next candle, and whether its line has no line end.
    Row(Row, bool),
    /// The input could not be opened.
    Failed(Option<Error>),
    End,
}

/// Result of filling the head of a stream.
enum Filled {
    Head,
    Rejected(&'static str),
}

impl Source {
    /// Opens the inputs, each at its start. Candles much later than `now_micros` are rejected.
    pub(crate) fn open(inputs: &[Input], starts: Vec<Start>, topic: &str, now_micros: i64) -> Self {
        let streams = inputs.iter().zip(starts).map(|(input, start)| Stream::open(input, start, topic));
        Source { streams: streams.collect(), now_micros }
    }

    /// Returns the earliest candle. Unusable lines and failed inputs are returned before that candle. Returns `None` at the end.
    pub(crate) fn next(&mut self) -> Option<Next<'_>> {
        for (input, stream) in self.streams.iter_mut().enumerate() {
            match stream.fill(self.now_micros) {
                Ok(Filled::Head) => (),
                Ok(Filled::Rejected(reason)) => {
                    return Some(Next::Rejected { input, line: stream.line(), reason });
                }
                Err(error) => {
                    stream.head = Head::End;
                    return Some(Next::Failed { input, error });
                }
            }
        }
        let timestamp = |stream: &Stream| match stream.head {
            Head::Row([timestamp, ..], _) => Some(timestamp),
            Head::Unread | Head::Failed(_) | Head::End => None,
        };
        let earliest = (0..self.streams.len())
            .filter_map(|input| Some((timestamp(&self.streams[input])?, input)))
            .min_by(|(left, _), (right, _)| left.total_cmp(right));
        let (_, input) = earliest?;
        let stream = &mut self.streams[input];
        let Head::Row(row, is_cut) = std::mem::replace(&mut stream.head, Head::Unread) else { return None };
        let line = stream.line();
        Some(Next::Candle { input, line, is_cut, candle: candle(&stream.symbol, row) })
    }

    /// Returns the number of bytes that have been read from all files.
    pub(crate) fn bytes_read(&self) -> u64 {
        self.streams.iter().filter_map(|stream| stream.file.as_ref()).map(CsvFile::bytes_read).sum()
    }
}

impl Stream {
    fn open(input: &Input, start: Start, topic: &str) -> Stream {
        let opened = CsvFile::open(&input.path);
        let expired = || Error::Expired {
            path: input.path.clone(),
            symbol: input.symbol.clone(),
            topic: topic.to_owned(),
        };
        let (opened, sent) = match start {
            Start::Beginning => (opened, None),
            Start::After(sent) => (opened, Some(sent)),
            Start::Unknown => (opened.and_then(|_| Err(expired())), None),
        };
        let (file, head) = match opened {
            Ok(file) => (Some(file), Head::Unread),
            Err(error) => (None, Head::Failed(Some(error))),
        };
        // A line that was sent before was usable.
        let unusable = sent.is_none().then(Unusable::default);
        Stream { symbol: input.symbol.clone(), head, file, sent, unusable, topic: topic.to_owned() }
    }

    fn line(&self) -> u64 {
        self.file.as_ref().map_or(0, CsvFile::line)
    }

    /// Reads the next line if the stream has no head. The line becomes the head, or is rejected.
    fn fill(&mut self, now_micros: i64) -> Result<Filled, Error> {
        match &mut self.head {
            Head::Unread => (),
            Head::Failed(error) => return error.take().map_or(Ok(Filled::Head), Err),
            Head::Row(..) | Head::End => return Ok(Filled::Head),
        }
        let Some(file) = &mut self.file else { return Ok(Filled::Head) };
        let sent = self.sent.take();
        let corrected = sent.map(|sent| find(file, &sent, &self.symbol, &self.topic)).transpose()?.flatten();
        let line = match corrected {
            Some(row) => Some(Ok(row)),
            None => file.next()?,
        };
        let Some(line) = line else {
            self.head = Head::End;
            return match self.unusable.take() {
                Some(unusable) => Err(unusable.error(file)),
                None => Ok(Filled::Head),
            };
        };
        let valid = line.and_then(|row| {
            candle(&self.symbol, row).validate(now_micros).map_or_else(|why| Err(why.reason()), |_| Ok(row))
        });
        match valid {
            Ok(row) => {
                (self.head, self.unusable) = (Head::Row(row, file.is_cut()), None);
                Ok(Filled::Head)
            }
            Err(reason) => {
                if let Some(unusable) = &mut self.unusable {
                    unusable.add(file, reason);
                }
                Ok(Filled::Rejected(reason))
            }
        }
    }
}

impl Unusable {
    fn add(&mut self, file: &CsvFile, reason: &'static str) {
        if self.count == 0 {
            (self.line, self.text, self.hint) = (file.line(), file.excerpt(), file.hint(reason));
        }
        self.count += 1;
    }

    fn error(self, file: &CsvFile) -> Error {
        let path = file.path().to_owned();
        if self.count == 0 {
            return Error::Layout { path, problem: "has no line after its header".to_owned() };
        }
        let Unusable { count, line, text, hint } = self;
        Error::Unusable { path, count, line, text, hint }
    }
}

/// Skips to the line that was sent last and checks that it still holds the candle that was sent.
///
/// Returns the candle of the line if only a part of it had been sent, so that it is sent again in full.
fn find(file: &mut CsvFile, sent: &Sent, symbol: &str, topic: &str) -> Result<Option<Row>, Error> {
    file.skip_to(sent.line.saturating_sub(1))?;
    let found = file.next()?.and_then(Result::ok).filter(|_| file.line() == sent.line);
    let known = Candle::from_json(&sent.value).ok();
    match (found, known) {
        (Some(row), Some(known)) if candle(symbol, row) == known => Ok(None),
        (Some(row), Some(known)) if sent.was_cut && row[0] == known.timestamp => Ok(Some(row)),
        _ => {
            Err(Error::AnotherFile { path: file.path().to_owned(), topic: topic.to_owned(), line: sent.line })
        }
    }
}

fn candle(symbol: &str, [timestamp, open, high, low, close, volume]: Row) -> Candle<'_> {
    Candle { symbol: symbol.into(), timestamp, open, high, low, close, volume }
}

#[cfg(test)]
mod tests;
