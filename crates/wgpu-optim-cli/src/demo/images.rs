//! Pictures from and to files.

use std::io;
use std::path::Path;

use anyhow::{Context, Result};
use image::imageops::FilterType;
use image::{DynamicImage, ImageDecoder, ImageReader, Rgb32FImage};

use super::fit::Picture;

/// A picture of at most `side` pixels in each direction, upright, on white.
pub fn open(path: &Path, side: u32) -> Result<Rgb32FImage> {
    let read = || -> image::ImageResult<DynamicImage> {
        let mut decoder = ImageReader::open(path)?.with_guessed_format()?.into_decoder()?;
        let orientation = decoder.orientation()?;
        let mut image = DynamicImage::from_decoder(decoder)?;
        image.apply_orientation(orientation);
        Ok(image)
    };
    let mut image = read().with_context(|| format!("{}", path.display()))?;
    if image.width().max(image.height()) > side {
        image = image.resize(side, side, FilterType::Triangle);
    }
    let pixels = image.into_rgba32f();
    Ok(Rgb32FImage::from_fn(pixels.width(), pixels.height(), |x, y| {
        let [r, g, b, a] = pixels.get_pixel(x, y).0;
        image::Rgb([r, g, b].map(|value| value * a + 1.0 - a))
    }))
}

/// Pixels as a PNG.
pub fn png(picture: &Picture, pixels: &[[f32; 4]]) -> Result<Vec<u8>> {
    let values = pixels.iter().flat_map(|p| [p[0], p[1], p[2]]).map(|x| x.clamp(0.0, 1.0)).collect();
    let image = Rgb32FImage::from_raw(picture.width, picture.height, values).context("a color for each pixel")?;
    let mut bytes = io::Cursor::new(Vec::new());
    DynamicImage::from(image).into_rgb8().write_to(&mut bytes, image::ImageFormat::Png)?;
    Ok(bytes.into_inner())
}
