//! What to send: files, each with the symbol of its candles.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::Error;
use crate::csv::CsvFile;

/// How an input is written.
const USAGE: &str = "an input is written FILE=SYMBOL";
/// The Kaggle set, and the symbol of its candles.
const FULL: (&str, &str) = ("bitcoin_data.csv", "BTC-USD");
/// The sample that is shipped. Its symbol is its own, so that no real candle stands beside an invented one.
const SAMPLE: (&str, &str) = ("sample.csv", "SAMPLE-USD");

/// A file and the symbol of its candles.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Input {
    /// A CSV file, plain, gzipped or zipped.
    pub path: PathBuf,
    /// Symbol of all its candles.
    pub symbol: String,
}

/// One input, or several with commas between them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inputs(pub Vec<Input>);

impl FromStr for Input {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (path, symbol) = text.rsplit_once('=').ok_or(USAGE)?;
        if path.is_empty() || !schema::candle::is_symbol(symbol) {
            return Err(USAGE);
        }
        Ok(Input { path: path.into(), symbol: symbol.to_owned() })
    }
}

impl FromStr for Inputs {
    type Err = &'static str;

    /// A comma ends an input only after its `=SYMBOL`: before it, it belongs to the file's name.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut inputs = Vec::new();
        let mut input = String::new();
        for piece in text.split_inclusive(',') {
            input.push_str(piece);
            if piece.contains('=') {
                inputs.push(input.strip_suffix(',').unwrap_or(&input).parse()?);
                input.clear();
            }
        }
        // A comma at the end is none too many.
        if input.is_empty() && !inputs.is_empty() { Ok(Inputs(inputs)) } else { Err(USAGE) }
    }
}

impl Input {
    /// Returns the name that records carry in their `source` header.
    pub(crate) fn name(&self) -> String {
        self.path.file_name().unwrap_or(self.path.as_os_str()).to_string_lossy().into_owned()
    }

    /// Checks that the file can be opened and has the columns of a candle.
    ///
    /// # Errors
    ///
    /// [`Error`]: it is missing, cannot be read, or is laid out otherwise.
    pub fn check(&self) -> Result<(), Error> {
        CsvFile::open(&self.path).map(drop)
    }
}

/// Returns the input that is replayed by default: the Kaggle set in the first of `folders` that has it, else the sample that is
/// shipped; the set where it is missed, if neither is there.
pub fn default_input(folders: &[&Path]) -> Input {
    let found = |(name, symbol)| {
        let path = folders.iter().map(|folder| folder.join(name)).find(|path: &PathBuf| path.is_file())?;
        Some(Input { path, symbol: String::from(symbol) })
    };
    let missed = || Input { path: Path::new("data").join(FULL.0), symbol: FULL.1.to_owned() };
    found(FULL).or_else(|| found(SAMPLE)).unwrap_or_else(missed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &[(&str, &str)]) {
        let inputs: Inputs = text.parse().unwrap();
        let read: Vec<_> =
            inputs.0.iter().map(|input| (input.path.to_str().unwrap(), input.symbol.as_str())).collect();
        assert_eq!(read, expected, "{text}");
    }

    #[test]
    fn an_input_is_a_file_and_a_symbol_and_commas_separate_several() {
        check("a=b/c.csv=BTC-USD", &[("a=b/c.csv", "BTC-USD")]);
        check("a.csv=A,b.csv=B", &[("a.csv", "A"), ("b.csv", "B")]);
        check("a, b/c.csv=A,d.csv=D", &[("a, b/c.csv", "A"), ("d.csv", "D")]);
        check(r#"/data/Jose\u{301} "x" \y,,z.csv=A"#, &[(r#"/data/Jose\u{301} "x" \y,,z.csv"#, "A")]);
        for wrong in ["a.csv", "a.csv=", "=BTC-USD", "", ",", "a.csv=A,b.csv"] {
            assert_eq!(wrong.parse::<Inputs>(), Err(USAGE), "{wrong}");
        }
    }

    #[test]
    fn the_sample_has_a_symbol_of_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let default = || {
            let Input { path, symbol } = default_input(&[Path::new("no such folder"), folder.path()]);
            (path.file_name().unwrap().to_str().unwrap().to_owned(), symbol)
        };
        let owned = |(name, symbol): (&str, &str)| (name.to_owned(), symbol.to_owned());
        assert_eq!(default(), owned(FULL), "what is missed is the set");
        std::fs::write(folder.path().join(SAMPLE.0), "").unwrap();
        assert_eq!(default(), owned(("sample.csv", "SAMPLE-USD")));
        std::fs::write(folder.path().join(FULL.0), "").unwrap();
        assert_eq!(default(), owned(("bitcoin_data.csv", "BTC-USD")));
    }
}
