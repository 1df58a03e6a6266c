//! Models through the real ONNX Runtime: the tiny ones of `tests/models`, and MiniLM where it has been fetched.
//!
//! A test says so and passes when the library (or MiniLM) is not in `models/`; `make models` fetches both.

#![expect(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test fails by panicking and says what it skips"
)]

use onnx::{
    BatchOptions, Batcher, Encoder as _, Item, OnnxError, RowShape, Runtime, Session,
    SessionOptions, Tokenizer,
};
use std::path::{Path, PathBuf};

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn tiny(file: &str) -> PathBuf {
    repository().join("tests/models").join(file)
}

/// The library that the model store has fetched.
fn runtime() -> Option<Runtime> {
    let folder = std::fs::read_dir(repository().join("models/onnxruntime")).ok();
    let files = folder.into_iter().flatten().flatten().map(|entry| entry.path());
    // The store keeps a note of its own beside each file.
    let is_library =
        |path: &PathBuf| path.extension().is_none_or(|e| e != "verified" && e != "part");
    let Some(library) = files.into_iter().find(is_library) else {
        eprintln!("skipped: no ONNX Runtime in models/onnxruntime");
        return None;
    };
    Some(Runtime::load(&library).unwrap())
}

fn options(tokenizer: &Tokenizer) -> SessionOptions {
    SessionOptions { threads: 1, pad_id: tokenizer.pad_id(), ..SessionOptions::default() }
}

