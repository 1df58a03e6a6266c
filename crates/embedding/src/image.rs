//! Encoded image files → the tensors that a model wants → vectors.
//!
//! Separate because files come from strangers: sizes are checked by the header before anything is decoded, and every limit is
//! enforced here. The geometry follows the recipes that models are published with, so that vectors agree with those of others.

use crate::embedder::{Embedded, ImageInput};
use crate::error::EmbeddingError;
use crate::pooling::Finish;
use bytes::Bytes;
use chassis::Tasks;
use image::imageops::FilterType;
use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder as _, ImageReader, RgbImage};
use onnx::{Encoder, Item};
use serde::Deserialize;
use std::io::Cursor;
use std::sync::Arc;
use tokio::sync::Semaphore;

/// What can be decoded, for messages.
const FORMATS: &str = "PNG, JPEG, GIF, BMP, TIFF and WebP";
/// Bytes of a decoded pixel: four channels of one byte. Deeper images may have a quarter of the pixels.
const BYTES_PER_PIXEL: u64 = 4;
/// What a decoder may need besides the picture: palettes, tables, rows in progress.
const DECODER_FACTOR: u64 = 2;

/// The half of a model that embeds images.
#[derive(Debug, Clone)]
pub(crate) struct ImageSide {
    pub(crate) model: String,
    pub(crate) encoder: Arc<dyn Encoder>,
    pub(crate) preprocess: Preprocess,
    pub(crate) limits: ImageLimits,
    pub(crate) finish: Finish,
    /// Images per batch; also how many decoded ones of a request are in memory.
    pub(crate) batch: usize,
    /// Decoding threads of the whole service: a decoded image is large.
    pub(crate) decoders: Arc<Semaphore>,
}

/// What a stranger's file may cost.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ImageLimits {
    pub(crate) bytes: usize,
    pub(crate) pixels: u64,
}

/// How a model wants its images.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Preprocess {
    /// Height and width in pixels.
    pub(crate) size: u32,
    /// Part that is kept around the centre, of the shorter side or, stretched, of each side; 1 keeps all.
    #[serde(default = "whole")]
    pub(crate) crop: f64,
    #[serde(default)]
    pub(crate) fit: Fit,
    #[serde(default)]
    pub(crate) filter: Filter,
    /// Subtracted from each channel, 0 to 255, in the order of `channels`.
    pub(crate) mean: [f32; 3],
    /// Divides each channel after that.
    pub(crate) std: [f32; 3],
    #[serde(default)]
    pub(crate) channels: Channels,
    #[serde(default)]
    pub(crate) layout: Layout,
}

const fn whole() -> f64 {
    1.0
}

/// How a rectangle becomes a square.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Fit {
    /// Its centre is kept.
    #[default]
    Crop,
    /// It is squeezed.
    Stretch,
}

/// How pixels are interpolated.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Filter {
    #[default]
    Bicubic,
    Bilinear,
}

/// Order of the colours.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Channels {
    #[default]
    Rgb,
    Bgr,
}

/// Order of the numbers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Layout {
    /// A plane for each colour.
    #[default]
    #[serde(alias = "nchw")]
    Chw,
    /// The colours of each pixel together.
    #[serde(alias = "nhwc")]
    Hwc,
}

impl ImageSide {
    /// One vector per image.
    pub(crate) async fn embed(
        &self,
        images: Vec<ImageInput>,
        dimensions: Option<usize>,
        tasks: &Tasks,
    ) -> Result<Embedded, EmbeddingError> {
        let count = images.len();
        let mut vectors = Vec::with_capacity(count);
        let mut waiting = images.into_iter().enumerate().peekable();
        while waiting.peek().is_some() {
            let chunk = waiting
                .by_ref()
                .take(self.batch)
                .map(|(i, image)| self.read(i, image.image, tasks));
            let items = futures::future::try_join_all(chunk).await?;
            let rows = self.encoder.encode(items).await;
            let rows = rows.map_err(|error| EmbeddingError::from_onnx(&self.model, error))?;
            vectors.extend(rows.into_iter().map(|row| self.finish.vector(row, dimensions)));
        }
        let images = u32::try_from(count).unwrap_or(u32::MAX);
        Ok(Embedded { vectors, prompt_tokens: 0, images })
    }

