//! The Content Safety routes that judge ⇄ gRPC, and verdicts → annotations; blocklists are in `text_blocklists`.

use api_types::Fault;
use api_types::rest::ContentFilterResults;
use api_types::rest::content_filter::{
    BlocklistResult, BlocklistResults, DetectionResult, FilterExplanation, FilterFinding, Severity,
    SeverityResult,
};
use api_types::rest::content_safety::{
    AnalyzeImageResult, AnalyzeTextRequest, AnalyzeTextResult, AttackAnalysis, BlocklistMatch,
    Category, CategoryAnalysis, CodeCitation, DetectProtectedMaterialRequest,
    DetectProtectedMaterialResult, OutputType, ProtectedMaterialAnalysis, ShieldPromptRequest,
    ShieldPromptResult,
};
use api_types::rpc::content_safety as rpc;

/// Scores are shown in steps of a thousandth.
const SCORE_STEPS: f64 = 1e3;

/// `text:analyze`.
#[must_use]
pub fn analyze_to_rpc(request: AnalyzeTextRequest) -> rpc::AnalyzeRequest {
    // The output type only rounds the answer.
    let AnalyzeTextRequest {
        text,
        categories,
        blocklist_names,
        halt_on_blocklist_hit,
        output_type: _,
    } = request;
    rpc::AnalyzeRequest {
        text,
        categories: categories_to_rpc(&categories),
        blocklists: blocklist_names,
        halt_on_blocklist_hit,
    }
}

/// The answer of `text:analyze`, rounded to `output`.
#[must_use]
pub fn analyze_from_rpc(response: rpc::AnalyzeResponse, output: OutputType) -> AnalyzeTextResult {
    let rpc::AnalyzeResponse { categories, blocklists } = response;
    let blocklists_match = blocklists.into_iter().map(|found| {
        let rpc::BlocklistMatch { blocklist, item_id, item_text } = found;
        BlocklistMatch {
            blocklist_name: blocklist,
            blocklist_item_id: item_id,
            blocklist_item_text: item_text,
        }
    });
    AnalyzeTextResult {
        blocklists_match: blocklists_match.collect(),
        categories_analysis: severities(&categories, output),
    }
}

/// `image:analyze` of a decoded file.
#[must_use]
pub fn image_to_rpc(image: Vec<u8>, categories: &[Category]) -> rpc::AnalyzeImageRequest {
    rpc::AnalyzeImageRequest { image, categories: categories_to_rpc(categories) }
}

/// The answer of `image:analyze`.
#[must_use]
pub fn image_from_rpc(response: rpc::AnalyzeImageResponse) -> AnalyzeImageResult {
    let rpc::AnalyzeImageResponse { categories } = response;
    AnalyzeImageResult {
        categories_analysis: severities(&categories, OutputType::FourSeverityLevels),
    }
}

/// `text:shieldPrompt`.
#[must_use]
pub fn shield_to_rpc(request: ShieldPromptRequest) -> rpc::ShieldPromptRequest {
    let ShieldPromptRequest { user_prompt, documents } = request;
    rpc::ShieldPromptRequest { user_prompt: user_prompt.unwrap_or_default(), documents }
}

/// The answer of `text:shieldPrompt`.
#[must_use]
pub fn shield_from_rpc(response: rpc::ShieldPromptResponse) -> ShieldPromptResult {
    let rpc::ShieldPromptResponse { user_prompt, documents } = response;
    let analysis = |attack: rpc::AttackScore| AttackAnalysis { attack_detected: attack.detected };
    ShieldPromptResult {
        user_prompt_analysis: user_prompt.map(analysis),
        documents_analysis: documents.into_iter().map(analysis).collect(),
    }
}

/// `text:detectProtectedMaterial`.
#[must_use]
pub fn protected_text_to_rpc(
    request: DetectProtectedMaterialRequest,
) -> rpc::DetectProtectedTextRequest {
    let DetectProtectedMaterialRequest { text } = request;
    rpc::DetectProtectedTextRequest { text }
}

