//! A private Apache Kafka: one node that is broker and controller, on the loopback interface, keeping its topics in our folder.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};

use super::child::{Child, Kind, run_to_end};

/// Largest Java heap: a single broker with a few partitions needs half of it.
const HEAP: &str = "-Xmx256m";
/// What Kafka logs, on a logger that our configuration lets through, once it answers.
const READY: &str = "Kafka Server started";

pub(super) static KAFKA: Kind =
    Kind { name: "Apache Kafka", stop_signal: "TERM", death_signal: "KILL", user: None };

/// Where it listens.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ports {
    /// For clients.
    pub(super) clients: u16,
    /// For itself: the controller's quorum of one.
    pub(super) controller: u16,
}

/// Starts Kafka from the jars in `home/lib` with its data in `folder`; returns once it answers.
pub(super) async fn start(folder: &Path, home: &Path, ports: Ports) -> anyhow::Result<Child> {
    fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
    let data = folder.join("data");
    let properties = folder.join("server.properties");
    fs::write(&properties, server_properties(&data, ports))?;
    let logging = folder.join("log4j2.properties");
    fs::write(&logging, LOGGING)?;

    let java = java()?;
    let mut options: Vec<OsString> =
        [HEAP, "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"].map(OsString::from).into();
    options.push(prefixed("-Dlog4j2.configurationFile=", &logging));
    let classes = home.join("classes.jsa");
    if classes.exists() {
        options.push(prefixed("-XX:SharedArchiveFile=", &classes));
    }
    options.extend([OsString::from("-cp"), home.join("lib/*").into()]);
    let arguments = |rest: &[OsString]| [&options, rest].concat();

    if !data.join("meta.properties").exists() {
        let id = uuid::Uuid::new_v4().simple().to_string();
        // A cluster id is 22 characters of base64, which hexadecimal digits are, too.
        let format = ["kafka.tools.StorageTool", "format", "-t", &id[..22], "-c"].map(OsString::from);
        run_to_end(&KAFKA, &java, &arguments(&[&format[..], &[properties.clone().into()]].concat()))
            .await
            .context("format Apache Kafka's data folder")?;
    }
    let serve = [OsString::from("kafka.Kafka"), properties.into()];
    let mut child = Child::start(&KAFKA, folder, &java, &arguments(&serve), &[])?;
    child.until_ready(async || Ok(child_log(folder).contains(READY))).await?;
    Ok(child)
}

/// Finds the newest Kafka that `script/setup` has put into the cache folder.
pub(super) fn home() -> anyhow::Result<PathBuf> {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")));
    let cache = cache.context("neither HOME nor XDG_CACHE_HOME is set")?.join("candleflight");
    let entries = fs::read_dir(&cache).into_iter().flatten().flatten().map(|entry| entry.path());
    let is_kafka = |path: &PathBuf| {
        path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("kafka-"))
            && path.join("lib").is_dir()
    };
    entries.filter(is_kafka).max().with_context(|| {
        format!(
            "no Apache Kafka in {}: run script/setup, or name one that runs with --kafka host:port",
            cache.display()
        )
    })
}

fn java() -> anyhow::Result<PathBuf> {
    let home = std::env::var_os("JAVA_HOME").map(|home| PathBuf::from(home).join("bin"));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let java = home.into_iter().chain(std::env::split_paths(&path)).map(|folder| folder.join("java"));
    match java.into_iter().find(|java| java.is_file()) {
        Some(java) => Ok(java),
        None => bail!(
            "no java on the PATH: Apache Kafka needs Java 17 or newer (Debian: default-jre-headless); script/setup installs it"
        ),
    }
}

fn child_log(folder: &Path) -> String {
    fs::read_to_string(folder.join("log")).unwrap_or_default()
}

fn prefixed(option: &str, path: &Path) -> OsString {
    let mut option = OsString::from(option);
    option.push(path);
    option
}

/// Our topics are the write-ahead log of the pipeline, and resuming reads their end: they are kept for ever.
///
/// The session time-out is how long a restart after a crash waits for the node's own former self, by default 9 s.
fn server_properties(data: &Path, Ports { clients, controller }: Ports) -> String {
    format!(
        "process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
controller.listener.names=CONTROLLER
listeners=PLAINTEXT://127.0.0.1:{clients},CONTROLLER://127.0.0.1:{controller}
log.dirs={data}
log.retention.ms=-1
auto.create.topics.enable=false
message.max.bytes=12582912
offsets.topic.num.partitions=1
offsets.topic.replication.factor=1
transaction.state.log.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
group.initial.rebalance.delay.ms=0
broker.heartbeat.interval.ms=500
broker.session.timeout.ms=5000
log.cleaner.dedupe.buffer.size=16777216
",
        data = data.display()
    )
}

/// Warnings, and the one line that says that it is ready.
const LOGGING: &str = "rootLogger.level=WARN
rootLogger.appenderRef.console.ref=console
logger.server.name=kafka.server.KafkaRaftServer
logger.server.level=INFO
appender.console.type=Console
appender.console.name=console
appender.console.layout.type=PatternLayout
appender.console.layout.pattern=%d %p %m (%c)%n
";