    async fn read(&self, index: usize, file: Bytes, tasks: &Tasks) -> Result<Item, EmbeddingError> {
        let failed = |reason: String| EmbeddingError::Model { model: self.model.clone(), reason };
        let permit =
            Arc::clone(&self.decoders).acquire_owned().await.map_err(|e| failed(e.to_string()))?;
        let (preprocess, limits) = (self.preprocess.clone(), self.limits);
        let decoded = tasks.spawn_blocking(move || {
            let _held_until_decoded = permit;
            decode(&file, limits).map(|image| preprocess.tensor(&image))
        });
        let tensor = decoded.await.map_err(|error| failed(error.to_string()))?;
        let invalid = |reason| EmbeddingError::invalid(format!("input.{index}.image"), reason);
        Ok(Item::Tensor(tensor.map_err(invalid)?))
    }
}

/// The picture in `file`, the right way up; the first frame of an animation.
///
/// # Errors
/// What is wrong with the file, in words for its sender.
pub(crate) fn decode(file: &[u8], limits: ImageLimits) -> Result<DynamicImage, String> {
    if file.is_empty() {
        return Err(format!("the image is empty; send a file in one of the formats {FORMATS}"));
    }
    if file.len() > limits.bytes {
        return Err(format!(
            "the image file has {} bytes; the limit is {}",
            file.len(),
            limits.bytes
        ));
    }
    let unreadable = |error: image::ImageError| {
        format!("the image cannot be decoded ({error}); accepted formats are {FORMATS}")
    };
    let reader = ImageReader::new(Cursor::new(file)).with_guessed_format();
    let mut reader = reader.map_err(|error| unreadable(image::ImageError::IoError(error)))?;
    if reader.format().is_none() {
        return Err(format!("this is not an image in an accepted format; accepted are {FORMATS}"));
    }
    let mut allowed = image::Limits::default();
    allowed.max_alloc = Some(limits.pixels * BYTES_PER_PIXEL * DECODER_FACTOR);
    reader.limits(allowed);
    let mut decoder = reader.into_decoder().map_err(unreadable)?;
    let (width, height) = decoder.dimensions();
    let pixels = u64::from(width) * u64::from(height);
    if pixels > limits.pixels || decoder.total_bytes() > limits.pixels * BYTES_PER_PIXEL {
        return Err(format!(
            "the image is {width} x {height} pixels large; the limit is {} pixels",
            limits.pixels
        ));
    }
    if pixels == 0 {
        return Err("the image has no pixels".to_owned());
    }
    // A file without a readable orientation is upright.
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    let mut image = DynamicImage::from_decoder(decoder).map_err(unreadable)?;
    image.apply_orientation(orientation);
    Ok(image)
}

impl Preprocess {
    /// Dimensions of one item.
    pub(crate) fn item_shape(&self) -> Vec<usize> {
        let size = usize::try_from(self.size).unwrap_or(usize::MAX);
        match self.layout {
            Layout::Chw => vec![3, size, size],
            Layout::Hwc => vec![size, size, 3],
        }
    }

    /// `image` as the model wants it.
    pub(crate) fn tensor(&self, image: &DynamicImage) -> Vec<f32> {
        let picture = self.square(image);
        let order = match self.channels {
            Channels::Rgb => [0, 1, 2],
            Channels::Bgr => [2, 1, 0],
        };
        let scale = |pixel: &image::Rgb<u8>, c: usize| {
            let [colour, mean, std] = [f32::from(pixel.0[order[c]]), self.mean[c], self.std[c]];
            (colour - mean) / std
        };
        match self.layout {
            Layout::Chw => {
                (0..3).flat_map(|c| picture.pixels().map(move |p| scale(p, c))).collect()
            }
            Layout::Hwc => {
                picture.pixels().flat_map(|p| (0..3).map(move |c| scale(p, c))).collect()
            }
        }
    }

    /// The part of `image` that the model sees, in its size.
    fn square(&self, image: &DynamicImage) -> RgbImage {
        let (width, height) = (image.width(), image.height());
        let (across, down) = match self.fit {
            Fit::Stretch => (cropped(width, self.crop), cropped(height, self.crop)),
            Fit::Crop => {
                let side = cropped(width.min(height), self.crop);
                (side, side)
            }
        };
        // Cut before converting: the rest of a large picture is not worth a copy.
        let part =
            image.crop_imm((width - across) / 2, (height - down) / 2, across, down).to_rgb8();
        let filter = match self.filter {
            Filter::Bicubic => FilterType::CatmullRom,
            Filter::Bilinear => FilterType::Triangle,
        };
        image::imageops::resize(&part, self.size, self.size, filter)
    }
}