/// The answer of `text:detectProtectedMaterial`.
#[must_use]
pub const fn protected_text_from_rpc(
    response: rpc::DetectProtectedTextResponse,
) -> DetectProtectedMaterialResult {
    let rpc::DetectProtectedTextResponse { detected } = response;
    let analysis = ProtectedMaterialAnalysis { detected, code_citations: None };
    DetectProtectedMaterialResult { protected_material_analysis: analysis }
}

/// `text:detectProtectedMaterialForCode`.
#[must_use]
pub fn protected_code_to_rpc(
    request: DetectProtectedMaterialRequest,
) -> rpc::DetectProtectedCodeRequest {
    let DetectProtectedMaterialRequest { text } = request;
    rpc::DetectProtectedCodeRequest { code: text }
}

/// The answer of `text:detectProtectedMaterialForCode`.
#[must_use]
pub fn protected_code_from_rpc(
    response: rpc::DetectProtectedCodeResponse,
) -> DetectProtectedMaterialResult {
    let rpc::DetectProtectedCodeResponse { detected, citations } = response;
    let citation = |found: rpc::CodeCitation| {
        let rpc::CodeCitation { license, source_urls } = found;
        CodeCitation { license, source_urls }
    };
    let citations = citations.into_iter().map(citation).collect();
    let analysis = ProtectedMaterialAnalysis { detected, code_citations: Some(citations) };
    DetectProtectedMaterialResult { protected_material_analysis: analysis }
}

/// A fault about a field, under the name that the field has in JSON.
#[must_use]
pub fn fault_from_rpc(mut fault: Fault) -> Fault {
    const NAMES: [(&str, &str); 5] = [
        ("blocklists", "blocklistNames"),
        ("image", "image.content"),
        ("user_prompt", "userPrompt"),
        ("items", "blocklistItems"),
        ("item_ids", "blocklistItemIds"),
    ];
    if let Some(target) = &mut fault.target {
        let (field, rest) = match target.split_once('.') {
            Some((field, rest)) => (field, Some(rest)),
            None => (target.as_str(), None),
        };
        if let Some((_, name)) = NAMES.iter().find(|(rpc, _)| *rpc == field) {
            *target = rest.map_or_else(|| (*name).to_owned(), |rest| format!("{name}.{rest}"));
        }
    }
    fault
}

/// What a verdict says, as annotations.
#[must_use]
pub fn found(response: rpc::ScreenResponse) -> ContentFilterResults {
    let rpc::ScreenResponse {
        blocked: _,
        categories,
        jailbreak,
        indirect_attack,
        blocklists,
        version: _,
        blocklists_searched,
        would_block: _,
    } = response;
    let mut found = ContentFilterResults {
        jailbreak: jailbreak.map(attack),
        indirect_attack: indirect_attack.map(attack),
        custom_blocklists: blocklists_searched.then(|| blocklist_results(blocklists)),
        ..ContentFilterResults::default()
    };
    for result in categories {
        let severity = SeverityResult {
            filtered: result.filtered,
            severity: Severity::from_level(result.severity),
        };
        let slot = match result.category() {
            rpc::Category::Hate => &mut found.hate,
            rpc::Category::SelfHarm => &mut found.self_harm,
            rpc::Category::Sexual => &mut found.sexual,
            rpc::Category::Violence => &mut found.violence,
            rpc::Category::Unspecified => continue,
        };
        *slot = Some(severity);
    }
    found
}

