//! The causes of an error.

use std::error::Error;
use std::io;

/// Returns an error and its causes as one text.
pub(crate) fn in_full(error: &(dyn Error + 'static)) -> String {
    causes(error).map(ToString::to_string).fold(String::new(), |text, next| match text.as_str() {
        "" => next,
        _ if text.contains(&next) => text,
        _ => format!("{text}: {next}"),
    })
}

/// Returns the first cause of type `T`. The error itself counts as a cause.
pub(crate) fn cause<'a, T: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a T> {
    causes(error).find_map(<dyn Error>::downcast_ref)
}

fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |error| next_cause(*error))
}

/// Returns the cause of an error. Delta's log reader and the standard library do not report every cause as a source.
fn next_cause<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a (dyn Error + 'static)> {
    if let Some(delta_kernel::Error::ObjectStore(source)) = error.downcast_ref() {
        return Some(source);
    }
    if let Some(delta_kernel::Error::Backtraced { source, .. }) = error.downcast_ref() {
        return Some(source.as_ref());
    }
    match error.downcast_ref::<io::Error>() {
        Some(error) => error.get_ref().map(|inner| inner as &(dyn Error + 'static)),
        None => error.source(),
    }
}
