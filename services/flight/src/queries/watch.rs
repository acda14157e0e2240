//! Lets a query be stopped wherever it computes. DataFusion stops a query when a stream yields; a join whose filter finds nothing, or a window
//! function over millions of rows, yields after minutes.
//!
//! Whatever computes for long passes one of these points: a batch between two operators, a join's filter, a function of a window, or memory
//! that is asked for. Each point is wrapped in something that first checks the query's [`Watch`].

mod aggregate;
mod expression;
mod function;
mod memory;
mod pace;
mod plan;
mod window;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use datafusion::dataframe::DataFrame;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryPool, MemoryReservation};
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::physical_plan::ExecutionPlan;

use self::memory::WatchedPool;

pub(crate) use self::function::bound_functions;

/// Whether a query is to stop; clones share.
#[derive(Clone, Default)]
pub(super) struct Watch(Arc<AtomicBool>);

/// The error with which a query that was stopped ends. Nobody waits for it: its client has its reason already, or is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the query was stopped")]
pub(crate) struct Stopped;

impl Watch {
    /// Stops the query at the next point that it passes.
    pub(super) fn stop(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// # Errors
    ///
    /// [`Stopped`]: the query is to stop.
    pub(super) fn check(&self) -> Result<()> {
        if self.0.load(Ordering::Relaxed) {
            return Err(DataFusionError::External(Box::new(Stopped)));
        }
        Ok(())
    }

    /// Returns `pool`, which gives a query that is to stop no more memory.
    pub(super) fn pool(&self, pool: impl MemoryPool) -> Arc<dyn MemoryPool> {
        Arc::new(WatchedPool { inner: pool, watch: self.clone() })
    }

    /// Plans how `query` is executed in `environment`, with every point watched.
    ///
    /// # Errors
    ///
    /// The engine's.
    pub(super) async fn plan(
        &self,
        query: DataFrame,
        environment: &Arc<RuntimeEnv>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let guard = Guard { watch: self.clone(), memory: Arc::clone(&environment.memory_pool) };
        let (state, plan) = query.into_parts();
        let plan = state.optimize(&plan)?;
        aggregate::check_sizes(&plan)?;
        let plan = function::watch_functions(plan, &guard)?;
        let plan = aggregate::watch_aggregates(plan, &guard)?;
        let plan = state.query_planner().create_physical_plan(&plan, &state).await?;
        plan::watch(plan, &guard)
    }
}

/// What each point of a query has at hand.
#[derive(Clone, Debug)]
struct Guard {
    watch: Watch,
    /// The query's memory.
    memory: Arc<dyn MemoryPool>,
}

impl Guard {
    fn check(&self) -> Result<()> {
        self.watch.check()
    }

    /// Returns memory for `what`, none of it taken yet.
    fn memory(&self, what: &str) -> MemoryReservation {
        MemoryConsumer::new(what).register(&self.memory)
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Watch").field(&self.0.load(Ordering::Relaxed)).finish()
    }
}

#[cfg(test)]
mod tests;
