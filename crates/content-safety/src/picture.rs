//! Encoded image files → the small square that image models judge.
//!
//! Separate because files come from strangers: size and dimensions are checked by the header before anything is decoded, so
//! that a small file cannot unfold into gigabytes. Blocks while it decodes: call it from a blocking thread.

use crate::error::SafetyError;
use image::imageops::FilterType;
use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder as _, ImageReader, Limits, RgbImage};
use std::io::Cursor;

/// What can be decoded, for messages.
const FORMATS: &str = "JPEG, PNG, GIF, BMP, TIFF and WebP";
/// Side of the square that a picture is squeezed into, as the published open-nsfw pipeline does.
const SQUEEZED: u32 = 256;
/// Side of its centre, which the model sees.
pub const SIDE: u32 = 224;
/// Bytes of a decoded pixel at most: four channels of 16 bits.
const BYTES_PER_PIXEL: u64 = 8;

/// The centre of a squeezed picture: `SIDE` × `SIDE` pixels.
#[derive(Debug, Clone)]
pub struct Picture {
    /// Red, green and blue.
    pub pixels: RgbImage,
}

/// What a file may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PictureLimits {
    /// Largest file, in bytes.
    pub bytes: usize,
    /// Least width and height, in pixels.
    pub least_side: u32,
    /// Most width and height, in pixels.
    pub most_side: u32,
    /// Most pixels.
    pub pixels: u64,
}

impl Picture {
    /// Decodes `file`; `target` names the field in errors. Of an animation the first frame is taken.
    ///
    /// # Errors
    /// `Invalid` when the file is no image, or not within `limits`.
    pub fn decode(file: &[u8], limits: &PictureLimits, target: &str) -> Result<Self, SafetyError> {
        if file.len() > limits.bytes {
            let (size, most) = (file.len(), limits.bytes);
            let message = format!("the image has {size} bytes; the limit is {most}");
            return Err(SafetyError::invalid(target, message));
        }
        let unreadable =
            |_| SafetyError::invalid(target, format!("the image cannot be decoded; {FORMATS} can"));
        let reader = ImageReader::new(Cursor::new(file))
            .with_guessed_format()
            .map_err(|error| unreadable(error.into()))?;
        let mut decoder = reader.into_decoder().map_err(unreadable)?;
        let (width, height) = decoder.dimensions();
        check_sides(width, height, limits, target)?;
        let mut memory = Limits::default();
        memory.max_alloc = Some(limits.pixels.saturating_mul(BYTES_PER_PIXEL));
        decoder.set_limits(memory).map_err(unreadable)?;
        let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
        let mut picture = DynamicImage::from_decoder(decoder).map_err(unreadable)?;
        picture.apply_orientation(orientation);
        Ok(Self::of(&picture))
    }

    fn of(picture: &DynamicImage) -> Self {
        let squeezed = picture.resize_exact(SQUEEZED, SQUEEZED, FilterType::Triangle);
        let edge = (SQUEEZED - SIDE) / 2;
        Self { pixels: squeezed.crop_imm(edge, edge, SIDE, SIDE).into_rgb8() }
    }
}

fn check_sides(
    width: u32,
    height: u32,
    limits: &PictureLimits,
    target: &str,
) -> Result<(), SafetyError> {
    let PictureLimits { least_side: least, most_side: most, pixels, .. } = *limits;
    let size = format!("the image is {width} × {height} pixels");
    if width.min(height) < least || width.max(height) > most {
        let message = format!("{size}; both sides must be {least} to {most}");
        return Err(SafetyError::invalid(target, message));
    }
    if u64::from(width) * u64::from(height) > pixels {
        return Err(SafetyError::invalid(target, format!("{size}; the limit is {pixels} in all")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::{ImageFormat, Rgb};

    const LIMITS: PictureLimits =
        PictureLimits { bytes: 1 << 20, least_side: 50, most_side: 400, pixels: 100_000 };

    fn png(width: u32, height: u32) -> Vec<u8> {
        let mut file = Cursor::new(Vec::new());
        let image = RgbImage::from_pixel(width, height, Rgb([200, 10, 30]));
        image.write_to(&mut file, ImageFormat::Png).unwrap();
        file.into_inner()
    }

    fn refusal(file: &[u8], limits: &PictureLimits) -> String {
        Picture::decode(file, limits, "image").unwrap_err().to_string()
    }

    #[test]
    fn a_picture_becomes_a_small_square_of_the_same_colour() {
        let picture = Picture::decode(&png(300, 60), &LIMITS, "image").unwrap();
        assert_eq!(picture.pixels.dimensions(), (SIDE, SIDE));
        assert_eq!(picture.pixels.get_pixel(3, 200).0, [200, 10, 30]);
    }

    #[test]
    fn sizes_outside_the_limits_are_named() {
        assert!(refusal(&png(49, 60), &LIMITS).contains("49 × 60"));
        assert!(refusal(&png(401, 60), &LIMITS).contains("50 to 400"));
        assert!(refusal(&png(399, 399), &LIMITS).contains("100000"));
        let small = PictureLimits { bytes: 10, ..LIMITS };
        assert!(refusal(&png(60, 60), &small).contains("the limit is 10"));
    }

    #[test]
    fn a_header_that_promises_too_much_is_refused_before_decoding() {
        let mut file = png(60, 60);
        // Width and height of a PNG stand at bytes 16 to 23; the checksum of the header follows at 29.
        file[16..24].copy_from_slice(&[0, 0, 0xff, 0xff, 0, 0, 0xff, 0xff]);
        let sum = crc(&file[12..29]);
        file[29..33].copy_from_slice(&sum.to_be_bytes());
        assert!(refusal(&file, &LIMITS).contains("65535 × 65535"));
    }

    #[test]
    fn what_is_no_image_is_refused_with_what_is_one() {
        assert!(refusal(b"GIF? no", &LIMITS).contains("JPEG, PNG"));
        assert!(refusal(b"", &LIMITS).contains("JPEG, PNG"));
        let cut = png(60, 60);
        assert!(refusal(&cut[..cut.len() / 2], &LIMITS).contains("cannot be decoded"));
    }

    /// The checksum of PNG chunks (ISO 3309).
    fn crc(bytes: &[u8]) -> u32 {
        let step = |crc: u32, byte: &u8| {
            (0..8).fold(crc ^ u32::from(*byte), |c, _| (c >> 1) ^ (0xedb8_8320 * (c & 1)))
        };
        !bytes.iter().fold(!0, step)
    }
}
