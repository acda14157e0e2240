//! Named places where a test kills the process, one between every two steps of the walk.
//!
//! `CANDLEFLIGHT_FAILPOINT=flight.committed:3` aborts the process the third time it passes `flight.committed`. An abort runs no
//! destructor and flushes no buffer: to the outside it is a `kill -9` at exactly that place.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// The environment variable that arms one failpoint: `name` or `name:passes`.
pub const VARIABLE: &str = "CANDLEFLIGHT_FAILPOINT";

struct Armed {
    name: String,
    passes_left: AtomicU64,
}

/// Aborts the process when the failpoint `name` is armed and was passed often enough; otherwise costs one load.
pub fn pass(name: &str) {
    // The one static of the tree: a failpoint must be reachable from anywhere without threading it through every signature.
    static ARMED: OnceLock<Option<Armed>> = OnceLock::new();
    let armed = ARMED.get_or_init(|| std::env::var(VARIABLE).ok().map(|text| parse(&text)));
    let Some(armed) = armed.as_ref().filter(|armed| armed.name == name) else { return };
    if armed.passes_left.fetch_sub(1, Ordering::SeqCst) == 1 {
        std::process::abort();
    }
}

fn parse(text: &str) -> Armed {
    let (name, passes) = text.rsplit_once(':').unwrap_or((text, "1"));
    Armed { name: name.to_owned(), passes_left: AtomicU64::new(passes.parse().unwrap_or(1)) }
}
