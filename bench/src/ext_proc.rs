//! An external processor that does nothing with what it is sent: the least that any endpoint picker costs.
//!
//! In: Envoy's `envoy.service.ext_proc.v3` stream, bodies included. Out: "go on", with the bodies as they came. The few
//! messages that it needs are declared here by their field numbers.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use prost::{Message, Oneof};
use tokio_stream::{Stream, StreamExt};
use tonic::body::Body;
use tonic::server::{Grpc, StreamingService};
use tonic::{Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;

#[derive(Clone, PartialEq, Message)]
struct ProcessingRequest {
    #[prost(oneof = "Part", tags = "2, 3, 4, 5, 6, 7")]
    part: Option<Part>,
}

#[derive(Clone, PartialEq, Oneof)]
enum Part {
    #[prost(message, tag = "2")]
    RequestHeaders(Empty),
    #[prost(message, tag = "3")]
    ResponseHeaders(Empty),
    #[prost(message, tag = "4")]
    RequestBody(Piece),
    #[prost(message, tag = "5")]
    ResponseBody(Piece),
    #[prost(message, tag = "6")]
    RequestTrailers(Empty),
    #[prost(message, tag = "7")]
    ResponseTrailers(Empty),
}

#[derive(Clone, PartialEq, Message)]
struct Empty {}

#[derive(Clone, PartialEq, Message)]
struct Piece {
    #[prost(bytes = "bytes", tag = "1")]
    body: Bytes,
    #[prost(bool, tag = "2")]
    end_of_stream: bool,
}

#[derive(Clone, PartialEq, Message)]
struct ProcessingResponse {
    #[prost(oneof = "Answer", tags = "1, 2, 3, 4, 5, 6")]
    answer: Option<Answer>,
}

#[derive(Clone, PartialEq, Oneof)]
enum Answer {
    #[prost(message, tag = "1")]
    RequestHeaders(Empty),
    #[prost(message, tag = "2")]
    ResponseHeaders(Empty),
    #[prost(message, tag = "3")]
    RequestBody(BodyResponse),
    #[prost(message, tag = "4")]
    ResponseBody(BodyResponse),
    #[prost(message, tag = "5")]
    RequestTrailers(Empty),
    #[prost(message, tag = "6")]
    ResponseTrailers(Empty),
}

#[derive(Clone, PartialEq, Message)]
struct BodyResponse {
    #[prost(message, optional, tag = "1")]
    response: Option<CommonResponse>,
}

#[derive(Clone, PartialEq, Message)]
struct CommonResponse {
    #[prost(message, optional, tag = "3")]
    body_mutation: Option<BodyMutation>,
}

#[derive(Clone, PartialEq, Message)]
struct BodyMutation {
    #[prost(message, optional, tag = "3")]
    streamed_response: Option<Piece>,
}

fn answer(request: ProcessingRequest) -> ProcessingResponse {
    let same = |piece| BodyResponse {
        response: Some(CommonResponse { body_mutation: Some(BodyMutation { streamed_response: Some(piece) }) }),
    };
    let answer = request.part.map(|part| match part {
        Part::RequestHeaders(_) => Answer::RequestHeaders(Empty {}),
        Part::ResponseHeaders(_) => Answer::ResponseHeaders(Empty {}),
        Part::RequestBody(piece) => Answer::RequestBody(same(piece)),
        Part::ResponseBody(piece) => Answer::ResponseBody(same(piece)),
        Part::RequestTrailers(_) => Answer::RequestTrailers(Empty {}),
        Part::ResponseTrailers(_) => Answer::ResponseTrailers(Empty {}),
    });
    ProcessingResponse { answer }
}

/// The service for tonic's server.
#[derive(Clone, Debug)]
pub(crate) struct ExtProc;

struct Process;

type Answers = Pin<Box<dyn Stream<Item = Result<ProcessingResponse, Status>> + Send>>;
type Later<T> = Pin<Box<dyn Future<Output = T> + Send>>;

impl StreamingService<ProcessingRequest> for Process {
    type Response = ProcessingResponse;
    type ResponseStream = Answers;
    type Future = Later<Result<Response<Answers>, Status>>;

    fn call(&mut self, request: Request<Streaming<ProcessingRequest>>) -> Self::Future {
        let answers = request.into_inner().map(|request| request.map(answer));
        Box::pin(async { Ok(Response::new(Box::pin(answers) as Answers)) })
    }
}

impl<B> tower_service::Service<http::Request<B>> for ExtProc
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
        Box::pin(async move { Ok(Grpc::new(ProstCodec::default()).streaming(Process, request).await) })
    }
}

impl tonic::server::NamedService for ExtProc {
    const NAME: &'static str = "envoy.service.ext_proc.v3.ExternalProcessor";
}
