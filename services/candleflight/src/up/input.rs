//! What `up` replays when nothing was said: the producer's default, also where this program was built.

use std::path::Path;

use anyhow::ensure;

use super::screen::Screen;

/// The data of the checkout that this program was built in.
const CHECKOUT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../data");

/// Returns the inputs as the producer takes them, and says which.
pub(super) fn choose(given: &[String], screen: &Screen) -> anyhow::Result<Vec<String>> {
    if !given.is_empty() {
        screen.line(format_args!("replaying {}", given.join(", ")));
        return Ok(given.to_vec());
    }
    let input = producer::default_input(&[Path::new("data"), Path::new(CHECKOUT)]);
    ensure!(
        input.path.is_file(),
        "neither data/bitcoin_data.csv nor data/sample.csv here or in the checkout: name a file with --input FILE=SYMBOL, \
         or write a synthetic one with `candleflight sample`",
    );
    let (path, symbol) = (input.path.canonicalize()?, input.symbol);
    let is_sample = path.ends_with("sample.csv");
    let hint = " (three synthetic days; put the Kaggle set at data/bitcoin_data.csv for the real thing)";
    screen.line(format_args!(
        "replaying {} as {symbol}{}",
        path.display(),
        if is_sample { hint } else { "" }
    ));
    Ok(vec![format!("{}={symbol}", path.display())])
}
