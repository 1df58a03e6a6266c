//! The ensemble: a text becomes views, an encoder scores a view for everything at once; the worst view decides.
//!
//! Where the models are. A text is judged as it stands, unmasked and decoded (`normalise`), in windows that overlap. All views
//! of a request are one call of the encoder.

use crate::cache::Cache;
use crate::category::{Attack, Category, Grade, Grades, Scale, Span, TextFinding};
use crate::error::SafetyError;
use crate::function_words::says_nothing;
use crate::judge::Judge;
use crate::manifest::{Manifest, PromptShield};
use crate::normalise::{decode, unmask};
use crate::picture::{Picture, SIDE};
use async_trait::async_trait;
use chassis::Tasks;
use onnx::{Encoder, Item, OnnxError, Tokenizer};
use std::path::Path;
use std::sync::Arc;

/// Longest view: what the encoder was fine-tuned on (`LONGEST` in training/batches.py).
const VIEW_TOKENS: usize = 160;
/// Tokens that neighbouring views of a long text share, so that no sentence is cut in every view.
const VIEW_OVERLAP: usize = 40;
/// What the encoder scores, in this order: `Category::ALL`, jailbreak, indirect attack (`OUTPUTS` in training/minilm.py).
const SCORES: usize = 6;
/// Blue, green and red that open-nsfw subtracts (its published preprocessing).
const MEAN: [f32; 3] = [104.0, 117.0, 123.0];

/// What the ensemble is made of.
#[derive(Debug)]
pub struct Parts {
    /// Cuts texts into views.
    pub views: Views,
    /// Token ids → scores: `Category::ALL`, jailbreak, indirect attack.
    pub text: Arc<dyn Encoder>,
    /// Picture → scores "safe" and "sexual"; none judges no pictures.
    pub image: Option<Arc<dyn Encoder>>,
}

/// The judge of production.
#[derive(Debug)]
pub struct Ensemble {
    parts: Parts,
    scales: [(Category, Scale); 4],
    image_scale: Scale,
    shield: PromptShield,
    version: String,
    cache: Cache,
    tasks: Tasks,
}

/// Cuts texts into token windows.
#[derive(Debug, Clone)]
pub struct Views {
    tokenizer: Tokenizer,
}

impl Views {
    /// Loads a `tokenizer.json`.
    ///
    /// # Errors
    /// When the file is no tokenizer.
    pub fn load(file: &Path) -> Result<Self, OnnxError> {
        Ok(Self { tokenizer: Tokenizer::load(file, VIEW_TOKENS)? })
    }

    /// The id that fills up shorter views of a batch.
    #[must_use]
    pub fn pad_id(&self) -> u32 {
        self.tokenizer.pad_id()
    }

    /// Everything of `text` that is judged; at least one view.
    fn of(&self, text: &str) -> Result<Vec<View>, OnnxError> {
        let mut views = self.plain(text)?;
        let whole = Span { segment: 0, begin: 0, end: characters(text) };
        for hidden in [unmask(text), decode(text)].into_iter().flatten() {
            // Where a letter of the plain text was in the masked one is not known.
            let hidden = self.plain(&hidden)?.into_iter().map(|view| View { span: whole, ..view });
            views.extend(hidden);
        }
        Ok(views)
    }

    fn plain(&self, text: &str) -> Result<Vec<View>, OnnxError> {
        let (mut bytes, mut begin) = (0, 0);
        let windows = self.tokenizer.windows(text, VIEW_OVERLAP)?.into_iter();
        let view = windows.map(|window| {
            begin += characters(text.get(bytes..window.span.start).unwrap_or_default());
            bytes = window.span.start;
            let length = characters(text.get(window.span).unwrap_or_default());
            View { ids: window.ids, span: Span { segment: 0, begin, end: begin + length } }
        });
        Ok(view.collect())
    }
}

/// A stretch of a text, for the encoder.
#[derive(Debug, Clone, PartialEq, Eq)]
struct View {
    ids: Vec<u32>,
    /// What it shows of the text, in characters.
    span: Span,
}

fn characters(text: &str) -> u32 {
    u32::try_from(text.chars().count()).unwrap_or(u32::MAX)
}

