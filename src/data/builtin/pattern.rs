//! Paints one image of the built-in set: background, shapes, a grey grating, the coloured grating,
//! noise. Images are painted as f32 `[colour][row][column]` on the 0–255 scale.

use crate::random::Stream;

/// Cells per axis of the coarse random grid that the background is interpolated from.
const GRID: usize = 4;

/// Random shapes behind the gratings.
const SHAPES: usize = 4;

/// Half the range of the uniform noise added to each byte.
const NOISE: f32 = 20.0;

/// Paints into side × side × 3 bytes `[row][column][colour]`. `tilt` is in degrees from the
/// vertical; `colour` the direction the coloured stripes swing in.
pub fn paint(stream: &mut Stream, tilt: f32, colour: [f32; 3], side: usize, into: &mut [u8]) {
    let mut planes = background(stream, side);
    for _ in 0..SHAPES {
        shape(stream, side, &mut planes);
    }
    let any_tilt = stream.between(0.0, 180.0);
    let grey = Grating::draw(stream, any_tilt, 15.0..40.0, side);
    grey.add([1.0; 3], side, &mut planes);
    let signed = if stream.word() >> 31 == 0 {
        tilt
    } else {
        -tilt
    };
    let coloured = Grating::draw(stream, signed, 50.0..90.0, side);
    coloured.add(colour, side, &mut planes);
    quantise(stream, side, &planes, into);
}

/// A smooth background: random colours at the corners of a coarse grid, interpolated.
fn background(stream: &mut Stream, side: usize) -> Vec<f32> {
    const CORNERS: usize = GRID + 1;
    let mut planes = vec![0.0; 3 * side * side];
    let step = GRID as f32 / side as f32;
    let places: Vec<(usize, f32)> = (0..side)
        .map(|x| (x as f32 + 0.5) * step)
        .map(|at| (at as usize, at.fract()))
        .collect();
    for plane in planes.chunks_exact_mut(side * side) {
        let grid = [[0; CORNERS]; CORNERS].map(|row| row.map(|_| stream.between(68.0, 188.0)));
        for (row, &(gy, fy)) in plane.chunks_exact_mut(side).zip(&places) {
            let line: [f32; CORNERS] =
                std::array::from_fn(|x| grid[gy][x] + fy * (grid[gy + 1][x] - grid[gy][x]));
            for (pixel, &(gx, fx)) in row.iter_mut().zip(&places) {
                *pixel = line[gx] + fx * (line[gx + 1] - line[gx]);
            }
        }
    }
    planes
}

/// Mixes a rectangle or an ellipse of a random colour into the image.
fn shape(stream: &mut Stream, side: usize, planes: &mut [f32]) {
    let s = side as f32;
    let [cx, cy] = [0; 2].map(|_| stream.between(0.0, s));
    let [rx, ry] = [0; 2].map(|_| stream.between(0.05, 0.2) * s);
    let round = stream.word() >> 31 == 0;
    let opacity = stream.between(0.3, 0.8);
    let colour = [0; 3].map(|_| stream.between(40.0, 216.0));
    for y in (cy - ry).max(0.0) as usize..((cy + ry) as usize + 1).min(side) {
        let dy = (y as f32 + 0.5 - cy) / ry;
        let half = if round {
            rx * (1.0 - dy * dy).max(0.0).sqrt()
        } else {
            rx
        };
        let to = ((cx + half) as usize).min(side);
        let from = ((cx - half).max(0.0) as usize).min(to);
        for (plane, c) in planes.chunks_exact_mut(side * side).zip(colour) {
            for pixel in &mut plane[y * side..][from..to] {
                *pixel += opacity * (c - *pixel);
            }
        }
    }
}

/// Stripes under a Gaussian window: `contrast · exp(−r²/2σ²) · sin(kx·x + ky·y + phase)`, kept as
/// functions of x and functions of y, so that a pixel costs two multiplications.
struct Grating {
    /// Window times sine and window times cosine, by column.
    columns: Vec<(f32, f32)>,
    /// The same by row, with contrast and phase.
    rows: Vec<(f32, f32)>,
}

impl Grating {
    fn draw(stream: &mut Stream, tilt: f32, contrast: std::ops::Range<f32>, side: usize) -> Self {
        let s = side as f32;
        let angle = f64::from(tilt + stream.between(-4.0, 4.0)).to_radians();
        let frequency = std::f64::consts::TAU / f64::from(stream.between(5.0, 10.0));
        let sigma = f64::from(stream.between(0.16, 0.26) * s);
        let [cx, cy] = [0; 2].map(|_| stream.between(0.3, 0.7) * s);
        let phase = f64::from(stream.uniform()) * std::f64::consts::TAU;
        let contrast = stream.between(contrast.start, contrast.end);
        let wave = |centre: f32, frequency: f64, phase: f64, height: f32| {
            (0..side)
                .map(|i| {
                    let d = i as f64 + 0.5 - f64::from(centre);
                    let window = f64::from(height) * (-d * d / (2.0 * sigma * sigma)).exp();
                    let (sin, cos) = (d * frequency + phase).sin_cos();
                    ((window * sin) as f32, (window * cos) as f32)
                })
                .collect()
        };
        Grating {
            columns: wave(cx, frequency * angle.cos(), 0.0, 1.0),
            rows: wave(cy, frequency * angle.sin(), phase, contrast),
        }
    }

    /// Adds the stripes, swinging in direction `colour`, to the image.
    fn add(&self, colour: [f32; 3], side: usize, planes: &mut [f32]) {
        for (plane, c) in planes.chunks_exact_mut(side * side).zip(colour) {
            if c == 0.0 {
                continue;
            }
            for (row, &(sin_y, cos_y)) in plane.chunks_exact_mut(side).zip(&self.rows) {
                let (a, b) = (c * cos_y, c * sin_y);
                for (pixel, &(sin_x, cos_x)) in row.iter_mut().zip(&self.columns) {
                    *pixel += a * sin_x + b * cos_x;
                }
            }
        }
    }
}

/// Adds noise, and rounds to bytes, colours innermost.
fn quantise(stream: &mut Stream, side: usize, planes: &[f32], into: &mut [u8]) {
    let (red, rest) = planes.split_at(side * side);
    let (green, blue) = rest.split_at(side * side);
    let pixels = into.chunks_exact_mut(3).zip(red).zip(green).zip(blue);
    for (((pixel, &r), &g), &b) in pixels {
        let [nr, ng, nb, _] = stream.word().to_le_bytes();
        for (byte, (x, n)) in pixel.iter_mut().zip([(r, nr), (g, ng), (b, nb)]) {
            // The conversion saturates at 0 and 255.
            *byte = (x + (f32::from(n) - 127.5) * (NOISE / 127.5) + 0.5) as u8;
        }
    }
}
