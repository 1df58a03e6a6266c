//! What of a request is judged for what, under which policy.
//!
//! Separate from the gRPC door, which only translates, and from the policy, which only decides. Instructions of the operator
//! are judged for harm alone, the user's words for harm and jailbreaks, documents for harm and indirect attacks.

use crate::blocklist::lists::find;
use crate::blocklist::store::Blocklists;
use crate::blocklist::{Blocklist, Hit};
use crate::category::{Category, Grades, TextFinding};
use crate::conversation::stretches;
use crate::error::SafetyError;
use crate::judge::Judge;
use crate::picture::{Picture, PictureLimits};
use crate::policy::{Direction, Findings, Mode, Policies, Policy, Threshold, Verdict};
use crate::protected::{Citation, Protected};
use arc_swap::ArcSwap;
use chassis::Tasks;
use onnx::OnnxError;
use std::collections::BTreeSet;
use std::sync::Arc;
use tokio::sync::Semaphore;

/// Bytes of text times passes over them that are compared with blocklists in place; that is about a millisecond. More goes to
/// a thread that may block.
const BYTES_IN_PLACE: usize = 1 << 18;

/// Where a text comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    System,
    User,
    Assistant,
    Document,
}

/// A text of a conversation.
#[derive(Debug, Clone)]
pub(crate) struct Segment {
    pub(crate) source: Source,
    pub(crate) text: String,
}

/// What is judged.
#[derive(Debug)]
pub(crate) struct Question {
    pub(crate) direction: Direction,
    pub(crate) segments: Vec<Segment>,
    /// Whether they are turns of a conversation, which is judged as a whole besides.
    pub(crate) conversation: bool,
    /// Encoded image files.
    pub(crate) images: Vec<Vec<u8>>,
}

/// What one request may hold.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ScreenLimits {
    /// Characters of all texts together.
    pub(crate) characters: usize,
    /// Images.
    pub(crate) images: usize,
    /// Images beside a conversation.
    pub(crate) screened: PictureLimits,
    /// Images that are analysed by themselves.
    pub(crate) analysed: PictureLimits,
}

/// Judges requests.
#[derive(Debug)]
pub(crate) struct Screen {
    pub(crate) judge: Arc<dyn Judge>,
    pub(crate) policies: Arc<ArcSwap<Policies>>,
    pub(crate) blocklists: Arc<Blocklists>,
    pub(crate) protected: Arc<Protected>,
    pub(crate) limits: ScreenLimits,
    /// Threads of the whole service that decode or compare: a decoded image is large, and cores are few.
    pub(crate) workers: Arc<Semaphore>,
    pub(crate) tasks: Tasks,
}

impl Screen {
    /// The verdict of the policy `name`.
    pub(crate) async fn screen(
        &self,
        name: &str,
        question: Question,
    ) -> Result<Verdict, SafetyError> {
        let Question { direction, segments, conversation, images } = question;
        // One verdict is of one set of policies, whatever is read meanwhile.
        let policies = self.policies.load_full();
        let policy = policies.get(name)?;
        if segments.is_empty() && images.is_empty() {
            return Err(SafetyError::invalid(
                "segments",
                "at least one segment or image is required",
            ));
        }
        self.check_length("segments", segments.iter().map(|segment| segment.text.as_str()))?;
        let hits = self.hits(self.lists(policy), segments.iter().map(|s| s.text.as_str())).await?;
        let segments = if judges_texts(policy, direction) { segments } else { Vec::new() };
        let mut findings = Findings { hits, ..self.texts(segments, conversation).await? };
        for grades in self.images(policy, direction, images).await? {
            findings.grades = findings.grades.worse(&grades);
        }
        Ok(policy.judge(direction, findings))
    }

