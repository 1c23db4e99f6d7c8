//! Images that are moved and mirrored by chance.

use super::convert::Conversion;
use super::error::{DataError, DataResult};
use super::fit::channel_axis;
use super::order::RowRandom;
use crate::engine::{Element, Tensor, with_elements};
use crate::wire::is_float;

/// What is done to images in training, in this order: `pad-crop:P` puts P rows and columns of zeros (before scaling) around each image and
/// cuts a part of the old size out of it, at a place that is uniform among all; `flip` mirrors left and right, every other time.
/// Images are the floating-point arrays with three axes a row. What happens to a row follows from seed, epoch and row alone.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Augment {
    /// Width of the border; 0 for none.
    pub pad_crop: usize,
    /// Whether images are mirrored.
    pub flip: bool,
}

impl Augment {
    /// Reads `pad-crop:4,flip` or one of the two.
    ///
    /// # Errors
    /// A sentence that says what is not understood.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut augment = Augment::default();
        for part in text.split(',').map(str::trim) {
            match part.split_once(':') {
                None if part == "flip" && !augment.flip => augment.flip = true,
                Some(("pad-crop", width)) if augment.pad_crop == 0 => {
                    let width = width.parse().ok().filter(|n| (1..=1024).contains(n));
                    augment.pad_crop =
                        width.ok_or("pad-crop takes a number of pixels from 1 to 1024, as in pad-crop:4")?;
                }
                _ => {
                    return Err(format!("{part:?} is not understood; write pad-crop:PIXELS, flip, or pad-crop:4,flip"));
                }
            }
        }
        Ok(augment)
    }

    /// Whether nothing is done.
    pub fn is_none(&self) -> bool {
        *self == Augment::default()
    }

    /// Whether it is done to an array converted like this.
    pub(super) fn concerns(&self, conversion: &Conversion) -> bool {
        !self.is_none() && is_float(conversion.to as i32) && channel_axis(&conversion.row).is_some()
    }

    /// Changes a batch of these rows.
    pub(super) fn apply(
        &self,
        conversion: &Conversion,
        tensor: Tensor,
        rows: &[usize],
        random: &mut RowRandom,
    ) -> DataResult<Tensor> {
        let zeros = conversion.affine.as_ref().map_or(vec![0.0], |a| a.zeros());
        let Some(image) = Image::of(&conversion.row) else { return Ok(tensor) };
        let shape = tensor.shape().to_vec();
        let changed = with_elements!(tensor.data(), values => {
            self.images(values, &image, rows, random, &|channel| {
                zeros.get(channel).or(zeros.first()).copied().unwrap_or_default()
            }).and_then(|values| Tensor::new(shape, values))
        });
        changed.ok_or_else(|| DataError::Options("the images have not the shape that they say".into()))
    }

    fn images<T: Element + FromReal>(
        &self,
        values: &[T],
        image: &Image,
        rows: &[usize],
        random: &mut RowRandom,
        zero: &dyn Fn(usize) -> f64,
    ) -> Option<Vec<T>> {
        let size = image.channels * image.height * image.width;
        let zeros: Vec<T> = (0..image.channels).map(|c| T::from_real(zero(c))).collect();
        let mut out = values.to_vec();
        if size == 0 {
            return Some(out);
        }
        for ((row, from), to) in rows.iter().zip(values.chunks_exact(size)).zip(out.chunks_exact_mut(size)) {
            random.row(*row);
            for (pixel, source) in self.sources(image, random).into_iter().enumerate() {
                for (channel, zero) in zeros.iter().enumerate() {
                    let place = to.get_mut(image.place(channel, pixel))?;
                    *place = match source {
                        Some(source) => *from.get(image.place(channel, source))?,
                        None => *zero,
                    };
                }
            }
        }
        Some(out)
    }

    /// For each pixel of one image, which one comes there; `None` for one of the border.
    fn sources(&self, image: &Image, random: &mut RowRandom) -> Vec<Option<usize>> {
        let (down, right) = match self.pad_crop {
            0 => (0, 0),
            pad => (random.below(2 * pad + 1), random.below(2 * pad + 1)),
        };
        let mirrored = self.flip && random.below(2) == 1;
        let mut sources = Vec::with_capacity(image.height * image.width);
        for y in 0..image.height {
            for x in 0..image.width {
                let column = if mirrored { image.width - 1 - x } else { x };
                // Where the pixel was in the padded image, less the border.
                let source = (y + down).checked_sub(self.pad_crop).zip((column + right).checked_sub(self.pad_crop));
                let source = source.filter(|(y, x)| *y < image.height && *x < image.width);
                sources.push(source.map(|(y, x)| y * image.width + x));
            }
        }
        sources
    }
}

/// Sizes of an image, and whether its channels come last.
struct Image {
    channels: usize,
    height: usize,
    width: usize,
    last: bool,
}

impl Image {
    fn of(row: &[usize]) -> Option<Self> {
        match (channel_axis(row)?, row) {
            (0, [c, h, w]) => Some(Image { channels: *c, height: *h, width: *w, last: false }),
            (_, [h, w, c]) => Some(Image { channels: *c, height: *h, width: *w, last: true }),
            _ => None,
        }
    }

    fn place(&self, channel: usize, pixel: usize) -> usize {
        match self.last {
            true => pixel * self.channels + channel,
            false => channel * self.height * self.width + pixel,
        }
    }
}

/// What the colour of a border can be made of.
trait FromReal {
    fn from_real(x: f64) -> Self;
}

impl<T: super::convert::Number + Default> FromReal for T {
    fn from_real(x: f64) -> Self {
        T::narrow(super::convert::Wide::Real(x)).unwrap_or_default()
    }
}
