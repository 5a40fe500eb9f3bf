//! Line charts: one panel with its axes, grid and lines.

use std::ops::Range;

use plotters::element::DashedPathElement;
use plotters::prelude::*;

use super::format::grouped;
use super::picture::{
    Align, Area, Drawn, FAINT_INK, FINE, GRID, INK, at, font, px, text, text_width,
};

/// Points (x, y) in the units of their axes.
pub(super) type Points = Vec<(f64, f64)>;

/// How a line is drawn.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Stroke {
    Faint,
    Solid,
    Dashed,
    /// Solid, with a dot at each point where there is room for dots.
    Marked,
}

pub(super) struct Line {
    pub points: Points,
    pub colour: RGBColor,
    pub stroke: Stroke,
}

/// Where a chart lies on its picture, and the names of its axes; in pixels of the picture.
pub(super) struct Panel<'a> {
    pub left: i32,
    pub top: i32,
    pub width: i32,
    pub height: i32,
    pub x_axis: &'a str,
    pub y_axis: &'a str,
    /// Events on the x axis, each with its name: upright lines behind the curves.
    pub marks: &'a [(f64, String)],
}

impl Panel<'_> {
    /// Draws axes, grid and lines. The y axis starts at 0 and holds everything but the peaks of
    /// faint lines, which are cut off.
    pub fn draw(&self, picture: &Area, lines: &[Line]) -> Drawn {
        let size = at(self.width, self.height);
        let place = picture.clone().shrink(at(self.left, self.top), size);
        let label = font(13, FontStyle::Normal).color(&FAINT_INK);
        let y_range = y_range(lines);
        let mut chart = ChartBuilder::on(&place)
            .margin_top(px(8))
            .margin_right(px(20))
            .margin_bottom(px(8))
            .margin_left(px(8))
            .x_label_area_size(px(42))
            .y_label_area_size(px(54))
            .build_cartesian_2d(x_range(lines), y_range.clone())?;
        chart
            .configure_mesh()
            .x_labels(6)
            .y_labels(7)
            .x_desc(self.x_axis)
            .y_desc(self.y_axis)
            .axis_desc_style(font(14, FontStyle::Normal).color(&INK))
            .label_style(label)
            .x_label_formatter(&|x| grouped(x.round() as u64))
            .y_label_formatter(&|y| tick(*y, y_range.end))
            .light_line_style(TRANSPARENT)
            .bold_line_style(GRID.stroke_width(px(1)))
            .axis_style(FAINT_INK.stroke_width(px(1)))
            .set_all_tick_mark_size(px(4))
            .draw()?;
        let inside = chart.plotting_area();
        for (x, name) in self.marks {
            let foot = inside.map_coordinate(&(*x, 0.0));
            let head = inside.map_coordinate(&(*x, y_range.end));
            let (dash, gap) = (2 * FINE, 3 * FINE);
            let faint = FAINT_INK.stroke_width(px(1));
            picture.draw(&DashedPathElement::new([foot, head], dash, gap, faint))?;
            let (x, y) = (head.0 / FINE, head.1 / FINE + 6);
            if x + 4 + text_width(name, 12) as i32 <= self.left + self.width {
                text(picture, name, (x + 4, y), 12, FAINT_INK, Align::Left)?;
            } else {
                text(picture, name, (x - 4, y), 12, FAINT_INK, Align::Right)?;
            }
        }
        for line in lines {
            let pixel = |&(x, y): &(f64, f64)| {
                inside.map_coordinate(&(x, y.clamp(y_range.start, y_range.end)))
            };
            let points: Vec<(i32, i32)> = line.points.iter().map(pixel).collect();
            draw_line(picture, &points, line.colour, line.stroke)?;
        }
        Ok(())
    }
}

/// A polyline through points in pixels of the picture's area.
pub(super) fn draw_line(
    picture: &Area,
    points: &[(i32, i32)],
    colour: RGBColor,
    stroke: Stroke,
) -> Drawn {
    let solid = colour.stroke_width(px(2));
    let points = points.to_vec();
    match stroke {
        Stroke::Faint => {
            let faint = colour.mix(0.3).stroke_width(px(1));
            picture.draw(&PathElement::new(points, faint))?;
        }
        Stroke::Solid => picture.draw(&PathElement::new(points, solid))?,
        Stroke::Dashed => {
            let (dash, gap) = (7 * FINE, 5 * FINE);
            picture.draw(&DashedPathElement::new(points, dash, gap, solid))?;
        }
        Stroke::Marked => {
            let span = points.last().map_or(0, |last| last.0 - points[0].0);
            let room = points.len() == 1 || span / points.len().max(1) as i32 >= 6 * FINE;
            for &point in points.iter().filter(|_| room) {
                picture.draw(&Circle::new(point, 4 * FINE, colour.filled()))?;
            }
            picture.draw(&PathElement::new(points, solid))?;
        }
    }
    Ok(())
}

fn x_range(lines: &[Line]) -> Range<f64> {
    let points = lines.iter().flat_map(|line| &line.points);
    let last = points.fold(0.0f64, |last, point| last.max(point.0));
    0.0..last.max(1.0)
}

fn y_range(lines: &[Line]) -> Range<f64> {
    let clear = lines.iter().filter(|line| line.stroke != Stroke::Faint);
    let points = clear.flat_map(|line| &line.points);
    let highest = points.fold(0.0f64, |highest, point| highest.max(point.1));
    0.0..if highest > 0.0 { highest * 1.08 } else { 1.0 }
}

/// A tick's label with as many decimals as the axis needs.
fn tick(value: f64, end: f64) -> String {
    match end {
        _ if value == 0.0 => "0".into(),
        5.0.. => format!("{value:.0}"),
        0.5.. => format!("{value:.1}"),
        _ => format!("{value:.3}"),
    }
}
