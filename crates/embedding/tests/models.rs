//! Models by catalog entry, through the store and the real ONNX Runtime.
//!
//! The tiny pair of `tests/models` stands for any CLIP or SigLIP. A test says so and passes when the runtime library (or, for the
//! last ones, the default models) is not in `models/`; `make models` fetches them.

#![expect(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test fails by panicking and says what it skips"
)]

use api_types::Fault;
use bytes::Bytes;
use chassis::Tasks;
use chassis::config::{Sources, load as load_config};
use embedding::embedder::{EmbedRequest, Embedded, ImageInput, Inputs, Purpose, TextInput};
use embedding::{Config, DEFAULTS, Embedders};
use image::{ImageFormat, Rgb, RgbImage};
use model_store::{Silent, Store, StoreConfig};
use std::io::Cursor;
use std::path::{Path, PathBuf};

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The models that have been fetched already.
fn fetched() -> StoreConfig {
    StoreConfig { dir: repository().join("models"), offline: true, ..StoreConfig::default() }
}

/// The library that the model store has fetched.
async fn library() -> Option<PathBuf> {
    let store = Store::open(fetched()).unwrap();
    let runtime = store.ensure("onnxruntime", &Silent).await.ok()?;
    Some(runtime.file("library").unwrap())
}

async fn config(serve: &[&str], models: StoreConfig) -> Option<Config> {
    let Some(library) = library().await else {
        eprintln!("skipped: no ONNX Runtime in models/onnxruntime");
        return None;
    };
    let mut config: Config = load_config("embedding", DEFAULTS, &Sources::default()).unwrap();
    config.serve = serve.iter().map(|name| (*name).to_owned()).collect();
    config.runtime.library = library.display().to_string();
    config.models = models;
    Some(config)
}

async fn embedders(config: &Config) -> anyhow::Result<Embedders> {
    let store = Store::open(config.models.clone())?;
    embedding::load(config, &store, &Silent, &Tasks::new()).await
}

/// The tiny models, installed into `dir` by the store.
async fn tiny(dir: &Path, serve: &[&str]) -> Option<Embedders> {
    let catalog = repository().join("tests/models/catalog.toml").display().to_string();
    let config =
        config(serve, StoreConfig { dir: dir.to_owned(), catalog, ..StoreConfig::default() })
            .await?;
    Some(embedders(&config).await.unwrap())
}

/// The models of `serve` where they are installed already.
async fn installed(serve: &[&str]) -> Option<Embedders> {
    let config = config(serve, fetched()).await?;
    let store = Store::open(config.models.clone()).unwrap();
    if let Some(missing) = serve.iter().find(|name| !store.installed(name)) {
        eprintln!("skipped: {missing} is not in models/");
        return None;
    }
    Some(embedders(&config).await.unwrap())
}

async fn embed(embedders: &Embedders, model: &str, inputs: Inputs) -> Result<Embedded, Fault> {
    let request = EmbedRequest {
        model: model.to_owned(),
        inputs,
        dimensions: None,
        purpose: Purpose::Text,
        extra: serde_json::Map::new(),
    };
    embedders.embed(request).await.map_err(Fault::from)
}

fn texts(texts: &[&str]) -> Inputs {
    Inputs::Texts(texts.iter().map(|text| TextInput::Text((*text).to_owned())).collect())
}

fn images(files: Vec<Vec<u8>>) -> Inputs {
    let image = |file: Vec<u8>| ImageInput { image: Bytes::from(file), text: String::new() };
    Inputs::Images(files.into_iter().map(image).collect())
}

fn plain(colour: [u8; 3]) -> Vec<u8> {
    let mut file = Cursor::new(Vec::new());
    RgbImage::from_pixel(30, 20, Rgb(colour)).write_to(&mut file, ImageFormat::Png).unwrap();
    file.into_inner()
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(x, y)| x * y).sum()
}

/// For each vector of `of`, which of `among` is nearest.
fn nearest(of: &Embedded, among: &Embedded) -> Vec<usize> {
    let best = |v: &Vec<f32>| {
        let scores = among.vectors.iter().map(|w| dot(v, w)).enumerate();
        scores.max_by(|a, b| a.1.total_cmp(&b.1)).map(|(index, _)| index).unwrap()
    };
    of.vectors.iter().map(best).collect()
}

