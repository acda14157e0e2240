//! Inputs that `up` replays: the given files, or the producer's default, which is also searched in the checkout of this build.

use std::path::Path;

use producer::{Error, Input, Inputs};

use super::screen::Screen;
use super::stages::INPUT_ENDS;

/// Data folder of the checkout in which this program was built.
const CHECKOUT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../data");

/// Returns the readable inputs and prints them. An input with an unknown layout is skipped, with an error in the log.
///
/// # Errors
///
/// A file does not exist: most likely its name is mistyped.
pub(super) fn choose(given: &[Inputs], screen: &Screen) -> anyhow::Result<Vec<Input>> {
    let mut inputs: Vec<Input> = given.iter().flat_map(|inputs| inputs.0.clone()).collect();
    let is_default = inputs.is_empty();
    if is_default {
        inputs.push(producer::default_input(&[Path::new("data"), Path::new(CHECKOUT)]));
    }
    let mut readable = Vec::new();
    for mut input in inputs {
        match input.check() {
            Ok(()) if is_default => input.path = input.path.canonicalize()?,
            // Records carry the name of the file, and a later start searches for this name. So the name of a link is not resolved.
            Ok(()) => (),
            Err(error @ Error::Missing { .. }) => return Err(error.into()),
            Err(error) => {
                tracing::error!(error = &error as &dyn std::error::Error, "{INPUT_ENDS}");
                continue;
            }
        }
        let hint = " (three synthetic days; put the Kaggle set at data/bitcoin_data.csv for the real thing)";
        let hint = if is_default && input.path.ends_with("sample.csv") { hint } else { "" };
        screen.line(format_args!("replaying {} as {}{hint}", input.path.display(), input.symbol));
        readable.push(input);
    }
    Ok(readable)
}
