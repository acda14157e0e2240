//! The threads that files are encoded on: one for each core, at a lower priority, so that a flush holds up no candle on its way.

use std::sync::LazyLock;
use std::thread::available_parallelism;

use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;

/// How much a flush yields to everything else.
const NICENESS: i32 = 10;

static THREADS: LazyLock<Runtime> = LazyLock::new(|| {
    let runtime = Builder::new_multi_thread()
        .worker_threads(1)
        .max_blocking_threads(available_parallelism().map_or(1, usize::from))
        .thread_name("encode")
        .on_thread_start(|| {
            // On Linux the niceness is a thread's own. Where it is refused, a flush is only less polite.
            let _refused = rustix::process::nice(NICENESS);
        })
        .build();
    runtime.expect("the system has threads to give")
});

/// Runs `work` as soon as a thread is free.
pub(crate) fn spawn<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    THREADS.spawn_blocking(work)
}
