//! The services as stages of one walk. They start together, each with its own token, and drain one after the other.

use std::future::pending;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use clap::Parser;
use producer::{Input, Inputs};
use service::Context;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::folder::Folder;
use super::screen::Screen;
use super::servers::Servers;
use super::{Args, FLIGHT_URL};

/// Order of the drain. It is the order of the walk, except that gold stops before the Flight server, because gold is a client of that
/// server.
const DRAIN_ORDER: [&str; 4] = ["producer", "ingest", "gold", "flight"];

/// Log message for an input that fails.
pub(super) const INPUT_ENDS: &str = "an input failed: the pipeline continues without it; correct the file and start again to continue after the last record sent";

/// The running services.
#[derive(Debug)]
pub(super) struct Stages {
    /// Address of the Flight server.
    pub(super) flight_url: String,
    running: JoinSet<(&'static str, anyhow::Result<()>)>,
    stage_names: Vec<&'static str>,
    tokens: Vec<CancellationToken>,
    /// Context of all stages. Each stage gets its own token.
    context: Context,
}

impl Stages {
    /// Starts the services on `servers`. Each service waits until the services that it needs are there.
    pub(super) fn start(
        args: &Args,
        inputs: &[Input],
        folder: &mut Folder,
        servers: &Servers,
        context: &Context,
    ) -> anyhow::Result<Stages> {
        let listen = folder.choose_address("flight", FLIGHT_URL.trim_start_matches("grpc://"))?.to_string();
        let scheme = if context.access.tls.is_some() { "grpc+tls" } else { "grpc" };
        let flight_url = format!("{scheme}://{listen}");
        let mut stages = Stages {
            flight_url: flight_url.clone(),
            running: JoinSet::new(),
            stage_names: Vec::new(),
            tokens: Vec::new(),
            context: context.clone(),
        };
        let kafka = servers.kafka_flags();
        let lake = [("--lake", &*servers.lake), ("--topic", &*args.topic)];

        let config: flight::Config = config(&[&lake[..], &[("--listen", &*listen)]].concat())?;
        stages.spawn("flight", |context| async { Ok(flight::run(config, context).await?) });

        // This is the only member of its group. With a stable name it gets its partitions back at once, even after a crash.
        let member = [("--flight", &*flight_url), ("--group-instance", "up")];
        let config: ingest::Config = self::config(&[&kafka[..], &member].concat())?;
        stages.spawn("ingest", |context| async { Ok(ingest::run(config, context).await?) });

        let gold = [("--flight", &*flight_url), ("--frame", &*args.frame)];
        let config: gold::Config =
            self::config(&[&kafka[..], &lake[..1], &servers.postgres_flags(), &gold].concat())?;
        stages.spawn("gold", |context| async { Ok(gold::run(config, context).await?) });

        // Without a readable input, other producers may still send to the topic.
        if !inputs.is_empty() {
            let mut flags = kafka;
            flags.push(("--interval", &*args.interval));
            flags.extend(args.rate.iter().map(|rate| ("--rate", rate.as_str())));
            let mut config: producer::Config = self::config(&flags)?;
            (config.inputs, config.resume, config.quiet) = (vec![Inputs(inputs.to_vec())], true, true);
            // Ingest first writes back messages that Kafka may have lost at its end. Messages that are produced earlier would take the
            // offsets of the lost messages.
            config.resume_after = Some(ingest::SERVICE);
            stages.spawn("producer", |context| async { Ok(producer::run(config, context).await?) });
        }
        Ok(stages)
    }

    fn spawn<F>(&mut self, name: &'static str, run: impl FnOnce(Context) -> F)
    where
        F: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        let token = CancellationToken::new();
        let service = run(Context { shutdown: token.clone(), ..self.context.clone() });
        self.running.spawn(async move { (name, service.await) });
        self.stage_names.push(name);
        self.tokens.push(token);
    }

    /// Waits until a service fails, and returns the reason. A producer at the end of its input has not failed. The pipeline does not fail
    /// if an input does.
    pub(super) async fn failure(&mut self, screen: &Screen) -> anyhow::Error {
        while let Some((name, result)) = self.next_end().await {
            match result {
                Ok(()) if name == "producer" => {
                    screen.line("the input has been replayed to its end; the pipeline keeps running");
                }
                Ok(()) => return anyhow!("{name} ended unexpectedly"),
                Err(error) if is_input(&error) => print_error(&error),
                Err(error) => return error.context(format!("{name} failed")),
            }
        }
        pending().await
    }

    /// Stops the services one after the other, within `drain_max` in total.
    pub(super) async fn drain(mut self, drain_max: Duration) -> anyhow::Result<()> {
        let drained = timeout(drain_max, self.drain_in_order()).await;
        drained.unwrap_or_else(|_| {
            Err(anyhow!("the drain took longer than {drain_max:?} (--drain-max); the next start repeats the work that was not durable"))
        })
    }

    async fn drain_in_order(&mut self) -> anyhow::Result<()> {
        let mut outcome = Ok(());
        for stage in DRAIN_ORDER {
            tracing::info!(service = stage, "draining");
            self.cancel(stage);
            while self.stage_names.contains(&stage) {
                let Some((name, result)) = self.next_end().await else { break };
                match result {
                    Err(error) if is_input(&error) => print_error(&error),
                    result => outcome = outcome.and(result.with_context(|| format!("drain {name}"))),
                }
            }
        }
        outcome
    }

    fn cancel(&self, stage: &str) {
        let tokens = self.stage_names.iter().zip(&self.tokens);
        tokens.filter(|(name, _)| **name == stage).for_each(|(_, token)| token.cancel());
    }

    /// Waits for the next service to end. Returns `None` if none is left.
    async fn next_end(&mut self) -> Option<(&'static str, anyhow::Result<()>)> {
        let (name, result) = match self.running.join_next().await? {
            Ok(end) => end,
            Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
        };
        let index = self.stage_names.iter().position(|stage| *stage == name)?;
        self.stage_names.remove(index);
        self.tokens.remove(index);
        Some((name, result))
    }
}

fn print_error(error: &anyhow::Error) {
    tracing::error!(error = &**error as &dyn std::error::Error, "{INPUT_ENDS}");
}

fn is_input(error: &anyhow::Error) -> bool {
    error.downcast_ref::<producer::Error>().is_some_and(producer::Error::is_input)
}

#[derive(Parser)]
struct Flags<T: clap::Args> {
    #[command(flatten)]
    config: T,
}

/// Returns a service's configuration as its own command would read it: from these flags, otherwise its environment variables, otherwise its
/// defaults.
fn config<T: clap::Args>(flags: &[(&str, &str)]) -> anyhow::Result<T> {
    let words = flags.iter().map(|(flag, value)| format!("{flag}={value}"));
    let parsed = Flags::try_parse_from(std::iter::once("up".to_owned()).chain(words))?;
    Ok(parsed.config)
}
