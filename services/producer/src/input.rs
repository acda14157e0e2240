//! Inputs: files, each with the symbol of its candles.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::Error;
use crate::csv::CsvFile;

/// Error text for an input that cannot be parsed.
const USAGE: &str = "an input has the form FILE=SYMBOL";
/// File name of the Kaggle data set, and the symbol of its candles.
const FULL: (&str, &str) = ("bitcoin_data.csv", "BTC-USD");
/// File name of the shipped sample, and its symbol. The symbol differs, so that real and synthetic candles never mix.
const SAMPLE: (&str, &str) = ("sample.csv", "SAMPLE-USD");

/// A file and the symbol of its candles.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Input {
    /// CSV file: plain, gzip or zip.
    pub path: PathBuf,
    /// Symbol of all its candles.
    pub symbol: String,
}

/// One input, or several that are separated by commas.
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

    /// Parses inputs. A comma ends an input only after `=SYMBOL`. An earlier comma is part of the file name.
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
        // A comma at the end is allowed.
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
    /// [`Error`]: the file is missing, cannot be read, or has an unknown layout.
    pub fn check(&self) -> Result<(), Error> {
        CsvFile::open(&self.path).map(drop)
    }
}

/// Returns the default input: the Kaggle set from the first of `folders` that has it, otherwise the shipped sample.
///
/// If no folder has either, it returns the usual path of the Kaggle set, so that the error names that file.
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
        assert_eq!(default(), owned(FULL), "without any file, the default is the set");
        std::fs::write(folder.path().join(SAMPLE.0), "").unwrap();
        assert_eq!(default(), owned(("sample.csv", "SAMPLE-USD")));
        std::fs::write(folder.path().join(FULL.0), "").unwrap();
        assert_eq!(default(), owned(("bitcoin_data.csv", "BTC-USD")));
    }
}
