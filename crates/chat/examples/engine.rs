//! Checks and measures the embedded engine with a real model: `cargo run --release -p chat --example engine -- FILE.gguf`.
//!
//! Not a test, because it needs a model and a quiet machine; every line it prints is a fact that was checked or a figure.
#![expect(clippy::print_stdout, clippy::unwrap_used, clippy::panic, reason = "a program for the terminal; the first failure ends it")]

use chat::backend::{
    CompleteRequest, FinishReason, GenerateRequest, Message, Part, Piece, Prompt, ResponseFormat, Role, Sampling, Tool,
    ToolChoice, Usage,
};
use chat::{Backend as _, ChatError, Config, LocalEngine, LocalOptions};
use futures::{StreamExt as _, future::join_all};
use serde_json::json;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long the engine is pestered with requests that are cancelled.
const CHAOS: Duration = Duration::from_secs(60);

#[derive(Debug, Default)]
struct Answer {
    texts: BTreeMap<u32, String>,
    reasons: BTreeMap<u32, FinishReason>,
    calls: Vec<(String, String)>,
    logprobs: Vec<chat::backend::TokenLogprob>,
    usage: Usage,
    pieces: usize,
}

impl Answer {
    fn text(&self) -> &str {
        self.texts.get(&0).map_or("", String::as_str)
    }
}

fn main() {
    chassis::config::reexec_with(&[("OMP_WAIT_POLICY", "passive")]);
    let path = std::env::args().nth(1).map_or_else(|| panic!("usage: engine FILE.gguf"), PathBuf::from);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(run(path));
}

async fn run(path: PathBuf) {
    let config: Config = chassis::config::load("chat", chat::DEFAULTS, &chassis::config::Sources::default()).unwrap();
    let options = LocalOptions {
        name: "m".to_owned(),
        publisher: String::new(),
        version: String::new(),
        path,
        chat_template: None,
        engine: config.engine_of(config.local.first().unwrap()),
    };
    let started = Instant::now();
    let engine = Arc::new(LocalEngine::load(options.clone()).await.unwrap());
    println!("loaded in {:?}, {} MB resident", started.elapsed(), resident());
    println!("{:?}", engine.models());
    answers(&engine).await;
    shapes(&engine).await;
    prompts(&engine).await;
    refusals(&engine).await;
    slow_readers(&engine).await;
    speed(&engine).await;
    chaos(&engine).await;
    println!("{} MB resident", resident());
    tight(options).await;
    let stopper = engine.stopper();
    drop(engine);
    stopper.join();
    println!("ended");
}

fn ask(text: &str, sampling: Sampling) -> GenerateRequest {
    let message = Message {
        role: Role::User,
        content: vec![Part::Text(text.to_owned())],
        name: None,
        tool_calls: Vec::new(),
        tool_call_id: None,
    };
    GenerateRequest { messages: vec![message], sampling, parallel_tool_calls: true, ..GenerateRequest::default() }
}

fn exact(schema: serde_json::Value) -> ResponseFormat {
    ResponseFormat::JsonSchema { name: "s".to_owned(), schema, strict: true }
}

fn greedy(max_tokens: u32) -> Sampling {
    Sampling { temperature: Some(0.0), max_tokens: Some(max_tokens), n: 1, ..Sampling::default() }
}

async fn collect(stream: Result<chat::backend::PieceStream, ChatError>) -> Result<Answer, ChatError> {
    let mut stream = stream?;
    let mut answer = Answer::default();
    let mut last = None;
    while let Some(item) = stream.next().await {
        let piece = item?;
        answer.pieces += 1;
        match piece.clone() {
            Piece::Text { choice, text, logprobs } => {
                answer.texts.entry(choice).or_default().push_str(&text);
                answer.logprobs.extend(logprobs);
            }
            Piece::Reasoning { .. } => {}
            Piece::ToolCall { name, arguments, .. } => answer.calls.push((name.unwrap(), arguments)),
            Piece::Finished { choice, reason } => {
                assert_eq!(answer.reasons.insert(choice, reason), None);
            }
            Piece::Usage(usage) => answer.usage = usage,
        }
        last = Some(piece);
    }
    assert!(matches!(last, Some(Piece::Usage(_))), "{last:?}");
    Ok(answer)
}

