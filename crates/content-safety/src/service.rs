//! The gRPC door: wire messages → requests → verdicts → wire messages.
//!
//! The only file that names rpc types. Everything is decided behind it.

mod blocklists;

use crate::blocklist::Hit;
use crate::category::{Attack, Category, Grade, Grades, Span};
use crate::error::SafetyError;
use crate::events::{self, Asked, Call};
use crate::policy::{DEFAULT, Direction, Judged, Verdict};
use crate::screen::{Question, Screen, Segment, Source};
use api_types::Fault;
use api_types::rpc::{self, content_safety as wire};
use chassis::Tasks;
use chassis::grpc::Served;
use std::future::ready;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tonic::server::NamedService as _;
use tonic::{Request, Response, Status};
use wire::content_safety_service_server::{ContentSafetyService, ContentSafetyServiceServer};

/// The service over a judge and policies.
#[derive(Debug)]
struct Door {
    screen: Screen,
    /// Whose turn it is to change blocklists.
    turn: Arc<Semaphore>,
}

type Server = ContentSafetyServiceServer<Door>;

/// Serves `screen` until the tasks stop.
pub(crate) async fn serve(
    screen: Screen,
    door: chassis::grpc::Door,
    listener: TcpListener,
    tasks: &Tasks,
) -> anyhow::Result<()> {
    let server = Server::new(Door { screen, turn: Arc::new(Semaphore::new(1)) })
        .max_decoding_message_size(chassis::grpc::MAX_MESSAGE_BYTES)
        .max_encoding_message_size(chassis::grpc::MAX_MESSAGE_BYTES);
    let routes = tonic::service::Routes::new(server);
    let served = Served { names: &[Server::NAME], descriptors: rpc::DESCRIPTORS, routes };
    chassis::grpc::serve(served, door, listener, tasks).await
}

#[tonic::async_trait]
impl ContentSafetyService for Door {
    async fn screen(
        &self,
        request: Request<wire::ScreenRequest>,
    ) -> Result<Response<wire::ScreenResponse>, Status> {
        answer(Call::Screen, self.screened(request.into_inner())).await
    }

    async fn analyze(
        &self,
        request: Request<wire::AnalyzeRequest>,
    ) -> Result<Response<wire::AnalyzeResponse>, Status> {
        answer(Call::Analyze, self.analyzed(request.into_inner())).await
    }

    async fn analyze_image(
        &self,
        request: Request<wire::AnalyzeImageRequest>,
    ) -> Result<Response<wire::AnalyzeImageResponse>, Status> {
        answer(Call::AnalyzeImage, self.analyzed_image(request.into_inner())).await
    }

    async fn shield_prompt(
        &self,
        request: Request<wire::ShieldPromptRequest>,
    ) -> Result<Response<wire::ShieldPromptResponse>, Status> {
        answer(Call::ShieldPrompt, self.shielded(request.into_inner())).await
    }

    async fn list_policies(
        &self,
        _request: Request<wire::ListPoliciesRequest>,
    ) -> Result<Response<wire::ListPoliciesResponse>, Status> {
        let policies = self.screen.policies.load().names();
        Ok(Response::new(wire::ListPoliciesResponse { policies }))
    }

    async fn detect_protected_text(
        &self,
        request: Request<wire::DetectProtectedTextRequest>,
    ) -> Result<Response<wire::DetectProtectedTextResponse>, Status> {
        answer(Call::DetectProtectedText, self.detected_text(request.into_inner())).await
    }

    async fn detect_protected_code(
        &self,
        request: Request<wire::DetectProtectedCodeRequest>,
    ) -> Result<Response<wire::DetectProtectedCodeResponse>, Status> {
        answer(Call::DetectProtectedCode, self.detected_code(request.into_inner())).await
    }

    async fn list_blocklists(
        &self,
        _request: Request<wire::ListBlocklistsRequest>,
    ) -> Result<Response<wire::ListBlocklistsResponse>, Status> {
        answer(Call::ReadBlocklist, ready(Ok(self.listed_blocklists()))).await
    }

    async fn get_blocklist(
        &self,
        request: Request<wire::GetBlocklistRequest>,
    ) -> Result<Response<wire::GetBlocklistResponse>, Status> {
        answer(Call::ReadBlocklist, ready(self.got_blocklist(&request.into_inner()))).await
    }

    async fn upsert_blocklist(
        &self,
        request: Request<wire::UpsertBlocklistRequest>,
    ) -> Result<Response<wire::UpsertBlocklistResponse>, Status> {
        answer(Call::ChangeBlocklist, self.upserted_blocklist(request.into_inner())).await
    }