/// Why a verdict of `policy` is what it is.
#[must_use]
pub fn explanation(response: &rpc::ScreenResponse, policy: &str) -> FilterExplanation {
    let harms = response.categories.iter().map(|result| {
        let name = match result.category() {
            rpc::Category::Hate => "hate",
            rpc::Category::SelfHarm => "self_harm",
            rpc::Category::Sexual => "sexual",
            rpc::Category::Violence => "violence",
            rpc::Category::Unspecified => "unknown",
        };
        let finding = finding(name, result.filtered, result.score, result.span);
        FilterFinding { severity: Some(result.severity), ..finding }
    });
    let attacks =
        [("jailbreak", response.jailbreak), ("indirect_attack", response.indirect_attack)];
    let attacks = attacks.into_iter().filter_map(|(name, attack)| {
        attack.map(|attack| finding(name, attack.filtered, attack.score, attack.span))
    });
    FilterExplanation {
        policy: policy.to_owned(),
        version: response.version.clone(),
        would_block: response.would_block,
        findings: harms.chain(attacks).collect(),
    }
}

fn finding(name: &str, filtered: bool, score: f32, span: Option<rpc::Span>) -> FilterFinding {
    FilterFinding {
        name: name.to_owned(),
        filtered,
        severity: None,
        // Digits beyond these are the noise of an 8-bit model.
        score: (f64::from(score) * SCORE_STEPS).round() / SCORE_STEPS,
        segment: span.map(|span| span.segment),
        start: span.map(|span| span.begin.into()),
        end: span.map(|span| span.end.into()),
    }
}

const fn attack(attack: rpc::AttackResult) -> DetectionResult {
    let rpc::AttackResult { detected, filtered, score: _, span: _ } = attack;
    DetectionResult { filtered, detected }
}

/// One detail per list that matched, however many of its entries did.
fn blocklist_results(matches: Vec<rpc::BlocklistResult>) -> BlocklistResults {
    let mut results = BlocklistResults::default();
    for found in matches {
        let rpc::BlocklistResult { blocklist, item_id: _, item_text: _, filtered } = found;
        results.filtered |= filtered;
        match results.details.iter_mut().find(|d| d.id == blocklist) {
            Some(known) => known.filtered |= filtered,
            None => results.details.push(BlocklistResult { filtered, id: blocklist }),
        }
    }
    results
}

fn categories_to_rpc(categories: &[Category]) -> Vec<i32> {
    let category = |category: &Category| match category {
        Category::Hate => rpc::Category::Hate,
        Category::SelfHarm => rpc::Category::SelfHarm,
        Category::Sexual => rpc::Category::Sexual,
        Category::Violence => rpc::Category::Violence,
    };
    categories.iter().map(|c| category(c).into()).collect()
}

