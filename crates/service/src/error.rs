//! Errors as text: one sentence with all causes.

use std::error::Error;

/// Returns an error and its causes as one sentence. A cause whose text the sentence already contains is left out.
pub fn sentence(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.contains(&next) {
            text = format!("{text}: {next}");
        }
        cause = error.source();
    }
    text
}