impl Ensemble {
    /// Puts `parts` together under the thresholds of this program. `encoder_version` names the
    /// encoder's weights; `cached` findings are kept.
    ///
    /// # Errors
    /// `Model` when the parts do not fit together.
    pub fn build(
        parts: Parts,
        encoder_version: &str,
        cached: usize,
        tasks: Tasks,
    ) -> Result<Self, SafetyError> {
        let manifest = Manifest::embedded().map_err(SafetyError::Model)?;
        let rows = parts.text.rows();
        if rows.per_token || rows.width != SCORES {
            let (name, width) = (&manifest.encoder.name, rows.width);
            let message = format!("`{name}` gives {SCORES} scores, this model {width} numbers");
            return Err(SafetyError::Model(message));
        }
        let zero =
            Scale::try_from([f32::INFINITY; 7]).map_err(|e| SafetyError::Model(e.to_owned()))?;
        let scales = Category::ALL.map(|c| (c, manifest.scale(c).unwrap_or(zero)));
        Ok(Self {
            scales,
            image_scale: manifest.image_safety.sexual,
            shield: manifest.prompt_shield,
            version: format!("{}+{encoder_version}", manifest.version),
            cache: Cache::new(cached),
            parts,
            tasks,
        })
    }

    /// Judges texts that are not in the cache.
    async fn fresh(&self, texts: Vec<String>) -> Result<Vec<TextFinding>, SafetyError> {
        let views = self.parts.views.clone();
        let read = move || texts.iter().map(|text| views.of(text)).collect::<Result<Vec<_>, _>>();
        let views = self.tasks.spawn_blocking(read).await.map_err(stopped)??;
        let counts: Vec<usize> = views.iter().map(Vec::len).collect();
        let (spans, items): (Vec<_>, Vec<_>) =
            views.into_iter().flatten().map(|view| (view.span, Item::Tokens(view.ids))).unzip();
        let rows = self.parts.text.encode(items).await?;
        let mut findings =
            rows.iter().zip(spans).map(|(scores, span)| self.finding(scores, Some(span)));
        let worst = |count| {
            let views = findings.by_ref().take(count);
            views.reduce(|worst, view| worst.worse(&view)).unwrap_or_default()
        };
        Ok(counts.into_iter().map(worst).collect())
    }

    fn finding(&self, scores: &[f32], span: Option<Span>) -> TextFinding {
        let grades =
            self.scales.iter().zip(scores).fold(Grades::default(), |grades, (scale, score)| {
                let (category, scale) = scale;
                let (severity, score) = (scale.severity(*score), *score);
                grades.with(*category, Grade { severity, score, span })
            });
        let attack = |at: usize, threshold: f32| {
            let score = scores.get(at).copied().unwrap_or_default();
            Attack { detected: score >= threshold, score, span }
        };
        let PromptShield { jailbreak, indirect } = self.shield;
        let at = self.scales.len();
        TextFinding {
            grades,
            jailbreak: attack(at, jailbreak),
            indirect_attack: attack(at + 1, indirect),
        }
    }
}

#[async_trait]
impl Judge for Ensemble {
    async fn texts(&self, texts: Vec<String>) -> Result<Vec<TextFinding>, SafetyError> {
        let keys: Vec<_> = texts.iter().map(|text| self.cache.key(text)).collect();
        let known = |(text, key): (&String, &_)| {
            if says_nothing(text) { Some(TextFinding::harmless()) } else { self.cache.get(*key) }
        };
        let mut findings: Vec<_> = texts.iter().zip(&keys).map(known).collect();
        let unknown = texts.into_iter().zip(&findings).filter(|(_, found)| found.is_none());
        let unknown: Vec<String> = unknown.map(|(text, _)| text).collect();
        let mut fresh = self.fresh(unknown).await?.into_iter();
        for (finding, key) in findings.iter_mut().zip(keys) {
            if finding.is_none() {
                *finding = fresh.next();
                finding.iter().for_each(|found| self.cache.put(key, *found));
            }
        }
        Ok(findings.into_iter().map(Option::unwrap_or_default).collect())
    }