fn severities(categories: &[rpc::CategorySeverity], output: OutputType) -> Vec<CategoryAnalysis> {
    let analysis = |found: &rpc::CategorySeverity| {
        let category = match found.category() {
            rpc::Category::Unspecified => return None,
            rpc::Category::Hate => Category::Hate,
            rpc::Category::SelfHarm => Category::SelfHarm,
            rpc::Category::Sexual => Category::Sexual,
            rpc::Category::Violence => Category::Violence,
        };
        Some(CategoryAnalysis { category, severity: output.round(found.severity) })
    };
    let mut list: Vec<_> = categories.iter().filter_map(analysis).collect();
    list.sort_unstable_by_key(|c| c.category);
    list
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn severities_are_rounded_and_in_order() {
        let severity = |category: rpc::Category, severity| rpc::CategorySeverity {
            category: category.into(),
            severity,
            score: 0.5,
        };
        let response = rpc::AnalyzeResponse {
            categories: vec![
                severity(rpc::Category::Violence, 5),
                severity(rpc::Category::Hate, 1),
            ],
            blocklists: vec![],
        };
        let body =
            |output| serde_json::to_value(analyze_from_rpc(response.clone(), output)).unwrap();
        assert_eq!(
            body(OutputType::FourSeverityLevels),
            json!({"blocklistsMatch": [], "categoriesAnalysis": [{"category": "Hate", "severity": 0},
                {"category": "Violence", "severity": 4}]})
        );
        assert_eq!(body(OutputType::EightSeverityLevels)["categoriesAnalysis"][1]["severity"], 5);
    }

    #[test]
    fn a_verdict_becomes_annotations_in_words() {
        let hit = |item: &str, filtered| rpc::BlocklistResult {
            blocklist: "own".into(),
            item_id: item.into(),
            item_text: item.into(),
            filtered,
        };
        let category = rpc::CategoryResult {
            category: rpc::Category::SelfHarm.into(),
            severity: 6,
            score: 0.9,
            filtered: true,
            span: Some(rpc::Span { segment: 1, begin: 2, end: 9 }),
        };
        let attack = rpc::AttackResult { detected: true, score: 0.87654, ..Default::default() };
        let response = rpc::ScreenResponse {
            blocked: true,
            categories: vec![category],
            jailbreak: Some(attack),
            indirect_attack: None,
            blocklists: vec![hit("a", false), hit("b", true)],
            version: "1".into(),
            blocklists_searched: true,
            would_block: false,
        };
        assert_eq!(
            serde_json::to_value(explanation(&response, "p")).unwrap(),
            json!({"policy": "p", "version": "1", "would_block": false, "findings": [
                {"name": "self_harm", "filtered": true, "severity": 6, "score": 0.9, "segment": 1, "start": 2, "end": 9},
                {"name": "jailbreak", "filtered": false, "score": 0.877}]})
        );
        assert_eq!(
            serde_json::to_value(found(response)).unwrap(),
            json!({"self_harm": {"filtered": true, "severity": "high"},
                "jailbreak": {"filtered": false, "detected": true},
                "custom_blocklists": {"filtered": true, "details": [{"filtered": true, "id": "own"}]}})
        );
    }

    #[test]
    fn lists_that_were_searched_in_vain_are_said_to_be_so() {
        let body = |blocklists_searched| {
            let response = rpc::ScreenResponse { blocklists_searched, ..Default::default() };
            serde_json::to_value(found(response)).unwrap()
        };
        assert_eq!(body(true), json!({"custom_blocklists": {"filtered": false, "details": []}}));
        assert_eq!(body(false), json!({}));
    }

    #[test]
    fn code_comes_with_its_sources_and_text_without() {
        let citation = rpc::CodeCitation { license: "MIT".into(), source_urls: vec!["u".into()] };
        let response =
            rpc::DetectProtectedCodeResponse { detected: true, citations: vec![citation] };
        assert_eq!(
            serde_json::to_value(protected_code_from_rpc(response)).unwrap(),
            json!({"protectedMaterialAnalysis": {"detected": true,
                "codeCitations": [{"license": "MIT", "sourceUrls": ["u"]}]}})
        );
        let response = rpc::DetectProtectedTextResponse { detected: false };
        assert_eq!(
            serde_json::to_value(protected_text_from_rpc(response)).unwrap(),
            json!({"protectedMaterialAnalysis": {"detected": false}})
        );
    }

    #[test]
    fn a_fault_names_the_field_as_json_does() {
        let target = |target: &str| fault_from_rpc(Fault::invalid(target, "x")).target.unwrap();
        assert_eq!(target("items.3"), "blocklistItems.3");
        assert_eq!(target("blocklists"), "blocklistNames");
        assert_eq!(target("image"), "image.content");
        assert_eq!(target("text"), "text");
    }

    #[test]
    fn a_shielded_prompt_answers_in_the_order_of_its_documents() {
        let score = |detected| rpc::AttackScore { detected, score: 0.1 };
        let response = rpc::ShieldPromptResponse {
            user_prompt: Some(score(true)),
            documents: vec![score(false), score(true)],
        };
        assert_eq!(
            serde_json::to_value(shield_from_rpc(response)).unwrap(),
            json!({"userPromptAnalysis": {"attackDetected": true},
                "documentsAnalysis": [{"attackDetected": false}, {"attackDetected": true}]})
        );
    }
}
