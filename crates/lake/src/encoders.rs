//! The threads that encode files: one per core, at a lower priority, so that a flush delays no candle.

use std::sync::LazyLock;
use std::thread::available_parallelism;

use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;

/// Niceness of the encoding threads. They yield to all other work.
const NICENESS: i32 = 10;

static THREADS: LazyLock<Runtime> = LazyLock::new(|| {
    let runtime = Builder::new_multi_thread()
        .worker_threads(1)
        .max_blocking_threads(available_parallelism().map_or(1, usize::from))
        .thread_name("encode")
        .on_thread_start(|| {
            // On Linux, each thread has its own niceness. If the system rejects it, a flush only competes more with other work.
            let _refused = rustix::process::nice(NICENESS);
        })
        .build();
    runtime.expect("the system can start threads")
});

/// Runs `work` as soon as a thread is free.
pub(crate) fn spawn<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    THREADS.spawn_blocking(work)
}
