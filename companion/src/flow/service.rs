//! The gRPC face of a gate: two methods of `tally.admission.v1.FlowControl`, without generated code.
//!
//! In: HTTP/2 requests from tonic's server. Out: answers, or a gRPC status for what is not understood.
//! It never decides: a dropped call is dropped on to the gate, which takes it as leaving.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use tally_core::admission::{
    ENQUEUE_AND_WAIT, EnqueueAndWaitRequest, EnqueueAndWaitResponse, REPORT, ReportRequest, ReportResponse, SERVICE,
};
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tonic::server::{ClientStreamingService, Grpc, UnaryService};
use tonic::{Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;

use super::gate::Gate;

/// See the file's head.
#[derive(Clone, Debug)]
pub struct FlowService {
    gate: Arc<Gate>,
    /// Ends report streams, which would hold up the end of the server for ever.
    closing: CancellationToken,
}

type Later<T> = Pin<Box<dyn Future<Output = T> + Send>>;

impl FlowService {
    /// A service in front of a gate; report streams end when `closing` is cancelled.
    #[must_use]
    pub const fn new(gate: Arc<Gate>, closing: CancellationToken) -> Self {
        Self { gate, closing }
    }
}

impl<B> tower::Service<http::Request<B>> for FlowService
where
    B: tonic::codegen::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<tonic::codegen::StdError> + Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Later<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        let method = request.uri().path().strip_prefix('/').and_then(|path| path.split_once('/'));
        match method {
            Some((SERVICE, ENQUEUE_AND_WAIT)) => {
                let method = Enqueue(self.gate.clone());
                Box::pin(async move {
                    let mut grpc = Grpc::new(ProstCodec::default());
                    grpc = grpc.apply_max_message_size_config(Some(MAX_QUESTION_BYTES), None);
                    Ok(grpc.unary(method, request).await)
                })
            }
            Some((SERVICE, REPORT)) => {
                let method = Report(self.clone());
                Box::pin(async move {
                    let mut grpc = Grpc::new(ProstCodec::default());
                    grpc = grpc.apply_max_message_size_config(Some(MAX_REPORT_BYTES), None);
                    Ok(grpc.client_streaming(method, request).await)
                })
            }
            _ => Box::pin(async { Ok(Status::unimplemented("no such method").into_http()) }),
        }
    }
}

impl tonic::server::NamedService for FlowService {
    const NAME: &'static str = SERVICE;
}

struct Enqueue(Arc<Gate>);

impl UnaryService<EnqueueAndWaitRequest> for Enqueue {
    type Response = EnqueueAndWaitResponse;
    type Future = Later<Result<Response<EnqueueAndWaitResponse>, Status>>;

    fn call(&mut self, request: Request<EnqueueAndWaitRequest>) -> Self::Future {
        let gate = self.0.clone();
        let question = request.into_inner();
        Box::pin(async move { Ok(Response::new(gate.enqueue(question).await)) })
    }
}

struct Report(FlowService);

impl ClientStreamingService<ReportRequest> for Report {
    type Response = ReportResponse;
    type Future = Later<Result<Response<ReportResponse>, Status>>;

    fn call(&mut self, request: Request<Streaming<ReportRequest>>) -> Self::Future {
        let FlowService { gate, closing } = self.0.clone();
        Box::pin(async move {
            let mut reports = request.into_inner();
            loop {
                let report = tokio::select! {
                    report = reports.message() => report?,
                    () = closing.cancelled() => None,
                };
                let Some(report) = report else { return Ok(Response::new(ReportResponse {})) };
                if report.reporter == 0 {
                    return Err(Status::invalid_argument("reporter: expected a number other than 0"));
                }
                gate.report(&report);
            }
        })
    }
}

/// A question is names and numbers.
const MAX_QUESTION_BYTES: usize = 64 << 10;
/// A report lists thousands of requests at most.
const MAX_REPORT_BYTES: usize = 1 << 20;
