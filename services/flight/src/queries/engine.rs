//! The threads that queries run on.

use std::thread::available_parallelism;

use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;

/// Niceness of the query threads. Puts and followers of bronze go first, and queries get the rest of the CPU.
const NICENESS: i32 = 10;

/// Maximum number of threads. They cost nothing while they wait.
const THREADS_MAX: usize = 256;

/// Stack of a thread, in bytes. Only the used part takes memory. The engine plans by recursion, which takes 10 KB a step.
const STACK_BYTES: usize = 128 << 20;

/// Separate runtime for queries, so that a query that computes delays neither puts nor followers.
#[derive(Debug)]
pub(super) struct Engine(Option<Runtime>);

impl Engine {
    /// Starts enough threads for `queries_max` queries at once, so that one long computation leaves the others their threads. The operating
    /// system shares the cores among them.
    pub(super) fn start(queries_max: usize) -> Engine {
        let cores = available_parallelism().map_or(1, usize::from);
        let threads = (cores * queries_max).clamp(cores, THREADS_MAX.max(cores));
        let runtime = Builder::new_multi_thread()
            .worker_threads(threads)
            .thread_name("query")
            .thread_stack_size(STACK_BYTES)
            .on_thread_start(|| {
                // On Linux, niceness belongs to a thread. If the system rejects it, queries run at normal priority.
                let _refused = rustix::process::nice(NICENESS);
            })
            .enable_all()
            .build();
        Engine(Some(runtime.expect("the system can start threads")))
    }

    pub(super) fn spawn<F>(&self, future: F) -> JoinHandle<F::Output>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        self.0.as_ref().expect("the runtime exists until the engine is dropped").spawn(future)
    }
}

#[cfg(test)]
impl Engine {
    /// Returns the number of tasks that have not ended.
    pub(super) fn tasks(&self) -> usize {
        self.0.as_ref().map_or(0, |runtime| runtime.metrics().num_alive_tasks())
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}
