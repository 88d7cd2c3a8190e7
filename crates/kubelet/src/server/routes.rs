use hyper::StatusCode;
use sync_wrapper::SyncStream;
use warp::filters::BoxedFilter;
use warp::reply::{Reply, Response};
use warp::{Filter, Rejection};

use super::logs::{LogError, LogOptions, Logs, OptionsError, RunError};
use super::stats::Stats;
use crate::clock;

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// All paths of the node's API. Who comes here was let in by the gate.
pub(super) fn routes(logs: Logs, stats: Stats) -> BoxedFilter<(Response,)> {
    let figures = summary(stats.clone()).or(metrics(stats)).unify();
    let all = healthz().or(container_logs(logs)).unify().or(figures).unify();
    all.recover(refuse).unify().boxed()
}

fn summary(stats: Stats) -> BoxedFilter<(Response,)> {
    warp::get()
        .and(warp::path!("stats" / "summary"))
        .then(move || {
            let stats = stats.clone();
            async move {
                match stats.summary().await {
                    Ok(summary) => warp::reply::json(&summary).into_response(),
                    Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
                }
            }
        })
        .boxed()
}

fn metrics(stats: Stats) -> BoxedFilter<(Response,)> {
    warp::get()
        .and(warp::path!("metrics"))
        .map(move || match stats.metrics() {
            Ok(metrics) => warp::reply::with_header(metrics, "content-type", OPEN_METRICS).into_response(),
            Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
        })
        .boxed()
}

fn healthz() -> BoxedFilter<(Response,)> {
    warp::get().and(warp::path!("healthz")).map(|| "ok".into_response()).boxed()
}

fn container_logs(logs: Logs) -> BoxedFilter<(Response,)> {
    warp::get()
        .and(warp::path!("containerLogs" / String / String / String))
        .and(warp::query::<Vec<(String, String)>>())
        .then(move |namespace: String, pod: String, container: String, query| {
            let logs = logs.clone();
            async move { show(&logs, [&namespace, &pod, &container], query).await }
        })
        .boxed()
}

async fn show(logs: &Logs, [namespace, pod, container]: [&str; 3], query: Vec<(String, String)>) -> Response {
    let options = match LogOptions::parse(&query, clock::now()) {
        Ok(options) => options,
        Err(error) => return text(options_code(error), error.to_string()),
    };
    match logs.read(namespace, pod, container, options).await {
        Ok(stream) => {
            let body = warp::reply::stream(SyncStream::new(stream));
            warp::reply::with_header(body, "content-type", "text/plain; charset=utf-8").into_response()
        }
        Err(error) => text(log_code(&error), error.to_string()),
    }
}

fn options_code(error: OptionsError) -> StatusCode {
    match error {
        OptionsError::Undecodable | OptionsError::Stream => StatusCode::BAD_REQUEST,
        OptionsError::Invalid => StatusCode::UNPROCESSABLE_ENTITY,
    }
}

fn log_code(error: &LogError) -> StatusCode {
    match error {
        LogError::NoPod(_) | LogError::Run(RunError::NoContainer(..)) => StatusCode::NOT_FOUND,
        LogError::Run(RunError::NoRun(_)) | LogError::Unreadable(..) => StatusCode::BAD_REQUEST,
    }
}

/// An answer in plain text.
pub(super) fn text(code: StatusCode, text: String) -> Response {
    warp::reply::with_status(text, code).into_response()
}

/// What no route took.
async fn refuse(rejection: Rejection) -> Result<Response, std::convert::Infallible> {
    if rejection.is_not_found() {
        return Ok(text(StatusCode::NOT_FOUND, "404 page not found".to_owned()));
    }
    if rejection.find::<warp::reject::MethodNotAllowed>().is_some() {
        return Ok(text(StatusCode::METHOD_NOT_ALLOWED, "405: Method Not Allowed".to_owned()));
    }
    Ok(text(StatusCode::BAD_REQUEST, OptionsError::Undecodable.to_string()))
}
