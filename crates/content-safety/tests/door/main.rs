//! The service through its gRPC door, with a judge that knows a few words instead of models.
//!
//! Separate from the unit tests because it needs a listener. What is judged for what, and which words the wire carries.

#![expect(clippy::unwrap_used, reason = "a test may say that something cannot fail")]

mod blocklists;
mod screening;

use api_types::rpc::content_safety as wire;
use api_types::{ErrorCode, Fault};
use async_trait::async_trait;
use chassis::Tasks;
use chassis::config::{Sources, load};
use chassis::grpc::{Client, ClientConfig, Pass};
use content_safety::{
    Attack, Category, Config, Grade, Grades, Judge, Picture, SafetyError, Severity, TextFinding,
};
use std::sync::Arc;
use tokio::net::TcpListener;
use wire::content_safety_service_client::ContentSafetyServiceClient;

/// Finds violence 2, 4 or 6 in "low", "medium" and "high", 6 where a line ends in "one" and the next begins with "two", an attack in "ignore", and sexual content in red pictures.
#[derive(Debug)]
struct Words;

#[async_trait]
impl Judge for Words {
    async fn texts(&self, texts: Vec<String>) -> Result<Vec<TextFinding>, SafetyError> {
        let find = |text: String| {
            let severity = [("low", 2), ("medium", 4), ("high", 6), ("one\ntwo", 6)]
                .into_iter()
                .filter(|(word, _)| text.contains(word))
                .map(|(_, severity)| severity)
                .max()
                .unwrap_or(0);
            let grade = Grade {
                severity: Severity::new(severity),
                score: f32::from(severity) / 8.0,
                span: None,
            };
            assert!(!text.trim().is_empty(), "blank texts are not worth a model's time");
            let detected = text.contains("ignore");
            let attack = Attack { detected, score: f32::from(u8::from(detected)), span: None };
            TextFinding {
                grades: TextFinding::harmless().grades.with(Category::Violence, grade),
                jailbreak: attack,
                indirect_attack: attack,
            }
        };
        Ok(texts.into_iter().map(find).collect())
    }

    async fn pictures(&self, pictures: Vec<Picture>) -> Result<Vec<Grades>, SafetyError> {
        let find = |picture: Picture| {
            let severity = if picture.pixels.get_pixel(100, 100).0[0] > 128 { 6 } else { 0 };
            let grade = Grade { severity: Severity::new(severity), score: 0.5, span: None };
            Grades::default().with(Category::Sexual, grade)
        };
        Ok(pictures.into_iter().map(find).collect())
    }

    fn version(&self) -> &'static str {
        "words-1"
    }
}

struct Stack {
    client: ContentSafetyServiceClient<Client>,
    tasks: Tasks,
    served: tokio::task::JoinHandle<anyhow::Result<()>>,
}

impl Stack {
    async fn start(options: &str) -> Self {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), options).unwrap();
        let sources = Sources { file: Some(file.path().to_owned()), env: Vec::new() };
        let config: Config = load("content_safety", content_safety::DEFAULTS, &sources).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let tasks = Tasks::new();
        let served =
            tasks.spawn({
                let tasks = tasks.clone();
                async move {
                    content_safety::serve_with(Arc::new(Words), &config, listener, tasks).await
                }
            });
        let dial = ClientConfig::to(vec![format!("http://{address}")]);
        let client =
            chassis::grpc::client("content_safety", &dial, &Pass::default(), &tasks).unwrap();
        let client = ContentSafetyServiceClient::new(client);
        Self { client, tasks, served }
    }

    async fn screen(
        &self,
        policy: &str,
        direction: wire::Direction,
        segments: &[(wire::Source, &str)],
        images: Vec<Vec<u8>>,
    ) -> Result<wire::ScreenResponse, Fault> {
        self.ask(wire::ScreenRequest { images, ..question(policy, direction, segments) }).await
    }

    async fn ask(&self, request: wire::ScreenRequest) -> Result<wire::ScreenResponse, Fault> {
        let answer = self.client.clone().screen(request).await;
        answer.map(tonic::Response::into_inner).map_err(Fault::from)
    }

    async fn prompt(&self, policy: &str, source: wire::Source, text: &str) -> wire::ScreenResponse {
        self.screen(policy, wire::Direction::Prompt, &[(source, text)], Vec::new()).await.unwrap()
    }

    async fn stop(self) {
        self.tasks.stop(std::time::Duration::from_secs(5)).await;
        self.served.await.unwrap().unwrap();
    }
}

fn question(
    policy: &str,
    direction: wire::Direction,
    segments: &[(wire::Source, &str)],
) -> wire::ScreenRequest {
    let segment = |(source, text): &(wire::Source, &str)| wire::Segment {
        source: (*source).into(),
        text: (*text).to_owned(),
    };
    wire::ScreenRequest {
        policy: policy.to_owned(),
        direction: direction.into(),
        segments: segments.iter().map(segment).collect(),
        ..wire::ScreenRequest::default()
    }
}

fn violence(answer: &wire::ScreenResponse) -> wire::CategoryResult {
    let violence = i32::from(wire::Category::Violence);
    answer.categories.iter().find(|c| c.category == violence).copied().unwrap()
}

fn png(width: u32, height: u32, red: u8) -> Vec<u8> {
    let mut file = std::io::Cursor::new(Vec::new());
    let image = image::RgbImage::from_pixel(width, height, image::Rgb([red, 0, 0]));
    image.write_to(&mut file, image::ImageFormat::Png).unwrap();
    file.into_inner()
}

fn code<T: std::fmt::Debug>(answer: Result<T, tonic::Status>) -> ErrorCode {
    Fault::from(answer.unwrap_err()).code
}