    async fn delete_blocklist(
        &self,
        request: Request<wire::DeleteBlocklistRequest>,
    ) -> Result<Response<wire::DeleteBlocklistResponse>, Status> {
        answer(Call::ChangeBlocklist, self.deleted_blocklist(request.into_inner())).await
    }

    async fn upsert_blocklist_items(
        &self,
        request: Request<wire::UpsertBlocklistItemsRequest>,
    ) -> Result<Response<wire::UpsertBlocklistItemsResponse>, Status> {
        answer(Call::ChangeBlocklist, self.upserted_items(request.into_inner())).await
    }

    async fn remove_blocklist_items(
        &self,
        request: Request<wire::RemoveBlocklistItemsRequest>,
    ) -> Result<Response<wire::RemoveBlocklistItemsResponse>, Status> {
        answer(Call::ChangeBlocklist, self.removed_items(request.into_inner())).await
    }

    async fn list_blocklist_items(
        &self,
        request: Request<wire::ListBlocklistItemsRequest>,
    ) -> Result<Response<wire::ListBlocklistItemsResponse>, Status> {
        answer(Call::ReadBlocklist, ready(self.listed_items(&request.into_inner()))).await
    }

    async fn get_blocklist_item(
        &self,
        request: Request<wire::GetBlocklistItemRequest>,
    ) -> Result<Response<wire::GetBlocklistItemResponse>, Status> {
        answer(Call::ReadBlocklist, ready(self.got_item(&request.into_inner()))).await
    }
}

impl Door {
    async fn screened(
        &self,
        request: wire::ScreenRequest,
    ) -> Result<wire::ScreenResponse, SafetyError> {
        let wire::ScreenRequest { policy, direction, segments, images, shadow, conversation } =
            request;
        let direction = read_direction(direction)?;
        let segments = segments.into_iter().enumerate().map(read_segment);
        let segments = segments.collect::<Result<Vec<_>, _>>()?;
        let question = Question { direction, segments, conversation, images };
        let mut verdict = self.screen.screen(&policy, question).await?;
        verdict.shadow |= shadow;
        let policy = if policy.is_empty() { DEFAULT } else { policy.as_str() };
        let version = self.screen.judge.version();
        events::judged(policy, direction, &verdict, version);
        let would_block = verdict.shadow && verdict.blocked;
        let verdict = if verdict.shadow { verdict.let_through() } else { verdict };
        Ok(wire::ScreenResponse { would_block, ..response(verdict, version) })
    }

    async fn analyzed(
        &self,
        request: wire::AnalyzeRequest,
    ) -> Result<wire::AnalyzeResponse, SafetyError> {
        let wire::AnalyzeRequest { text, categories, blocklists, halt_on_blocklist_hit } = request;
        let categories = read_categories(&categories)?;
        let (grades, hits) = self.screen.analyze(text, &blocklists, halt_on_blocklist_hit).await?;
        let grades = grades.map(|grades| severities(&grades, &categories)).unwrap_or_default();
        let blocklists = hits.into_iter().map(|Hit { list, id, text }| wire::BlocklistMatch {
            blocklist: list,
            item_id: id,
            item_text: text,
        });
        Ok(wire::AnalyzeResponse { categories: grades, blocklists: blocklists.collect() })
    }

    async fn analyzed_image(
        &self,
        request: wire::AnalyzeImageRequest,
    ) -> Result<wire::AnalyzeImageResponse, SafetyError> {
        let wire::AnalyzeImageRequest { image, categories } = request;
        let categories = read_categories(&categories)?;
        let grades = self.screen.analyze_image(image).await?;
        Ok(wire::AnalyzeImageResponse { categories: severities(&grades, &categories) })
    }

    async fn shielded(
        &self,
        request: wire::ShieldPromptRequest,
    ) -> Result<wire::ShieldPromptResponse, SafetyError> {
        let wire::ShieldPromptRequest { user_prompt, documents } = request;
        if user_prompt.is_empty() && documents.is_empty() {
            let message = "a user prompt or at least one document is required";
            return Err(SafetyError::invalid("user_prompt", message));
        }
        let prompt = (!user_prompt.is_empty()).then_some(user_prompt);
        let (user_prompt, documents) = tokio::try_join!(
            self.screen.shield("user_prompt", prompt.into_iter().collect()),
            self.screen.shield("documents", documents),
        )?;
        Ok(wire::ShieldPromptResponse {
            user_prompt: user_prompt.first().map(|found| attack_score(found.jailbreak)),
            documents: documents.iter().map(|found| attack_score(found.indirect_attack)).collect(),
        })
    }
}