async fn generate(engine: &LocalEngine, request: GenerateRequest) -> Answer {
    collect(engine.generate(request).await).await.unwrap()
}

async fn answers(engine: &LocalEngine) {
    let question = "What is the capital of France?";
    let answer = generate(engine, ask(question, greedy(48))).await;
    println!("{:?} {:?} {:?}", answer.text(), answer.reasons, answer.usage);
    assert!(answer.text().contains("Paris"));
    let again = generate(engine, ask(question, greedy(48))).await;
    println!("cached {} of {}", again.usage.cached_tokens, again.usage.prompt_tokens);
    assert_eq!(again.usage.cached_tokens, again.usage.prompt_tokens - 1);
    assert_eq!(again.text(), answer.text());

    let seeded = |seed| Sampling { temperature: Some(1.0), seed: Some(seed), ..greedy(40) };
    let story = "Tell me a story about a cat.";
    let first = generate(engine, ask(story, seeded(7))).await;
    let second = generate(engine, ask(story, seeded(7))).await;
    let other = generate(engine, ask(story, seeded(8))).await;
    println!("same seed, same text: {}; {:?}", first.text() == second.text(), first.text());
    assert_eq!(first.text(), second.text());
    assert_ne!(first.text(), other.text());
    let mut batch: Vec<_> = (0..7).map(|i| ask(&format!("Count from {i}."), seeded(i))).collect();
    batch.push(ask(story, seeded(7)));
    let all = join_all(batch.into_iter().map(|r| generate(engine, r))).await;
    println!("same seed in a batch of 8, same text: {}", all.last().unwrap().text() == first.text());

    let stop = Sampling { stop: vec!["Paris".to_owned(), "zzz".to_owned()], ..greedy(48) };
    let stopped = generate(engine, ask(question, stop)).await;
    println!("stopped: {:?} {:?}", stopped.text(), stopped.reasons);
    assert!(answer.text().starts_with(stopped.text()) && !stopped.text().contains("Par"));
    assert_eq!(stopped.reasons.get(&0), Some(&FinishReason::Stop));

    let short = generate(engine, ask(question, greedy(3))).await;
    assert_eq!((short.usage.completion_tokens, short.reasons.get(&0)), (3, Some(&FinishReason::Length)));
    let none = generate(engine, ask(question, greedy(0))).await;
    assert_eq!((none.usage.completion_tokens, none.text()), (0, ""));

    let many = generate(engine, ask(story, Sampling { n: 2, ..seeded(7) })).await;
    println!("n=2: {:?}, {:?}", many.texts, many.usage);
    assert_eq!(many.texts.len(), 2);
    assert_ne!(many.texts.get(&0), many.texts.get(&1));
    assert_eq!(many.usage.prompt_tokens, first.usage.prompt_tokens);

    let emoji = generate(engine, ask("Repeat exactly: 🦀 🐍 日本語 🎉🎉", greedy(60))).await;
    println!("emoji: {:?}", emoji.text());
    assert!(!emoji.text().contains('\u{FFFD}'));

    let probs = generate(engine, ask(question, Sampling { top_logprobs: Some(3), ..greedy(8) })).await;
    let words: String = probs.logprobs.iter().map(|l| l.token.as_str()).collect();
    assert_eq!(words, probs.text());
    assert_eq!(probs.logprobs.len(), 8);
    let first = probs.logprobs.first().unwrap();
    println!("logprobs: {first:?}");
    assert!((first.logprob - first.alternatives.first().unwrap().1).abs() < 1e-5);
}