#[tokio::test]
async fn a_pair_of_encoders_is_loaded_by_its_entry_and_finds_images_by_words() {
    let dir = tempfile::tempdir().unwrap();
    let Some(embedders) = tiny(dir.path(), &["tiny-clip"]).await else { return };
    let info = embedders.models().next().unwrap();
    assert!(info.text && info.image);
    assert_eq!((info.dimensions, info.max_tokens), (4, 8));
    assert_eq!(info.version.len(), 12);
    let words = ["a photo of red", "green", "blue", "yellow"];
    let words = embed(&embedders, "tiny-clip", texts(&words)).await.unwrap();
    // More than one batch of images, in an order of their own.
    let colours = [[0, 0, 255], [255, 0, 0], [255, 255, 0], [0, 255, 0]];
    let files = (0..12).map(|i| plain(colours[i % 4])).collect();
    let pictures = embed(&embedders, "Tiny-CLIP", images(files)).await.unwrap();
    assert_eq!(nearest(&pictures, &words), [2, 0, 3, 1, 2, 0, 3, 1, 2, 0, 3, 1]);
    assert_eq!((pictures.images, pictures.prompt_tokens), (12, 0));
    assert_eq!((words.images, words.prompt_tokens), (0, 15));
    assert!(pictures.vectors.iter().all(|v| (dot(v, v) - 1.0).abs() < 1e-5));
}

#[tokio::test]
async fn a_graph_with_a_vector_per_token_is_pooled_and_may_be_cut_to_a_declared_length() {
    let dir = tempfile::tempdir().unwrap();
    let Some(embedders) = tiny(dir.path(), &["tiny-bert", "tiny-clip"]).await else { return };
    let alone = embed(&embedders, "tiny-bert", texts(&["the cat"])).await.unwrap();
    let together = embed(&embedders, "tiny-bert", texts(&["the dog ran on the mat", "the cat"]))
        .await
        .unwrap();
    assert!(dot(&alone.vectors[0], &together.vectors[1]) > 0.9999, "padding leaks into the mean");
    let request = EmbedRequest {
        model: "tiny-bert".into(),
        inputs: texts(&["the cat"]),
        dimensions: Some(2),
        purpose: Purpose::Text,
        extra: serde_json::Map::new(),
    };
    let cut = embedders.embed(request.clone()).await.unwrap();
    assert_eq!(cut.vectors[0].len(), 2);
    assert!((dot(&cut.vectors[0], &cut.vectors[0]) - 1.0).abs() < 1e-5);
    let extra = serde_json::Map::from_iter([("truncate".to_owned(), true.into())]);
    let fault = Fault::from(embedders.embed(EmbedRequest { extra, ..request }).await.unwrap_err());
    assert_eq!((fault.code.http(), fault.target.as_deref()), (422, Some("truncate")));
}

#[tokio::test]
async fn an_image_that_cannot_be_decoded_is_named_by_its_place() {
    let dir = tempfile::tempdir().unwrap();
    let Some(embedders) = tiny(dir.path(), &["tiny-clip"]).await else { return };
    let files = vec![plain([1, 2, 3]), b"<svg/>".to_vec()];
    let fault = embed(&embedders, "tiny-clip", images(files)).await.unwrap_err();
    assert_eq!((fault.code.http(), fault.target.as_deref()), (400, Some("input.1.image")));
    assert!(fault.message.contains("PNG, JPEG"), "{}", fault.message);
}

#[tokio::test]
async fn a_model_that_is_unknown_or_named_twice_stops_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let catalog = repository().join("tests/models/catalog.toml").display().to_string();
    let models = StoreConfig { dir: dir.path().to_owned(), catalog, ..StoreConfig::default() };
    let Some(twice) = config(&["tiny-clip", "tiny-clip"], models.clone()).await else { return };
    assert!(embedders(&twice).await.unwrap_err().to_string().contains("`tiny-clip` twice"));
    let Some(unknown) = config(&["tiny-glip"], models).await else { return };
    assert!(embedders(&unknown).await.unwrap_err().to_string().contains("`tiny-glip`"));
}

#[tokio::test]
async fn minilm_finds_the_paraphrase() {
    let Some(embedders) = installed(&["all-minilm-l6-v2"]).await else { return };
    let question = embed(&embedders, "all-minilm-l6-v2", texts(&["How do I reset my password?"]))
        .await
        .unwrap();
    let answers = [
        "Bread needs an hour in the oven.",
        "Changing forgotten login credentials",
        "The moon is far away.",
    ];
    let answers = embed(&embedders, "all-minilm-l6-v2", texts(&answers)).await.unwrap();
    assert_eq!(nearest(&question, &answers), [1]);
    assert_eq!(question.vectors[0].len(), 384);
}

#[tokio::test]
async fn photographs_find_their_captions_in_the_shared_space() {
    let Some(embedders) = installed(&["efficientnet-lite0-minilm"]).await else { return };
    let captions = ["a cat", "a cup of coffee", "a rocket", "a car in the street", "an elephant"];
    let captions = embed(&embedders, "efficientnet-lite0-minilm", texts(&captions)).await.unwrap();
    let photo =
        |name: &str| std::fs::read(repository().join("tests/clients/data").join(name)).unwrap();
    let photos = images(vec![photo("coffee.jpg"), photo("cat.jpg")]);
    let photos = embed(&embedders, "efficientnet-lite0-minilm", photos).await.unwrap();
    assert_eq!(nearest(&photos, &captions), [1, 0]);
}
