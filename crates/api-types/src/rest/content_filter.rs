//! What a content filter found, as annotations of an answer (section 13).
//!
//! Keys here are `self_harm` and severities words; the Content Safety routes say `SelfHarm` and numbers. A category that
//! was not judged is absent, never a null.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The findings on one prompt: an element of `prompt_filter_results`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PromptFilterResult {
    /// Which prompt of the request, from 0; a conversation is prompt 0.
    pub prompt_index: u32,
    /// What was found.
    pub content_filter_results: ContentFilterResults,
}

/// The findings on one text. Every field is absent where that judge did not run.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ContentFilterResults {
    /// Hate and fairness.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hate: Option<SeverityResult>,
    /// The user attacks the model's instructions; prompts only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jailbreak: Option<DetectionResult>,
    /// Self-harm.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub self_harm: Option<SeverityResult>,
    /// Sexual content.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sexual: Option<SeverityResult>,
    /// Violence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub violence: Option<SeverityResult>,
    /// A document attacks the model's instructions; prompts only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub indirect_attack: Option<DetectionResult>,
    /// Words of the managed list.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profanity: Option<DetectionResult>,
    /// Known text of others; completions only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protected_material_text: Option<DetectionResult>,
    /// Known code of others; completions only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protected_material_code: Option<CodeDetectionResult>,
    /// The operator's own lists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub custom_blocklists: Option<BlocklistResults>,
    /// Why the filter says so; only where the server is configured to tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub explanation: Option<FilterExplanation>,
    /// Stands in for everything else when the filter could not run (section 13.5).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<FilterError>,
}

impl ContentFilterResults {
    /// The annotation of a text that the filter could not look at.
    #[must_use]
    pub fn unavailable() -> Self {
        Self { error: Some(FilterError::unavailable()), ..Self::default() }
    }

    /// Whether any judge had the text filtered.
    #[must_use]
    pub fn filtered(&self) -> bool {
        let harms = [&self.hate, &self.self_harm, &self.sexual, &self.violence];
        let detections = [
            &self.jailbreak,
            &self.indirect_attack,
            &self.profanity,
            &self.protected_material_text,
        ];
        harms.into_iter().flatten().any(|harm| harm.filtered)
            || detections.into_iter().flatten().any(|detection| detection.filtered)
            || self.protected_material_code.as_ref().is_some_and(|code| code.filtered)
            || self.custom_blocklists.as_ref().is_some_and(|lists| lists.filtered)
    }
}

/// One of the four harms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SeverityResult {
    /// Whether the text was withheld for it.
    pub filtered: bool,
    /// How bad it is.
    pub severity: Severity,
}

/// How bad a harm is.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Levels 0 and 1.
    Safe,
    /// Levels 2 and 3.
    Low,
    /// Levels 4 and 5.
    Medium,
    /// Levels 6 and 7.
    High,
}

impl Severity {
    /// The word for a level 0..7; larger levels are high.
    #[must_use]
    pub const fn from_level(level: u32) -> Self {
        match level {
            0 | 1 => Self::Safe,
            2 | 3 => Self::Low,
            4 | 5 => Self::Medium,
            _ => Self::High,
        }
    }
}

/// A finding that is there or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DetectionResult {
    /// Whether the text was withheld for it.
    pub filtered: bool,
    /// Whether it is there; detected and not filtered means the policy only annotates.
    pub detected: bool,
}

/// Known code of others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CodeDetectionResult {
    /// Whether the text was withheld for it.
    pub filtered: bool,
    /// Whether it is there.
    pub detected: bool,
    /// Where the code is from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub citation: Option<Citation>,
}

/// The source of known code.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Citation {
    /// The repository.
    #[serde(rename = "URL")]
    pub url: String,
    /// Its licence.
    pub license: String,
}

/// What the operator's blocklists matched.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct BlocklistResults {
    /// Whether any of them had the text withheld.
    pub filtered: bool,
    /// One per list that matched.
    pub details: Vec<BlocklistResult>,
}

/// One blocklist that matched.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct BlocklistResult {
    /// Whether the text was withheld for it.
    pub filtered: bool,
    /// The list's name.
    pub id: String,
}

/// Why a verdict is what it is.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct FilterExplanation {
    /// The policy that was asked.
    pub policy: String,
    /// Models and thresholds that judged.
    pub version: String,
    /// Whether the text would have been withheld, had policy or key not said that nothing is.
    pub would_block: bool,
    /// What was looked for, and what came of it.
    pub findings: Vec<FilterFinding>,
}

impl FilterExplanation {
    /// Moves every place by so many characters: for a text that was cut out of a longer one.
    pub fn shift(&mut self, characters: u64) {
        for finding in &mut self.findings {
            finding.start = finding.start.map(|at| at.saturating_add(characters));
            finding.end = finding.end.map(|at| at.saturating_add(characters));
        }
    }
}

/// One judge's word.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct FilterFinding {
    /// `hate`, `self_harm`, `sexual`, `violence`, `jailbreak` or `indirect_attack`.
    pub name: String,
    /// Whether the text was withheld for it.
    pub filtered: bool,
    /// 0 to 7; absent for attacks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub severity: Option<u32>,
    /// The classifier's score, 0 to 1.
    pub score: f64,
    /// Which text of the prompt, from 0 in the order of the conversation; absent for images.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub segment: Option<u32>,
    /// The first character of the stretch that got the score, from the start of its text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start: Option<u64>,
    /// The character after the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<u64>,
}

/// The filter could not run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FilterError {
    /// `content_filter_error`.
    pub code: String,
    /// For people.
    pub message: String,
}

impl FilterError {
    fn unavailable() -> Self {
        Self {
            code: "content_filter_error".to_owned(),
            message: "The content filter could not run; the text was not checked.".to_owned(),
        }
    }
}

/// Which span of a stream an annotation is about, in characters from the start of the prompt (section 13.7).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ContentFilterOffsets {
    /// Everything before it is fully vetted; never decreases.
    pub check_offset: u64,
    /// Where the span begins.
    pub start_offset: u64,
    /// Where the span ends.
    pub end_offset: u64,
}
