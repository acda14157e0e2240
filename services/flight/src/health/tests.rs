use datafusion::common::runtime::SpawnedTask;
use futures::StreamExt;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Request};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_server::Health;
use tonic_health::server::HealthService;

use super::{NAMES, report, service};

fn request(service: &str) -> Request<HealthCheckRequest> {
    Request::new(HealthCheckRequest { service: service.to_owned() })
}

#[tokio::test]
async fn watchers_see_each_change_and_the_end() {
    let (reporter, _) = service();
    let answers = HealthService::from_health_reporter(reporter.clone());
    let (is_ready, seen) = watch::channel(false);
    let stopping = CancellationToken::new();
    let _reporting = SpawnedTask::spawn(report(reporter, seen, stopping.clone()));
    for name in NAMES {
        while answers.check(request(name)).await.is_err() {
            tokio::task::yield_now().await;
        }
    }
    assert_eq!(answers.check(request("another")).await.unwrap_err().code(), Code::NotFound);
    let mut watched = answers.watch(request(NAMES[1])).await.unwrap().into_inner();
    let mut next = async || watched.next().await.map(|answer| answer.unwrap().status());
    assert_eq!(next().await, Some(ServingStatus::NotServing));
    is_ready.send_replace(true);
    assert_eq!(next().await, Some(ServingStatus::Serving));
    stopping.cancel();
    assert_eq!(next().await, Some(ServingStatus::NotServing));
    assert_eq!(next().await, None);
}