    async fn pictures(&self, pictures: Vec<Picture>) -> Result<Vec<Grades>, SafetyError> {
        let image = self.parts.image.as_ref().ok_or(SafetyError::NoImages)?;
        let items = pictures.iter().map(|picture| Item::Tensor(numbers(picture))).collect();
        let rows = image.encode(items).await?;
        let grade = |row: Vec<f32>| {
            let score = row.get(1).copied().unwrap_or_default();
            let grade = Grade { severity: self.image_scale.severity(score), score, span: None };
            Grades::default().with(Category::Sexual, grade)
        };
        Ok(rows.into_iter().map(grade).collect())
    }

    fn version(&self) -> &str {
        &self.version
    }
}

/// What open-nsfw takes: rows of pixels of blue, green and red, less their means.
fn numbers(picture: &Picture) -> Vec<f32> {
    let side = usize::try_from(SIDE).unwrap_or_default();
    let mut numbers = Vec::with_capacity(side * side * MEAN.len());
    for pixel in picture.pixels.pixels() {
        let [red, green, blue] = pixel.0.map(f32::from);
        numbers.extend([blue, green, red].iter().zip(MEAN).map(|(value, mean)| value - mean));
    }
    numbers
}

fn stopped(_: tokio::task::JoinError) -> SafetyError {
    SafetyError::Busy(OnnxError::Stopped)
}

#[cfg(test)]
mod tests {
    use super::*;
    use onnx::RowShape;
    use serde_json::json;
    use std::sync::atomic::{AtomicUsize, Ordering};

    const KILL: u32 = 5;

    /// Stands for every model: answers 0.99 for violence, an indirect attack or a sexual picture where it finds the word
    /// "kill", or a number above a half; 0.01 else.
    #[derive(Debug, Default)]
    struct Fake {
        calls: AtomicUsize,
        items: AtomicUsize,
        width: usize,
    }

    #[async_trait]
    impl Encoder for Fake {
        fn rows(&self) -> RowShape {
            RowShape { width: self.width, per_token: false }
        }

        async fn encode(&self, items: Vec<Item>) -> Result<Vec<Vec<f32>>, OnnxError> {
            self.calls.fetch_add(1, Ordering::Relaxed);
            self.items.fetch_add(items.len(), Ordering::Relaxed);
            let row = |item| {
                let mut row = vec![0.01; self.width];
                let found = match item {
                    Item::Tokens(ids) => ids.contains(&KILL),
                    Item::Tensor(numbers) => numbers[0] > 0.5,
                };
                // The last of the four categories is violence, the last score of all an indirect attack.
                let places: &[usize] = if self.width == SCORES { &[3, 5] } else { &[1] };
                places.iter().for_each(|&place| row[place] = if found { 0.99 } else { 0.01 });
                row
            };
            Ok(items.into_iter().map(row).collect())
        }
    }