async fn shapes(engine: &LocalEngine) {
    let schema = json!({ "type": "object", "properties": {
        "name": { "type": "string", "maxLength": 20 }, "age": { "type": "integer", "minimum": 0, "maximum": 120 },
        "tags": { "type": "array", "items": { "enum": ["a", "b"] }, "maxItems": 3 } },
        "required": ["name", "age", "tags"], "additionalProperties": false });
    let mut request = ask("Ann is 41. Answer in JSON.", greedy(200));
    request.response_format = exact(schema);
    let started = Instant::now();
    let answer = generate(engine, request.clone()).await;
    println!("json_schema: {} ({} tokens in {:?})", answer.text(), answer.usage.completion_tokens, started.elapsed());
    let value: serde_json::Value = serde_json::from_str(answer.text()).unwrap();
    assert!(value["age"].is_u64() && value["name"].is_string() && value["tags"].is_array());
    request.sampling = Sampling { temperature: Some(1.5), seed: Some(3), n: 4, max_tokens: Some(300), ..Sampling::default() };
    let hot = generate(engine, request).await;
    for (choice, text) in &hot.texts {
        if hot.reasons.get(choice) == Some(&FinishReason::Stop) {
            serde_json::from_str::<serde_json::Value>(text).unwrap();
        }
    }
    println!("json_schema, hot: {:?}", hot.texts);

    let mut object = ask("Give me a JSON object about Paris.", greedy(150));
    object.response_format = ResponseFormat::JsonObject;
    let answer = generate(engine, object).await;
    println!("json_object: {:?} {:?}", answer.text(), answer.reasons);
    assert!(answer.text().starts_with('{'));

    let mut call = ask("What is the weather in Paris?", greedy(100));
    let city = json!({ "type": "object", "properties": { "city": { "type": "string" } }, "required": ["city"] });
    let tool = |name: &str| Tool { name: name.to_owned(), description: None, parameters: Some(city.clone()), strict: false };
    call.tools = vec![tool("get_weather"), tool("get_time")];
    for choice in [ToolChoice::Required, ToolChoice::Named("get_time".to_owned()), ToolChoice::Auto] {
        call.tool_choice = choice.clone();
        let answer = generate(engine, call.clone()).await;
        println!("{choice:?}: {:?} {:?} {:?}", answer.calls, answer.text(), answer.reasons);
        if choice != ToolChoice::Auto {
            assert_eq!((answer.calls.len(), answer.reasons.get(&0)), (1, Some(&FinishReason::ToolCalls)));
            let (_, arguments) = answer.calls.first().unwrap();
            assert!(serde_json::from_str::<serde_json::Value>(arguments).unwrap()["city"].is_string());
        }
    }
}

async fn prompts(engine: &LocalEngine) {
    let complete = |change: &dyn Fn(&mut CompleteRequest)| {
        let prompts = vec![Prompt::Text("The capital of France is".to_owned()), Prompt::Text("2 + 2 =".to_owned())];
        let mut request = CompleteRequest { prompts, sampling: greedy(6), ..CompleteRequest::default() };
        change(&mut request);
        request
    };
    let answer = collect(engine.complete(complete(&|_| {})).await).await.unwrap();
    println!("completions: {:?} {:?}", answer.texts, answer.usage);
    assert_eq!(answer.texts.len(), 2);
    let scored = complete(&|r| {
        r.echo = true;
        r.prompts.truncate(1);
        r.sampling.top_logprobs = Some(1);
    });
    let answer = collect(engine.complete(scored).await).await.unwrap();
    let words: String = answer.logprobs.iter().map(|l| l.token.as_str()).collect();
    println!("echo: {:?} {:?}", answer.text(), answer.logprobs.iter().map(|l| l.logprob).collect::<Vec<_>>());
    assert_eq!(words, answer.text());
    assert!(answer.text().starts_with("The capital of France is"));
    let best = complete(&|r| {
        r.best_of = Some(4);
        r.sampling = Sampling { temperature: Some(1.2), seed: Some(1), ..greedy(6) };
    });
    let answer = collect(engine.complete(best).await).await.unwrap();
    println!("best_of: {:?} {:?}", answer.texts, answer.usage);
    assert_eq!(answer.texts.len(), 2);
    let tokens = complete(&|r| {
        r.prompts = vec![Prompt::Tokens(vec![504, 3575])];
        r.echo = true;
    });
    println!("tokens: {:?}", collect(engine.complete(tokens).await).await.unwrap().texts);
    let empty = complete(&|r| r.prompts = vec![Prompt::Text(String::new())]);
    println!("empty: {:?}", collect(engine.complete(empty).await).await.unwrap().texts);
}

