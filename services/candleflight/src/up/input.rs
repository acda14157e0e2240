//! What `up` replays when nothing was said: the Kaggle set where it was downloaded, else the sample that is shipped.

use std::path::{Path, PathBuf};

use anyhow::Context as _;

use super::screen::Screen;

/// Symbol of both files.
const SYMBOL: &str = "BTC-USD";
/// The checkout that this program was built in; it is used only for its data.
const CHECKOUT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

/// Returns the inputs as the producer takes them, and says which.
pub(super) fn choose(given: &[String], screen: &Screen) -> anyhow::Result<Vec<String>> {
    if !given.is_empty() {
        screen.line(format_args!("replaying {}", given.join(", ")));
        return Ok(given.to_vec());
    }
    let found = |name: &str| {
        let places = [PathBuf::from("data").join(name), Path::new(CHECKOUT).join("data").join(name)];
        places.into_iter().find(|path| path.is_file())
    };
    let path = found("bitcoin_data.csv");
    let is_sample = path.is_none();
    let path = path.or_else(|| found("sample.csv")).context(
        "neither data/bitcoin_data.csv nor data/sample.csv here or in the checkout: name a file with --input FILE=SYMBOL, \
         or write a synthetic one with `candleflight sample`",
    )?;
    let path = path.canonicalize()?;
    let hint = " (three synthetic days; put the Kaggle set at data/bitcoin_data.csv for the real thing)";
    screen.line(format_args!(
        "replaying {} as {SYMBOL}{}",
        path.display(),
        if is_sample { hint } else { "" }
    ));
    Ok(vec![format!("{}={SYMBOL}", path.display())])
}