    fn views() -> Views {
        let special = |id: usize, word: &str| {
            json!({"id": id, "content": word, "special": true, "single_word": false,
                   "lstrip": false, "rstrip": false, "normalized": false})
        };
        let file = json!({
            "version": "1.0", "truncation": null, "padding": null, "normalizer": null, "decoder": null,
            "added_tokens": [special(0, "[PAD]"), special(1, "[UNK]"), special(2, "[CLS]"), special(3, "[SEP]")],
            "pre_tokenizer": {"type": "Whitespace"},
            "post_processor": {"type": "BertProcessing", "sep": ["[SEP]", 3], "cls": ["[CLS]", 2]},
            "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
                      "max_input_chars_per_word": 100,
                      "vocab": {"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3, "so": 4, "kill": 5}},
        });
        let path = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(path.path(), file.to_string()).unwrap();
        Views::load(path.path()).unwrap()
    }

    fn ensemble(cached: usize) -> (Ensemble, Arc<Fake>) {
        let fake = |width| Arc::new(Fake { width, ..Fake::default() });
        let encoder = fake(SCORES);
        let text = Arc::clone(&encoder) as Arc<dyn Encoder>;
        let parts = Parts { views: views(), text, image: Some(fake(2)) };
        (Ensemble::build(parts, "weights", cached, Tasks::new()).unwrap(), encoder)
    }

    async fn severities(ensemble: &Ensemble, texts: &[&str]) -> Vec<u8> {
        let texts = texts.iter().map(|text| (*text).to_owned()).collect();
        let found = ensemble.texts(texts).await.unwrap();
        let violence = |f: TextFinding| f.grades.get(Category::Violence).unwrap().severity.value();
        found.into_iter().map(violence).collect()
    }

    #[test]
    fn a_short_text_is_one_view_and_a_long_one_several_that_overlap() {
        let views = views();
        let ids = |text| views.of(text).unwrap().into_iter().map(|v| v.ids).collect::<Vec<_>>();
        assert_eq!(ids("so so"), [[2, 4, 4, 3]]);
        assert_eq!(ids(""), [[2, 3]]);
        let long = "so ".repeat(300);
        let lengths: Vec<usize> = ids(&long).iter().map(Vec::len).collect();
        // 158 of 300 words fit the first window, and 40 come again in the next: 158 + 118 + 24 new ones.
        assert_eq!(lengths, [160, 160, 66]);
    }

    #[tokio::test]
    async fn a_finding_says_which_characters_it_is_about() {
        let (ensemble, _) = ensemble(0);
        let calm = "sö ".repeat(200);
        let text = format!("{calm}kill");
        let found = ensemble.texts(vec![text, "k1ll ö".to_owned()]).await.unwrap();
        let span = |at: usize| found[at].grades.get(Category::Violence).unwrap().span.unwrap();
        // The second window begins with the 119th word.
        assert_eq!(span(0), Span { segment: 0, begin: 118 * 3, end: 604 });
        assert_eq!(span(1), Span { segment: 0, begin: 0, end: 6 });
    }

    #[tokio::test]
    async fn the_worst_part_of_a_long_text_decides() {
        let (ensemble, encoder) = ensemble(0);
        let calm = "so ".repeat(200);
        let hidden = format!("{calm} kill {calm}");
        let found = severities(&ensemble, &["so", &hidden, &calm, "kill"]).await;
        assert!(found[0] < 2 && found[2] < 2, "{found:?}");
        assert!(found[1] >= 6 && found[3] >= 6, "{found:?}");
        assert_eq!(encoder.calls.load(Ordering::Relaxed), 1, "all views are one call");
    }

    #[tokio::test]
    async fn a_masked_word_is_judged_unmasked_too() {
        let (ensemble, encoder) = ensemble(0);
        assert!(severities(&ensemble, &["k1ll"]).await[0] >= 6);
        assert_eq!(encoder.items.load(Ordering::Relaxed), 2);
    }

    #[tokio::test]
    async fn a_text_that_was_judged_is_not_judged_again() {
        let (ensemble, encoder) = ensemble(10);
        let first = severities(&ensemble, &["kill", "so"]).await;
        assert_eq!(severities(&ensemble, &["so so", "kill", "so"]).await[1..], first);
        assert_eq!(encoder.items.load(Ordering::Relaxed), 3);
    }

    #[tokio::test]
    async fn pictures_get_a_sexual_grade_and_nothing_else() {
        let (mut ensemble, _) = ensemble(0);
        let pixels = image::RgbImage::from_pixel(SIDE, SIDE, image::Rgb([1, 2, 3]));
        let picture = Picture { pixels };
        assert_eq!(numbers(&picture)[..3], [3.0 - 104.0, 2.0 - 117.0, 1.0 - 123.0]);
        let grades = ensemble.pictures(vec![picture.clone()]).await.unwrap();
        let judged: Vec<_> = grades[0].iter().map(|(category, _)| category).collect();
        assert_eq!(judged, [Category::Sexual]);
        ensemble.parts.image = None;
        assert!(matches!(ensemble.pictures(vec![picture]).await, Err(SafetyError::NoImages)));
    }

    #[tokio::test]
    async fn attacks_of_users_and_of_documents_have_scores_of_their_own() {
        let (ensemble, _) = ensemble(0);
        let found = ensemble.texts(vec!["kill".to_owned()]).await.unwrap();
        assert!(!found[0].jailbreak.detected && found[0].indirect_attack.detected);
    }

    #[test]
    fn an_encoder_with_other_scores_is_refused() {
        let text = Arc::new(Fake { width: 7, ..Fake::default() });
        let parts = Parts { views: views(), text, image: None };
        let error = Ensemble::build(parts, "w", 0, Tasks::new()).unwrap_err().to_string();
        assert!(error.contains("6 scores") && error.contains("koine-safety-minilm"), "{error}");
    }
}