fn cosine(a: &[f32], b: &[f32]) -> f32 {
    let dot = |x: &[f32], y: &[f32]| x.iter().zip(y).map(|(p, q)| p * q).sum::<f32>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

#[test]
fn loading_twice_gives_the_same_runtime_and_another_library_is_refused() {
    let Some(runtime) = runtime() else { return };
    assert_eq!(format!("{runtime:?}"), format!("{:?}", self::runtime().unwrap()));
    let other = tempfile::NamedTempFile::new().unwrap();
    assert!(matches!(Runtime::load(other.path()), Err(OnnxError::OtherLibrary { .. })));
}

#[test]
fn a_row_per_token_leaves_out_the_padding_and_does_not_depend_on_the_batch() {
    let Some(runtime) = runtime() else { return };
    let tokenizer = Tokenizer::load(&tiny("tiny-bert/tokenizer.json"), 8).unwrap();
    let mut session =
        Session::load(&runtime, &tiny("tiny-bert/model.onnx"), &options(&tokenizer)).unwrap();
    assert_eq!(session.rows(), RowShape { width: 4, per_token: true });
    let item = |text| Item::Tokens(tokenizer.fit(text).unwrap().ids);
    let (short, long) = (item("the cat"), item("the dog ran on the mat"));
    let alone = session.run(std::slice::from_ref(&short)).unwrap();
    let together = session.run(&[long, short]).unwrap();
    assert_eq!(alone[0].len(), 4 * 4);
    assert_eq!(together[0].len(), 8 * 4);
    let close = alone[0].iter().zip(&together[1]).all(|(a, b)| (a - b).abs() < 1e-5);
    assert!(close, "{alone:?} {together:?}");
}

#[test]
fn an_open_image_size_must_be_given_and_is_checked() {
    let Some(runtime) = runtime() else { return };
    let load = |item_shape: Vec<usize>| {
        let options = SessionOptions { item_shape, ..SessionOptions::default() };
        Session::load(&runtime, &tiny("tiny-clip/vision.onnx"), &options)
    };
    assert!(load(vec![]).unwrap_err().to_string().contains("leaves the size"));
    assert!(load(vec![4, 8, 8]).unwrap_err().to_string().contains("takes items of"));
    let mut session = load(vec![3, 2, 2]).unwrap();
    assert_eq!(session.rows(), RowShape { width: 4, per_token: false });
    let row = session.run(&[Item::Tensor(vec![0.0; 12]), Item::Tensor(vec![1.0; 12])]).unwrap();
    assert_eq!(row[0], [0.0; 4]);
    assert_ne!(row[1], [0.0; 4]);
    assert!(matches!(session.run(&[Item::Tensor(vec![0.0; 11])]), Err(OnnxError::WrongItem(_))));
}

#[test]
fn a_file_that_is_no_model_and_an_output_that_is_not_there_are_named() {
    let Some(runtime) = runtime() else { return };
    let rubbish = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(rubbish.path(), "rubbish").unwrap();
    let error = Session::load(&runtime, rubbish.path(), &SessionOptions::default()).unwrap_err();
    assert!(matches!(error, OnnxError::Model { .. }), "{error}");
    let options = SessionOptions { outputs: vec!["nothing".into()], ..SessionOptions::default() };
    let error = Session::load(&runtime, &tiny("tiny-bert/model.onnx"), &options).unwrap_err();
    assert!(error.to_string().contains("`nothing`; it has `last_hidden_state`"), "{error}");
}

#[tokio::test]
async fn concurrent_callers_get_their_own_rows() {
    let Some(runtime) = runtime() else { return };
    let tokenizer = Tokenizer::load(&tiny("tiny-clip/tokenizer.json"), 8).unwrap();
    let session =
        Session::load(&runtime, &tiny("tiny-clip/text.onnx"), &options(&tokenizer)).unwrap();
    let batcher =
        Batcher::start("tiny", session, BatchOptions { batch_tokens: 16, queue_tokens: 4096 })
            .unwrap();
    let item = |text: &str| Item::Tokens(tokenizer.fit(text).unwrap().ids);
    let red = batcher.encode(vec![item("red")]).await.unwrap().remove(0);
    let blue = batcher.encode(vec![item("blue")]).await.unwrap().remove(0);
    let calls = (0..20).map(|_| batcher.encode(vec![item("a photo of red"), item("blue")]));
    for rows in futures::future::try_join_all(calls).await.unwrap() {
        assert!(cosine(&rows[0], &red) > 0.999, "{rows:?}");
        assert!(cosine(&rows[1], &blue) > 0.999, "{rows:?}");
    }
}

/// Numbers of the Python packages `onnxruntime` and `tokenizers` for the same files.
#[test]
fn minilm_agrees_with_python_and_knows_a_paraphrase() {
    let Some(runtime) = runtime() else { return };
    let folder = repository().join("models/all-minilm-l6-v2");
    if !folder.join("model.onnx").exists() {
        eprintln!("skipped: no MiniLM in models/all-minilm-l6-v2");
        return;
    }
    let tokenizer = Tokenizer::load(&folder.join("tokenizer.json"), 256).unwrap();
    let mut session =
        Session::load(&runtime, &folder.join("model.onnx"), &options(&tokenizer)).unwrap();
    assert_eq!(session.rows(), RowShape { width: 384, per_token: false });
    let texts = [
        "A cat sits on the mat.",
        "A kitten is resting on the rug.",
        "The stock market fell sharply today.",
        "猫がマットの上に座っている。",
    ];
    let items: Vec<Item> =
        texts.iter().map(|text| Item::Tokens(tokenizer.fit(text).unwrap().ids)).collect();
    let lengths: Vec<usize> = items.iter().map(Item::cost).collect();
    assert_eq!(lengths, LENGTHS);
    let rows = session.run(&items).unwrap();
    for (value, expected) in rows[0].iter().zip(FIRST) {
        assert!((value - expected).abs() < 1e-4, "{:?}", &rows[0][..6]);
    }
    let (paraphrase, unrelated) = (cosine(&rows[0], &rows[1]), cosine(&rows[0], &rows[2]));
    assert!((paraphrase - PARAPHRASE).abs() < 1e-3, "{paraphrase}");
    assert!(unrelated < 0.1, "{unrelated}");
}

/// Tokens of the four texts, special tokens included.
const LENGTHS: [usize; 4] = [9, 10, 9, 16];
/// The first numbers of the first text's vector.
const FIRST: [f32; 6] = [0.126_535, -0.032_851, -0.029_06, 0.044_407, -0.043_445, 0.032_097];
/// Cosine of the first two texts.
const PARAPHRASE: f32 = 0.6524;