/// `part` of `side`, at least one pixel and at most all.
fn cropped(side: u32, part: f64) -> u32 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "between 0 and `side` by the clamp"
    )]
    let kept = (f64::from(side) * part.clamp(0.0, 1.0)).round() as u32;
    kept.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::{ImageFormat, Rgb};

    const LIMITS: ImageLimits = ImageLimits { bytes: 1 << 20, pixels: 100 * 100 };

    fn preprocess() -> Preprocess {
        Preprocess {
            size: 2,
            crop: 0.5,
            fit: Fit::Crop,
            filter: Filter::Bicubic,
            mean: [127.0; 3],
            std: [128.0; 3],
            channels: Channels::Rgb,
            layout: Layout::Chw,
        }
    }

    /// Red outside, blue in the middle half.
    fn picture() -> RgbImage {
        RgbImage::from_fn(12, 8, |x, y| {
            let inside = (4..8).contains(&x) && (2..6).contains(&y);
            if inside { Rgb([0, 0, 255]) } else { Rgb([255, 0, 0]) }
        })
    }

    fn file(format: ImageFormat) -> Vec<u8> {
        let mut out = Cursor::new(Vec::new());
        picture().write_to(&mut out, format).unwrap();
        out.into_inner()
    }

    #[test]
    fn the_centre_is_kept_and_scaled_with_a_plane_for_each_colour() {
        let tensor = preprocess().tensor(&picture().into());
        let (dark, bright) = (-127.0 / 128.0, 1.0);
        assert_eq!(tensor, [[dark; 8].as_slice(), &[bright; 4]].concat());
        let bgr = Preprocess { channels: Channels::Bgr, layout: Layout::Hwc, ..preprocess() };
        assert_eq!(bgr.tensor(&picture().into())[..3], [bright, dark, dark]);
        assert_eq!(bgr.item_shape(), [2, 2, 3]);
    }

    #[test]
    fn a_stretched_image_keeps_all_sides() {
        let stretch = Preprocess { fit: Fit::Stretch, crop: 1.0, ..preprocess() };
        assert!(stretch.tensor(&picture().into())[0] > 0.0, "the red corner is gone");
        let kept =
            Preprocess { fit: Fit::Stretch, size: 6, ..preprocess() }.square(&picture().into());
        // Half of 12 x 8 is 6 x 4: blue is 4 of 6 across, and all of it down.
        assert_eq!(kept.get_pixel(3, 0), &Rgb([0, 0, 255]));
        assert!(kept.get_pixel(0, 0).0[0] > 200);
    }

    #[test]
    fn every_accepted_format_decodes() {
        use ImageFormat::{Bmp, Gif, Jpeg, Png, Tiff, WebP};
        for format in [Bmp, Gif, Jpeg, Png, Tiff, WebP] {
            let image = decode(&file(format), LIMITS).unwrap_or_else(|e| panic!("{format:?}: {e}"));
            assert_eq!((image.width(), image.height()), (12, 8), "{format:?}");
        }
    }

    #[test]
    fn what_is_no_image_is_answered_with_the_accepted_formats() {
        for file in
            [b"".as_slice(), b"hello", b"\x89PNG\r\n\x1a\nrubbish", &file(ImageFormat::Jpeg)[..40]]
        {
            let message = decode(file, LIMITS).unwrap_err();
            assert!(message.contains("PNG, JPEG"), "{message}");
        }
    }

    #[test]
    fn a_bomb_is_refused_by_its_header() {
        // 50000 x 50000 pixels in a few bytes: only the header of a BMP, so decoding would fail otherwise.
        let mut bomb = file(ImageFormat::Bmp);
        bomb.splice(18..26, [50_000_u32.to_le_bytes(), 50_000_u32.to_le_bytes()].concat());
        let message = decode(&bomb, LIMITS).unwrap_err();
        assert!(message.contains("50000 x 50000"), "{message}");
        let small = ImageLimits { bytes: 10, ..LIMITS };
        assert!(decode(&file(ImageFormat::Png), small).unwrap_err().contains("limit is 10"));
    }

    #[test]
    fn the_smallest_image_is_enough() {
        let dot: DynamicImage = RgbImage::from_pixel(1, 1, Rgb([255; 3])).into();
        assert_eq!(preprocess().tensor(&dot), [1.0; 12]);
    }
}