    /// Grades of one text and matches of `lists`; no grades where `halt` and a list matched.
    pub(crate) async fn analyze(
        &self,
        text: String,
        lists: &[String],
        halt: bool,
    ) -> Result<(Option<Grades>, BTreeSet<Hit>), SafetyError> {
        self.check_length("text", [text.as_str()])?;
        let hits = self.hits(self.blocklists.now().named(lists)?, [text.as_str()]).await?;
        if halt && !hits.is_empty() {
            return Ok((None, hits));
        }
        let found = self.found(vec![text]).await?;
        Ok((Some(found.into_iter().next().unwrap_or_default().grades), hits))
    }

    /// Grades of one image.
    pub(crate) async fn analyze_image(&self, file: Vec<u8>) -> Result<Grades, SafetyError> {
        let picture = self.decode(file, self.limits.analysed, "image".to_owned()).await?;
        Ok(self.judge.pictures(vec![picture]).await?.into_iter().next().unwrap_or_default())
    }

    /// What each of `texts` may do to the model that reads it; `target` names the field in errors.
    pub(crate) async fn shield(
        &self,
        target: &str,
        texts: Vec<String>,
    ) -> Result<Vec<TextFinding>, SafetyError> {
        self.check_length(target, texts.iter().map(String::as_str))?;
        self.found(texts).await
    }

    /// Findings of `texts`, in their order. A blank text is harmless, since the embedding of nothing means nothing.
    async fn found(&self, texts: Vec<String>) -> Result<Vec<TextFinding>, SafetyError> {
        let blank: Vec<bool> = texts.iter().map(|text| text.trim().is_empty()).collect();
        let spoken = texts.into_iter().filter(|text| !text.trim().is_empty()).collect();
        let mut found = self.judge.texts(spoken).await?.into_iter();
        let finding = |blank| if blank { None } else { found.next() };
        let findings = blank.into_iter().map(finding);
        Ok(findings.map(|finding| finding.unwrap_or_else(TextFinding::harmless)).collect())
    }

    /// What is found in each text, and in a conversation as a whole.
    async fn texts(
        &self,
        segments: Vec<Segment>,
        conversation: bool,
    ) -> Result<Findings, SafetyError> {
        let whole = if conversation { stretches(&segments) } else { Vec::new() };
        let (sources, mut texts): (Vec<_>, Vec<_>) =
            segments.into_iter().map(|segment| (segment.source, segment.text)).unzip();
        texts.extend(whole);
        let mut found = self.found(texts).await?;
        let together = found.split_off(sources.len());
        let mut findings = Findings::default();
        for (at, (source, found)) in (0..).zip(sources.into_iter().zip(found)) {
            let found = found.in_segment(at);
            findings.grades = findings.grades.worse(&found.grades);
            let (worst, attack) = match source {
                Source::User => (&mut findings.jailbreak, found.jailbreak),
                Source::Document => (&mut findings.indirect_attack, found.indirect_attack),
                Source::System | Source::Assistant => continue,
            };
            *worst = Some(worst.unwrap_or_default().worse(attack));
        }
        // Last, so that what a text says alone is told with its place.
        for found in together.into_iter().map(TextFinding::in_several) {
            findings.grades = findings.grades.worse(&found.grades);
            let worst = findings.jailbreak.unwrap_or_default();
            findings.jailbreak = Some(worst.worse(found.jailbreak));
        }
        Ok(findings)
    }

    async fn images(
        &self,
        policy: &Policy,
        direction: Direction,
        files: Vec<Vec<u8>>,
    ) -> Result<Vec<Grades>, SafetyError> {
        if files.len() > self.limits.images {
            let (count, most) = (files.len(), self.limits.images);
            let message = format!("there are {count} images; the limit is {most}");
            return Err(SafetyError::invalid("images", message));
        }
        if files.is_empty() || !judges_harm(policy, direction) {
            return Ok(Vec::new());
        }
        let decode = |(at, file)| self.decode(file, self.limits.screened, format!("images.{at}"));
        let pictures =
            futures::future::try_join_all(files.into_iter().enumerate().map(decode)).await?;
        match self.judge.pictures(pictures).await {
            // Nobody judges images here: every category of theirs is absent, as the operator chose.
            Err(SafetyError::NoImages) => Ok(Vec::new()),
            judged => judged,
        }
    }

