//! A collector for tests: takes spans by OTLP over gRPC, as the real ones do, and keeps them.

use chassis::Tasks;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::trace::v1::Span as Sent;
use serde::Serialize;
use serde_json::{Map, Value, json};
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};

/// A span as it came.
#[derive(Debug, Clone, Serialize)]
pub struct Span {
    /// Its trace, in hexadecimal.
    pub trace: String,
    /// Its id, in hexadecimal.
    pub id: String,
    /// The id of the span it is part of; empty for none.
    pub parent: String,
    /// Which service it is of.
    pub service: String,
    /// What else is said of the process.
    pub resource: Map<String, Value>,
    /// What it is called.
    pub name: String,
    /// `SPAN_KIND_SERVER` and the like.
    pub kind: String,
    /// Unix time in nanoseconds.
    pub began: u64,
    /// Unix time in nanoseconds.
    pub ended: u64,
    /// What is written on it.
    pub attributes: Map<String, Value>,
    /// `STATUS_CODE_ERROR` and the like.
    pub status: String,
    /// The names of what happened meanwhile.
    pub events: Vec<String>,
}

/// A running collector; ends with its runtime.
#[derive(Debug)]
pub struct Collector {
    /// What to configure as `telemetry.otlp_endpoint`.
    pub endpoint: String,
    spans: watch::Receiver<Vec<Span>>,
}

impl Collector {
    /// Listens on a free port.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let (kept, spans) = watch::channel(Vec::new());
        let service = TraceServiceServer::new(Door { kept: Arc::new(kept) });
        let serve =
            Server::builder().add_service(service).serve_with_incoming(TcpIncoming::from(listener));
        Tasks::new().spawn_untracked(async move { serve.await.unwrap() });
        Self { endpoint, spans }
    }

    /// What has come so far.
    #[must_use]
    pub fn spans(&self) -> Vec<Span> {
        self.spans.borrow().clone()
    }

    /// All spans, as soon as `enough` of them have come.
    pub async fn until(&mut self, enough: impl FnMut(&Vec<Span>) -> bool) -> Vec<Span> {
        self.spans.wait_for(enough).await.unwrap().clone()
    }
}

struct Door {
    kept: Arc<watch::Sender<Vec<Span>>>,
}

#[tonic::async_trait]
impl TraceService for Door {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let mut come = Vec::new();
        for resource in request.into_inner().resource_spans {
            let about = map(resource.resource.unwrap_or_default().attributes);
            let sent = resource.scope_spans.into_iter().flat_map(|scope| scope.spans);
            come.extend(sent.map(|span| read(&about, span)));
        }
        self.kept.send_modify(|kept| kept.extend(come));
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

fn read(resource: &Map<String, Value>, sent: Sent) -> Span {
    Span {
        trace: hex(&sent.trace_id),
        id: hex(&sent.span_id),
        parent: hex(&sent.parent_span_id),
        service: resource["service.name"].as_str().unwrap_or_default().to_owned(),
        resource: resource.clone(),
        status: sent
            .status
            .as_ref()
            .map_or_else(String::new, |s| s.code().as_str_name().to_owned()),
        kind: sent.kind().as_str_name().to_owned(),
        name: sent.name,
        began: sent.start_time_unix_nano,
        ended: sent.end_time_unix_nano,
        attributes: map(sent.attributes),
        events: sent.events.into_iter().map(|event| event.name).collect(),
    }
}

fn map(attributes: Vec<KeyValue>) -> Map<String, Value> {
    attributes.into_iter().map(|kv| (kv.key, value(kv.value))).collect()
}

fn value(any: Option<AnyValue>) -> Value {
    match any.and_then(|any| any.value) {
        Some(Any::StringValue(text)) => json!(text),
        Some(Any::BoolValue(truth)) => json!(truth),
        Some(Any::IntValue(number)) => json!(number),
        Some(Any::DoubleValue(number)) => json!(number),
        Some(Any::ArrayValue(list)) => list.values.into_iter().map(|v| value(Some(v))).collect(),
        // Nothing of ours writes these.
        Some(_) | None => Value::Null,
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
