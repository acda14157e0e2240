//! Named places in the code where a test kills the process. There is one between every two steps of the pipeline.
//!
//! `CANDLEFLIGHT_FAILPOINT=flight.committed:3` aborts the process when it passes `flight.committed` for the third time. An abort runs no
//! destructor and flushes no buffer, so other processes see the same as after a `kill -9` at exactly that place.
//!
//! This crate cannot inject errors or delays, and it cannot arm more than one failpoint. It is compiled into every build: the tests run
//! the same binary as production, and a failpoint that is not armed costs one load.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// Name of the environment variable that arms one failpoint: `name`, or `name:passes` to abort at that pass.
pub const VARIABLE: &str = "CANDLEFLIGHT_FAILPOINT";

struct Armed {
    name: String,
    passes_left: AtomicU64,
}

/// Aborts the process if the failpoint `name` is armed and this is the pass to abort at. Otherwise it costs one load.
pub fn pass(name: &str) {
    // A static, so that a failpoint can be set anywhere without a parameter in every signature.
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