async fn refusals(engine: &LocalEngine) {
    let mut extra = ask("Hi", greedy(4));
    extra.extra.insert("mirostat".to_owned(), json!(2));
    let long = ask(&"word ".repeat(20_000), greedy(4));
    let wide = ask("Hi", greedy(100_000));
    let mut schema = ask("Hi", greedy(4));
    schema.response_format = exact(json!({ "type": "string", "pattern": "x" }));
    let mut nested = ask("Hi", greedy(4));
    let array = |inner: serde_json::Value| json!({ "type": "array", "items": inner, "minItems": 1000, "maxItems": 1000 });
    nested.response_format = exact(array(array(array(json!({ "type": "string", "minLength": 900 })))));
    for request in [extra, long, wide, schema, nested] {
        let error = collect(engine.generate(request).await).await.unwrap_err();
        println!("refused: {:?} {error}", error.code());
    }
    for word in ["a", " ", "\n", "7", "日", "!", "<|im_end|>", "\u{FDD0}", "a1 "] {
        let started = Instant::now();
        let outcome = collect(engine.generate(ask(&word.repeat(400_000 / word.len()), greedy(1))).await).await;
        println!("400 KB of {word:?}: {:?} in {:?}", outcome.map(|a| a.usage.prompt_tokens).map_err(|e| e.to_string()), started.elapsed());
    }
    let gap = CompleteRequest { prompts: vec![Prompt::Text("a".to_owned())], suffix: Some("b".to_owned()), ..CompleteRequest::default() };
    println!("suffix: {:?}", collect(engine.complete(gap).await).await.map(|a| a.texts).map_err(|e| e.to_string()));
    let far = CompleteRequest { prompts: vec![Prompt::Tokens(vec![9_999_999])], ..CompleteRequest::default() };
    println!("refused: {}", collect(engine.complete(far).await).await.unwrap_err());
}

/// Nobody waits for a reader who does not read, and a reader who leaves frees the slot.
async fn slow_readers(engine: &LocalEngine) {
    let mut lazy = Vec::new();
    for _ in 0..7 {
        lazy.push(engine.generate(ask("Write a long story.", greedy(2000))).await.unwrap());
    }
    let started = Instant::now();
    let answer = generate(engine, ask("What is the capital of France?", greedy(20))).await;
    println!("beside 7 readers who do not read: {} tokens in {:?}", answer.usage.completion_tokens, started.elapsed());
    let started = Instant::now();
    drop(lazy);
    while engine.load_now() != (0, 0) {
        tokio::task::yield_now().await;
    }
    println!("7 slots free after {:?}", started.elapsed());
}

