//! `health`: checks that services are ready, without curl.

use std::io::Write as _;

use anyhow::ensure;
use service::http;

/// Flags of `health`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Addresses of health endpoints, as given to services by --status-addr or printed at their start.
    #[arg(env = "CANDLEFLIGHT_STATUS_ADDR", default_value = crate::up::STATUS_ADDR, value_name = "HOST:PORT")]
    addresses: Vec<String>,
    #[command(flatten)]
    access: access::Identity,
}

/// Prints the readiness of each address. Fails if one does not answer or is not ready.
pub(crate) async fn health(args: Args) -> anyhow::Result<()> {
    let mut unready = 0;
    for address in &args.addresses {
        let (status, lines) = http::get(address, "/ready", &args.access).await?;
        write!(std::io::stdout(), "{lines}")?;
        unready += usize::from(status != 200);
    }
    ensure!(unready == 0, "{unready} of {} not ready", args.addresses.len());
    Ok(())
}

#[cfg(test)]
mod tests {
    use service::Context;
    use service::http;
    use tokio::net::TcpListener;

    use super::{Args, health};

    #[tokio::test]
    async fn health_follows_the_readiness_of_a_real_endpoint() {
        let Context { metrics, status, access, .. } = Context::default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let ask = || health(Args { addresses: vec![address.clone()], access: access::Identity::default() });
        let answers = async {
            metrics.set_ready("gold", Err("waits for the Flight server".to_owned()));
            assert_eq!(ask().await.unwrap_err().to_string(), "1 of 1 not ready");
            metrics.set_ready("gold", Ok(()));
            ask().await.unwrap();
        };
        tokio::select! {
            served = http::serve(listener, status, &access) => panic!("{served:?}"),
            () = answers => (),
        }
    }
}