async fn answer<T>(
    call: Call,
    work: impl Future<Output = Result<T, SafetyError>>,
) -> Result<Response<T>, Status> {
    let asked = Asked::begin(call);
    let outcome = work.await;
    asked.answered(&outcome);
    outcome.map(Response::new).map_err(|error| Fault::from(error).into_status())
}

fn read_direction(direction: i32) -> Result<Direction, SafetyError> {
    let wrong =
        || SafetyError::invalid("direction", "`direction` must be `prompt` or `completion`");
    match wire::Direction::try_from(direction).map_err(|_| wrong())? {
        wire::Direction::Unspecified => Err(wrong()),
        wire::Direction::Prompt => Ok(Direction::Prompt),
        wire::Direction::Completion => Ok(Direction::Completion),
    }
}

fn read_segment((at, segment): (usize, wire::Segment)) -> Result<Segment, SafetyError> {
    let wire::Segment { source, text } = segment;
    let wrong = || {
        let expected = "`source` must be `system`, `user`, `assistant` or `document`";
        SafetyError::invalid(format!("segments.{at}.source"), expected)
    };
    let source = match wire::Source::try_from(source).map_err(|_| wrong())? {
        wire::Source::Unspecified => return Err(wrong()),
        wire::Source::System => Source::System,
        wire::Source::User => Source::User,
        wire::Source::Assistant => Source::Assistant,
        wire::Source::Document => Source::Document,
    };
    Ok(Segment { source, text })
}

/// Empty means all.
fn read_categories(categories: &[i32]) -> Result<Vec<Category>, SafetyError> {
    if categories.is_empty() {
        return Ok(Category::ALL.to_vec());
    }
    let read = |(at, category): (usize, &i32)| {
        let wrong = || {
            let expected = "a category must be `hate`, `self_harm`, `sexual` or `violence`";
            SafetyError::invalid(format!("categories.{at}"), expected)
        };
        match wire::Category::try_from(*category).map_err(|_| wrong())? {
            wire::Category::Unspecified => Err(wrong()),
            wire::Category::Hate => Ok(Category::Hate),
            wire::Category::SelfHarm => Ok(Category::SelfHarm),
            wire::Category::Sexual => Ok(Category::Sexual),
            wire::Category::Violence => Ok(Category::Violence),
        }
    };
    categories.iter().enumerate().map(read).collect()
}

fn response(verdict: Verdict, version: &str) -> wire::ScreenResponse {
    let Verdict { blocked, shadow: _, categories, jailbreak, indirect_attack, blocklists } =
        verdict;
    let category = |(category, judged): (Category, Judged<Grade>)| wire::CategoryResult {
        category: to_wire(category).into(),
        severity: judged.found.severity.value().into(),
        score: judged.found.score,
        filtered: judged.filtered,
        span: judged.found.span.map(span),
    };
    let attack = |judged: Judged<Attack>| wire::AttackResult {
        detected: judged.found.detected,
        filtered: judged.filtered,
        score: judged.found.score,
        span: judged.found.span.map(span),
    };
    let hit = |judged: Judged<Hit>| wire::BlocklistResult {
        blocklist: judged.found.list,
        item_id: judged.found.id,
        item_text: judged.found.text,
        filtered: judged.filtered,
    };
    wire::ScreenResponse {
        blocked,
        categories: categories.into_iter().map(category).collect(),
        jailbreak: jailbreak.map(attack),
        indirect_attack: indirect_attack.map(attack),
        blocklists_searched: blocklists.is_some(),
        blocklists: blocklists.into_iter().flatten().map(hit).collect(),
        version: version.to_owned(),
        would_block: false,
    }
}

const fn span(span: Span) -> wire::Span {
    let Span { segment, begin, end } = span;
    wire::Span { segment, begin, end }
}

fn severities(grades: &Grades, wanted: &[Category]) -> Vec<wire::CategorySeverity> {
    let wanted = grades.iter().filter(|(category, _)| wanted.contains(category));
    let severity = |(category, grade): (Category, Grade)| wire::CategorySeverity {
        category: to_wire(category).into(),
        severity: grade.severity.value().into(),
        score: grade.score,
    };
    wanted.map(severity).collect()
}

const fn to_wire(category: Category) -> wire::Category {
    match category {
        Category::Hate => wire::Category::Hate,
        Category::SelfHarm => wire::Category::SelfHarm,
        Category::Sexual => wire::Category::Sexual,
        Category::Violence => wire::Category::Violence,
    }
}

const fn attack_score(attack: Attack) -> wire::AttackScore {
    wire::AttackScore { detected: attack.detected, score: attack.score }
}