async fn speed(engine: &LocalEngine) {
    let story = |i: usize| ask(&format!("Write a long story about the number {i}."), Sampling { temperature: Some(0.8), seed: Some(1), ..greedy(128) });
    let mut alone = 0.0;
    for streams in [1_usize, 2, 4, 8, 1] {
        let started = Instant::now();
        let all = join_all((0..streams).map(|i| generate(engine, story(i)))).await;
        let tokens: u32 = all.iter().map(|a| a.usage.completion_tokens).sum();
        let rate = f64::from(tokens) / started.elapsed().as_secs_f64();
        if streams == 1 {
            alone = rate;
        }
        println!("{streams} streams: {tokens} tokens, {rate:.1} tokens/s, {:.2} times one", rate / alone);
    }
    // A long prompt beside a stream: the longest pause of the stream is what prefill chunks are for.
    let mut stream = engine.generate(story(0)).await.unwrap();
    let words: String = (0..2500).map(|i| format!("word{i} ")).collect::<String>().chars().take(12_000).collect();
    let mut long = Box::pin(generate(engine, ask(&words, greedy(1))));
    let (mut longest, mut last) = (Duration::ZERO, Instant::now());
    let started = Instant::now();
    let mut prefill = None;
    loop {
        tokio::select! {
            answer = &mut long, if prefill.is_none() => prefill = Some((answer.usage.prompt_tokens, started.elapsed())),
            item = stream.next() => {
                if item.is_none() { break }
                longest = longest.max(last.elapsed());
                last = Instant::now();
            }
        }
    }
    println!("longest pause beside a prompt of {prefill:?}: {longest:?}");
}

async fn chaos(engine: &Arc<LocalEngine>) {
    let until = Instant::now() + CHAOS;
    let workers = (0..16_u32).map(|worker| {
        let engine = Arc::clone(engine);
        async move {
            let mut counts = [0_u32; 3];
            let mut random = worker.wrapping_mul(2_654_435_761) | 1;
            while Instant::now() < until {
                random ^= random << 13;
                random ^= random >> 17;
                random ^= random << 5;
                let mut request = ask(
                    &"tell me more ".repeat(usize::try_from(random % 200).unwrap()),
                    Sampling { n: 1 + random % 3, max_tokens: (random % 4 > 0).then_some(random % 90), ..Sampling::default() },
                );
                if random.is_multiple_of(5) {
                    request.response_format = ResponseFormat::JsonObject;
                }
                let stream = engine.generate(request);
                let Ok(answer) = tokio::time::timeout(Duration::from_millis(u64::from(random % 3000)), stream).await else {
                    counts[2] += 1;
                    continue;
                };
                let Ok(mut stream) = answer else {
                    counts[1] += 1;
                    tokio::task::yield_now().await;
                    continue;
                };
                let mut left = random % 60;
                while left > 0 && stream.next().await.is_some() {
                    left -= 1;
                }
                counts[0] += 1;
            }
            counts
        }
    });
    let counts = join_all(workers).await.into_iter().fold([0; 3], |a, b| [a[0] + b[0], a[1] + b[1], a[2] + b[2]]);
    while engine.load_now() != (0, 0) {
        tokio::task::yield_now().await;
    }
    println!("chaos: {} begun and cancelled or read, {} refused, {} cancelled while waiting; all slots free", counts[0], counts[1], counts[2]);
}

/// A cache too small for everybody: sequences step back and still answer as they would alone.
async fn tight(mut options: LocalOptions) {
    options.engine.context_tokens = 256;
    options.engine.cache_tokens = 512;
    let engine = LocalEngine::load(options).await.unwrap();
    let request = |i: usize| {
        let sampling = Sampling { max_tokens: None, ..greedy(0) };
        ask(&format!("Write a long story about {i} cats."), sampling)
    };
    let mut alone = Vec::new();
    for i in 0..6 {
        alone.push(generate(&engine, request(i)).await);
    }
    let together = join_all((0..6).map(|i| generate(&engine, request(i)))).await;
    let same = alone.iter().zip(&together).filter(|(a, b)| a.text() == b.text()).count();
    let ends: Vec<_> = together.iter().map(|a| (a.reasons.clone(), a.usage.prompt_tokens + a.usage.completion_tokens)).collect();
    println!("tight cache: {same} of 6 texts as alone; {ends:?}");
}

fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|l| l.starts_with("VmRSS")).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|kb| kb.parse::<u64>().ok()).unwrap_or(0) / 1024
}