    async fn decode(
        &self,
        file: Vec<u8>,
        limits: PictureLimits,
        target: String,
    ) -> Result<Picture, SafetyError> {
        self.work(move || Picture::decode(&file, &limits, &target)).await?
    }

    /// Whether `text` repeats a passage of a protected one.
    pub(crate) async fn protected_text(&self, text: String) -> Result<bool, SafetyError> {
        self.check_length("text", [text.as_str()])?;
        let protected = Arc::clone(&self.protected);
        self.work(move || protected.detects_text(&text)).await?
    }

    /// Where the passages that `code` repeats are from.
    pub(crate) async fn protected_code(&self, code: String) -> Result<Vec<Citation>, SafetyError> {
        self.check_length("code", [code.as_str()])?;
        let protected = Arc::clone(&self.protected);
        self.work(move || protected.detects_code(&code)).await?
    }

    /// Runs what takes a core for a while, when there is one.
    async fn work<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, SafetyError> {
        let stopped = || SafetyError::Busy(OnnxError::Stopped);
        let permit = Arc::clone(&self.workers).acquire_owned().await.map_err(|_| stopped())?;
        let work = move || {
            let done = work();
            drop(permit);
            done
        };
        self.tasks.spawn_blocking(work).await.map_err(|_| stopped())
    }

    /// The lists that `policy` looks into; one that nobody has made yet has nothing in it.
    fn lists(&self, policy: &Policy) -> Vec<Arc<Blocklist>> {
        let now = self.blocklists.now();
        policy.lists().iter().filter_map(|name| now.get(name).map(Arc::clone)).collect()
    }

    async fn hits<'a>(
        &self,
        lists: Vec<Arc<Blocklist>>,
        texts: impl IntoIterator<Item = &'a str>,
    ) -> Result<BTreeSet<Hit>, SafetyError> {
        if lists.is_empty() {
            return Ok(BTreeSet::new());
        }
        let texts: Vec<&str> = texts.into_iter().collect();
        let passes: usize = lists.iter().map(|list| 1 + list.regexes()).sum();
        let bytes: usize = texts.iter().map(|text| text.len()).sum();
        if bytes.saturating_mul(passes) <= BYTES_IN_PLACE {
            return Ok(texts.iter().flat_map(|text| find(&lists, text)).collect());
        }
        let texts: Vec<String> = texts.into_iter().map(str::to_owned).collect();
        self.work(move || texts.iter().flat_map(|text| find(&lists, text)).collect()).await
    }

    fn check_length<'a>(
        &self,
        target: &str,
        texts: impl IntoIterator<Item = &'a str>,
    ) -> Result<(), SafetyError> {
        let characters: usize = texts.into_iter().map(|text| text.chars().count()).sum();
        let most = self.limits.characters;
        if characters > most {
            let message =
                format!("there are {characters} characters to judge; the limit is {most}");
            return Err(SafetyError::invalid(target, message));
        }
        Ok(())
    }
}

/// Whether the policy looks for any harm in this direction.
fn judges_harm(policy: &Policy, direction: Direction) -> bool {
    let thresholds = match direction {
        Direction::Prompt => policy.prompt,
        Direction::Completion => policy.completion,
    };
    Category::ALL.iter().any(|category| thresholds.of(*category) != Threshold::Off)
}

fn judges_texts(policy: &Policy, direction: Direction) -> bool {
    let attacks = match direction {
        Direction::Prompt => [policy.jailbreak, policy.indirect_attack] != [Mode::Off; 2],
        Direction::Completion => false,
    };
    attacks || judges_harm(policy, direction)
}
